#include "define.hpp"

#include <ssmkit/causal_conv1d.hpp>
#include <ssmkit/causal_conv1d_backward.hpp>
#include <ssmkit/causal_conv1d_update.hpp>
#include <ssmkit/causal_conv1d_varlen_states.hpp>
#include <ssmkit/reference/causal_conv1d.hpp>
#include <ssmkit/reference/causal_conv1d_backward.hpp>
#include <ssmkit/reference/causal_conv1d_update.hpp>
#include <ssmkit/reference/causal_conv1d_varlen_states.hpp>

OPERATION_OF_ELEMENTS(causal_conv1d)
OPERATION_OF_ELEMENTS(causal_conv1d_backward)
OPERATION_OF_ELEMENTS(causal_conv1d_update)
OPERATION_OF_ELEMENTS(causal_conv1d_varlen_states)
