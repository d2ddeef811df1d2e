#include <ssmkit/cuda/s4d_kernel.cuh>

#include "device.cuh"

DEVICE_OPERATION(s4d_kernel, s4d_kernel_args<float>)
