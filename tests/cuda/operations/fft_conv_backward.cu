#include <ssmkit/cuda/fft_conv_backward.cuh>

#include "device.cuh"

DEVICE_OPERATION(fft_conv_backward, fft_conv_backward_args<float>, fft_conv_backward_args<bfloat16>, fft_conv_backward_args<float16>)
