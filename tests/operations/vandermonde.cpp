#include "define.hpp"

#include <ssmkit/vandermonde.hpp>
#include <ssmkit/vandermonde_backward.hpp>
#include <ssmkit/vandermonde_transpose.hpp>
#include <ssmkit/s4d_kernel.hpp>
#include <ssmkit/s4d_kernel_backward.hpp>
#include <ssmkit/dss_kernel.hpp>
#include <ssmkit/dss_kernel_backward.hpp>
#include <ssmkit/ema_kernel.hpp>
#include <ssmkit/ema_kernel_backward.hpp>
#include <ssmkit/reference/vandermonde.hpp>
#include <ssmkit/reference/vandermonde_backward.hpp>
#include <ssmkit/reference/vandermonde_transpose.hpp>
#include <ssmkit/reference/s4d_kernel.hpp>
#include <ssmkit/reference/s4d_kernel_backward.hpp>
#include <ssmkit/reference/dss_kernel.hpp>
#include <ssmkit/reference/dss_kernel_backward.hpp>
#include <ssmkit/reference/ema_kernel.hpp>
#include <ssmkit/reference/ema_kernel_backward.hpp>

OPERATION_OF_REALS(vandermonde)
OPERATION_OF_REALS(vandermonde_backward)
OPERATION_OF_REALS(vandermonde_transpose)
OPERATION_OF_REALS(s4d_kernel)
OPERATION_OF_REALS(s4d_kernel_backward)
OPERATION_OF_REALS(dss_kernel)
OPERATION_OF_REALS(dss_kernel_backward)
OPERATION_OF_REALS(ema_kernel)
OPERATION_OF_REALS(ema_kernel_backward)
