#pragma once

// The chunked form of ssd: a block walks along the tokens of one head, 64 at a time, its state in registers.

#include <type_traits>

#include <ssmkit/cuda/detail/ssd_recurrence.cuh>
#include <ssmkit/cuda/detail/tensor_core.cuh>

namespace ssmkit::cuda::detail {

inline constexpr int ssd_piece = 64;     // tokens a chunk, and channels a block: 16 for each of its four warps
inline constexpr int ssd_threads = 128;

/// Blocks a multiprocessor is to hold: two, whose next tokens come while they work, or three with a bfloat16 state of at most 128 if
/// ssd_narrow_blocks says so, which then wait for theirs (not measured yet; there are registers for three).
inline constexpr int ssd_narrow_blocks = 2;
template <class T, int State>
inline constexpr int ssd_resident = State > 128 ? 1 : std::is_same_v<T, bfloat16> ? ssd_narrow_blocks : 2;

/// How a call is laid over blocks. Where heads are too few for the device, sequences are cut into segments: their states from zero
/// are found by a first launch, and each block of the second one joins those before it.
struct ssd_plan {
    index sequences = 0, strips = 0;      // strips of 64 channels a head
    index segments = 1, segment_chunks = 0;
    bool vector_u = false, vector_B = false, vector_C = false, vector_y = false;  // 16 bytes at a time
    float* summaries = nullptr;           // (sequences, nheads, strips, segments, state / 8, threads, 4)
    float* decays = nullptr;              // (sequences, nheads, strips, segments): the sign says that the state was set to zero
};

/// What a chunk's tokens do, in shared memory. Sums of logarithms to base 2 run from the chunk's or its sequence's first token.
struct alignas(16) ssd_steps {
    float high[ssd_piece], low[ssd_piece];  // the sum, in two floats: differences of them are exact after any strong decay
    float step[ssd_piece];                  // what the input is multiplied by
    float in[ssd_piece];                    // what is left of the state before the chunk; negative: it does not reach the token
    float out[ssd_piece];                   // step and decay to the chunk's end; if rows are packed dropped_bits: the token does not reach it
    int sequence[ssd_piece];                // how many sequences began in the chunk so far; -1: padding
    float through;                          // decay of the whole chunk; negative: the state was set to zero
};

template <class T>
using ssd_products = std::conditional_t<std::is_same_v<T, bfloat16>, bfloat16_products, float_products>;

/// Shared memory of a block. Rows are padded so that matrices are read without bank conflicts (float: B's in one of its two ways).
template <class T, int State, bool Summary>
struct ssd_tiles {
    using element = typename ssd_products<T>::element;
    static constexpr bool narrow = sizeof(element) == 2;
    static constexpr int u_row = ssd_piece + (narrow ? 8 : 4), B_row = State + (narrow ? 8 : 4), C_row = State + 8;
    static constexpr int M_row = ssd_piece + 8;
    static constexpr int stages = narrow && ssd_resident<T, State> <= 2 ? 2 : 1;  // so many blocks fit into a multiprocessor's memory
    static constexpr int C_at = ssd_piece * (u_row + B_row), stage = C_at + (Summary ? 0 : ssd_piece * C_row);
    static constexpr int M_at = stages * stage, elements = M_at + (Summary ? 0 : ssd_piece * M_row);
    static constexpr int bytes = elements * static_cast<int>(sizeof(element)) + 2 * static_cast<int>(sizeof(ssd_steps));
};

/// Brings `tokens` rows of `columns` elements to shared memory, zeros behind them.
template <int Columns, int Row, int Threads = ssd_threads, class E, class T>
__device__ __forceinline__ void ssd_load(E* tile, const T* from, index token_stride, index column_stride, index tokens,
                                         index columns, bool vectors)
{
    if (vectors) {
        constexpr int per = 16 / sizeof(T), across = Columns / per, rows = Threads / across;  // a thread's column stays
        static_assert(Threads % across == 0 && ssd_piece % rows == 0);
        const int first = threadIdx.x / across, column = threadIdx.x % across * per;
        const index mine = column < columns ? tokens : 0;
        const T* at = from + first * token_stride + column;
        E* to = tile + first * Row + column;
        const auto bring = [&](bool there) {
            if constexpr (std::is_same_v<E, T>) {
                copy_async(to, there ? at : from, there);
            } else {
                struct alignas(16) pack {
                    T v[per];
                } in{};
                if (there) in = *reinterpret_cast<const pack*>(at);
#pragma unroll
                for (int k = 0; k < per; ++k) to[k] = widened(in.v[k]);
            }
        };
        if (tokens >= ssd_piece) {  // of all threads: no row is to be asked for
            const bool there = column < columns;
#pragma unroll
            for (int row = 0; row < ssd_piece; row += rows, at += rows * token_stride, to += rows * Row) bring(there);
        } else {
#pragma unroll 1
            for (int row = first; row < ssd_piece; row += rows, at += rows * token_stride, to += rows * Row) bring(row < mine);
        }
        return;
    }
    const bool turned = column_stride != 1 && (token_stride == 1 || token_stride == -1);
    for (int i = threadIdx.x; i < ssd_piece * Columns; i += Threads) {
        const int row = turned ? i % ssd_piece : i / Columns, column = turned ? i / ssd_piece : i % Columns;
        T x{};
        if (row < tokens && column < columns) x = from[row * token_stride + column * column_stride];
        if constexpr (std::is_same_v<E, T>) {
            tile[row * Row + column] = x;
        } else {
            tile[row * Row + column] = widened(x);
        }
    }
}

/// The steps of two tokens a lane, 2 lane and the next: raw numbers in, what the chunk's products need out. By one warp.
template <bool Packed, class T>
__device__ __forceinline__ void ssd_prepare(const ssd_args<T>& a, ssd_steps& to, const T (&raw)[2], const std::int32_t (&id)[2],
                                            index tokens, float rate, float bias, std::int32_t& current, double& total, int lane)
{
    constexpr unsigned all = 0xffffffffu;
    constexpr bool packed = Packed;
    float delta[2];
    double log_decay[2];
    bool real[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        real[j] = 2 * lane + j < tokens && !(packed && id[j] < 0);
        delta[j] = real[j] ? ssd_delta(a, widened(raw[j]), bias) : 0.0f;
        const double l = static_cast<double>(delta[j]) * rate * 1.4426950408889634;
        log_decay[j] = !real[j] ? 0.0 : l < -4000.0 ? -4000.0 : l;  // -infinity would leave no differences; a NaN passes
    }
    bool first[2] = {false, false};
    int begun = 0;
    if (packed) {
        bool known = real[0] || real[1];  // the number of the last token that is no padding, up to this lane's
        std::int32_t last = real[1] ? id[1] : id[0];
        for (int distance = 1; distance < 32; distance *= 2) {
            const std::int32_t other = __shfl_up_sync(all, last, distance);
            const bool other_known = __shfl_up_sync(all, static_cast<int>(known), distance) != 0;
            if (!known && lane >= distance) last = other, known = other_known;
        }
        std::int32_t before = __shfl_up_sync(all, last, 1);
        const bool before_known = __shfl_up_sync(all, static_cast<int>(known), 1) != 0;
        if (lane == 0 || !before_known) before = current;
        first[0] = real[0] && id[0] != before;
        first[1] = real[1] && id[1] != (real[0] ? id[0] : before);
        const std::int32_t end = __shfl_sync(all, last, 31);
        if (__shfl_sync(all, static_cast<int>(known), 31)) current = end;
        begun = first[0] + first[1];
        for (int distance = 1; distance < 32; distance *= 2) {
            const int other = __shfl_up_sync(all, begun, distance);
            if (lane >= distance) begun += other;
        }
    }
    double sum = first[1] ? log_decay[1] : log_decay[0] + log_decay[1];
    bool cut = first[0] || first[1];
    for (int distance = 1; distance < 32; distance *= 2) {
        const double other = __shfl_up_sync(all, sum, distance);
        const bool other_cut = __shfl_up_sync(all, static_cast<int>(cut), distance) != 0;
        if (lane >= distance && !cut) sum += other, cut = other_cut;
    }
    double before = __shfl_up_sync(all, sum, 1);
    if (lane == 0) before = 0;
    double upto[2];
    upto[0] = first[0] ? log_decay[0] : before + log_decay[0];
    upto[1] = first[1] ? log_decay[1] : upto[0] + log_decay[1];
    const double end = __shfl_sync(all, upto[1], 31);
    const int sequences = __shfl_sync(all, begun, 31);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        const int s = 2 * lane + j, sequence = j == 0 ? begun - first[1] : begun;
        const float step = a.prescaled ? 1.0f : delta[j], high = static_cast<float>(upto[j]);
        to.high[s] = high;
        to.low[s] = static_cast<float>(upto[j] - high);
        to.step[s] = step;
        to.in[s] = sequence == 0 ? exp2_fast(high) : -1.0f;
        const bool kept = sequence == sequences && real[j];
        to.out[s] = kept ? step * exp2_fast(static_cast<float>(end - upto[j])) : (packed ? __uint_as_float(dropped_bits) : 0.0f);
        to.sequence[s] = real[j] ? sequence : -1;
    }
    if (lane == 0) to.through = sequences == 0 ? exp2_fast(static_cast<float>(end)) : -1.0f;
    total += end;
}

/// The four steps of listing 1 (section 6), a chunk at a time, for 64 channels of a head. A warp has 16 of them: their states are the
/// sums of one product and the left operand of the next without leaving its registers. `Summary` stops after the states.
///
/// What bounds it is shared memory, from which every warp reads B, C and the mixing matrix; traffic with memory is u and y.
/// bfloat16: u and the mixing matrix, rounded, are what the tensor cores multiply, and the states where outputs are made from them.
/// `Packed`: rows hold several sequences, and every token and pair of them is asked for its own.
template <class T, int State, bool Summary, bool Packed>
__global__ void __launch_bounds__(ssd_threads, ssd_resident<T, State>)
    ssd_chunks_kernel(const __grid_constant__ ssd_args<T> a, const __grid_constant__ ssd_plan plan)
{
    using products = ssd_products<T>;
    using tiles = ssd_tiles<T, State, Summary>;
    using element = typename tiles::element;
    constexpr int depth = products::depth, state_tiles = State / 8, token_terms = ssd_piece / depth;
    extern __shared__ float4 shared_memory[];
    element* const memory = reinterpret_cast<element*>(shared_memory);
    ssd_steps* const steps = reinterpret_cast<ssd_steps*>(memory + tiles::elements);
    element* const M = memory + tiles::M_at;

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, own = lane / 4, pair = lane % 4 * 2;
    const index nheads = a.u.extent(2), headdim = a.u.extent(3), state = a.B.extent(3);
    const index blocks_a_segment = nheads * plan.strips, segments = Summary ? plan.segments - 1 : plan.segments;
    const index strip = blockIdx.x % plan.strips, head = blockIdx.x / plan.strips % nheads, unit = blockIdx.x / blocks_a_segment;
    const index segment = unit % segments, sequence = unit / segments, p0 = strip * 64;
    const index summary = ((sequence * nheads + head) * plan.strips + strip) * plan.segments;
    const ssd_sequence place(a, sequence);
    const index b = place.row, group = head / (nheads / a.B.extent(2)), way = a.reverse ? -1 : 1, length = place.length();
    const index begin = segment * plan.segment_chunks * ssd_piece;
    const index end = segment + 1 == plan.segments ? length : min(length, begin + plan.segment_chunks * ssd_piece);
    constexpr bool packed = Packed;

    // ---- the state: row own (+ 8) of the warp's 16 channels, columns pair, pair + 1 of each tile -------------------------------
    float h[state_tiles][4];
    const auto channel_of = [&](int c) { return p0 + 16 * warp + own + c / 2 * 8; };
    const auto each_state = [&](const view<float, 4>& of, auto&& f) {
#pragma unroll
        for (int n = 0; n < state_tiles; ++n) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const index at = 8 * n + pair + c % 2;
                if (channel_of(c) < headdim && at < state) f(of(sequence, head, channel_of(c), at), h[n][c]);
            }
        }
    };
#pragma unroll
    for (int n = 0; n < state_tiles; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) h[n][c] = 0;
    }
    if constexpr (!Summary) {
        if (a.initial_state.data()) {
            const view<float, 4> first(const_cast<float*>(a.initial_state.data()), a.initial_state.extents(), a.initial_state.strides());
            each_state(first, [](const float& from, float& to) { to = from; });
        }
#pragma unroll 2  // the next one's states come while this one's are added: nothing else needs registers yet
        for (index k = 0; k < segment; ++k) {
            const float decay = plan.decays[summary + k];
            const float4* const part = reinterpret_cast<const float4*>(plan.summaries) +
                                       (summary + k) * (state_tiles * ssd_threads) + threadIdx.x;
#pragma unroll
            for (int n = 0; n < state_tiles; ++n) {
                const float4 q = part[n * ssd_threads];
                const float from_zero[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
                for (int c = 0; c < 4; ++c) h[n][c] = decay < 0 ? from_zero[c] : fmaf(decay, h[n][c], from_zero[c]);
            }
        }
    }

    // ---- what comes in ---------------------------------------------------------------------------------------------------------
    const auto load = [&](index first, element* to) {
        const index t = place.token(first), left = end - first;
        ssd_load<ssd_piece, tiles::u_row>(to, a.u.pointer(b, t, head, p0), way * a.u.stride(1), a.u.stride(3), left, headdim - p0,
                                          plan.vector_u);
        ssd_load<State, tiles::B_row>(to + ssd_piece * tiles::u_row, a.B.pointer(b, t, group), way * a.B.stride(1), a.B.stride(3),
                                      left, state, plan.vector_B);
        if constexpr (!Summary) {
            ssd_load<State, tiles::C_row>(to + tiles::C_at, a.C.pointer(b, t, group), way * a.C.stride(1), a.C.stride(3), left,
                                          state, plan.vector_C);
        }
        commit_copies();
    };
    const float rate = a.A[head], bias = a.delta_bias.data() ? a.delta_bias[head] : 0.0f;
    std::int32_t current = warp == 0 ? place.owner(a, begin) : 0, id[2] = {0, 0};
    T raw[2] = {};  // as stored: widening would wait for the load
    double total = 0;
    bool forgotten = false;
    const auto fetch = [&](index first) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            if (first + 2 * lane + j >= end) continue;
            const index t = place.token(first + 2 * lane + j);
            raw[j] = a.delta(b, t, head);
            if (packed) id[j] = a.seq_idx(b, t);
        }
    };
    if (begin < end) {
        if (tiles::stages == 2) load(begin, memory);
        if (warp == 0) {
            fetch(begin);
            ssd_prepare<Packed>(a, steps[0], raw, id, end - begin, rate, bias, current, total, lane);
        }
    }

    int half = 0;
    for (index first = begin; first < end; first += ssd_piece, half ^= 1) {
        element* const u = memory + (tiles::stages == 2 ? half * tiles::stage : 0);
        element* const B = u + ssd_piece * tiles::u_row;
        const element* const C = u + tiles::C_at;
        const ssd_steps& now = steps[half];
        const bool more = first + ssd_piece < end;
        if (tiles::stages == 1) {
            __syncthreads();  // all are done with the tokens before
            load(first, memory);
        }
        wait_for_copies();
        __syncthreads();
        if (tiles::stages == 2 && more) load(first + ssd_piece, memory + (half ^ 1) * tiles::stage);
        if (warp == 0 && more) fetch(first + ssd_piece);

        if constexpr (!Summary) {  // C B^T, decayed: of 16 tokens those with pieces of 16 tokens that do not come after them
            const auto pairs = [&]<int Last, int From, int To>(std::integral_constant<int, Last>, std::integral_constant<int, From>,
                                                               std::integral_constant<int, To>) {
                float g[2 * (To - From)][4] = {};
#pragma unroll 4
                for (int k = 0; k < State; k += depth) {
                    const left_operand x = products::left_rows(C, tiles::C_row, 16 * Last, k, lane);
#pragma unroll
                    for (int j = From; j < To; ++j) {
                        products::multiply(g[2 * (j - From)], g[2 * (j - From) + 1], x,
                                           products::right_rows(B, tiles::B_row, 16 * j, k, lane));
                    }
                }
                const int row[2] = {16 * Last + own, 16 * Last + own + 8};
                const float high[2] = {now.high[row[0]], now.high[row[1]]}, low[2] = {now.low[row[0]], now.low[row[1]]};
                const int of[2] = {Packed ? now.sequence[row[0]] : 0, Packed ? now.sequence[row[1]] : 0};
#pragma unroll
                for (int j = 2 * From; j < 2 * To; ++j) {
                    const int from = 8 * j + pair;
                    const float2 highs = *reinterpret_cast<const float2*>(now.high + from);
                    const float2 lows = *reinterpret_cast<const float2*>(now.low + from);
                    const float2 step = *reinterpret_cast<const float2*>(now.step + from);
                    const int2 sequence = Packed ? *reinterpret_cast<const int2*>(now.sequence + from) : int2{};
                    float m[4];
#pragma unroll
                    for (int c = 0; c < 4; ++c) {  // without a branch: each would wait for the loads before it
                        const int r = c / 2, that = c % 2 ? sequence.y : sequence.x;
                        const bool reaches = ((j < 2 * Last) | (from + c % 2 <= row[r])) & (of[r] >= 0) & (of[r] == that);
                        const float decay = exp2_fast((high[r] - (c % 2 ? highs.y : highs.x)) + (low[r] - (c % 2 ? lows.y : lows.x)));
                        m[c] = reaches ? g[j - 2 * From][c] * (decay * (c % 2 ? step.y : step.x)) : 0.0f;
                    }
                    products::store_two(M + row[0] * tiles::M_row + from, m[0], m[1]);
                    products::store_two(M + row[1] * tiles::M_row + from, m[2], m[3]);
                }
            };
            // Ten products for four warps.
            constexpr std::integral_constant<int, 0> zero;
            constexpr std::integral_constant<int, 1> one;
            constexpr std::integral_constant<int, 2> two;
            constexpr std::integral_constant<int, 3> three;
            constexpr std::integral_constant<int, 4> four;
            if (warp == 0) {
                pairs(three, zero, two);
            } else if (warp == 1) {
                pairs(three, two, four);
            } else if (warp == 2) {
                pairs(two, zero, three);
            } else {
                pairs(one, zero, two);
                pairs(zero, zero, one);
            }
        }
        if (warp == 0 && more) {  // which has the fewest products above
            ssd_prepare<Packed>(a, steps[half ^ 1], raw, id, end - first - ssd_piece, rate, bias, current, total, lane);
        }

        const auto inputs = [&](int k) { return products::left_columns(u, tiles::u_row, 16 * warp, k * depth, lane); };
        float y[8][4];
        bool clean = false;
        if constexpr (!Summary) {
            // Products with M's zeros turn a NaN of an input into one of tokens before it: where an output is NaN, once more without
            // the inputs that are not finite, which then reach the outputs by their places.
            for (;; clean = true) {
#pragma unroll
                for (int i = 0; i < 8; ++i) {
#pragma unroll
                    for (int c = 0; c < 4; ++c) y[i][c] = 0;
                }
#pragma unroll
                for (int k = 0; k < State / depth; ++k) {
                    const left_operand s = products::left_sums(h, k);
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        products::multiply(y[2 * i], y[2 * i + 1], s, products::right_rows(C, tiles::C_row, 16 * i, k * depth, lane));
                    }
                }
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    const float2 in = *reinterpret_cast<const float2*>(now.in + 8 * i + pair);
#pragma unroll
                    for (int c = 0; c < 4; ++c) {
                        const float left = c % 2 ? in.y : in.x;
                        y[i][c] = Packed && left < 0 ? 0.0f : y[i][c] * left;
                    }
                }
                if (!clean) __syncthreads();  // M is there
#pragma unroll
                for (int k = 0; k < token_terms; ++k) {
                    left_operand s = inputs(k);
                    if (clean) s = products::map(s, lane, [](float v, int) { return finite_or_zero(v); });
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        if (k * depth >= 16 * (i + 1)) continue;
                        products::multiply(y[2 * i], y[2 * i + 1], s, products::right_rows(M, tiles::M_row, 16 * i, k * depth, lane));
                    }
                }
                float sum = 0;
#pragma unroll
                for (int i = 0; i < 8; ++i) sum += (y[i][0] + y[i][1]) + (y[i][2] + y[i][3]);
                if (clean || !__any_sync(0xffffffffu, sum != sum)) break;
            }
        }

        if (packed) {  // what must not reach the state is not even multiplied by zero
            __syncthreads();
            for (int i = threadIdx.x; i < ssd_piece * State; i += ssd_threads) {
                if (__float_as_uint(now.out[i / State]) == dropped_bits) B[i / State * tiles::B_row + i % State] = element{};
            }
            __syncthreads();
        }
        const float through = now.through;
        forgotten = Packed && (forgotten || through < 0);
#pragma unroll
        for (int n = 0; n < state_tiles; ++n) {
#pragma unroll
            for (int c = 0; c < 4; ++c) h[n][c] = Packed && through < 0 ? 0.0f : h[n][c] * through;
        }
#pragma unroll
        for (int k = 0; k < token_terms; ++k) {
            const left_operand s = products::map(inputs(k), lane, [&](float v, int at) {
                return Packed ? weighted(v, now.out[k * depth + at]) : v * now.out[k * depth + at];
            });
#pragma unroll
            for (int n = 0; n < state_tiles / 2; ++n) {
                products::multiply(h[2 * n], h[2 * n + 1], s, products::right_columns(B, tiles::B_row, 16 * n, k * depth, lane));
            }
        }

        if constexpr (!Summary) {  // outputs take the place of the inputs, of which no other warp needs these
            const index left = end - first;
            if (clean) {
#pragma unroll 1
                for (int r = 0; r < 2; ++r) {
                    const element* const column = u + 16 * warp + own + 8 * r;
                    int bad = -2;  // the sequence of the last input that is not finite
#pragma unroll 1
                    for (int t = 0; t < ssd_piece; ++t) {
                        const float v = widened(column[t * tiles::u_row]);
                        if (!(fabsf(v) <= 3.402823466e38f) && now.sequence[t] >= 0) bad = now.sequence[t];
#pragma unroll
                        for (int i = 0; i < 8; ++i) {
#pragma unroll
                            for (int c = 0; c < 4; ++c) {
                                const bool here = c / 2 == r && t == 8 * i + pair + c % 2;
                                if (here && now.sequence[t] == bad) y[i][c] = __uint_as_float(0x7fffffffu);
                            }
                        }
                    }
                }
                __syncwarp();
            }
            if (a.D.data()) {
                float skip[2];
#pragma unroll
                for (int r = 0; r < 2; ++r) skip[r] = channel_of(2 * r) < headdim ? a.D(head, channel_of(2 * r)) : 0.0f;
#pragma unroll
                for (int k = 0; k < token_terms; ++k) products::add_left(y, k, inputs(k), skip);
            }
            if constexpr (Packed) {
#pragma unroll
                for (int i = 0; i < 8; ++i) {
#pragma unroll
                    for (int c = 0; c < 4; ++c) {
                        if (now.sequence[8 * i + pair + c % 2] < 0) y[i][c] = 0.0f;
                    }
                }
            }
            __syncwarp();
#pragma unroll
            for (int i = 0; i < 8; ++i) products::store_turned(u + 8 * i * tiles::u_row + 16 * warp, tiles::u_row, y[i], lane);
            __syncwarp();
            const auto finish = [&](int t, index channel, float p) {
                const index at = place.token(first + t);
                if (a.y_ungated.data()) a.y_ungated(b, at, head, channel) = narrowed<T>(p);
                const bool gated = a.z.data() && !(packed && now.sequence[t] < 0);
                a.y(b, at, head, channel) = narrowed<T>(gated ? p * silu(widened(a.z(b, at, head, channel))) : p);
            };
            if (plan.vector_y) {
                constexpr int per = 16 / sizeof(T), across = 16 / per;
                struct alignas(16) pack {
                    T v[per];
                };
                struct alignas(16) cells {
                    element v[per];
                };
                // A lane's column stays, its tokens are 32 / across apart.
                const int column = 16 * warp + lane % across * per;
                if (p0 + column < headdim) {
                    const index at = place.token(first + lane / across), row = way * (32 / across);
                    T* y_at = a.y.pointer(b, at, head, p0 + column);
                    T* ungated_at = a.y_ungated.pointer(b, at, head, p0 + column);
                    const T* z_at = a.z.pointer(b, at, head, p0 + column);
                    const element* cell = u + lane / across * tiles::u_row + column;
#pragma unroll
                    for (int t0 = 0; t0 < ssd_piece; t0 += 32 / across, cell += 32 / across * tiles::u_row) {
                        const int t = t0 + lane / across;
                        if (t < left) {
                            const cells p = *reinterpret_cast<const cells*>(cell);
                            pack out;
                            if constexpr (std::is_same_v<T, element>) {
                                out = reinterpret_cast<const pack&>(p);
                            } else {
#pragma unroll
                                for (int k = 0; k < per; ++k) out.v[k] = narrowed<T>(widened(p.v[k]));
                            }
                            if (a.y_ungated.data()) *reinterpret_cast<pack*>(ungated_at) = out;
                            if (a.z.data() && !(packed && now.sequence[t] < 0)) {
                                const pack z = *reinterpret_cast<const pack*>(z_at);
#pragma unroll
                                for (int k = 0; k < per; ++k) out.v[k] = narrowed<T>(widened(p.v[k]) * silu(widened(z.v[k])));
                            }
                            *reinterpret_cast<pack*>(y_at) = out;
                        }
                        y_at += row * a.y.stride(1);
                        ungated_at += row * a.y_ungated.stride(1);
                        z_at += row * a.z.stride(1);
                    }
                }
            } else {
                const bool turned = a.y.stride(3) != 1;
                for (int i = lane; i < ssd_piece * 16; i += 32) {
                    const int t = turned ? i % ssd_piece : i / 16, column = 16 * warp + (turned ? i / ssd_piece : i % 16);
                    if (t >= left || p0 + column >= headdim) continue;
                    finish(t, p0 + column, widened(u[t * tiles::u_row + column]));
                }
            }
        }
    }

    if constexpr (Summary) {
        float4* const to = reinterpret_cast<float4*>(plan.summaries) + (summary + segment) * (state_tiles * ssd_threads) + threadIdx.x;
#pragma unroll
        for (int n = 0; n < state_tiles; ++n) to[n * ssd_threads] = make_float4(h[n][0], h[n][1], h[n][2], h[n][3]);
        if (threadIdx.x == 0) plan.decays[summary + segment] = forgotten ? -1.0f : exp2_fast(static_cast<float>(total));
    } else if (a.final_state.data() && segment + 1 == segments) {
        each_state(a.final_state, [](float& to, const float& from) { to = from; });
    }
}

}  // namespace ssmkit::cuda::detail
