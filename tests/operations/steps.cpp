#include "define.hpp"

#include <ssmkit/s4_step.hpp>
#include <ssmkit/s4d_step.hpp>
#include <ssmkit/ema_step.hpp>
#include <ssmkit/reference/s4_step.hpp>
#include <ssmkit/reference/s4d_step.hpp>
#include <ssmkit/reference/ema_step.hpp>

OPERATION_OF_REALS(s4_step)
OPERATION_OF_REALS(s4d_step)
OPERATION_OF_REALS(ema_step)
