#include "define.hpp"

#include <ssmkit/s4.hpp>
#include <ssmkit/reference/s4.hpp>

OPERATION_OF_REALS(s4)
