#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include <ssmkit/args/shift_kernel.hpp>
#include <ssmkit/fft_conv.hpp>
#include <ssmkit/fft_conv_backward.hpp>

namespace ssmkit {
namespace detail {

/// C as sequences of a batch of channels, of which `taps` gathers what is ahead: Σ_n taps_n C_{n+l}.
template <class T>
fft_conv_args<T> shift_correlation(const view<const T, 3>& C, const view<const T, 2>& taps, const view<T, 3>& out)
{
    return {.u = C,
            .k = {C.data(), {1, taps.extent(0), 0}},
            .k_reverse = {taps.data(), {1, taps.extent(0), taps.extent(1)}, {0, taps.stride(0), taps.stride(1)}},
            .reverse_includes_current = true,
            .y = flattened(out, 1)};
}

/// Correlations are as long as the state: they are computed into memory of our own and cropped or filled up.
template <class T>
view<T, 3> shift_correlation_buffer(const view<const T, 3>& C, T* memory)
{
    return {memory, C.extent(0), C.extent(1), C.extent(2)};
}

template <class T>
void shift_store(const view<const T, 3>& from, const view<T, 3>& to)
{
    for (index c = 0; c < to.extent(0); ++c) {
        for (index h = 0; h < to.extent(1); ++h) {
            for (index l = 0; l < to.extent(2); ++l) to(c, h, l) = l < from.extent(2) ? from(c, h, l) : T(0);
        }
    }
}

/// The gradient of K, as long as the state.
template <class T>
fft_conv_backward_args<T> shift_gradients(const shift_kernel_backward_args<T>& a, const view<T, 3>& dK)
{
    fft_conv_backward_args<T> x{.forward = shift_correlation<T>(a.C, a.B, {}), .dy = flattened(view<const T, 3>(dK), 1)};
    x.forward.y = {};
    if (a.dC.data()) x.du = a.dC;
    if (a.dB.data()) x.dk_reverse = {a.dB.data(), {1, a.dB.extent(0), a.dB.extent(1)}, {0, a.dB.stride(0), a.dB.stride(1)}};
    return x;
}

/// Inputs from the last to the first, as long as the state, zeros behind them.
template <class T>
fft_conv_args<T> shift_last_inputs(const shift_chunk_args<T>& a, T* memory)
{
    return {.u = {memory, a.u.extent(0), a.u.extent(1), a.B.extent(1)},
            .k = {a.B.data(), {1, a.B.extent(0), a.B.extent(1)}, {0, a.B.stride(0), a.B.stride(1)}},
            .y = flattened(a.final_state, 1)};
}

}  // namespace detail

template <class Arch = xsimd::default_arch, class T>
std::size_t shift_kernel_workspace_size(const shift_kernel_args<T>& a, std::size_t workers = 1)
{
    using namespace detail;
    arena sizes;
    sizes.take<T>(static_cast<std::size_t>(a.C.size()));
    sizes.take<std::byte>(
        fft_conv_workspace_size<Arch>(shift_correlation<T>(a.C, a.B, shift_correlation_buffer<T>(a.C, nullptr)), workers));
    return sizes.size();
}

/// The kernel of the shift model: shapes and equations at shift_kernel_args. Correlations by sums or transforms, as fft_conv has
/// them, with its accuracy.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void shift_kernel(const shift_kernel_args<T>& a, workspace lent = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t need = shift_kernel_workspace_size<Arch>(a, concurrency(exec));
    const scratch memory("shift_kernel", lent, need);
    arena all(memory.memory());
    const view<T, 3> buffer = shift_correlation_buffer<T>(a.C, all.take<T>(static_cast<std::size_t>(a.C.size())));
    const auto correlate = [&](const view<const T, 2>& taps, const view<T, 3>& out) {
        const fft_conv_args<T> x = shift_correlation<T>(a.C, taps, buffer);
        const std::size_t bytes = fft_conv_workspace_size<Arch>(x, concurrency(exec));
        arena rest = all;
        fft_conv<Arch>(x, workspace(rest.take<std::byte>(bytes), bytes), exec);
        shift_store<T>(buffer, out);
    };
    if (a.K.data()) correlate(a.B, a.K);
    for (index b = 0; b < a.K_state.extent(0); ++b) correlate(a.state[b], a.K_state[b]);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void shift_kernel(const shift_kernel_args<T>& a, Exec&& exec)
{
    shift_kernel<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

template <class Arch = xsimd::default_arch, class T>
std::size_t shift_kernel_backward_workspace_size(const shift_kernel_backward_args<T>& a, std::size_t workers = 1)
{
    using namespace detail;
    arena sizes;
    sizes.take<T>(static_cast<std::size_t>(a.C.size()));
    sizes.take<std::byte>(
        fft_conv_backward_workspace_size<Arch>(shift_gradients<T>(a, shift_correlation_buffer<T>(a.C, nullptr)), workers));
    return sizes.size();
}

/// The gradients of the shift model's kernel: equations at shift_kernel_backward_args.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void shift_kernel_backward(const shift_kernel_backward_args<T>& a, workspace lent = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const scratch memory("shift_kernel_backward", lent, shift_kernel_backward_workspace_size<Arch>(a, concurrency(exec)));
    arena all(memory.memory());
    const view<T, 3> dK = shift_correlation_buffer<T>(a.C, all.take<T>(static_cast<std::size_t>(a.C.size())));
    shift_store<T>(a.dK, dK);
    const fft_conv_backward_args<T> x = shift_gradients<T>(a, dK);
    const std::size_t bytes = fft_conv_backward_workspace_size<Arch>(x, concurrency(exec));
    fft_conv_backward<Arch>(x, workspace(all.take<std::byte>(bytes), bytes), exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void shift_kernel_backward(const shift_kernel_backward_args<T>& a, Exec&& exec)
{
    shift_kernel_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

/// One step of the shift model: shift_update_args. The lanes run along the state, which is moved from its end to its beginning;
/// work splits over the batch.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void shift_update(const shift_update_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index state = a.B.extent(1), n = lanes<T, Arch>;
    const bool dense = a.state.stride(2) == 1 && a.B.stride(1) == 1 && a.C.stride(2) == 1;
    run_tasks(exec, static_cast<std::size_t>(a.u.extent(0)), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const index b = static_cast<index>(task);
        for (index h = 0; h < a.B.extent(0); ++h) {
            const T u = a.u(b, h);
            index left = state;
            if (dense) {
                T* const x = a.state.pointer(b, h);
                for (; left > n; left -= n) {
                    const auto moved = load<T, Arch>(x + left - n - 1);
                    store(multiply_add(vec<T, Arch>(u), load<T, Arch>(a.B.pointer(h) + left - n), moved), x + left - n);
                }
            }
            while (left-- > 0) a.state(b, h, left) = (left > 0 ? a.state(b, h, left - 1) : T(0)) + a.B(h, left) * u;
            for (index c = 0; c < a.y.extent(1); ++c) {
                T sum = 0;
                if (dense) {
                    vec<T, Arch> sums(T(0));
                    const T *const taps = a.C.pointer(c, h), *const x = a.state.pointer(b, h);
                    for_each_lanes<T, Arch>(state, [&](auto range) { sums = multiply_add(range.load(taps), range.load(x), sums); });
                    sum = detail::sum(sums);
                } else {
                    for (index i = 0; i < state; ++i) sum += a.C(c, h, i) * a.state(b, h, i);
                }
                a.y(b, c, h) = sum;
            }
        }
    });
}

template <class Arch = xsimd::default_arch, class T>
std::size_t shift_chunk_workspace_size(const shift_chunk_args<T>& a, std::size_t workers = 1)
{
    using namespace detail;
    arena sizes;
    sizes.take<T>(static_cast<std::size_t>(a.final_state.size()));
    sizes.take<std::byte>(fft_conv_workspace_size<Arch>(shift_last_inputs<T>(a, nullptr), workers));
    return sizes.size();
}

/// The state after many steps: shift_chunk_args. Only the last `state` inputs matter, as a product with B.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void shift_chunk(const shift_chunk_args<T>& a, workspace lent = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index state = a.B.extent(1), length = a.u.extent(2);
    const scratch memory("shift_chunk", lent, shift_chunk_workspace_size<Arch>(a, concurrency(exec)));
    arena all(memory.memory());
    const fft_conv_args<T> x = shift_last_inputs<T>(a, all.take<T>(static_cast<std::size_t>(a.final_state.size())));
    T* last = const_cast<T*>(x.u.data());
    for (index b = 0; b < a.u.extent(0); ++b) {
        for (index h = 0; h < a.u.extent(1); ++h) {
            for (index m = 0; m < state; ++m) *last++ = m < length ? a.u(b, h, length - 1 - m) : T(0);
        }
    }
    const std::size_t bytes = fft_conv_workspace_size<Arch>(x, concurrency(exec));
    fft_conv<Arch>(x, workspace(all.take<std::byte>(bytes), bytes), exec);
    if (a.initial_state.data() == nullptr) return;
    for (index b = 0; b < a.u.extent(0); ++b) {
        for (index h = 0; h < a.u.extent(1); ++h) {
            for (index i = length; i < state; ++i) a.final_state(b, h, i) += a.initial_state(b, h, i - length);
        }
    }
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void shift_chunk(const shift_chunk_args<T>& a, Exec&& exec)
{
    shift_chunk<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
