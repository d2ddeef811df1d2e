#pragma once

#include <algorithm>
#include <utility>

#include <ssmkit/detail/s4d_task.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/fft_conv.hpp>
#include <ssmkit/s4d_kernel.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit {

namespace detail {

/// Where the two forms meet, in conjugate pairs and tokens (AVX-512, float, batch 8, lengths to 16384: 4 and 8 pairs take 0.85 to
/// 1.35 times the convolution's time, 16 pairs 1.03 to 1.5, 32 pairs 1.5 to 2.1; 128 tokens 0.83 to 0.95 up to 16 pairs).
inline constexpr index s4d_convolved_state = 12, s4d_convolved_length = 256;

/// Whether a convolution may take the place of the states.
template <class T>
bool s4d_may_convolve(const s4d_args<T>& a)
{
    if (a.form != s4d_form::automatic) return a.form == s4d_form::convolution;
    return !a.initial_state.data() && !a.final_state.data() && a.A.extent(1) > s4d_convolved_state &&
           a.u.extent(1) >= s4d_convolved_length;
}

/// The layer as a convolution with its kernel, which lies in scratch memory.
template <class Arch, class T>
struct s4d_convolution {
    using R = compute_t<T>;
    s4d_kernel_args<R> kernel;
    fft_conv_args<T> convolution;

    s4d_convolution(const s4d_args<T>& a, arena& memory)
    {
        const index channels = a.C.extent(0), dim = a.u.extent(2), length = a.u.extent(1);
        R* const K = memory.take<R>(static_cast<std::size_t>(channels * dim * length));
        kernel = {.delta = a.delta, .A = a.A, .B = a.B, .C = a.C, .method = a.method, .rate = a.rate,
                  .conjugate_pairs = a.conjugate_pairs, .K = {K, channels, dim, length}};
        const auto rows = [&]<class E>(const view<E, 3>& v) { return (a.reverse ? v.reversed(1) : v).transposed(1, 2); };
        convolution = {.u = rows(a.u), .k = kernel.K, .D = a.D, .y = split_channels(rows(a.y), channels, dim)};
    }

    /// Bytes besides the kernel's.
    std::size_t scratch_size(std::size_t concurrency) const
    {
        return std::max(s4d_kernel_workspace_size<Arch>(kernel, concurrency),
                        fft_conv_workspace_size<Arch>(convolution, concurrency));
    }
};

/// Bytes of the states' form.
template <class Arch, class T>
std::size_t s4d_states_size(const s4d_args<T>& a, std::size_t concurrency)
{
    return concurrency * s4d_scratch<Arch, T>::size(a, s4d_partition<Arch, T>(a.u, concurrency).group);
}

/// Bytes of the convolution.
template <class Arch, class T>
std::size_t s4d_convolution_size(const s4d_args<T>& a, std::size_t concurrency)
{
    arena measure;
    const s4d_convolution<Arch, T> c(a, measure);
    return measure.size() + c.scratch_size(concurrency);
}

}  // namespace detail

/// Bytes of scratch memory with which s4d(a) runs on any resource of at most this concurrency. By states, for each task that runs
/// at once, the tables of an input's system: some 200 state + 1000 values of compute_t<T> and 64 state + 1000 for each further
/// output map, those of a register of inputs where tokens are not neighbours in memory. By convolution, the kernels,
/// channels · dim · length values, and what s4d_kernel and fft_conv ask for.
template <class Arch = xsimd::default_arch, class T>
std::size_t s4d_workspace_size(const s4d_args<T>& a, std::size_t concurrency = 1)
{
    using namespace detail;
    if (!s4d_may_convolve(a)) return s4d_states_size<Arch>(a, concurrency);
    return std::max(s4d_states_size<Arch>(a, concurrency), s4d_convolution_size<Arch>(a, concurrency));
}

/// The layer of S4D: shapes, equations and options at s4d_args. Throws shape_error before anything is written.
///
/// By states, chunks of 32 tokens go through the state, as products of small matrices (Dao & Gu, arXiv:2405.21060, section 6, for a
/// system that does not change with time): 4 multiply-adds a token and pair and 24 a token, and the final state is there. By
/// convolution, kernels are made first; on machines where it was measured that is faster from some 12 pairs and 256 tokens on, so
/// that s4d_form::automatic takes it there unless states are given or asked for or an input is not finite: then a NaN reaches
/// exactly what depends on it. Work splits over channels, and over sequences where channels are few; results do not depend on the
/// number of threads, bit for bit. float results lie within 2e-6 of the largest one of a double computation, also after 131072
/// tokens.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s4d(const s4d_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t slots = concurrency(exec);
    if (s4d_may_convolve(a) && (a.form == s4d_form::convolution || all_finite<Arch>(a.u))) {
        const scratch own("s4d", memory, s4d_workspace_size<Arch>(a, slots));
        arena part(own.memory());
        const s4d_convolution<Arch, T> c(a, part);
        const workspace rest = own.memory().subspan(own.memory().size() - c.scratch_size(slots));
        s4d_kernel<Arch>(c.kernel, rest, exec);
        fft_conv<Arch>(c.convolution, rest, exec);
        return;
    }
    const s4d_partition<Arch, T> p(a.u, slots);
    const std::size_t each = s4d_scratch<Arch, T>::size(a, p.group);
    const scratch own("s4d", memory, slots * each);
    run_tasks(exec, p.tasks(), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(slot * each, each));
        const s4d_scratch<Arch, T> m(part, a, p.group);
        const index h0 = static_cast<index>(task) / p.parts * p.group, b0 = static_cast<index>(task) % p.parts * p.sequences;
        s4d_task<Arch, T>(a, m, h0, std::min(p.group, a.u.extent(2) - h0)).run(b0, std::min(b0 + p.sequences, a.u.extent(0)));
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void s4d(const s4d_args<T>& a, Exec&& exec)
{
    s4d<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
