#pragma once

#include <array>
#include <complex>
#include <cstddef>
#include <span>

#include <ssmkit/args/selective_scan.hpp>
#include <ssmkit/cuda/device.cuh>

namespace ssmkit::cuda {
namespace detail {

/// How a block of threads is laid over channels and states: `Lanes` neighbouring threads share a channel, each has every
/// Lanes-th state, `States` of them, in registers; `Tokens` are held in shared memory at a time.
template <int Threads, int Lanes, int States, int Tokens>
struct scan_layout {
    static constexpr int threads = Threads, lanes = Lanes, states = States, tokens = Tokens;
    static constexpr int channels = threads / lanes, padded_state = lanes * states;
    static constexpr int quads = tokens / 4;   // registers of four tokens move between global and shared memory
    static constexpr int row = tokens + 4;     // of shared memory: 16-byte rows that neighbouring threads read without conflicts
};

/// The position that is visited at a step.
template <class Args>
__device__ __forceinline__ index visited(const Args& a, index step)
{
    const index i = a.reverse ? a.u.extent(1) - 1 - step : step;
    return a.order.data() ? a.order[i] : i;
}

/// Sums p[0..7], of eight tokens, over the lanes of a channel. Lane l < 8 is left with the sums of tokens l n to l n + n - 1,
/// n = 8 / min(Lanes, 8), in p[0..n-1].
template <int Lanes>
__device__ __forceinline__ void sum_over_lanes(float (&p)[8], int lane)
{
#pragma unroll
    for (int distance = Lanes < 8 ? Lanes / 2 : 4, half = 4; distance >= 1; distance /= 2, half /= 2) {
        const bool upper = lane & distance;
#pragma unroll
        for (int i = 0; i < half; ++i) {
            const float sent = upper ? p[i] : p[i + half], kept = upper ? p[i + half] : p[i];
            p[i] = kept + __shfl_xor_sync(0xffffffffu, sent, distance);
        }
    }
#pragma unroll
    for (int distance = 8; distance < Lanes; distance *= 2) p[0] += __shfl_xor_sync(0xffffffffu, p[0], distance);
}

/// One batch row of Layout::channels channels from the first token to the last. `General` has what the plain case need not
/// ask for at every token: maps of several groups, resets, snapshots, an order.
///
/// Tiles of tokens go through two halves of shared memory: while one is worked on, the next one's loads are under way in
/// registers. Step sizes are prepared once a token and channel. What bounds it is the exponential: one a state and token, 16 a
/// cycle and multiprocessor; beside it run four multiply-adds of 128 a cycle.
template <class Layout, bool General, class T, class Param>
__global__ void __launch_bounds__(Layout::threads) selective_scan_kernel(const __grid_constant__ selective_scan_args<T, Param> a)
{
    using ssmkit::detail::is_complex;
    constexpr int parts = is_complex<Param> ? 2 : 1, quads = Layout::quads, row = Layout::row, threads = Layout::threads;
    constexpr int channels = Layout::channels, map_rows = Layout::padded_state * parts;
    constexpr int channel_items = (channels * quads + threads - 1) / threads, map_items = (map_rows * quads + threads - 1) / threads;
    constexpr int stage = row * (3 * channels + (General ? 0 : 2 * map_rows));
    extern __shared__ float4 shared_memory[];
    float* const memory = reinterpret_cast<float*>(shared_memory);

    const index length = a.u.extent(1), dim = a.u.extent(2), state = a.A.extent(1);
    const index blocks = (dim + channels - 1) / channels;
    const index b = blockIdx.x / blocks, c0 = blockIdx.x % blocks * channels;
    const int lane = threadIdx.x % Layout::lanes, own = threadIdx.x / Layout::lanes;
    const index c = c0 + own;
    const bool active = c < dim;

    // ---- what stays in registers -------------------------------------------------------------------------------------
    const auto has = [&](int s) { return active && lane + s * Layout::lanes < state; };
    const auto state_of = [&](int s) { return static_cast<index>(lane + s * Layout::lanes); };
    float rate[Layout::states][parts], h[Layout::states][parts];
#pragma unroll
    for (int s = 0; s < Layout::states; ++s) {
        if constexpr (parts == 2) {
            const Param A = has(s) ? a.A(c, state_of(s)) : Param(0);
            const Param first = has(s) && a.initial_state.data() ? a.initial_state(b, c, state_of(s)) : Param(0);
            rate[s][0] = reinterpret_cast<const float*>(&A)[0] * log2_e;
            rate[s][1] = reinterpret_cast<const float*>(&A)[1];
            h[s][0] = reinterpret_cast<const float*>(&first)[0];
            h[s][1] = reinterpret_cast<const float*>(&first)[1];
        } else {
            rate[s][0] = has(s) ? a.A(c, state_of(s)) * log2_e : 0.0f;
            h[s][0] = has(s) && a.initial_state.data() ? a.initial_state(b, c, state_of(s)) : 0.0f;
        }
    }
    const auto store_state = [&](Param* to, index state_stride) {
#pragma unroll
        for (int s = 0; s < Layout::states; ++s) {
            if (!has(s)) continue;
            float* const element = reinterpret_cast<float*>(to + state_of(s) * state_stride);
#pragma unroll
            for (int part = 0; part < parts; ++part) element[part] = h[s][part];
        }
    };

    // ---- what moves tiles between global and shared memory ------------------------------------------------------------
    // Item i is four tokens of one channel. Neighbouring threads take neighbouring channels, or tokens where those are contiguous.
    const bool turned = a.u.stride(2) != 1 && a.u.stride(1) == 1;
    const auto channel_of = [&](int i) { return turned ? i / quads : i % channels; };
    const auto quad_of = [&](int i) { return turned ? i % quads : i / channels; };
    const bool maps_turned = a.B.stride(3) != 1 && a.B.stride(1) == 1;
    const auto map_row_of = [&](int i) { return maps_turned ? i / quads : i % map_rows; };
    const auto map_quad_of = [&](int i) { return maps_turned ? i % quads : i / map_rows; };
    T u[channel_items][4], delta[channel_items][4], z[channel_items][4], z_next[channel_items][4];
    using map_element = std::conditional_t<parts == 2, float, T>;
    map_element B[General ? 1 : map_items][4], C[General ? 1 : map_items][4];
    const index group_of_B = General ? 0 : c0 / (dim / a.B.extent(2)), group_of_C = General ? 0 : c0 / (dim / a.C.extent(2));
    // Addresses of the next tile's first token; without an order a step ahead is always as far.
    const index way = a.reverse ? -1 : 1, start = a.reverse ? length - 1 : 0;
    const T *u_at[channel_items], *delta_at[channel_items], *z_at[channel_items];
    T *y_at[channel_items], *ungated_at[channel_items];
    float bias[channel_items], skip[channel_items];
    const map_element *B_at[General ? 1 : map_items], *C_at[General ? 1 : map_items];
#pragma unroll
    for (int k = 0; k < channel_items; ++k) {
        const int i = threadIdx.x + k * threads;
        const index channel = min(c0 + channel_of(i), dim - 1), t = start + way * 4 * quad_of(i);
        bias[k] = a.delta_bias.data() ? a.delta_bias[channel] : 0.0f;
        skip[k] = a.D.data() ? a.D[channel] : 0.0f;
        u_at[k] = a.u.pointer(b, t, channel);
        delta_at[k] = a.delta.pointer(b, t, channel);
        z_at[k] = a.z.pointer(b, t, channel);
        y_at[k] = a.y.pointer(b, t, channel);
        ungated_at[k] = a.y_ungated.pointer(b, t, channel);
    }
    if constexpr (!General) {
#pragma unroll
        for (int k = 0; k < map_items; ++k) {
            const int i = threadIdx.x + k * threads;
            const index n = min(static_cast<index>(map_row_of(i) / parts), max(state - 1, index{0})), t = start + way * 4 * map_quad_of(i);
            B_at[k] = reinterpret_cast<const map_element*>(a.B.pointer(b, t, group_of_B, n)) + map_row_of(i) % parts;
            C_at[k] = reinterpret_cast<const map_element*>(a.C.pointer(b, t, group_of_C, n)) + map_row_of(i) % parts;
        }
    }
    const index far_u = way * a.u.stride(1), far_delta = way * a.delta.stride(1), far_z = way * a.z.stride(1);
    const index far_y = way * a.y.stride(1), far_ungated = way * a.y_ungated.stride(1);
    const index far_B = way * a.B.stride(1) * parts, far_C = way * a.C.stride(1) * parts;
    const bool gated = a.z.data() != nullptr, kept = a.y_ungated.data() != nullptr;
    // The next four elements of a row, of which those before `count` are there.
    const auto fetch_row = [](const auto* at, index stride, int count, auto (&to)[4]) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (j < count) to[j] = *at;
            at += stride;
        }
    };
    // How many of an item's four tokens are there.
    const auto tokens_there = [&](index first, int q, bool row_there) {
        const index left = length - first - 4 * q;
        return !row_there || left <= 0 ? 0 : left < 4 ? static_cast<int>(left) : 4;
    };
    const auto fetch = [&](index first) {
        const bool whole = first + Layout::tokens <= length && c0 + channels <= dim;
#pragma unroll
        for (int k = 0; k < channel_items; ++k) {
            const int i = threadIdx.x + k * threads;
            if constexpr (channels * quads % threads != 0) {
                if (i >= channels * quads) break;
            }
            if (General && a.order.data()) {
                const index channel = min(c0 + channel_of(i), dim - 1);
                const int count = tokens_there(first, quad_of(i), c0 + channel_of(i) < dim);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if (j >= count) break;
                    const index t = visited(a, first + 4 * quad_of(i) + j);
                    u[k][j] = a.u(b, t, channel);
                    delta[k][j] = a.delta(b, t, channel);
                    if (gated) z_next[k][j] = a.z(b, t, channel);
                }
                continue;
            }
            if (whole) {
                fetch_row(u_at[k], far_u, 4, u[k]);
                fetch_row(delta_at[k], far_delta, 4, delta[k]);
                if (gated) fetch_row(z_at[k], far_z, 4, z_next[k]);
            } else {
                const int count = tokens_there(first, quad_of(i), c0 + channel_of(i) < dim);
                fetch_row(u_at[k], far_u, count, u[k]);
                fetch_row(delta_at[k], far_delta, count, delta[k]);
                if (gated) fetch_row(z_at[k], far_z, count, z_next[k]);
            }
            u_at[k] += Layout::tokens * far_u;
            delta_at[k] += Layout::tokens * far_delta;
            if (gated) z_at[k] += Layout::tokens * far_z;
        }
        if constexpr (!General) {
#pragma unroll
            for (int k = 0; k < map_items; ++k) {
                const int i = threadIdx.x + k * threads;
                if constexpr (map_rows * quads % threads != 0) {
                    if (i >= map_rows * quads) break;
                }
                const bool row_there = map_row_of(i) < state * parts;
                if (whole && row_there) {
                    fetch_row(B_at[k], far_B, 4, B[k]);
                    fetch_row(C_at[k], far_C, 4, C[k]);
                } else {
                    const int count = tokens_there(first, map_quad_of(i), row_there);
#pragma unroll
                    for (int j = 0; j < 4; ++j) B[k][j] = C[k][j] = map_element{};
                    fetch_row(B_at[k], far_B, count, B[k]);
                    fetch_row(C_at[k], far_C, count, C[k]);
                }
                B_at[k] += Layout::tokens * far_B;
                C_at[k] += Layout::tokens * far_C;
            }
        }
    };
    const auto quad = [](float* at) -> float4& { return *reinterpret_cast<float4*>(at); };
    // Beyond the last token the step is 0, which leaves the state as it is.
    const auto prepare = [&](index first, float* half) {
        const bool whole = first + Layout::tokens <= length && c0 + channels <= dim;
#pragma unroll
        for (int k = 0; k < channel_items; ++k) {
            const int i = threadIdx.x + k * threads;
            if constexpr (channels * quads % threads != 0) {
                if (i >= channels * quads) break;
            }
            float d[4], x[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                d[j] = widened(delta[k][j]) + bias[k];
                x[j] = widened(u[k][j]);
                z[k][j] = z_next[k][j];
            }
            if (a.delta_softplus) {
#pragma unroll
                for (int j = 0; j < 4; ++j) d[j] = softplus(d[j]);
            }
            if (!whole) {
                const int count = tokens_there(first, quad_of(i), c0 + channel_of(i) < dim);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if (j >= count) d[j] = x[j] = 0.0f;
                }
            }
            float* const at = half + channel_of(i) * row + 4 * quad_of(i);
            quad(at) = make_float4(d[0], d[1], d[2], d[3]);
            quad(at + channels * row) = make_float4(d[0] * x[0], d[1] * x[1], d[2] * x[2], d[3] * x[3]);
            quad(at + 2 * channels * row) = make_float4(skip[k] * x[0], skip[k] * x[1], skip[k] * x[2], skip[k] * x[3]);
        }
        if constexpr (!General) {
#pragma unroll
            for (int k = 0; k < map_items; ++k) {
                const int i = threadIdx.x + k * threads;
                if constexpr (map_rows * quads % threads != 0) {
                    if (i >= map_rows * quads) break;
                }
                float* const at = half + (3 * channels + map_row_of(i)) * row + 4 * map_quad_of(i);
                quad(at) = make_float4(widened(B[k][0]), widened(B[k][1]), widened(B[k][2]), widened(B[k][3]));
                quad(at + map_rows * row) = make_float4(widened(C[k][0]), widened(C[k][1]), widened(C[k][2]), widened(C[k][3]));
            }
        }
    };
    const auto finish = [&](index first, const float* half) {
        const bool whole = first + Layout::tokens <= length && c0 + channels <= dim;
#pragma unroll
        for (int k = 0; k < channel_items; ++k) {
            const int i = threadIdx.x + k * threads;
            if constexpr (channels * quads % threads != 0) {
                if (i >= channels * quads) break;
            }
            const float4 p4 = *reinterpret_cast<const float4*>(half + (2 * channels + channel_of(i)) * row + 4 * quad_of(i));
            const float p[4] = {p4.x, p4.y, p4.z, p4.w};
            float out[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) out[j] = gated ? p[j] * silu(widened(z[k][j])) : p[j];
            const auto store = [&](int count) {
                T *y = y_at[k], *ungated = ungated_at[k];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if (j >= count) break;
                    if (General && a.order.data()) {
                        const index t = visited(a, first + 4 * quad_of(i) + j), channel = c0 + channel_of(i);
                        a.y(b, t, channel) = narrowed<T>(out[j]);
                        if (kept) a.y_ungated(b, t, channel) = narrowed<T>(p[j]);
                        continue;
                    }
                    *y = narrowed<T>(out[j]);
                    if (kept) *ungated = narrowed<T>(p[j]);
                    y += far_y;
                    ungated += far_ungated;
                }
            };
            if (whole) {
                store(4);
            } else {
                store(tokens_there(first, quad_of(i), c0 + channel_of(i) < dim));
            }
            y_at[k] += Layout::tokens * far_y;
            ungated_at[k] += Layout::tokens * far_ungated;
        }
    };

    // ---- the recurrence --------------------------------------------------------------------------------------------------
    const auto step = [&](float d, float x, int s, float (&map_B)[parts], float (&map_C)[parts], float& p) {
        if constexpr (parts == 2) {
            const float size = exp2_fast(d * rate[s][0]);
            float sine, cosine;
            sincosf(d * rate[s][1], &sine, &cosine);
            const float re = size * cosine, im = size * sine, before = h[s][0];
            h[s][0] = fmaf(re, before, fmaf(-im, h[s][1], x * map_B[0]));
            h[s][1] = fmaf(re, h[s][1], fmaf(im, before, x * map_B[1]));
            p = fmaf(2 * h[s][0], map_C[0], fmaf(-2 * h[s][1], map_C[1], p));
        } else {
            h[s][0] = fmaf(exp2_fast(d * rate[s][0]), h[s][0], x * map_B[0]);
            p = fmaf(h[s][0], map_C[0], p);
        }
    };
    index snapshot = 0;
    const auto emit_snapshots = [&](index tokens) {
        for (; snapshot < a.snapshot_after.extent(1) && a.snapshot_after(b, snapshot) == tokens; ++snapshot) {
            store_state(a.snapshots.pointer(b, snapshot, min(c, dim - 1)), a.snapshots.stride(3));
        }
    };
    const auto run = [&](index first, float* half) {
        const float *const d_row = half + own * row, *const x_row = d_row + channels * row;
        float* const p_row = half + (2 * channels + own) * row;
#pragma unroll 2
        for (int t0 = 0; t0 < Layout::tokens; t0 += 8) {
            if (first + t0 >= length) break;
            float p[8];
#pragma unroll
            for (int q = 0; q < 2; ++q) {
                const float4 d4 = *reinterpret_cast<const float4*>(d_row + t0 + 4 * q);
                const float4 x4 = *reinterpret_cast<const float4*>(x_row + t0 + 4 * q);
                const float d[4] = {d4.x, d4.y, d4.z, d4.w}, x[4] = {x4.x, x4.y, x4.z, x4.w};
#pragma unroll
                for (int j = 0; j < 4; ++j) p[4 * q + j] = 0.0f;
                if constexpr (General) {
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        const index at = first + t0 + 4 * q + j;
                        if (at >= length) break;
                        const index t = visited(a, at);
                        emit_snapshots(at);
                        const bool reset = a.reset.data() && a.reset(b, t) != 0;
#pragma unroll
                        for (int s = 0; s < Layout::states; ++s) {
                            if (!has(s)) continue;
                            const index B_group = c / (dim / a.B.extent(2)), C_group = c / (dim / a.C.extent(2));
                            float map_B[parts], map_C[parts];
                            if constexpr (parts == 2) {
#pragma unroll
                                for (int part = 0; part < 2; ++part) {
                                    map_B[part] = reinterpret_cast<const float*>(a.B.pointer(b, t, B_group, state_of(s)))[part];
                                    map_C[part] = reinterpret_cast<const float*>(a.C.pointer(b, t, C_group, state_of(s)))[part];
                                }
                            } else {
                                map_B[0] = widened(a.B(b, t, B_group, state_of(s)));
                                map_C[0] = widened(a.C(b, t, C_group, state_of(s)));
                            }
#pragma unroll
                            for (int part = 0; part < parts; ++part) h[s][part] = reset ? 0.0f : h[s][part];
                            step(d[j], x[j], s, map_B, map_C, p[4 * q + j]);
                        }
                    }
                } else {
#pragma unroll
                    for (int s = 0; s < Layout::states; ++s) {
                        const float* const B_row = half + (3 * channels + (lane + s * Layout::lanes) * parts) * row + t0 + 4 * q;
                        float4 B4[parts], C4[parts];
#pragma unroll
                        for (int part = 0; part < parts; ++part) {
                            B4[part] = *reinterpret_cast<const float4*>(B_row + part * row);
                            C4[part] = *reinterpret_cast<const float4*>(B_row + (map_rows + part) * row);
                        }
#pragma unroll
                        for (int j = 0; j < 4; ++j) {
                            float map_B[parts], map_C[parts];
#pragma unroll
                            for (int part = 0; part < parts; ++part) {
                                map_B[part] = j == 0 ? B4[part].x : j == 1 ? B4[part].y : j == 2 ? B4[part].z : B4[part].w;
                                map_C[part] = j == 0 ? C4[part].x : j == 1 ? C4[part].y : j == 2 ? C4[part].z : C4[part].w;
                            }
                            step(d[j], x[j], s, map_B, map_C, p[4 * q + j]);
                        }
                    }
                }
            }
            sum_over_lanes<Layout::lanes>(p, lane);
            constexpr int sums = Layout::lanes < 8 ? 8 / Layout::lanes : 1;
#pragma unroll
            for (int i = 0; i < sums; ++i) {
                if (lane < 8) p_row[t0 + lane * sums + i] += p[i];
            }
        }
    };

    fetch(0);
    int at = 0;
    for (index first = 0; first < length; first += Layout::tokens) {
        float* const half = memory + at * stage;
        prepare(first, half);
        __syncthreads();
        if (first + Layout::tokens < length) fetch(first + Layout::tokens);
        run(first, half);
        __syncthreads();
        finish(first, half);
        at ^= 1;
    }
    if constexpr (General) emit_snapshots(length);
    if (active && a.final_state.data()) store_state(a.final_state.pointer(b, c), a.final_state.stride(2));
}

template <class Layout, bool General, class T, class Param>
void launch_selective_scan(const selective_scan_args<T, Param>& a, cudaStream_t stream)
{
    constexpr int parts = ssmkit::detail::is_complex<Param> ? 2 : 1;
    constexpr int bytes = 2 * 4 * Layout::row * (3 * Layout::channels + (General ? 0 : 2 * Layout::padded_state * parts));
    constexpr const char* op = "cuda::selective_scan";
    const auto kernel = selective_scan_kernel<Layout, General, T, Param>;
    require_success(op, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    const index blocks = (a.u.extent(2) + Layout::channels - 1) / Layout::channels * a.u.extent(0);
    ssmkit::detail::require(blocks < (index{1} << 31), op, "u", "has more rows and channels than a grid has blocks");
    kernel<<<static_cast<unsigned>(blocks), Layout::threads, bytes, stream>>>(a);
    require_success(op, cudaGetLastError());
}

}  // namespace detail

/// Bytes of the device's memory that selective_scan needs beside its arguments: none.
template <class T, class Param>
std::size_t selective_scan_workspace_size(const selective_scan_args<T, Param>&)
{
    return 0;
}

/// The selective scan on the device: shapes, equations and options at selective_scan_args, whose views hold device pointers.
/// Asynchronous on `stream`. Throws shape_error before anything is launched if shapes do not fit or the state
/// is larger than 1024 (512 if A is complex), and cuda::error if the launch fails; the values of order and snapshot_after are
/// trusted. Results are the same bit for bit from run to run.
template <class T, class Param>
void selective_scan(const selective_scan_args<T, Param>& a, std::span<std::byte>, cudaStream_t stream)
{
    using namespace detail;
    static_assert(device_element<T>, "float, bfloat16 or float16");
    ssmkit::detail::check_selective_scan(a, ssmkit::detail::memory::device);
    const index state = a.A.extent(1), dim = a.u.extent(2);
    constexpr bool complex = ssmkit::detail::is_complex<Param>;
    ssmkit::detail::require(state <= (complex ? 512 : 1024), "cuda::selective_scan", "A", "has more states than the device code holds");
    if (a.u.extent(0) * dim == 0) return;
    const auto shared = [&](const auto& map, int channels) {
        return map.extent(2) == 1 || dim / map.extent(2) % channels == 0;
    };
    const bool plain = !a.reset.data() && !a.snapshot_after.data() && !a.order.data();
    // The general form exists in two layouts alone: each is a kernel to compile.
    const auto try_plain = [&]<class Layout>(Layout) {
        if (!plain || !shared(a.B, Layout::channels) || !shared(a.C, Layout::channels)) return false;
        launch_selective_scan<Layout, false>(a, stream);
        return true;
    };
    if (state <= 16) {
        // Many channels: fewer threads for each, which share less work. On an H200, 12288 channels of float: 4 lanes 0.27 (40960: 0.26) of the
        // peer's time, 8 lanes 0.33; 1536: 8 lanes 0.71, 4 lanes 1.0, 16 lanes 0.79. Fewer registers through a bound on
        // them spill and lose (0.34 to 0.48 for 0.28).
        if (a.u.extent(0) * dim >= 8192 ? try_plain(scan_layout<128, 4, 4, 16>{}) : try_plain(scan_layout<128, 8, 2, 32>{})) return;
    } else if (state <= 64) {
        if (try_plain(scan_layout<256, 16, 4, 16>{})) return;
    } else if (state <= 256) {
        if (try_plain(scan_layout<256, 32, 8, 8>{})) return;
    }
    if (state <= 32) return launch_selective_scan<scan_layout<128, 8, 4, 16>, true>(a, stream);
    if (state <= 512) return launch_selective_scan<scan_layout<256, 32, 16, 8>, true>(a, stream);
    if constexpr (!complex) launch_selective_scan<scan_layout<256, 32, 32, 8>, true>(a, stream);
}

/// The same where selective_scan_workspace_size is 0; otherwise shape_error.
template <class T, class Param>
void selective_scan(const selective_scan_args<T, Param>& a, cudaStream_t stream)
{
    selective_scan(a, {}, stream);
}

}  // namespace ssmkit::cuda
