#include "define.hpp"

#include <ssmkit/dense_kernel.hpp>
#include <ssmkit/krylov.hpp>
#include <ssmkit/lssl.hpp>
#include <ssmkit/reference/dense_kernel.hpp>
#include <ssmkit/reference/krylov.hpp>
#include <ssmkit/reference/lssl.hpp>

OPERATION_OF_REALS(dense_kernel)
OPERATION_OF_REALS(dense_kernel_backward)
OPERATION_OF_REALS(krylov)
OPERATION_OF_REALS(krylov_backward)
OPERATION_OF_REALS(lssl)
OPERATION_OF_REALS(lssl_backward)
