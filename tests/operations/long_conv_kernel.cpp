#include "define.hpp"

#include <ssmkit/shift_kernel.hpp>
#include <ssmkit/sgconv_kernel.hpp>
#include <ssmkit/long_conv_kernel.hpp>
#include <ssmkit/reference/shift_kernel.hpp>
#include <ssmkit/reference/sgconv_kernel.hpp>
#include <ssmkit/reference/long_conv_kernel.hpp>

OPERATION_OF_REALS(shift_kernel)
OPERATION_OF_REALS(shift_kernel_backward)
OPERATION_OF_REALS(shift_update)
OPERATION_OF_REALS(shift_chunk)
OPERATION_OF_REALS(sgconv_kernel)
OPERATION_OF_REALS(sgconv_kernel_backward)
OPERATION_OF_REALS(long_conv_kernel)
OPERATION_OF_REALS(long_conv_kernel_backward)
OPERATION_OF_REALS(double_exponential)
