#pragma once

// How an operation of the device reaches golden_check, the tests and the benchmarks: <op>.cu names the types of its arguments, and
// its kernels are compiled there and nowhere else.
//
//     DEVICE_OPERATION(causal_conv1d, causal_conv1d_args<float>, causal_conv1d_args<bfloat16>)

#include <cstddef>
#include <span>

#include <ssmkit/cuda/device.cuh>

#include "../../operations/operations.hpp"

namespace ssmkit::testing {

template <class Args, class Size, class Run>
void add_device_operation(Size size, Run run)
{
    const auto run_to_end = [size, run](const void* a) {
        const Args& args = *static_cast<const Args*>(a);
        const std::size_t bytes = size(args);
        void* memory = nullptr;
        cuda::detail::require_success("a workspace", cudaMalloc(&memory, bytes + 1));
        cuda::detail::require_success("a workspace", cudaMemset(memory, 0xff, bytes));  // NaN: what it held must not matter
        try {
            run(args, std::span(static_cast<std::byte*>(memory), bytes), nullptr);
        } catch (...) {
            cudaFree(memory);
            throw;
        }
        const cudaError_t status = cudaDeviceSynchronize();
        cudaFree(memory);
        cuda::detail::require_success("the device", status);
    };
    device_operations()[typeid(Args)] = {
        [size](const void* a) { return size(*static_cast<const Args*>(a)); },
        [run](const void* a, std::span<std::byte> workspace, cudaStream_t stream) {
            run(*static_cast<const Args*>(a), workspace, stream);
        },
        run_to_end};
}

template <class... Args, class Size, class Run>
bool add_device_operations(Size size, Run run)
{
    (add_device_operation<Args>(size, run), ...);
    return true;
}

}  // namespace ssmkit::testing

#define DEVICE_OPERATION(op, ...)                                                                                          \
    namespace ssmkit::testing {                                                                                            \
    static const bool op##_on_device =                                                                                     \
        add_device_operations<__VA_ARGS__>([](const auto& a) { return cuda::op##_workspace_size(a); },                     \
                                           [](const auto& a, std::span<std::byte> workspace, cudaStream_t stream) {        \
                                               cuda::op(a, workspace, stream);                                             \
                                           });                                                                             \
    }
