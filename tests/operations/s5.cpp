#include "define.hpp"

#include <ssmkit/s5.hpp>
#include <ssmkit/s5_backward.hpp>
#include <ssmkit/convs5.hpp>
#include <ssmkit/convs5_backward.hpp>
#include <ssmkit/reference/s5.hpp>
#include <ssmkit/reference/s5_backward.hpp>
#include <ssmkit/reference/convs5.hpp>
#include <ssmkit/reference/convs5_backward.hpp>

OPERATION_OF_ELEMENTS(s5)
OPERATION_OF_ELEMENTS(s5_backward)
OPERATION_OF_ELEMENTS(convs5)
OPERATION_OF_ELEMENTS(convs5_backward)
