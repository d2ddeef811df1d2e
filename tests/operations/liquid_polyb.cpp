#include "define.hpp"

#include <ssmkit/liquid_polyb.hpp>
#include <ssmkit/reference/liquid_polyb.hpp>

OPERATION_OF_REALS(liquid_polyb)
OPERATION_OF_REALS(liquid_polyb_backward)
