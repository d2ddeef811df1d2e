#include <complex>

#include <ssmkit/cuda/linear_scan_backward.cuh>

#include "device.cuh"

DEVICE_OPERATION(linear_scan_backward, linear_scan_backward_args<float>, linear_scan_backward_args<bfloat16>,
                 linear_scan_backward_args<float16>, linear_scan_backward_args<std::complex<float>>)
