#pragma once

// Kernels and references as functions that are declared here and compiled in this folder: the kernels for each instruction set, the
// references once. What only calls them (golden_check's handlers, tests of compositions) is compiled once for all sets.

#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <stdexcept>
#include <typeindex>
#include <utility>

#include <ssmkit/args/linear_attention.hpp>
#include <ssmkit/execution.hpp>

struct CUstream_st;  // what CUDA's cudaStream_t points to

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

/// An operation on a device; the arguments are of the type that it is registered for.
struct device_operation {
    std::function<std::size_t(const void* args)> workspace_size;
    std::function<void(const void* args, std::span<std::byte> workspace, CUstream_st* stream)> run;
    std::function<void(const void* args)> run_to_end;  ///< with a workspace of its own, filled with NaN
};

/// Those of this program, by the type of their arguments: cuda/operations/*.cu add them. In tests, which have cuda/memory.cpp, the
/// device can read and write all that operator new returns.
inline std::map<std::type_index, device_operation>& device_operations()
{
    static std::map<std::type_index, device_operation> all;
    return all;
}

struct no_device_operation : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Whether this thread's malloc shall return what the device can read, if the program has cuda/memory.cpp.
inline bool& heap_for_device()
{
    static thread_local bool value = false;
    return value;
}

/// Throws no_device_operation if there is none for these arguments.
template <class Args>
void run_on_device(const Args& a)
{
    const auto found = device_operations().find(typeid(Args));
    if (found == device_operations().end()) throw no_device_operation("the operation does not run on a device");
    const bool for_device = std::exchange(heap_for_device(), false);
    found->second.run_to_end(&a);
    heap_for_device() = for_device;
}

/// Runs operations on a pool, as references or on a device: what the compositions in examples/common take.
struct operations {
    bool reference;
    threads& pool;
    std::size_t* device_calls = nullptr;  ///< given: runs on the device, and is counted here

    template <class Args>
    void operator()(const Args& a) const
    {
        if (device_calls) {
            run_on_device(a);
            ++*device_calls;
        } else {
            reference ? run_reference(a) : run_kernel(a, pool);
        }
    }
};

}  // namespace ssmkit::testing
