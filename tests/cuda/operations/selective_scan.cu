#include <complex>

#include <ssmkit/cuda/selective_scan.cuh>

#include "device.cuh"

DEVICE_OPERATION(selective_scan, selective_scan_args<float>, selective_scan_args<bfloat16>, selective_scan_args<float16>,
                 selective_scan_args<float, std::complex<float>>, selective_scan_args<bfloat16, std::complex<float>>)
