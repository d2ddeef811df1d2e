#pragma once

#include <complex>
#include <cstddef>
#include <span>

#include <ssmkit/args/linear_scan.hpp>
#include <ssmkit/cuda/detail/chain_tiles.cuh>
#include <ssmkit/cuda/device.cuh>

namespace ssmkit::cuda {
namespace detail {

/// Tokens of a thread in registers, and as many under way.
template <class T>
inline constexpr int scan_tokens = ssmkit::detail::is_complex<T> ? 8 : 16;

template <class T, bool Turned>
using scan_tiles = chain_tiles<scan_tokens<T>, Turned, number_of<T>>;

/// One segment of one chain: 16 channels of a batch row, a tile of tokens after the other. Summary: only what the segment does to
/// the state, for the plan's slots. Time runs forwards: a reverse scan comes with its time axes reversed.
///
/// Each thread takes its tokens twice: first for what they do to a state that is not known yet, a product of factors and a sum,
/// then, when the rows before have been folded, as the recurrence itself. Bound by memory: the next tile's loads are under way
/// while one is worked on.
template <bool Turned, bool Summary, class T>
__global__ void __launch_bounds__(256, 2) linear_scan_kernel(const __grid_constant__ linear_scan_args<T> a,
                                                             const __grid_constant__ chain_plan p, bool pairs)
{
    using number = number_of<T>;
    using state_type = linear_scan_state_t<T>;
    using tiles_type = scan_tiles<T, Turned>;
    constexpr int tokens = tiles_type::tokens, tile = tiles_type::tile;
    __shared__ typename tiles_type::memory memory;
    tiles_type tiles(memory);

    const index length = a.b.extent(1), state = a.b.extent(2);
    const index segment = blockIdx.x / p.chains, chain = blockIdx.x % p.chains;
    const index b = chain / p.groups, c0 = chain % p.groups * tiles_type::channels;
    const index there = min(state - c0, index{tiles_type::channels}), c = c0 + tiles.channel;
    const bool active = tiles.channel < there, resets = a.reset.data() != nullptr;
    const index first = segment * p.segment_tokens, last = min(first + p.segment_tokens, length);
    const number zero = real_number<number>(0), one = real_number<number>(1);

    // The state before the segment, or what has been done to it.
    number h = zero, all_factor = one;
    bool all_closed = false;
    if (Summary || p.segments == 1) {
        if (active && a.initial_state.data() && segment == 0) {
            h = number_from<state_type>(load_raw(a.initial_state.pointer(b, c), false));
        }
        if constexpr (Summary) {
            if (segment == 0 && active && tiles.row == 0) write_chain_slot(p, b, 0, c, state, zero, h, true);
            h = zero;
        }
    } else {
        h = state_of_segment<tiles_type, number>(tiles, p, b, segment, c, state);
    }
    __syncthreads();  // final_state may be initial_state, which all rows have read

    const index time_a = a.a.stride(1), time_b = a.b.stride(1), time_h = a.h.stride(1);
    const bool constant = time_a == 0;
    const state_type* at_a = tiles.place(a.a, b, first, c0);
    const T* at_b = tiles.place(a.b, b, first, c0);
    T* at_h = tiles.place(a.h, b, first, c0);
    const number pole =
        constant && active && first < last ? number_from<state_type>(load_raw(a.a.pointer(b, 0, c), false)) : zero;

    raw_of<state_type> ahead_a[tokens];
    raw_of<T> ahead_b[tokens];
    typename tiles_type::flags ahead_flags{};
    const auto fetch = [&](index from) {
        if (!constant) tiles.template fetch<state_type>(ahead_a, at_a, time_a, a.a.stride(2), last - from, there, pairs);
        tiles.template fetch<T>(ahead_b, at_b, time_b, a.b.stride(2), last - from, there, pairs);
        if (resets) tiles.fetch_flags(ahead_flags, a.reset, b, from, last - from);
        at_a += tile * time_a;
        at_b += tile * time_b;
    };
    if (first < last) fetch(first);
    for (index from = first; from < last; from += tile) {
        number x[tokens], y[tokens];
        if (constant) {
#pragma unroll
            for (int i = 0; i < tokens; ++i) x[i] = pole;
        } else {
            tiles.template arrange<state_type>(ahead_a, x);
        }
        tiles.template arrange<T>(ahead_b, y);
        const unsigned begins = resets ? tiles.own_flags(ahead_flags) : 0;
        const index left = last - from;
        if (from + tile < last) fetch(from + tile);

        // A token that begins a sequence keeps nothing; one that is not there changes nothing.
        const index own_left = left - tiles.row * tokens;
        const int own = own_left <= 0 ? 0 : own_left < tokens ? static_cast<int>(own_left) : tokens;
        number factor = one, sum = zero;
        if (own == tokens && begins == 0) {
#pragma unroll
            for (int i = 0; i < tokens; ++i) {
                sum = times_plus(x[i], sum, y[i]);
                factor = times(factor, x[i]);
            }
        } else {
#pragma unroll
            for (int i = 0; i < tokens; ++i) {
                const bool is_there = i < own;
                const number next = chosen(begins >> i & 1u, y[i], times_plus(x[i], sum, y[i]));
                sum = chosen(is_there, next, sum);
                factor = chosen(is_there, times(factor, x[i]), factor);
            }
        }
        if constexpr (Summary) {
            tiles.join(factor, sum, begins != 0, all_factor, h, all_closed);
        } else {
            number s = tiles.fold(factor, sum, begins != 0, resets, h);
            if (own == tokens && begins == 0) {
#pragma unroll
                for (int i = 0; i < tokens; ++i) y[i] = s = times_plus(x[i], s, y[i]);
            } else {
#pragma unroll
                for (int i = 0; i < tokens; ++i) {
                    s = chosen(begins >> i & 1u, y[i], times_plus(x[i], s, y[i]));
                    y[i] = s;  // what is not there is not stored
                }
            }
            tiles.template store<T>(y, at_h, time_h, a.h.stride(2), left, there, pairs);
            at_h += tile * time_h;
        }
    }
    if (!active || tiles.row != 0) return;
    if constexpr (Summary) {
        write_chain_slot(p, b, segment + 1, c, state, all_factor, h, all_closed);
    } else if (a.final_state.data() && segment == p.segments - 1) {
        store_number<state_type>(h, a.final_state.pointer(b, c), false);
    }
}

template <class T>
chain_plan plan_linear_scan(const linear_scan_args<T>& a)
{
    return plan_chains(a.b.extent(0), a.b.extent(1), a.b.extent(2), 16 * scan_tokens<T>);
}

template <bool Turned, bool Summary, class T>
void launch_linear_scan(const char* op, const linear_scan_args<T>& a, const chain_plan& p, bool pairs, cudaStream_t stream)
{
    const index blocks = p.chains * (p.segments - (Summary ? 1 : 0));
    ssmkit::detail::require(blocks < (index{1} << 31), op, "b", "has more rows and channels than a grid has blocks");
    linear_scan_kernel<Turned, Summary, T><<<static_cast<unsigned>(blocks), 256, 0, stream>>>(a, p, pairs);
    require_success(op, cudaGetLastError());
}

/// With the slots of the plan in place.
template <class T>
void run_linear_scan(const char* op, linear_scan_args<T> a, const chain_plan& p, cudaStream_t stream)
{
    if (p.chains == 0) return;
    if (a.reverse) {
        a.a = a.a.reversed(1), a.b = a.b.reversed(1), a.h = a.h.reversed(1);
        if (a.reset.data()) a.reset = a.reset.reversed(1);
    }
    const bool pairs = allows_pairs(a.a) && allows_pairs(a.b) && allows_pairs(a.h);
    const auto run = [&]<bool Turned>(std::bool_constant<Turned>) {
        if (p.segments > 1) launch_linear_scan<Turned, true>(op, a, p, pairs, stream);
        launch_linear_scan<Turned, false>(op, a, p, pairs, stream);
    };
    turned_chains(a.b) ? run(std::true_type{}) : run(std::false_type{});
}

}  // namespace detail

/// Bytes of the device's memory that linear_scan needs beside its arguments: where there are fewer than 96 times 16 channels of all
/// batch rows and time is long, what each of at most 256 segments does to the state.
template <class T>
std::size_t linear_scan_workspace_size(const linear_scan_args<T>& a)
{
    const detail::chain_plan p = detail::plan_linear_scan(a);
    const std::size_t bytes = detail::chain_slot_bytes(p, a.b.extent(0), a.b.extent(2), sizeof(linear_scan_state_t<T>));
    return bytes == 0 ? 0 : bytes + 15;
}

/// The linear scan on the device: shapes, equations and options at linear_scan_args, whose views hold device pointers. T is float,
/// bfloat16, float16 or std::complex<float>. Asynchronous on `stream`. Throws shape_error before anything is launched if shapes
/// do not fit or the workspace is smaller than linear_scan_workspace_size, and cuda::error if a launch fails.
///
/// States agree with the recurrence to 2e-6 of the largest. They are the same bit for bit from run to run, but a sequence that is
/// cut elsewhere rounds elsewhere: what 16 tokens (8 if complex) do to the state is folded as a product of factors and a sum.
/// Factors may be any numbers, none is divided by; a product that overflows where the recurrence's own state does not, since that
/// is 0 or tiny, gives NaN or infinity. Bound by memory: a, unless constant in time, and b are read and h is written.
template <class T>
void linear_scan(const linear_scan_args<T>& a, std::span<std::byte> workspace, cudaStream_t stream)
{
    using namespace detail;
    static_assert(device_element<T> || std::is_same_v<T, std::complex<float>>, "float, bfloat16, float16 or std::complex<float>");
    check(a);
    ssmkit::detail::require(workspace.size() >= linear_scan_workspace_size(a), "cuda::linear_scan", "workspace",
                            "is smaller than linear_scan_workspace_size");
    chain_plan p = plan_linear_scan(a);
    place_chain_slots(p, aligned_to_16(workspace.data()), a.b.extent(0), a.b.extent(2), sizeof(linear_scan_state_t<T>));
    run_linear_scan("cuda::linear_scan", a, p, stream);
}

/// The same where linear_scan_workspace_size is 0; otherwise shape_error.
template <class T>
void linear_scan(const linear_scan_args<T>& a, cudaStream_t stream)
{
    linear_scan(a, {}, stream);
}

}  // namespace ssmkit::cuda
