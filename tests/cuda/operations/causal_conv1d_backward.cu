#include <ssmkit/cuda/causal_conv1d_backward.cuh>

#include "device.cuh"

DEVICE_OPERATION(causal_conv1d_backward, causal_conv1d_backward_args<float>, causal_conv1d_backward_args<bfloat16>,
                 causal_conv1d_backward_args<float16>)
