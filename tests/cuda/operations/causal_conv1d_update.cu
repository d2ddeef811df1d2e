#include <ssmkit/cuda/causal_conv1d_update.cuh>

#include "device.cuh"

DEVICE_OPERATION(causal_conv1d_update, causal_conv1d_update_args<float>, causal_conv1d_update_args<bfloat16>,
                 causal_conv1d_update_args<float16>)
