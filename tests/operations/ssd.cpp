#include "define.hpp"

#include <ssmkit/ssd.hpp>
#include <ssmkit/ssd_backward.hpp>
#include <ssmkit/reference/ssd.hpp>
#include <ssmkit/reference/ssd_backward.hpp>

OPERATION_OF_ELEMENTS(ssd)
OPERATION_OF_ELEMENTS(ssd_backward)
