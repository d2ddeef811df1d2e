#include <ssmkit/cuda/fft_conv.cuh>

#include "device.cuh"

DEVICE_OPERATION(fft_conv, fft_conv_args<float>, fft_conv_args<bfloat16>, fft_conv_args<float16>)
