#include <complex>

#include <ssmkit/cuda/linear_scan.cuh>

#include "device.cuh"

DEVICE_OPERATION(linear_scan, linear_scan_args<float>, linear_scan_args<bfloat16>, linear_scan_args<float16>,
                 linear_scan_args<std::complex<float>>)
