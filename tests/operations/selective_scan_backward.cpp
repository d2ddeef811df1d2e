#include "define.hpp"

#include <ssmkit/selective_scan_backward.hpp>
#include <ssmkit/reference/selective_scan_backward.hpp>

OPERATION_OF_ELEMENTS(selective_scan_backward)
OPERATION(selective_scan_backward, selective_scan_backward_args<double, std::complex<double>>)
OPERATION(selective_scan_backward, selective_scan_backward_args<float, std::complex<float>>)
OPERATION(selective_scan_backward, selective_scan_backward_args<ssmkit::bfloat16, std::complex<float>>)
