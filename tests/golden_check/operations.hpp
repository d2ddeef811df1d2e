#pragma once

// The operations of Mamba's family, compiled once for all handlers (operations.cpp): every kernel for every type and twice took
// each file that has them up to two minutes.

#include <common/operations.hpp>

#include "golden.hpp"

namespace golden {

/// Runs an operation, as kernel or as reference.
struct operations {
    bool reference;
    ssmkit::threads& pool;

    explicit operations(problem& p) : reference(p.reference()), pool(p.execution()) {}

    template <class Args>
    void operator()(const Args& a) const;
};

/// Calls f(run) with who computes in this case.
template <class F>
void with_operations(problem& p, F&& f)
{
    f(operations(p));
}

}  // namespace golden
