#include <complex>

#include <ssmkit/cuda/selective_scan_backward.cuh>

#include "device.cuh"

DEVICE_OPERATION(selective_scan_backward, selective_scan_backward_args<float>, selective_scan_backward_args<bfloat16>,
                 selective_scan_backward_args<float16>, selective_scan_backward_args<float, std::complex<float>>,
                 selective_scan_backward_args<bfloat16, std::complex<float>>)
