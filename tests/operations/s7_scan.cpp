#include "define.hpp"

#include <ssmkit/s7_scan.hpp>
#include <ssmkit/s7_scan_backward.hpp>
#include <ssmkit/reference/s7_scan.hpp>
#include <ssmkit/reference/s7_scan_backward.hpp>

OPERATION_OF_ELEMENTS(s7_scan)
OPERATION_OF_ELEMENTS(s7_scan_backward)
