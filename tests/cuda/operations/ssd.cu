#include <ssmkit/cuda/ssd.cuh>

#include "device.cuh"

DEVICE_OPERATION(ssd, ssd_args<float>, ssd_args<bfloat16>, ssd_args<float16>)
