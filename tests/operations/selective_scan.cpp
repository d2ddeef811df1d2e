#include "define.hpp"

#include <ssmkit/selective_scan.hpp>
#include <ssmkit/selective_state_update.hpp>
#include <ssmkit/reference/selective_scan.hpp>
#include <ssmkit/reference/selective_state_update.hpp>

OPERATION_OF_ELEMENTS(selective_scan)
OPERATION(selective_scan, selective_scan_args<double, std::complex<double>>)
OPERATION(selective_scan, selective_scan_args<float, std::complex<float>>)
OPERATION(selective_scan, selective_scan_args<ssmkit::bfloat16, std::complex<float>>)
OPERATION_OF_ELEMENTS(selective_state_update)
