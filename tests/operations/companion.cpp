#include "define.hpp"

#include <ssmkit/companion_kernel.hpp>
#include <ssmkit/companion_rollout.hpp>
#include <ssmkit/reference/companion_kernel.hpp>
#include <ssmkit/reference/companion_rollout.hpp>

OPERATION_OF_REALS(companion_kernel)
OPERATION_OF_REALS(companion_kernel_backward)
OPERATION_OF_REALS(companion_rollout)
OPERATION_OF_REALS(companion_rollout_backward)
