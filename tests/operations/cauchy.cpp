#include "define.hpp"

#include <ssmkit/cauchy.hpp>
#include <ssmkit/cauchy_backward.hpp>
#include <ssmkit/s4_kernel.hpp>
#include <ssmkit/s4_kernel_backward.hpp>
#include <ssmkit/reference/cauchy.hpp>
#include <ssmkit/reference/cauchy_backward.hpp>
#include <ssmkit/reference/s4_kernel.hpp>
#include <ssmkit/reference/s4_kernel_backward.hpp>

OPERATION_OF_REALS(cauchy)
OPERATION_OF_REALS(cauchy_backward)
OPERATION_OF_REALS(s4_kernel)
OPERATION_OF_REALS(s4_kernel_backward)
