#pragma once

#include <complex>
#include <cstddef>
#include <span>

#include <ssmkit/args/linear_scan_backward.hpp>
#include <ssmkit/cuda/detail/chain_tiles.cuh>
#include <ssmkit/cuda/device.cuh>

namespace ssmkit::cuda {
namespace detail {

/// Half of the forward pass's: three arrays are under way.
template <class T>
inline constexpr int scan_backward_tokens = ssmkit::detail::is_complex<T> ? 4 : 8;

template <class T, bool Turned>
using scan_backward_tiles = chain_tiles<scan_backward_tokens<T>, Turned, number_of<T>>;

/// The sum of da over time, of which a block has a share: double, as there may be a million equal terms.
template <class Number>
inline constexpr int number_parts = sizeof(Number) / sizeof(float);

struct scan_backward_plan {
    chain_plan chains;
    index batch = 0;        ///< batch rows that one block takes, one after the other: all if da is their sum at every token, else 1
    double* sums = nullptr; ///< (batch, segments, state) shares of da, if it is a sum over time
};

/// One segment of one chain, as linear_scan_kernel, from the last token visited to the first: time runs forwards here, args come
/// with their axes reversed if the scan went forwards. With g what reaches a token from those visited later,
///
///     s = dh + g,   db = s,   da = s conj(h before),   g ← conj(a) s
///
/// so that what a row of tokens does to g is g ← factor g + sum again. Bound by memory: a, dh and h are read, da and db written.
template <bool Turned, bool Summary, class T>
__global__ void __launch_bounds__(256, 2) linear_scan_backward_kernel(const __grid_constant__ linear_scan_backward_args<T> a,
                                                                      const __grid_constant__ scan_backward_plan plan, bool pairs)
{
    using number = number_of<T>;
    using state_type = linear_scan_state_t<T>;
    using tiles_type = scan_backward_tiles<T, Turned>;
    constexpr int tokens = tiles_type::tokens, tile = tiles_type::tile, rows = tiles_type::rows, parts = number_parts<number>;
    __shared__ typename tiles_type::memory memory;
    __shared__ double shares[Summary ? 1 : parts * tiles_type::threads];
    tiles_type tiles(memory);

    const chain_plan& p = plan.chains;
    const linear_scan_args<T>& f = a.forward;
    const index length = a.dh.extent(1), state = a.dh.extent(2);
    const index segment = blockIdx.x / p.chains, chain = blockIdx.x % p.chains;
    const index b0 = chain / p.groups, c0 = chain % p.groups * tiles_type::channels;
    const index there = min(state - c0, index{tiles_type::channels}), c = c0 + tiles.channel;
    const bool active = tiles.channel < there, resets = f.reset.data() != nullptr;
    const bool wants_da = !Summary && a.da.data() != nullptr, wants_db = !Summary && a.db.data() != nullptr;
    const index first = segment * p.segment_tokens, last = min(first + p.segment_tokens, length);
    const number zero = real_number<number>(0), one = real_number<number>(1);
    const index time_a = f.a.stride(1), time_dh = a.dh.stride(1), time_h = f.h.stride(1), time_da = a.da.stride(1);
    const bool constant = time_a == 0;
    double share[parts] = {};

    for (index b = b0; b < b0 + plan.batch; ++b) {
        // What reaches the segment's first token, or what its tokens do to that.
        number g = zero, all_factor = one;
        bool all_closed = false;
        if (Summary || p.segments == 1) {
            if (active && a.dfinal_state.data() && segment == 0) {
                g = number_from<state_type>(load_raw(a.dfinal_state.pointer(b, c), false));
            }
            if constexpr (Summary) {
                if (segment == 0 && active && tiles.row == 0) write_chain_slot(p, b, 0, c, state, zero, g, true);
                g = zero;
            }
        } else {
            g = state_of_segment<tiles_type, number>(tiles, p, b, segment, c, state);
        }
        const number initial = wants_da && active && f.initial_state.data()
                                   ? number_from<state_type>(load_raw(f.initial_state.pointer(b, c), false))
                                   : zero;
        const state_type* at_a = tiles.place(f.a, b, first, c0);
        const T* at_dh = tiles.place(a.dh, b, first, c0);
        const T* at_h = tiles.place(f.h, b, first + 1, c0);  // the state before a token is that of the next one here
        state_type* at_da = tiles.place(a.da, b, first, c0);
        T* at_db = tiles.place(a.db, b, first, c0);
        const number pole =
            constant && active && first < last ? conjugate(number_from<state_type>(load_raw(f.a.pointer(b, 0, c), false))) : zero;

        raw_of<state_type> ahead_a[tokens];
        raw_of<T> ahead_dh[tokens], ahead_h[tokens];
        typename tiles_type::flags ahead_flags{};
        const auto fetch = [&](index from) {
            if (!constant) tiles.template fetch<state_type>(ahead_a, at_a, time_a, f.a.stride(2), last - from, there, pairs);
            tiles.template fetch<T>(ahead_dh, at_dh, time_dh, a.dh.stride(2), last - from, there, pairs);
            if (wants_da) {
                tiles.template fetch<T>(ahead_h, at_h, time_h, f.h.stride(2), min(last, length - 1) - from, there, pairs);
                at_h += tile * time_h;
            }
            if (resets) tiles.fetch_flags(ahead_flags, f.reset, b, from, last - from);
            at_a += tile * time_a;
            at_dh += tile * time_dh;
        };
        if (first < last) fetch(first);
        for (index from = first; from < last; from += tile) {
            number x[tokens], y[tokens], before[tokens];
            if (constant) {
#pragma unroll
                for (int i = 0; i < tokens; ++i) x[i] = pole;
            } else {
                tiles.template arrange<state_type>(ahead_a, x);
#pragma unroll
                for (int i = 0; i < tokens; ++i) x[i] = conjugate(x[i]);
            }
            tiles.template arrange<T>(ahead_dh, y);
            if (wants_da) tiles.template arrange<T>(ahead_h, before);
            const unsigned begins = resets ? tiles.own_flags(ahead_flags) : 0;
            const index left = last - from, own_left = left - tiles.row * tokens;
            const int own = own_left <= 0 ? 0 : own_left < tokens ? static_cast<int>(own_left) : tokens;
            if (wants_da && length - from <= tile) {
#pragma unroll
                for (int i = 0; i < tokens; ++i) {
                    if (from + tiles.row * tokens + i == length - 1) before[i] = initial;
                }
            }
            if (from + tile < last) fetch(from + tile);

            // A token that begins a sequence passes nothing on; one that is not there changes nothing.
            number factor = one, sum = zero;
            if (own == tokens && begins == 0) {
#pragma unroll
                for (int i = 0; i < tokens; ++i) {
                    sum = times(x[i], plus(y[i], sum));
                    factor = times(factor, x[i]);
                }
            } else {
#pragma unroll
                for (int i = 0; i < tokens; ++i) {
                    const bool is_there = i < own;
                    const number next = chosen(begins >> i & 1u, zero, times(x[i], plus(y[i], sum)));
                    sum = chosen(is_there, next, sum);
                    factor = chosen(is_there, times(factor, x[i]), factor);
                }
            }
            if constexpr (Summary) {
                tiles.join(factor, sum, begins != 0, all_factor, g, all_closed);
            } else {
                number later = tiles.fold(factor, sum, begins != 0, resets, g);
#pragma unroll
                for (int i = 0; i < tokens; ++i) {
                    const bool begin = begins >> i & 1u;
                    y[i] = plus(y[i], later);
                    later = chosen(begin, zero, times(x[i], y[i]));
                    if (wants_da) before[i] = chosen(begin, zero, times(y[i], conjugate(before[i])));
                }
                if (wants_da && plan.sums) {
                    number tile_sum = zero;
#pragma unroll
                    for (int i = 0; i < tokens; ++i) tile_sum = plus(tile_sum, chosen(i < own, before[i], zero));
                    if constexpr (parts == 2) {
                        share[0] += tile_sum.re, share[1] += tile_sum.im;
                    } else {
                        share[0] += tile_sum;
                    }
                } else if (wants_da) {
                    if (b > b0) {  // each element is added to by the thread that set it
                        raw_of<state_type> so_far[tokens];
                        tiles.template fetch<state_type>(so_far, at_da, time_da, a.da.stride(2), left, there, pairs);
                        number others[tokens];
                        tiles.template arrange<state_type>(so_far, others);
#pragma unroll
                        for (int i = 0; i < tokens; ++i) before[i] = plus(others[i], before[i]);
                    }
                    tiles.template store<state_type>(before, at_da, time_da, a.da.stride(2), left, there, pairs);
                    at_da += tile * time_da;
                }
                if (wants_db) {
                    tiles.template store<T>(y, at_db, a.db.stride(1), a.db.stride(2), left, there, pairs);
                    at_db += tile * a.db.stride(1);
                }
            }
        }
        if (active && tiles.row == 0) {
            if constexpr (Summary) {
                write_chain_slot(p, b, segment + 1, c, state, all_factor, g, all_closed);
            } else if (a.dinitial_state.data() && segment == p.segments - 1) {
                store_number<state_type>(g, a.dinitial_state.pointer(b, c), false);
            }
        }
    }
    if constexpr (!Summary) {
        if (!wants_da || !plan.sums) return;
#pragma unroll
        for (int part = 0; part < parts; ++part) {
            shares[part * tiles_type::threads + tiles.channel * rows + tiles.row] = share[part];
        }
        __syncthreads();
        if (!active || tiles.row != 0) return;
#pragma unroll
        for (int part = 0; part < parts; ++part) {
            double all = 0;
            for (int row = 0; row < rows; ++row) all += shares[part * tiles_type::threads + tiles.channel * rows + row];
            plan.sums[((b0 * p.segments + segment) * state + c) * parts + part] = all;
        }
    }
}

/// Adds up the shares of da, a warp for each element and each in its own order: of all segments, and of all batch rows if they
/// share da. `rows`: batch rows that da has of its own.
template <class T>
__global__ void __launch_bounds__(256) linear_scan_da_kernel(const __grid_constant__ linear_scan_backward_args<T> a,
                                                             const __grid_constant__ scan_backward_plan plan, index rows)
{
    using state_type = linear_scan_state_t<T>;
    constexpr int parts = number_parts<number_of<T>>;
    const index state = a.dh.extent(2), each = a.dh.extent(0) * plan.chains.segments / rows;
    const index item = blockIdx.x * index{8} + threadIdx.x / 32;
    if (item >= rows * state) return;
    const index b = item / state, c = item % state;
    const int lane = threadIdx.x % 32;
    double all[parts] = {};
    for (index i = lane; i < each; i += 32) {
#pragma unroll
        for (int part = 0; part < parts; ++part) all[part] += plan.sums[((b * each + i) * state + c) * parts + part];
    }
    float out[parts];
#pragma unroll
    for (int part = 0; part < parts; ++part) {
#pragma unroll
        for (int distance = 16; distance >= 1; distance /= 2) all[part] += __shfl_xor_sync(0xffffffffu, all[part], distance);
        out[part] = static_cast<float>(all[part]);
    }
    if (lane != 0) return;
    state_type* const to = a.da.pointer(b, index{0}, c);
    if constexpr (parts == 2) {
        store_number<state_type>(complex_number{out[0], out[1]}, to, false);
    } else {
        *to = out[0];
    }
}

/// Axes along which da is a sum.
template <class T>
bool sums_over(const linear_scan_backward_args<T>& a, std::size_t axis)
{
    return a.da.data() && a.da.extent(axis) > 1 && a.da.stride(axis) == 0;
}

template <class T>
chain_plan plan_linear_scan_backward(const linear_scan_backward_args<T>& a)
{
    return plan_chains(a.dh.extent(0), a.dh.extent(1), a.dh.extent(2), 16 * scan_backward_tokens<T>);
}

/// Bytes of the shares of da.
template <class T>
std::size_t scan_backward_share_bytes(const linear_scan_backward_args<T>& a, const chain_plan& p)
{
    if (!sums_over(a, 1)) return 0;
    return static_cast<std::size_t>(a.dh.extent(0) * p.segments * a.dh.extent(2)) * 2 * sizeof(linear_scan_state_t<T>);
}

template <bool Turned, bool Summary, class T>
void launch_linear_scan_backward(const linear_scan_backward_args<T>& a, const scan_backward_plan& plan, bool pairs,
                                 cudaStream_t stream)
{
    constexpr const char* op = "cuda::linear_scan_backward";
    const index blocks = plan.chains.chains * (plan.chains.segments - (Summary ? 1 : 0));
    ssmkit::detail::require(blocks < (index{1} << 31), op, "dh", "has more rows and channels than a grid has blocks");
    linear_scan_backward_kernel<Turned, Summary, T><<<static_cast<unsigned>(blocks), 256, 0, stream>>>(a, plan, pairs);
    require_success(op, cudaGetLastError());
}

}  // namespace detail

/// Bytes of the device's memory that linear_scan_backward needs beside its arguments: as linear_scan, and the shares of a da that
/// is summed over time.
template <class T>
std::size_t linear_scan_backward_workspace_size(const linear_scan_backward_args<T>& a)
{
    using namespace detail;
    const chain_plan p = plan_linear_scan_backward(a);
    const std::size_t bytes = scan_backward_share_bytes(a, p) +
                              chain_slot_bytes(p, a.dh.extent(0), a.dh.extent(2), sizeof(linear_scan_state_t<T>));
    return bytes == 0 ? 0 : bytes + 15;
}

/// The gradients of the linear scan on the device: shapes, equations and options at linear_scan_backward_args, whose views hold
/// device pointers. T is float, bfloat16, float16 or std::complex<float>. Asynchronous on `stream`. Throws shape_error before
/// anything is launched if shapes do not fit or the workspace is smaller than linear_scan_backward_workspace_size, and cuda::error
/// if a launch fails.
///
/// Gradients agree with the equations to 4e-6 of the largest, are the same bit for bit from run to run and, for what products of
/// factors overflow, as linear_scan says. A da that is summed over time is added up in double in a fixed order; one summed over
/// batch rows alone has its rows taken one after the other. Bound by memory: a, unless constant in time, dh and h are read, da and
/// db written.
template <class T>
void linear_scan_backward(const linear_scan_backward_args<T>& args, std::span<std::byte> workspace, cudaStream_t stream)
{
    using namespace detail;
    static_assert(device_element<T> || std::is_same_v<T, std::complex<float>>, "float, bfloat16, float16 or std::complex<float>");
    constexpr const char* op = "cuda::linear_scan_backward";
    check(args);
    ssmkit::detail::require(workspace.size() >= linear_scan_backward_workspace_size(args), op, "workspace",
                            "is smaller than linear_scan_backward_workspace_size");
    linear_scan_backward_args<T> a = args;
    const index batch = a.dh.extent(0), length = a.dh.extent(1), state = a.dh.extent(2);
    const bool over_time = sums_over(a, 1), over_batch = sums_over(a, 0);
    scan_backward_plan plan{.chains = plan_linear_scan_backward(a)};
    if (plan.chains.chains == 0) return;
    std::byte* const memory = aligned_to_16(workspace.data());
    if (over_time) plan.sums = reinterpret_cast<double*>(memory);
    const std::size_t shares = (scan_backward_share_bytes(a, plan.chains) + 7) / 8 * 8;
    place_chain_slots(plan.chains, memory + shares, batch, state, sizeof(linear_scan_state_t<T>));
    plan.batch = over_batch && !over_time ? batch : 1;
    if (plan.batch > 1) plan.chains.chains = plan.chains.groups;
    if (!a.forward.reverse) {
        const auto turn = [](auto& v) {
            if (v.data()) v = v.reversed(1);
        };
        turn(a.forward.a), turn(a.forward.h), turn(a.forward.reset), turn(a.dh), turn(a.da), turn(a.db);
    }
    const bool pairs = allows_pairs(a.forward.a) && allows_pairs(a.forward.h) && allows_pairs(a.dh) && allows_pairs(a.da) &&
                       allows_pairs(a.db);
    const auto run = [&]<bool Turned>(std::bool_constant<Turned>) {
        if (plan.chains.segments > 1) launch_linear_scan_backward<Turned, true>(a, plan, pairs, stream);
        launch_linear_scan_backward<Turned, false>(a, plan, pairs, stream);
    };
    turned_chains(a.dh) ? run(std::true_type{}) : run(std::false_type{});
    if (!over_time || batch * length == 0) return;
    const index rows = over_batch ? 1 : batch;
    const index blocks = (rows * state + 7) / 8;
    ssmkit::detail::require(blocks < (index{1} << 31), op, "da", "has more elements than a grid has warps");
    linear_scan_da_kernel<T><<<static_cast<unsigned>(blocks), 256, 0, stream>>>(a, plan, rows);
    require_success(op, cudaGetLastError());
}

/// The same where linear_scan_backward_workspace_size is 0; otherwise shape_error.
template <class T>
void linear_scan_backward(const linear_scan_backward_args<T>& a, cudaStream_t stream)
{
    linear_scan_backward(a, {}, stream);
}

}  // namespace ssmkit::cuda
