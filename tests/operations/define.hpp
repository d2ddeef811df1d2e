#pragma once

// OPERATION(name, args): `name` runs on `args`, a type within ssmkit. The file is compiled twice, for kernels and for references.

#include <complex>

#include <ssmkit/element.hpp>

#include "operations.hpp"

#if SSMKIT_TEST_REFERENCES
#define OPERATION(name, ...)                                          \
    template <>                                                       \
    void ssmkit::testing::run_reference(const ssmkit::__VA_ARGS__& a) \
    {                                                                 \
        ssmkit::reference::name(a);                                   \
    }
#else
#define OPERATION(name, ...)                                                              \
    template <>                                                                           \
    void ssmkit::testing::run_kernel(const ssmkit::__VA_ARGS__& a, ssmkit::threads& pool) \
    {                                                                                     \
        ssmkit::name(a, pool);                                                            \
    }
#endif

/// Operations of one type, in the types that golden_check runs.
#define OPERATION_OF_REALS(name) OPERATION(name, name##_args<double>) OPERATION(name, name##_args<float>)
#define OPERATION_OF_ELEMENTS(name) OPERATION_OF_REALS(name) OPERATION(name, name##_args<ssmkit::bfloat16>)
