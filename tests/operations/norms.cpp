#include "define.hpp"

#include <ssmkit/add_norm.hpp>
#include <ssmkit/add_norm_backward.hpp>
#include <ssmkit/gated_norm.hpp>
#include <ssmkit/gated_norm_backward.hpp>
#include <ssmkit/reference/add_norm.hpp>
#include <ssmkit/reference/add_norm_backward.hpp>
#include <ssmkit/reference/gated_norm.hpp>
#include <ssmkit/reference/gated_norm_backward.hpp>

OPERATION_OF_ELEMENTS(add_norm)
OPERATION_OF_ELEMENTS(add_norm_backward)
OPERATION_OF_ELEMENTS(gated_norm)
OPERATION_OF_ELEMENTS(gated_norm_backward)
