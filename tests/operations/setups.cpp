#include "define.hpp"

#include <ssmkit/s4_setup.hpp>
#include <ssmkit/s4d_discretize.hpp>
#include <ssmkit/reference/s4_setup.hpp>
#include <ssmkit/reference/s4d_discretize.hpp>

OPERATION_OF_REALS(s4_setup)
#if SSMKIT_TEST_REFERENCES
OPERATION_OF_REALS(s4d_discretize)
#else  // it takes no threads

template <>
void ssmkit::testing::run_kernel(const ssmkit::s4d_discretize_args<double>& a, ssmkit::threads&)
{
    ssmkit::s4d_discretize(a);
}

template <>
void ssmkit::testing::run_kernel(const ssmkit::s4d_discretize_args<float>& a, ssmkit::threads&)
{
    ssmkit::s4d_discretize(a);
}
#endif
