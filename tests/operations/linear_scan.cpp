#include "define.hpp"

#include <ssmkit/linear_scan.hpp>
#include <ssmkit/linear_scan_backward.hpp>
#include <ssmkit/lru.hpp>
#include <ssmkit/lru_backward.hpp>
#include <ssmkit/reference/linear_scan.hpp>
#include <ssmkit/reference/linear_scan_backward.hpp>
#include <ssmkit/reference/lru.hpp>
#include <ssmkit/reference/lru_backward.hpp>

OPERATION(linear_scan, linear_scan_args<std::complex<double>>)
OPERATION(linear_scan, linear_scan_args<std::complex<float>>)
OPERATION(linear_scan_backward, linear_scan_backward_args<std::complex<double>>)
OPERATION(linear_scan_backward, linear_scan_backward_args<std::complex<float>>)
OPERATION_OF_ELEMENTS(lru)
OPERATION_OF_ELEMENTS(lru_backward)
