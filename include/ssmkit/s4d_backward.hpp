#pragma once

#include <algorithm>
#include <utility>

#include <ssmkit/args/s4d_backward.hpp>
#include <ssmkit/detail/diagonal_kernel.hpp>
#include <ssmkit/detail/s4d_backward_task.hpp>
#include <ssmkit/fft_conv_backward.hpp>
#include <ssmkit/s4d.hpp>
#include <ssmkit/s4d_kernel_backward.hpp>

namespace ssmkit {

namespace detail {

/// Where the two forms meet (AVX-512, float, 64 channels, 1 to 64 pairs, 32 to 16384 tokens): for single sequences of at least this
/// length and at most so many pairs, states take 0.7 to 0.9 times the convolution's time, otherwise 0.9 to 4 times; at batch 8, 32
/// pairs, 2.2 times.
inline constexpr index s4d_backward_state = 16, s4d_backward_length = 2048;

/// Whether a convolution's gradients may take the place of the states'.
template <class T>
bool s4d_may_convolve(const s4d_backward_args<T>& a)
{
    const s4d_args<T>& f = a.forward;
    if (f.form != s4d_form::automatic) return f.form == s4d_form::convolution;
    if (f.initial_state.data() || a.dfinal_state.data() || a.dinitial_state.data()) return false;
    return f.u.extent(0) > 1 || f.u.extent(1) < s4d_backward_length || f.A.extent(1) > s4d_backward_state;
}

/// The layer as a convolution with its kernel: that and its gradient lie in scratch memory.
template <class Arch, class T>
struct s4d_convolution_backward {
    using R = compute_t<T>;
    s4d_kernel_args<R> kernel;
    fft_conv_backward_args<T> convolution;
    s4d_kernel_backward_args<R> parameters;

    s4d_convolution_backward(const s4d_backward_args<T>& a, arena& memory)
    {
        const s4d_args<T>& f = a.forward;
        const index channels = f.C.extent(0), dim = f.u.extent(2), length = f.u.extent(1);
        const auto taps = static_cast<std::size_t>(channels * dim * length);
        R *const K = memory.take<R>(taps), *const dK = memory.take<R>(s4d_wants_system(a) ? taps : 0);
        kernel = {.delta = f.delta, .A = f.A, .B = f.B, .C = f.C, .method = f.method, .rate = f.rate,
                  .conjugate_pairs = f.conjugate_pairs, .K = {K, channels, dim, length}};
        const auto rows = [&]<class E>(const view<E, 3>& v) { return (f.reverse ? v.reversed(1) : v).transposed(1, 2); };
        convolution.forward = {.u = rows(f.u), .k = kernel.K, .D = f.D};
        convolution.dy = split_channels(rows(a.dy), channels, dim);
        if (a.du.data()) convolution.du = rows(a.du);
        if (s4d_wants_system(a)) convolution.dk = {dK, channels, dim, length};
        convolution.dD = a.dD;
        parameters = {.forward = kernel, .dK = {dK, channels, dim, length}, .ddelta = a.ddelta, .dA = a.dA, .dB = a.dB, .dC = a.dC};
    }

    /// Bytes besides the kernel's and its gradient's.
    std::size_t scratch_size(std::size_t concurrency) const
    {
        return std::max({s4d_kernel_workspace_size<Arch>(kernel, concurrency),
                         fft_conv_backward_workspace_size<Arch>(convolution, concurrency),
                         s4d_kernel_backward_workspace_size<Arch>(parameters, concurrency)});
    }
};

/// Bytes of the gradients by states: of each task, and gradients of A and B, one row a channel, that are added up over the channels
/// of a copy.
struct s4d_backward_bytes {
    std::size_t each = 0, shared = 0;

    template <class Arch, class T>
    static s4d_backward_bytes of(const s4d_backward_args<T>& a)
    {
        arena all;
        all.take<double>(static_cast<std::size_t>(4 * pole_pitch<Arch>(a.forward.A.extent(1)) * a.forward.u.extent(2)));
        return {s4d_backward_scratch<Arch, T>::size(a), all.size()};
    }
};

template <class Arch, class T, class Exec>
void run_s4d_backward_by_states(const s4d_backward_args<T>& a, workspace memory, Exec& exec)
{
    const auto bytes = s4d_backward_bytes::of<Arch>(a);
    const index pitch = pole_pitch<Arch>(a.forward.A.extent(1)), dim = a.forward.u.extent(2);
    const scratch own("s4d_backward", memory, bytes.shared + concurrency(exec) * bytes.each);
    arena all(own.memory());
    double* const rows = all.take<double>(static_cast<std::size_t>(4 * pitch * dim));
    const auto row = [&](index h, index which) {
        return planar<double>{rows + (4 * h + 2 * which) * pitch, rows + (4 * h + 2 * which + 1) * pitch};
    };
    const index group = s4d_backward_group<Arch>(a);
    run_tasks(exec, static_cast<std::size_t>((dim + group - 1) / group), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(bytes.shared + slot * bytes.each, bytes.each));
        const s4d_backward_scratch<Arch, T> m(part, a, group);
        const index h0 = static_cast<index>(task) * group;
        s4d_backward_task<Arch, T>(a, m, h0, std::min(group, dim - h0)).run(row);
    });
    sum_over_channels(a.dA, dim, [&](index h) { return row(h, 0); });
    sum_over_channels(a.dB, dim, [&](index h) { return row(h, 1); });
}

}  // namespace detail

/// Bytes of scratch memory with which s4d_backward(a) runs on any resource of at most this concurrency. By states, for each task
/// that runs at once, in values of compute_t<T>: (2 + channels) length for a channel's tokens, state length / 16 for its states and
/// some 1000 state + 5000 for tables and their gradients; tokens and tables of a register of channels where tokens are not
/// neighbours in memory. By convolution, kernels and their gradients, 2 channels · dim · length values, and what fft_conv_backward
/// and s4d_kernel_backward ask for.
template <class Arch = xsimd::default_arch, class T>
std::size_t s4d_backward_workspace_size(const s4d_backward_args<T>& a, std::size_t concurrency = 1)
{
    using namespace detail;
    const auto bytes = s4d_backward_bytes::of<Arch>(a);
    const std::size_t states = bytes.shared + concurrency * bytes.each;
    if (!s4d_may_convolve(a)) return states;
    arena measure;
    const s4d_convolution_backward<Arch, T> c(a, measure);
    return std::max(states, measure.size() + c.scratch_size(concurrency));
}

/// The gradients of S4D's layer: equations at s4d_backward_args. Throws shape_error before anything is written. Nothing of the
/// forward pass is needed.
///
/// By states, chunks of 32 tokens go through the states once more and back through their gradients, and the tables of the forward's
/// products get gradients of their own, from which those of the parameters follow once a channel: 10 multiply-adds a token and pair
/// and some 40 a token. By convolution, the gradients are those of fft_conv and of s4d_kernel; as a rule that is faster, and
/// s4d_form::automatic takes it unless states or their gradients are given or asked for, a single long sequence meets few pairs, or
/// an element of u or dy is not finite. By states, a NaN reaches exactly what depends on it. Work splits over channels; results do
/// not depend on the number of threads, bit for bit. float gradients lie within 1e-5 of the largest one of a double computation.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s4d_backward(const s4d_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const bool forced = a.forward.form == s4d_form::convolution;
    if (!s4d_may_convolve(a) || !(forced || (all_finite<Arch>(a.forward.u) && all_finite<Arch>(a.dy)))) {
        return run_s4d_backward_by_states<Arch>(a, memory, exec);
    }
    const std::size_t slots = concurrency(exec);
    const scratch own("s4d_backward", memory, s4d_backward_workspace_size<Arch>(a, slots));
    arena part(own.memory());
    const s4d_convolution_backward<Arch, T> c(a, part);
    const workspace rest = own.memory().subspan(own.memory().size() - c.scratch_size(slots));
    if (a.du.data()) s4d_kernel<Arch>(c.kernel, rest, exec);
    fft_conv_backward<Arch>(c.convolution, rest, exec);
    if (s4d_wants_system(a)) s4d_kernel_backward<Arch>(c.parameters, rest, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void s4d_backward(const s4d_backward_args<T>& a, Exec&& exec)
{
    s4d_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
