#pragma once

// What the chunked forms of ssd share: how a call is laid over blocks, tokens on their way to shared memory, what their steps do, and
// a block's state and outputs in global memory.

#include <type_traits>

#include <ssmkit/cuda/detail/ssd_recurrence.cuh>
#include <ssmkit/cuda/detail/tensor_core.cuh>
#include <ssmkit/cuda/detail/words.cuh>

namespace ssmkit::cuda::detail {

inline constexpr int ssd_piece = 64;     // tokens a chunk, and channels a block: 16 for each of its four warps
inline constexpr int ssd_threads = 128;

/// Blocks a multiprocessor is to hold, whose next tokens come while they work.
template <int State>
inline constexpr int ssd_resident = State > 128 ? 1 : 2;

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

/// Where an element of a tile lies: in rows of `Row` elements.
template <int Row>
struct padded_tile {
    __device__ static constexpr int at(int row, int column) { return row * Row + column; }
    __device__ static constexpr int far(int rows) { return rows * Row; }  // from an element to the one so many rows on
};

/// Brings `tokens` rows of `columns` elements to shared memory, zeros behind them.
template <int Columns, class Tile, int Threads = ssd_threads, class E, class T>
__device__ __forceinline__ void ssd_load(E* tile, const T* from, index token_stride, index column_stride, index tokens,
                                         index columns, bool vectors)
{
    if (vectors) {
        constexpr int per = 16 / sizeof(T), across = Columns / per, rows = Threads / across;  // a thread's column stays
        static_assert(Threads % across == 0 && ssd_piece % rows == 0);
        const int first = threadIdx.x / across, column = threadIdx.x % across * per;
        const index mine = column < columns ? tokens : 0;
        const T* at = from + first * token_stride + column;
        E* to = tile + Tile::at(first, column);
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
            for (int row = 0; row < ssd_piece; row += rows, at += rows * token_stride, to += Tile::far(rows)) bring(there);
        } else {
#pragma unroll 1
            for (int row = first; row < ssd_piece; row += rows, at += rows * token_stride, to += Tile::far(rows)) bring(row < mine);
        }
        return;
    }
    const bool turned = column_stride != 1 && (token_stride == 1 || token_stride == -1);
    for (int i = threadIdx.x; i < ssd_piece * Columns; i += Threads) {
        const int row = turned ? i % ssd_piece : i / Columns, column = turned ? i / ssd_piece : i % Columns;
        T x{};
        if (row < tokens && column < columns) x = from[row * token_stride + column * column_stride];
        if constexpr (std::is_same_v<E, T>) {
            tile[Tile::at(row, column)] = x;
        } else {
            tile[Tile::at(row, column)] = widened(x);
        }
    }
}

/// The rows of one operand, chunk by chunk: what ssd_load does, with an address that steps along where rows are whole.
template <int Columns, class Tile, class T>
struct ssd_rows {
    static constexpr int per = 16 / sizeof(T), across = Columns / per, rows = ssd_threads / across;
    const T* at;  // this thread's first word of the next chunk

    __device__ ssd_rows(const T* first, index token_stride)
        : at(first + threadIdx.x / across * token_stride + threadIdx.x % across * per)
    {
    }

    /// Asks for the next chunk's tokens, of which so many are left, in so many columns.
    template <class E>
    __device__ __forceinline__ void load(E* tile, index token_stride, index column_stride, index left, index columns, bool vectors)
    {
        if (std::is_same_v<E, T> && vectors && columns >= Columns && left >= ssd_piece) {
            E* const to = tile + Tile::at(threadIdx.x / across, threadIdx.x % across * per);
#pragma unroll
            for (int row = 0; row < ssd_piece; row += rows, at += rows * token_stride) copy_async(to + Tile::far(row), at);
        } else {
            const T* const base = at - threadIdx.x / across * token_stride - threadIdx.x % across * per;
            ssd_load<Columns, Tile>(tile, base, token_stride, column_stride, left, columns, vectors);
            at += ssd_piece * token_stride;
        }
    }
};

/// The steps of two tokens a lane, 2 lane and the next: raw numbers in, what the chunk's products need out. By one warp.
template <bool Packed, class T>
__device__ __forceinline__ void ssd_prepare(const ssd_args<T>& a, ssd_steps& to, const T (&raw)[2], const std::int32_t (&id)[2],
                                            index tokens, float rate, float bias, std::int32_t& current, double& total, int lane)
{
    constexpr unsigned all = 0xffffffffu;
    float delta[2];
    double log_decay[2];
    bool real[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        real[j] = 2 * lane + j < tokens && !(Packed && id[j] < 0);
        delta[j] = real[j] ? ssd_delta(a, widened(raw[j]), bias) : 0.0f;
        const double l = static_cast<double>(delta[j]) * rate * 1.4426950408889634;
        log_decay[j] = !real[j] ? 0.0 : l < -4000.0 ? -4000.0 : l;  // -infinity would leave no differences; a NaN passes
    }
    bool first[2] = {false, false};
    int begun = 0;
    if constexpr (Packed) {
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
        to.out[s] = kept ? step * exp2_fast(static_cast<float>(end - upto[j])) : (Packed ? __uint_as_float(dropped_bits) : 0.0f);
        to.sequence[s] = real[j] ? sequence : -1;
    }
    if (lane == 0) to.through = sequences == 0 ? exp2_fast(static_cast<float>(end)) : -1.0f;
    total += end;
}

/// The steps of a block's next chunk, raw in the registers of its first warp until they are prepared.
template <bool Packed, class T>
struct ssd_stepper {
    const ssd_args<T>& a;
    const ssd_sequence& place;
    const index head, end;
    const int lane;
    const float rate, bias;
    std::int32_t current, id[2] = {0, 0};
    T raw[2] = {};  // as stored: widening would wait for the load
    double total = 0;

    __device__ ssd_stepper(const ssd_args<T>& args, const ssd_sequence& place, index head, index begin, index end)
        : a(args), place(place), head(head), end(end), lane(threadIdx.x % 32), rate(a.A[head]),
          bias(a.delta_bias.data() ? a.delta_bias[head] : 0.0f), current(threadIdx.x < 32 ? place.owner(a, begin) : 0)
    {
    }
    __device__ __forceinline__ void fetch(index first)
    {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            if (first + 2 * lane + j >= end) continue;
            const index t = place.token(first + 2 * lane + j);
            raw[j] = a.delta(place.row, t, head);
            if constexpr (Packed) id[j] = a.seq_idx(place.row, t);
        }
    }
    __device__ __forceinline__ void prepare(ssd_steps& to, index first)
    {
        ssd_prepare<Packed>(a, to, raw, id, end - first, rate, bias, current, total, lane);
    }
};

/// Which 64 channels of which head a block has, along which tokens, and their states. A warp has 16 channels: in tile n of the state a
/// lane has rows `own` and `own` + 8 of them, columns 8 n + `pair` and the next, as the tensor cores leave sums. `Whole`: all operands
/// move 16 bytes at a time and fill their tiles, but for the last tokens.
template <class T, int State, bool Summary, bool Packed, bool Whole>
struct ssd_block {
    static constexpr int state_tiles = State / 8;
    const ssd_args<T>& a;
    const ssd_plan& plan;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, own = lane / 4, pair = lane % 4 * 2;
    // A grid's numbers fit an int; more registers than needed would be missed.
    const int nheads = static_cast<int>(a.u.extent(2)), strips = static_cast<int>(plan.strips);
    const int segments = static_cast<int>(Summary ? plan.segments - 1 : plan.segments);
    const int strip = blockIdx.x % strips, head = blockIdx.x / strips % nheads, unit = blockIdx.x / (nheads * strips);
    const int segment = unit % segments, sequence = unit / segments, p0 = strip * 64;
    const int group = head / (nheads / static_cast<int>(a.B.extent(2))), way = a.reverse ? -1 : 1;
    const ssd_sequence place{a, sequence};
    const index b = place.row, begin = segment * plan.segment_chunks * ssd_piece;
    const index end = segment + 1 == plan.segments ? place.length() : min(place.length(), begin + plan.segment_chunks * ssd_piece);

    __device__ __forceinline__ bool has(index channel) const { return Whole || channel < a.u.extent(3); }
    /// The place of the row's first summary.
    __device__ __forceinline__ index summary() const { return ((sequence * index{nheads} + head) * strips + strip) * plan.segments; }
    __device__ __forceinline__ index channel_of(int c) const { return p0 + 16 * warp + own + c / 2 * 8; }

    template <class F>
    __device__ __forceinline__ void each_state(const view<float, 4>& of, float (&h)[state_tiles][4], F&& f) const
    {
#pragma unroll
        for (int n = 0; n < state_tiles; ++n) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const index at = 8 * n + pair + c % 2;
                if (has(channel_of(c)) && (Whole || at < a.B.extent(3))) f(of(sequence, head, channel_of(c), at), h[n][c]);
            }
        }
    }

    /// D of the lane's two channels, or 0.
    __device__ __forceinline__ void load_skip(float (&skip)[2]) const
    {
#pragma unroll
        for (int r = 0; r < 2; ++r) skip[r] = a.D.data() && has(channel_of(2 * r)) ? a.D(head, channel_of(2 * r)) : 0.0f;
    }

    /// The state before the block's first token, from the initial state and the segments before; 0 for a summary.
    __device__ __forceinline__ void load_state(float (&h)[state_tiles][4]) const
    {
#pragma unroll
        for (int n = 0; n < state_tiles; ++n) {
#pragma unroll
            for (int c = 0; c < 4; ++c) h[n][c] = 0;
        }
        if constexpr (!Summary) {
            if (a.initial_state.data()) {
                const view<float, 4> first(const_cast<float*>(a.initial_state.data()), a.initial_state.extents(),
                                           a.initial_state.strides());
                each_state(first, h, [](const float& from, float& to) { to = from; });
            }
#pragma unroll 2  // the next one's states come while this one's are added: nothing else needs registers yet
            for (index k = 0; k < segment; ++k) {
                const float decay = plan.decays[summary() + k];
                const float4* const part = reinterpret_cast<const float4*>(plan.summaries) +
                                           (summary() + k) * (state_tiles * ssd_threads) + threadIdx.x;
#pragma unroll
                for (int n = 0; n < state_tiles; ++n) {
                    const float4 q = part[n * ssd_threads];
                    const float from_zero[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
                    for (int c = 0; c < 4; ++c) h[n][c] = decay < 0 ? from_zero[c] : fmaf(decay, h[n][c], from_zero[c]);
                }
            }
        }
    }

    /// The state after the block's last token; for a summary also the decay of all its tokens, unless the state was set to zero.
    __device__ __forceinline__ void store_state(float (&h)[state_tiles][4], double log_decay, bool forgotten) const
    {
        if constexpr (Summary) {
            float4* const to = reinterpret_cast<float4*>(plan.summaries) + (summary() + segment) * (state_tiles * ssd_threads) + threadIdx.x;
#pragma unroll
            for (int n = 0; n < state_tiles; ++n) to[n * ssd_threads] = make_float4(h[n][0], h[n][1], h[n][2], h[n][3]);
            if (threadIdx.x == 0) plan.decays[summary() + segment] = forgotten ? -1.0f : exp2_fast(static_cast<float>(log_decay));
        } else if (a.final_state.data() && segment + 1 == segments) {
            each_state(a.final_state, h, [](float& to, const float& from) { to = from; });
        }
    }

    /// u, B and C on their way to shared memory, chunk by chunk from the block's first token on.
    template <class U_tile, class B_tile, class C_tile>
    struct operands {
        const ssd_block& block;
        ssd_rows<ssd_piece, U_tile, T> u{block.a.u.pointer(block.b, block.place.token(block.begin), block.head, block.p0),
                                         block.way * block.a.u.stride(1)};
        ssd_rows<State, B_tile, T> B{block.a.B.pointer(block.b, block.place.token(block.begin), block.group), block.way * block.a.B.stride(1)};
        ssd_rows<State, C_tile, T> C{block.a.C.pointer(block.b, block.place.token(block.begin), block.group), block.way * block.a.C.stride(1)};

        template <class E>
        __device__ __forceinline__ void load(index left, E* to_u, E* to_B, E* to_C)
        {
            const ssd_args<T>& a = block.a;
            const ssd_plan& plan = block.plan;
            const index state = Whole ? State : a.B.extent(3);
            u.load(to_u, block.way * a.u.stride(1), a.u.stride(3), left, Whole ? ssd_piece : a.u.extent(3) - block.p0,
                   Whole || plan.vector_u);
            B.load(to_B, block.way * a.B.stride(1), a.B.stride(3), left, state, Whole || plan.vector_B);
            if constexpr (!Summary) C.load(to_C, block.way * a.C.stride(1), a.C.stride(3), left, state, Whole || plan.vector_C);
            commit_copies();
        }
    };

    /// What two tokens, `row` and `row` + 8, do to products with others.
    struct pair_steps {
        int row;
        float high[2], low[2];
        int sequence[2];

        __device__ __forceinline__ pair_steps(const ssd_steps& now, int row)
            : row(row), high{now.high[row], now.high[row + 8]}, low{now.low[row], now.low[row + 8]},
              sequence{Packed ? now.sequence[row] : 0, Packed ? now.sequence[row + 8] : 0}
        {
        }
    };

    /// And what two others do, a column and the next.
    struct column_steps {
        int column;
        float2 high, low, step;
        int2 sequence;

        __device__ __forceinline__ column_steps(const ssd_steps& now, int column)
            : column(column), high(*reinterpret_cast<const float2*>(now.high + column)),
              low(*reinterpret_cast<const float2*>(now.low + column)), step(*reinterpret_cast<const float2*>(now.step + column)),
              sequence(Packed ? *reinterpret_cast<const int2*>(now.sequence + column) : int2{})
        {
        }
    };

    /// Makes of C B^T at two tokens `of` C and two `from` B what mixes inputs into outputs: times the decay between them and the step,
    /// 0 where the input does not reach. `Before`: B's tokens are known to come first.
    template <bool Before>
    __device__ __forceinline__ static void decay_pairs(float (&m)[4], const pair_steps& of, const column_steps& from)
    {
#pragma unroll
        for (int c = 0; c < 4; ++c) {  // without a branch: each would wait for the loads before it
            const int r = c / 2, that = c % 2 ? from.sequence.y : from.sequence.x;
            const bool reaches = (Before | (from.column + c % 2 <= of.row + 8 * r)) & (of.sequence[r] >= 0) & (of.sequence[r] == that);
            const float high = of.high[r] - (c % 2 ? from.high.y : from.high.x), low = of.low[r] - (c % 2 ? from.low.y : from.low.x);
            m[c] = reaches ? m[c] * (exp2_fast(high + low) * (c % 2 ? from.step.y : from.step.x)) : 0.0f;
        }
    }

    /// What the state before the chunk gives: y, (channel, token), times what is left of it at each token.
    __device__ __forceinline__ static void decay_outputs(float (&y)[8][4], const float2 (&in)[8])
    {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const float left = c % 2 ? in[i].y : in[i].x;
                y[i][c] = Packed && left < 0 ? 0.0f : y[i][c] * left;
            }
        }
    }

    /// A lane's columns of what the chunk's tokens do: `in` or `out`.
    __device__ __forceinline__ void load_columns(float2 (&to)[8], const float (&of)[ssd_piece]) const
    {
#pragma unroll
        for (int i = 0; i < 8; ++i) to[i] = *reinterpret_cast<const float2*>(of + 8 * i + pair);
    }

    __device__ __forceinline__ static void decay_state(float (&h)[state_tiles][4], float through)
    {
#pragma unroll
        for (int n = 0; n < state_tiles; ++n) {
#pragma unroll
            for (int c = 0; c < 4; ++c) h[n][c] = Packed && through < 0 ? 0.0f : h[n][c] * through;
        }
    }

    /// What must not reach the state is not even multiplied by zero. By all threads, between two barriers.
    template <class Tile, class E>
    __device__ __forceinline__ static void drop_rows(E* B, const ssd_steps& now)
    {
        for (int i = threadIdx.x; i < ssd_piece * State; i += ssd_threads) {
            if (__float_as_uint(now.out[i / State]) == dropped_bits) B[Tile::at(i / State, i % State)] = E{};
        }
    }

    /// NaN where an input that is not finite comes before, in the same sequence: y was made without those.
    template <class Tile, class E>
    __device__ __forceinline__ void mark_outputs(float (&y)[8][4], const E* u, const ssd_steps& now) const
    {
#pragma unroll 1
        for (int r = 0; r < 2; ++r) {
            int bad = -2;  // the sequence of the last such input
#pragma unroll 1
            for (int t = 0; t < ssd_piece; ++t) {
                const float v = widened(u[Tile::at(t, 16 * warp + own + 8 * r)]);
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

    /// y is 0 at padding.
    __device__ __forceinline__ void clear_padding(float (&y)[8][4], const ssd_steps& now) const
    {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                if (now.sequence[8 * i + pair + c % 2] < 0) y[i][c] = 0.0f;
            }
        }
    }

    /// Outputs from where the inputs were, the warp's 16 columns of them, through the gate to global memory.
    template <class Tile, class E>
    __device__ __forceinline__ void store_outputs(const E* tile, index first, const ssd_steps& now) const
    {
        const index left = end - first;
        const auto gated = [&](int t) { return a.z.data() && !(Packed && now.sequence[t] < 0); };
        if (Whole || plan.vector_y) {
            constexpr int per = 16 / sizeof(T), across = 16 / per, apart = 32 / across, rows = ssd_piece / apart;
            // A lane's column stays, its tokens are so far apart.
            const int t0 = lane / across, column = 16 * warp + lane % across * per;
            if (!has(p0 + column)) return;
            const index at = place.token(first + t0);
            const auto word_of_row = [&](int i) {
                const E* const cell = tile + Tile::at(t0, column) + Tile::far(apart * i);
                if constexpr (sizeof(E) == sizeof(T)) {
                    return *reinterpret_cast<const uint4*>(cell);
                } else {
                    float p[per];
#pragma unroll
                    for (int k = 0; k < per; ++k) p[k] = cell[k];
                    uint4 word;
                    store_word(reinterpret_cast<T*>(&word), p);
                    return word;
                }
            };
            const auto store_rows = [&](const view<T, 4>& to) {
                uint4 words[rows];
#pragma unroll
                for (int i = 0; i < rows; ++i) words[i] = word_of_row(i);
                T* to_row = to.pointer(b, at, head, p0 + column);
                const index far = way * apart * to.stride(1);
#pragma unroll
                for (int i = 0; i < rows; ++i, to_row += far) {
                    if (t0 + apart * i < left) store_sixteen(to_row, words[i]);
                }
            };
            if (a.y_ungated.data()) store_rows(a.y_ungated);
            if (!a.z.data()) return store_rows(a.y);
            const T* z_row = a.z.pointer(b, at, head, p0 + column);
            T* y_row = a.y.pointer(b, at, head, p0 + column);
#pragma unroll
            for (int i = 0; i < rows; ++i, z_row += way * apart * a.z.stride(1), y_row += way * apart * a.y.stride(1)) {
                const int t = t0 + apart * i;
                if (t >= left) break;
                float y[per], z[per];
                const E* const cell = tile + Tile::at(t0, column) + Tile::far(apart * i);
                unpack<T, per>(load_word<per>(z_row), z);
#pragma unroll
                for (int k = 0; k < per; ++k) {
                    const float p = widened(cell[k]);
                    y[k] = gated(t) ? p * silu(z[k]) : p;
                }
                store_word(y_row, y);
            }
            return;
        }
        const bool turned = a.y.stride(3) != 1;
        for (int i = lane; i < ssd_piece * 16; i += 32) {
            const int t = turned ? i % ssd_piece : i / 16, column = 16 * warp + (turned ? i / ssd_piece : i % 16);
            const index at = place.token(first + t), channel = p0 + column;
            if (t >= left || !has(channel)) continue;
            const float p = widened(tile[Tile::at(t, column)]);
            if (a.y_ungated.data()) a.y_ungated(b, at, head, channel) = narrowed<T>(p);
            a.y(b, at, head, channel) = narrowed<T>(gated(t) ? p * silu(widened(a.z(b, at, head, channel))) : p);
        }
    }
};

}  // namespace ssmkit::cuda::detail
