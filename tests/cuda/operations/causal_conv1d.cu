#include <ssmkit/cuda/causal_conv1d.cuh>

#include "device.cuh"

DEVICE_OPERATION(causal_conv1d, causal_conv1d_args<float>, causal_conv1d_args<bfloat16>, causal_conv1d_args<float16>)
