#pragma once

// Kernels and references as functions that are declared here and compiled in this folder: the kernels for each instruction set, the
// references once. What only calls them (golden_check's handlers, tests of compositions) is compiled once for all sets.

#include <ssmkit/args/linear_attention.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit::testing {

/// The kernel of the operation that these arguments are of.
template <class Args>
void run_kernel(const Args& a, threads& pool);

/// The same in plain loops.
template <class Args>
void run_reference(const Args& a);

/// The other names of linear_attention, which refuse what is not their own.
enum class attention_front { simple_gla, gla, gated_delta_rule };

template <class T>
void run_kernel(attention_front front, const linear_attention_args<T>& a, threads& pool);

/// Runs operations on a pool, or as references: what the compositions in examples/common take.
struct operations {
    bool reference;
    threads& pool;

    template <class Args>
    void operator()(const Args& a) const
    {
        reference ? run_reference(a) : run_kernel(a, pool);
    }
};

}  // namespace ssmkit::testing
