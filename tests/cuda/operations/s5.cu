#include <ssmkit/cuda/s5.cuh>

#include "device.cuh"

DEVICE_OPERATION(s5, s5_args<float>, s5_args<bfloat16>, s5_args<float16>)
