#pragma once

#include <algorithm>
#include <utility>

#include <ssmkit/detail/s4_model.hpp>
#include <ssmkit/detail/s4d_task.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/fft_conv.hpp>
#include <ssmkit/s4_kernel.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit {

namespace detail {

/// Whether a convolution may take the place of the states.
template <class T>
bool s4_may_convolve(const s4_args<T>& a)
{
    if (a.form != s4_form::automatic) return a.form == s4_form::convolution;
    return !a.initial_state.data() && !a.final_state.data() && (a.C.data() || !a.true_C.data()) &&
           a.u.extent(1) <= s4_transform_length(s4_layer_kernel(a), a.u.extent(1));
}

/// The layer as a convolution with its kernel, which lies in scratch memory.
template <class Arch, class T>
struct s4_convolution {
    using R = compute_t<T>;
    s4_kernel_args<R> kernel;
    fft_conv_args<T> convolution;

    s4_convolution(const s4_args<T>& a, arena& memory) : kernel(s4_layer_kernel(a))
    {
        const index channels = kernel.C.extent(0), dim = a.u.extent(2), length = a.u.extent(1);
        R* const K = memory.take<R>(static_cast<std::size_t>(channels * dim * length));
        kernel.K = {K, channels, dim, length};
        const auto rows = [&]<class E>(const view<E, 3>& v) { return (a.reverse ? v.reversed(1) : v).transposed(1, 2); };
        convolution = {.u = rows(a.u), .k = kernel.K, .D = a.D, .y = split_channels(rows(a.y), channels, dim)};
    }

    /// Bytes besides the kernel's.
    std::size_t scratch_size(std::size_t concurrency) const
    {
        return std::max(s4_kernel_workspace_size<Arch>(kernel, concurrency),
                        fft_conv_workspace_size<Arch>(convolution, concurrency));
    }
};

template <class Arch, class T>
std::size_t s4_states_size(const s4_args<T>& a, std::size_t concurrency)
{
    return concurrency * s4d_scratch<Arch, T, s4_model<Arch, T>>::size(a, s4d_partition<Arch, T>(a.u, concurrency).group);
}

template <class Arch, class T>
std::size_t s4_convolution_size(const s4_args<T>& a, std::size_t concurrency)
{
    arena measure;
    const s4_convolution<Arch, T> c(a, measure);
    return measure.size() + c.scratch_size(concurrency);
}

}  // namespace detail

/// Bytes of scratch memory with which s4(a) runs on any resource of at most this concurrency. By convolution, the kernels, channels
/// · dim · length values of compute_t<T>, and what s4_kernel and fft_conv ask for. By states, for each task that runs at once, the
/// tables of an input's system, 8 state² + 200 state + 1000 values and 64 state + 1000 for each further output map, those of a
/// register of inputs where tokens are not neighbours in memory, four matrices of (2 state)² doubles, one with true_C, and 140 rank
/// state doubles.
template <class Arch = xsimd::default_arch, class T>
std::size_t s4_workspace_size(const s4_args<T>& a, std::size_t concurrency = 1)
{
    using namespace detail;
    if (!s4_may_convolve(a)) return s4_states_size<Arch>(a, concurrency);
    const std::size_t convolution = s4_convolution_size<Arch>(a, concurrency);
    return a.form == s4_form::convolution ? convolution : std::max(convolution, s4_states_size<Arch>(a, concurrency));
}

/// The layer of S4: shapes, equations and options at s4_args. Throws shape_error before anything is written.
///
/// By convolution, a kernel is made and the sequences are transformed. By states, chunks of 32 tokens go through the state, as
/// products of small matrices: the tables that S4D has too, and a full matrix that takes the state over a chunk. Where both were
/// measured the convolution was faster, but for up to 8 pairs and many thousand tokens (AVX-512, float, batch 8, length 16384: 4
/// and 8 pairs 0.9 of its time, 16 pairs 1.1, 32 pairs 1.9, 64 pairs 5), so that s4_form::automatic convolves unless states are
/// given or asked for, there is only true_C, the sequence is longer than the kernel, or an input is not finite: by states, a NaN
/// reaches exactly what depends on it. Work splits over channels, and over sequences where channels are few; results do not
/// depend on the number of threads, bit for bit.
///
/// By convolution, float results have the accuracy of s4_kernel. By states they lie within 3e-6 of the largest one of a double
/// computation, for HiPPO-LegS, LegT and the Fourier measure with 64 states up to 131072 tokens.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s4(const s4_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t slots = concurrency(exec);
    if (s4_may_convolve(a) && (a.form == s4_form::convolution || all_finite<Arch>(a.u))) {
        const scratch own("s4", memory, s4_workspace_size<Arch>(a, slots));
        arena part(own.memory());
        const s4_convolution<Arch, T> c(a, part);
        const workspace rest = own.memory().subspan(own.memory().size() - c.scratch_size(slots));
        s4_kernel<Arch>(c.kernel, rest, exec);
        fft_conv<Arch>(c.convolution, rest, exec);
        return;
    }
    using model = s4_model<Arch, T>;
    const s4d_partition<Arch, T> p(a.u, slots);
    const std::size_t each = s4d_scratch<Arch, T, model>::size(a, p.group);
    const scratch own("s4", memory, slots * each);
    run_tasks(exec, p.tasks(), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(slot * each, each));
        const s4d_scratch<Arch, T, model> m(part, a, p.group);
        const index h0 = static_cast<index>(task) / p.parts * p.group, b0 = static_cast<index>(task) % p.parts * p.sequences;
        const s4d_task<Arch, T, model> work(a, m, h0, std::min(p.group, a.u.extent(2) - h0));
        work.run(b0, std::min(b0 + p.sequences, a.u.extent(0)));
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void s4(const s4_args<T>& a, Exec&& exec)
{
    s4<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
