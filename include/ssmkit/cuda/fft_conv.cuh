#pragma once

#include <cstddef>
#include <span>

#include <ssmkit/cuda/detail/fft_conv_long.cuh>
#include <ssmkit/workspace.hpp>

namespace ssmkit::cuda {
namespace detail {

/// How rows are cut, and the ring they go through.
struct conv_plan {
    index size, pieces, step, lead, behind, ahead, reverse_width;
    bool fits_block;

    template <class T>
    conv_plan(const char* op, const fft_conv_args<T>& a)
    {
        const index length = a.u.extent(2), width = a.k.extent(2), most = std::max<index>(length - 1, 0);
        reverse_width = a.k_reverse.data() ? a.k_reverse.extent(2) : 0;
        behind = std::clamp<index>(width - 1, 0, most);
        ahead = std::clamp<index>(reverse_width - (a.reverse_includes_current ? 1 : 0), 0, most);
        const auto fitting = [](index samples) {  // twice the size holds the samples
            const index n = std::max<index>(static_cast<index>(std::bit_ceil(static_cast<std::uint64_t>(samples + 1) / 2)), 256);
            return n == 512 ? index{1024} : n;
        };
        const index taps = behind + ahead, whole = length + std::max(behind, ahead);
        bool in_pieces = false;
        size = fitting(whole);
        // A piece yields 2 size - taps outputs: from a quarter of its samples on, smaller pieces cost no more than the whole.
        if (size > 16384 || (size > 4096 && taps <= 4096)) {
            const index piece = std::max<index>(fitting(2 * taps), 4096);
            if (piece <= 16384) {
                size = piece;
                in_pieces = true;
            }
        }
        fits_block = size <= 16384;
        if (!fits_block) {
            size = long_size(whole);
            if (size > longest_ring) {
                size = long_size(2 * taps);
                in_pieces = true;
            }
            ssmkit::detail::require(size <= longest_ring, op, "k", "has more than 2^26 taps that meet a row");
        }
        lead = in_pieces ? behind : 0;
        step = in_pieces ? 2 * size - taps : std::max<index>(length, 1);
        pieces = (length + step - 1) / step;
    }
};

/// The kernels of a convolution, or their gradients, which lie as the kernels do.
template <class T, class Kernel, class Skip>
conv_taps taps_of(const Kernel& k, const Kernel& k_reverse, const Skip& D, const fft_conv_args<T>& a, const conv_plan& p)
{
    return {k.data(), k_reverse.data(), D.data(),
            k.stride(0), k.stride(1), k.stride(2),
            k_reverse.stride(0), k_reverse.stride(1), k_reverse.stride(2),
            D.stride(0), D.stride(1),
            a.k.extent(2), p.reverse_width, p.behind, p.ahead,
            a.reverse_includes_current ? 0 : 1, 1.0f / static_cast<float>(p.size)};
}

/// Launches a job for any number of rows: a grid counts tasks in 32 bits.
inline void run_conv_job(const char* op, conv_job a, index size, cudaStream_t stream)
{
    const index a_sequence = a.pieces * a.dim * (a.summed ? 1 : a.channels), batch = a.batch;
    ssmkit::detail::require(a_sequence < (index{1} << 31), op, "u", "has more rows and pieces in a sequence than are counted");
    const index part = std::max<index>(((index{1} << 31) - 1) / std::max<index>(a_sequence, 1), 1);
    const conv_job whole = a;
    const auto moved = [&](const conv_rows& r, index b) {
        conv_rows to = r;
        const index bytes = a.type == stored::f32 ? 4 : 2;
        if (r.data) to.data = static_cast<const std::byte*>(r.data) + b * r.batch * bytes;
        return to;
    };
    for (index b = 0; b < batch; b += part) {
        a.batch = std::min(part, batch - b);
        a.tasks = a.batch * a_sequence;
        a.x = moved(whole.x, b);
        a.gate = moved(whole.gate, b);
        for (int i = 0; i < 2; ++i) {
            a.out[i] = moved(whole.out[i], b);
            a.factor[i] = moved(whole.factor[i], b);
        }
        if (a.tasks == 0) continue;
        with_row_size(size, [&](auto n) {
            constexpr int N = decltype(n)::value;
            launch_rows(op, conv_rows_kernel<N>, grid_of<N>(a.tasks), block_threads<N>, block_bytes<N>, stream, a);
        });
    }
}

inline void run_conv_spectra(const char* op, const conv_taps& taps, float2* spectra, index dim, index tasks, index size,
                             cudaStream_t stream)
{
    if (tasks == 0) return;
    with_row_size(size, [&](auto n) {
        constexpr int N = decltype(n)::value;
        launch_rows(op, conv_spectra_kernel<N>, grid_of<N>(tasks), block_threads<N>, block_bytes<N>, stream, taps, spectra, dim,
                    tasks);
    });
}

inline index rows_under_way(index size)
{
    index rows = 0;
    with_row_size(size, [&](auto n) { rows = most_blocks * rows_of_block<decltype(n)::value>; });
    return rows;
}

/// What describes the rows of both passes.
template <class T>
conv_job job_of(const fft_conv_args<T>& a, const conv_plan& p)
{
    conv_job job{};
    job.type = stored_as<T>;
    job.taps = taps_of(a.k, a.k_reverse, a.D, a, p);
    job.batch = a.u.extent(0);
    job.dim = a.u.extent(1);
    job.length = a.u.extent(2);
    job.channels = a.k.extent(0);
    job.pieces = p.pieces;
    job.step = p.step;
    job.lead = p.lead;
    return job;
}

/// Of the forward pass's workspace.
template <class T>
index conv_numbers(const fft_conv_args<T>& a, const conv_plan& p)
{
    if (p.fits_block) return a.k.extent(0) * a.k.extent(1) * p.size;
    return long_job_numbers(job_of(a, p), p.size);
}

inline void require_workspace(const char* op, std::size_t have, std::size_t need)
{
    if (have >= need) return;
    ssmkit::detail::fail(std::string(op) + ": workspace has " + std::to_string(have) + " bytes, expected " + std::to_string(need));
}

}  // namespace detail

/// Bytes of the device's memory that fft_conv needs beside its arguments: the kernels' spectra, 8 (channels, dim, size), where a
/// size is about half of length + width; of sizes above 16384, 512 MB, or two rows, 16 size, if that is more.
template <class T>
std::size_t fft_conv_workspace_size(const fft_conv_args<T>& a)
{
    const detail::conv_plan p("cuda::fft_conv", a);
    if (a.u.empty()) return 0;
    ssmkit::detail::arena sizes;
    sizes.take<float2>(static_cast<std::size_t>(detail::conv_numbers(a, p)));
    return sizes.size();
}

/// The long convolution on the device: shapes, equations and options at fft_conv_args, whose views hold device pointers.
/// Asynchronous on `stream`. Throws shape_error before anything is launched if shapes do not fit, the workspace is too small, or
/// more than 2^26 taps of both kernels meet a row that no transform of 2^27 samples holds; cuda::error if a launch fails. Results
/// are the same bit for bit from run to run. Rows of up to 32768 samples and taps, or of any length with up to 16384 taps, are read
/// and written once; others go through the workspace three times.
template <class T>
void fft_conv(const fft_conv_args<T>& a, std::span<std::byte> workspace, cudaStream_t stream)
{
    using namespace detail;
    static_assert(device_element<T>, "float, bfloat16 or float16");
    constexpr const char* op = "cuda::fft_conv";
    check(a);
    require_workspace(op, workspace.size(), fft_conv_workspace_size(a));
    if (a.y.empty()) return;
    const conv_plan p(op, a);
    ssmkit::detail::arena memory(workspace);
    float2* const numbers = memory.take<float2>(static_cast<std::size_t>(conv_numbers(a, p)));
    conv_job job = job_of(a, p);
    job.x = rows_of(a.u);
    job.gate = rows_of(a.input_gate);
    job.out[0] = rows_of(a.y);
    job.factor[0] = rows_of(a.output_gate);
    if (!p.fits_block) return run_long_job(op, job, p.size, numbers, stream);
    job.spectra = numbers;
    run_conv_spectra(op, job.taps, numbers, job.dim, job.channels * job.dim, p.size, stream);
    run_conv_job(op, job, p.size, stream);
}

/// The same where fft_conv_workspace_size is 0; otherwise shape_error.
template <class T>
void fft_conv(const fft_conv_args<T>& a, cudaStream_t stream)
{
    fft_conv(a, {}, stream);
}

}  // namespace ssmkit::cuda
