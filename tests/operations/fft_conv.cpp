#include "define.hpp"

#include <ssmkit/fft_conv.hpp>
#include <ssmkit/fft_conv_backward.hpp>
#include <ssmkit/separable_conv.hpp>
#include <ssmkit/toeplitz.hpp>
#include <ssmkit/reference/fft_conv.hpp>
#include <ssmkit/reference/fft_conv_backward.hpp>
#include <ssmkit/reference/separable_conv.hpp>
#include <ssmkit/reference/toeplitz.hpp>

OPERATION_OF_ELEMENTS(fft_conv)
OPERATION_OF_ELEMENTS(fft_conv_backward)
OPERATION_OF_REALS(toeplitz)
OPERATION_OF_REALS(toeplitz_backward)
OPERATION_OF_REALS(toeplitz_inverse)
OPERATION(separable_conv, separable_conv_args<double, 1>)
OPERATION(separable_conv_backward, separable_conv_backward_args<double, 1>)
OPERATION(separable_conv, separable_conv_args<float, 1>)
OPERATION(separable_conv_backward, separable_conv_backward_args<float, 1>)
OPERATION(separable_conv, separable_conv_args<double, 2>)
OPERATION(separable_conv_backward, separable_conv_backward_args<double, 2>)
OPERATION(separable_conv, separable_conv_args<float, 2>)
OPERATION(separable_conv_backward, separable_conv_backward_args<float, 2>)
OPERATION(separable_conv, separable_conv_args<double, 3>)
OPERATION(separable_conv_backward, separable_conv_backward_args<double, 3>)
OPERATION(separable_conv, separable_conv_args<float, 3>)
OPERATION(separable_conv_backward, separable_conv_backward_args<float, 3>)
