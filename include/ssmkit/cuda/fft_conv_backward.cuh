#pragma once

#include <ssmkit/args/fft_conv_backward.hpp>
#include <ssmkit/cuda/fft_conv.cuh>

namespace ssmkit::cuda {
namespace detail {

template <class T>
cross_job cross_of(const fft_conv_backward_args<T>& a, const conv_plan& p)
{
    const fft_conv_args<T>& f = a.forward;
    cross_job cross{};
    cross.type = stored_as<T>;
    cross.x = rows_of(f.u);
    cross.gate = rows_of(f.input_gate);
    cross.dy = rows_of(a.dy);
    cross.dy_gate = rows_of(f.output_gate);
    cross.taps = taps_of(a.dk, a.dk_reverse, a.dD, f, p);
    cross.batch = f.u.extent(0);
    cross.dim = f.u.extent(1);
    cross.length = f.u.extent(2);
    cross.pieces = p.pieces;
    cross.step = p.step;
    cross.lead = p.lead;
    cross.tasks = f.k.extent(0) * f.k.extent(1);
    return cross;
}

/// Numbers of the workspace: spectra of kernels, and sums under way; or one part for all, where transforms do not fit a block.
struct conv_backward_numbers {
    index spectra = 0, scratch = 0;

    template <class T>
    conv_backward_numbers(const fft_conv_backward_args<T>& a, const conv_plan& p)
    {
        const index channels = a.forward.k.extent(0), kernels = channels * a.forward.k.extent(1);
        const bool sums = a.dk.data() || a.dk_reverse.data() || a.dD.data();
        if (p.fits_block) {
            spectra = kernels * p.size;
            if (sums) scratch = 2 * std::min(kernels + 128, rows_under_way(p.size)) * p.size;
            if (channels > 1) scratch = std::max(scratch, rows_under_way(p.size) * p.size);
            return;
        }
        conv_job rows = job_of(a.forward, p);
        rows.summed = channels != 1;
        if (a.du.data() || a.dinput_gate.data() || a.doutput_gate.data()) scratch = long_job_numbers(rows, p.size);
        if (sums) scratch = std::max(scratch, long_cross_numbers(cross_of(a, p), p.size));
    }
};

}  // namespace detail

/// Bytes of the device's memory that fft_conv_backward needs beside its arguments: spectra of the kernels, and sums under way.
template <class T>
std::size_t fft_conv_backward_workspace_size(const fft_conv_backward_args<T>& a)
{
    const detail::conv_plan p("cuda::fft_conv_backward", a.forward);
    const detail::conv_backward_numbers numbers(a, p);
    ssmkit::detail::arena sizes;
    sizes.take<float2>(static_cast<std::size_t>(numbers.spectra));
    sizes.take<float2>(static_cast<std::size_t>(numbers.scratch));
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
    const conv_backward_numbers numbers(a, p);
    float2* const spectra = memory.take<float2>(static_cast<std::size_t>(numbers.spectra));
    float2* const scratch = memory.take<float2>(static_cast<std::size_t>(numbers.scratch));
    conv_job job = job_of(f, p);
    job.spectra = spectra;
    job.scratch = scratch;
    job.summed = job.channels != 1;
    const auto run = [&](const conv_job& j) {
        if (p.fits_block) return run_conv_job(op, j, p.size, stream);
        run_long_job(op, j, p.size, scratch, stream);
    };
    const bool rows = a.du.data() || a.dinput_gate.data() || a.doutput_gate.data();
    // A row's kernel sums over its channels and would store what it never set.
    ssmkit::detail::require(!rows || f.u.empty() || job.channels > 0, op, "forward.k", "has no channels");
    if (rows && p.fits_block && !f.u.empty()) run_conv_spectra(op, job.taps, spectra, f.k.extent(1), kernels, p.size, stream);
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
        run(back);
    }
    if (a.doutput_gate.data()) {
        conv_job gate = job;
        gate.x = rows_of(f.u);
        gate.gate = rows_of(f.input_gate);
        gate.out[0] = rows_of(a.doutput_gate);
        gate.factor[0] = rows_of(a.dy);
        gate.sum_in_time = true;
        run(gate);
    }
    if (kernels == 0 || !(a.dk.data() || a.dk_reverse.data() || a.dD.data())) return;
    cross_job cross = cross_of(a, p);
    if (!p.fits_block) return run_long_cross(op, cross, p.size, scratch, stream);
    cross.scratch = scratch;
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
