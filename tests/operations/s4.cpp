#include "define.hpp"

#include <ssmkit/s4.hpp>
#include <ssmkit/s4d.hpp>
#include <ssmkit/reference/s4.hpp>
#include <ssmkit/reference/s4d.hpp>

OPERATION_OF_REALS(s4)
OPERATION_OF_REALS(s4d)
