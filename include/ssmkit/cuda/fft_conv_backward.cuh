#pragma once

#include <ssmkit/args/fft_conv_backward.hpp>
#include <ssmkit/cuda/fft_conv.cuh>

namespace ssmkit::cuda {
namespace detail {

template <class T>
index conv_backward_scratch(const fft_conv_backward_args<T>& a, const conv_plan& p)
{
    const index kernels = a.forward.k.extent(0) * a.forward.k.extent(1);
    index numbers = 0;
    if (a.dk.data() || a.dk_reverse.data() || a.dD.data()) numbers = 2 * std::min(kernels + 128, rows_under_way(p.size)) * p.size;
    if (a.forward.k.extent(0) > 1) numbers = std::max(numbers, rows_under_way(p.size) * p.size);
    return numbers;
}

}  // namespace detail

/// Bytes of the device's memory that fft_conv_backward needs beside its arguments: spectra of the kernels, and sums under way.
template <class T>
std::size_t fft_conv_backward_workspace_size(const fft_conv_backward_args<T>& a)
{
    const detail::conv_plan p("cuda::fft_conv_backward", a.forward);
    ssmkit::detail::arena sizes;
    sizes.take<float2>(static_cast<std::size_t>(a.forward.k.extent(0) * a.forward.k.extent(1) * p.size));
    sizes.take<float2>(static_cast<std::size_t>(detail::conv_backward_scratch(a, p)));
    return sizes.size();
}

/// The gradients of fft_conv on the device: fft_conv_backward_args, and fft_conv for what else holds here. Sums over the batch go
/// in its order; nothing is added atomically.
template <class T>
void fft_conv_backward(const fft_conv_backward_args<T>& a, std::span<std::byte> workspace, cudaStream_t stream)
{
    using namespace detail;
    static_assert(device_element<T>, "float, bfloat16 or float16");
    constexpr const char* op = "cuda::fft_conv_backward";
    check(a);
    const fft_conv_args<T>& f = a.forward;
    const conv_plan p(op, f);
    require_workspace(op, workspace.size(), fft_conv_backward_workspace_size(a));
    ssmkit::detail::arena memory(workspace);
    const index kernels = f.k.extent(0) * f.k.extent(1);
    float2* const spectra = memory.take<float2>(static_cast<std::size_t>(kernels * p.size));
    float2* const scratch = memory.take<float2>(static_cast<std::size_t>(conv_backward_scratch(a, p)));
    conv_job job{};
    job.type = stored_as<T>;
    job.taps = taps_of(f.k, f.k_reverse, f.D, f, p);
    job.spectra = spectra;
    job.scratch = scratch;
    job.batch = f.u.extent(0);
    job.dim = f.u.extent(1);
    job.length = f.u.extent(2);
    job.channels = f.k.extent(0);
    job.summed = job.channels != 1;
    job.pieces = p.pieces;
    job.step = p.step;
    job.lead = p.lead;
    const bool rows = a.du.data() || a.dinput_gate.data() || a.doutput_gate.data();
    // A row's kernel sums over its channels and would store what it never set.
    ssmkit::detail::require(!rows || f.u.empty() || job.channels > 0, op, "forward.k", "has no channels, of which the device code wants one");
    if (rows && !f.u.empty()) run_conv_spectra(op, job.taps, spectra, f.k.extent(1), kernels, p.size, stream);
    if (a.du.data() || a.dinput_gate.data()) {
        conv_job back = job;
        back.backwards = true;
        // Correlation looks the other way: what was ahead is behind.
        if (p.lead > 0 || p.pieces > 1) back.lead = p.ahead;
        back.x = rows_of(a.dy);
        back.gate = rows_of(f.output_gate);
        back.out[0] = rows_of(a.du.data() ? a.du : a.dinput_gate);
        back.factor[0] = a.du.data() ? rows_of(f.input_gate) : rows_of(f.u);
        if (a.du.data() && a.dinput_gate.data()) {
            back.out[1] = rows_of(a.dinput_gate);
            back.factor[1] = rows_of(f.u);
        }
        run_conv_job(op, back, p.size, stream);
    }
    if (a.doutput_gate.data()) {
        conv_job gate = job;
        gate.x = rows_of(f.u);
        gate.gate = rows_of(f.input_gate);
        gate.out[0] = rows_of(a.doutput_gate);
        gate.factor[0] = rows_of(a.dy);
        gate.sum_in_time = true;
        run_conv_job(op, gate, p.size, stream);
    }
    if (kernels == 0 || !(a.dk.data() || a.dk_reverse.data() || a.dD.data())) return;
    cross_job cross{};
    cross.type = stored_as<T>;
    cross.x = rows_of(f.u);
    cross.gate = rows_of(f.input_gate);
    cross.dy = rows_of(a.dy);
    cross.dy_gate = rows_of(f.output_gate);
    cross.taps = taps_of(a.dk, a.dk_reverse, a.dD, f, p);
    cross.scratch = scratch;
    cross.batch = job.batch;
    cross.dim = job.dim;
    cross.length = job.length;
    cross.pieces = p.pieces;
    cross.step = p.step;
    cross.lead = p.lead;
    cross.tasks = kernels;
    with_row_size(p.size, [&](auto n) {
        constexpr int N = decltype(n)::value;
        launch_rows(op, conv_cross_kernel<N>, grid_of<N>(kernels), block_threads<N>, block_bytes<N>, stream, cross);
    });
}

/// The same where fft_conv_backward_workspace_size is 0; otherwise shape_error.
template <class T>
void fft_conv_backward(const fft_conv_backward_args<T>& a, cudaStream_t stream)
{
    fft_conv_backward(a, {}, stream);
}

}  // namespace ssmkit::cuda
