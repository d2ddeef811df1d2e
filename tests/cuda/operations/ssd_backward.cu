#include <ssmkit/cuda/ssd_backward.cuh>

#include "device.cuh"

DEVICE_OPERATION(ssd_backward, ssd_backward_args<float>, ssd_backward_args<bfloat16>, ssd_backward_args<float16>)
