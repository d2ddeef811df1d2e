#include <ssmkit/cuda/s4d_kernel_backward.cuh>

#include "device.cuh"

DEVICE_OPERATION(s4d_kernel_backward, s4d_kernel_backward_args<float>)
