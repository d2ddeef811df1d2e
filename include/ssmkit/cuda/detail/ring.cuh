#pragma once

// Fourier transforms of real rows in shared memory, as arithmetic in a ring of polynomials.
//
// 2N real samples are a polynomial in x; modulo x^N - i, which is z_n = v_n + i v_{n+N}, nothing of it is lost, because
// x^2N + 1 = (x^N - i)(x^N + i) and its coefficients are real. Products are those modulo x^2N + 1: convolutions that change sign where
// they wrap around. So one complex transform of N numbers serves 2N real samples, and no step sorts even from odd
// afterwards. The ring falls apart along x^N - e^(i phi) = prod over j < R of (x^(N/R) - e^(i (phi + 2 pi j) / R)): a step of radix R
// turns a node of the tree into R children by a Fourier transform of R numbers, whose r-th one is multiplied by e^(i phi r / R)
// first. Those factors are all that changes from node to node, and the tree's leaves are the spectrum, in an order of its own.

#include <cstdint>

#include <ssmkit/cuda/device.cuh>

namespace ssmkit::cuda::detail {

__device__ __forceinline__ float2 plus(float2 a, float2 b) { return {a.x + b.x, a.y + b.y}; }
__device__ __forceinline__ float2 minus(float2 a, float2 b) { return {a.x - b.x, a.y - b.y}; }

/// a b, or a times the conjugate of b.
template <bool Conjugate = false>
__device__ __forceinline__ float2 times(float2 a, float2 b)
{
    if constexpr (Conjugate) {
        return {fmaf(a.x, b.x, a.y * b.y), fmaf(a.y, b.x, -a.x * b.y)};
    } else {
        return {fmaf(a.x, b.x, -a.y * b.y), fmaf(a.x, b.y, a.y * b.x)};
    }
}

/// a e^(2 pi i k / 16), or its opposite turn; k is 0, 1, 2, 3, 4, 6 or 9.
template <bool Back>
__device__ __forceinline__ float2 turned(float2 a, int k)
{
    constexpr float c = 0.92387953251128674f, s = 0.38268343236508977f, half = 0.70710678118654752f;
    switch (k) {
    case 1: return times<Back>(a, {c, s});
    case 2: return Back ? float2{half * (a.x + a.y), half * (a.y - a.x)} : float2{half * (a.x - a.y), half * (a.y + a.x)};
    case 3: return times<Back>(a, {s, c});
    case 4: return Back ? float2{a.y, -a.x} : float2{-a.y, a.x};
    case 6: return Back ? float2{half * (a.y - a.x), -half * (a.x + a.y)} : float2{-half * (a.x + a.y), half * (a.x - a.y)};
    case 9: return times<Back>(a, {-c, -s});
    default: return a;
    }
}

template <bool Back>
__device__ __forceinline__ void fourier4(float2& a, float2& b, float2& c, float2& d)
{
    const float2 even = plus(a, c), other = minus(a, c), odd = plus(b, d), turn = turned<Back>(minus(b, d), 4);
    a = plus(even, odd);
    b = plus(other, turn);
    c = minus(even, odd);
    d = minus(other, turn);
}

/// Of a node: e^(i phi k / R) for k = 1, 2, 4, 8.
struct node_factors {
    float4 low, high;
};

/// One node's step: x_r becomes child r, or, Back, the children become the node, times R.
template <int Radix, bool Back>
__device__ __forceinline__ void butterfly(float2 (&x)[Radix], const node_factors& f)
{
    const float2 w1{f.low.x, f.low.y}, w2{f.low.z, f.low.w}, w4{f.high.x, f.high.y}, w8{f.high.z, f.high.w};
    if constexpr (Radix == 2) {
        if constexpr (!Back) x[1] = times(x[1], w1);
        const float2 sum = plus(x[0], x[1]), difference = minus(x[0], x[1]);
        x[0] = sum;
        x[1] = Back ? times<true>(difference, w1) : difference;
    } else {
        // r = 4 a + b and child c + A d, with A = Radix / 4: transforms over a, turns by b c, transforms over b.
        constexpr int A = Radix / 4;
        const float2 fine[4] = {{1, 0}, w1, w2, times(w1, w2)}, coarse[4] = {{1, 0}, w4, w8, times(w8, w4)};
        float2 y[Radix];
        const auto over_a = [&] {
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                if constexpr (!Back) {
#pragma unroll
                    for (int a = 1; a < A; ++a) y[4 * a + b] = times(y[4 * a + b], coarse[a]);
                }
                if constexpr (A == 4) fourier4<Back>(y[b], y[4 + b], y[8 + b], y[12 + b]);
                if constexpr (A == 2) {
                    const float2 sum = plus(y[b], y[4 + b]), difference = minus(y[b], y[4 + b]);
                    y[b] = sum;
                    y[4 + b] = difference;
                }
                if constexpr (Back) {
#pragma unroll
                    for (int a = 1; a < A; ++a) y[4 * a + b] = times<true>(y[4 * a + b], coarse[a]);
                }
            }
        };
        const auto over_b = [&] {
#pragma unroll
            for (int c = 0; c < A; ++c) {
                if constexpr (!Back) {
#pragma unroll
                    for (int b = 1; b < 4; ++b) y[4 * c + b] = turned<false>(times(y[4 * c + b], fine[b]), b * c * (4 / A));
                }
                fourier4<Back>(y[4 * c], y[4 * c + 1], y[4 * c + 2], y[4 * c + 3]);
                if constexpr (Back) {
#pragma unroll
                    for (int b = 1; b < 4; ++b) y[4 * c + b] = times<true>(turned<true>(y[4 * c + b], b * c * (4 / A)), fine[b]);
                }
            }
        };
        if constexpr (!Back) {
#pragma unroll
            for (int r = 0; r < Radix; ++r) y[r] = x[r];
            over_a();
            over_b();
#pragma unroll
            for (int c = 0; c < A; ++c) {
#pragma unroll
                for (int d = 0; d < 4; ++d) x[c + A * d] = y[4 * c + d];
            }
        } else {
#pragma unroll
            for (int c = 0; c < A; ++c) {
#pragma unroll
                for (int d = 0; d < 4; ++d) y[4 * c + d] = x[c + A * d];
            }
            over_b();
            over_a();
#pragma unroll
            for (int r = 0; r < Radix; ++r) x[r] = y[r];
        }
    }
}

/// How a ring of 2^k numbers is laid over threads: each has Groups times 16 of them and takes Groups nodes of radix 16 in every
/// step, one after the other, so that its registers hold one; the numbers wait in shared memory between steps. The first step's
/// radix is what 16s leave of the size. `Columns` rings lie interleaved in shared memory.
template <int Size, int Groups, int Columns = 1>
struct ring {
    static constexpr int size = Size, groups = Groups, columns = Columns, threads = Size / 16 / Groups;

    static constexpr int log2_size = [] {
        int k = 0;
        while (1 << k < Size) ++k;
        return k;
    }();
    static constexpr int levels = (log2_size + 3) / 4, first_radix = 1 << (log2_size - 4 * (levels - 1));

    /// Nodes of a level.
    static constexpr int nodes(int level) { return level == 0 ? 1 : first_radix << (4 * (level - 1)); }
    static constexpr int first_node(int level)
    {
        int sum = 0;
        for (int i = 0; i < level; ++i) sum += nodes(i);
        return sum;
    }
    static constexpr int exchange_bytes = Size * Columns * 8, table_bytes = first_node(levels) * 32;

    /// Which of P roots a node has, by its place among the level's nodes: their digits in opposite order.
    static __device__ __forceinline__ unsigned root(int level, unsigned place)
    {
        if (level == 0) return 0;
        unsigned reversed = 0;
        for (int i = 1; i < level; ++i) {
            reversed = reversed << 4 | (place & 15u);
            place >>= 4;
        }
        return place + first_radix * reversed;
    }

    /// Fills the table of node_factors for the ring of x^Size - e^(2 pi i (1/4 + part) / parts): the whole one is part 0 of 1. All
    /// threads of the block call it; a barrier must follow.
    static __device__ void fill_table(node_factors* table, unsigned part, unsigned parts, int thread, int all_threads)
    {
        for (int level = 0; level < levels; ++level) {
            const unsigned count = static_cast<unsigned>(nodes(level));
            const unsigned whole = 4u * parts * count * (level == 0 ? first_radix : 16);  // of a circle: at most 2^28
            for (unsigned i = static_cast<unsigned>(thread); i < count; i += static_cast<unsigned>(all_threads)) {
                const unsigned angle = 1u + 4u * part + 4u * parts * root(level, i);
                float2 w[4];
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    // The nearest quarter and the rest, in integers: no angle is rounded before it is small.
                    const unsigned at = (angle << k) & (whole - 1), quarter = (at + whole / 8) / (whole / 4);
                    const int rest = static_cast<int>(at) - static_cast<int>(quarter * (whole / 4));
                    float s, c;
                    sincospif(2.0f * static_cast<float>(rest) / static_cast<float>(whole), &s, &c);
                    w[k] = quarter % 2 == 0 ? float2{c, s} : float2{-s, c};
                    if (quarter & 2u) w[k] = {-w[k].x, -w[k].y};
                }
                table[first_node_at(level) + static_cast<int>(i)] = {{w[0].x, w[0].y, w[1].x, w[1].y}, {w[2].x, w[2].y, w[3].x, w[3].y}};
            }
        }
    }

    /// What a thread's group g has before the first step (and after the way back): numbers place + j Size / 16.
    static __device__ __forceinline__ int place(int thread, int g) { return thread + g * threads; }

    /// To the spectrum: load(z, g) sets numbers place + j Size / 16, and use(z, g) gets leaves 16 place + j. One barrier a step is
    /// enough: a thread writes where nobody but itself has read since the last barrier. A barrier must lie between `forth` and the
    /// next one, unless it went all the way back.
    template <class Load, class Use>
    static __device__ __forceinline__ void forth(float2* memory, const node_factors* table, int thread, int column, Load&& load,
                                                 Use&& use)
    {
#pragma unroll 1
        for (int g = 0; g < Groups; ++g) {
            float2 z[16];
            load(z, g);
            first_step<false>(z, table);
            put<0>(z, memory, place(thread, g), column);
        }
        __syncthreads();
        forth_from<1>(memory, table, thread, column);
#pragma unroll 1
        for (int g = 0; g < Groups; ++g) {
            float2 z[16];
            get<levels - 1>(z, memory, place(thread, g), column);
            step<levels - 1, false>(z, table, place(thread, g));
            use(z, g);
        }
    }

    /// The way back begins with this for every group, of leaves 16 place + j; inside `use` or without a way there.
    static __device__ __forceinline__ void turn_back(float2 (&z)[16], int g, float2* memory, const node_factors* table, int thread,
                                                     int column)
    {
        step<levels - 1, true>(z, table, place(thread, g));
        put<levels - 1>(z, memory, place(thread, g), column);
    }

    /// And goes on here; store(z, g) gets numbers place + j Size / 16, times Size.
    template <class Store>
    static __device__ __forceinline__ void back(float2* memory, const node_factors* table, int thread, int column, Store&& store)
    {
        __syncthreads();
        back_from<levels - 2>(memory, table, thread, column);
#pragma unroll 1
        for (int g = 0; g < Groups; ++g) {
            float2 z[16];
            get<0>(z, memory, place(thread, g), column);
            first_step<true>(z, table);
            store(z, g);
        }
    }

private:
    static_assert(levels >= 2);

    static __device__ __forceinline__ int first_node_at(int level)
    {
        return level == 0 ? 0 : 1 + (nodes(level) - first_radix) / 15;  // first_radix (1 + 16 + ...)
    }

    template <int Level>
    static __device__ __forceinline__ float2& at(float2* memory, int place, int r, int column)
    {
        constexpr int apart = Level == 0 ? Size / 16 : Size / nodes(Level) / 16;  // of what a group has
        const int i = place / apart * (16 * apart) + place % apart + r * apart;
        // Threads whose numbers are 16 apart would meet in one bank: turned about by which 16 it is.
        return memory[(i ^ (i >> 4 & 15)) * Columns + column];
    }

    template <int Level>
    static __device__ __forceinline__ void put(const float2 (&z)[16], float2* memory, int place, int column)
    {
#pragma unroll
        for (int r = 0; r < 16; ++r) at<Level>(memory, place, r, column) = z[r];
    }

    template <int Level>
    static __device__ __forceinline__ void get(float2 (&z)[16], float2* memory, int place, int column)
    {
#pragma unroll
        for (int r = 0; r < 16; ++r) z[r] = at<Level>(memory, place, r, column);
    }

    template <bool Back>
    static __device__ __forceinline__ void first_step(float2 (&z)[16], const node_factors* table)
    {
        constexpr int apart = 16 / first_radix;
        const node_factors f = table[0];
#pragma unroll
        for (int q = 0; q < apart; ++q) {
            float2 x[first_radix];
#pragma unroll
            for (int r = 0; r < first_radix; ++r) x[r] = z[q + r * apart];
            butterfly<first_radix, Back>(x, f);
#pragma unroll
            for (int r = 0; r < first_radix; ++r) z[q + r * apart] = x[r];
        }
    }

    template <int Level, bool Back>
    static __device__ __forceinline__ void step(float2 (&z)[16], const node_factors* table, int place)
    {
        constexpr int apart = Size / nodes(Level) / 16;
        butterfly<16, Back>(z, table[first_node(Level) + place / apart]);
    }

    template <int Level, bool Back>
    static __device__ __forceinline__ void step_in_place(float2* memory, const node_factors* table, int thread, int column)
    {
#pragma unroll 1
        for (int g = 0; g < Groups; ++g) {
            float2 z[16];
            get<Level>(z, memory, place(thread, g), column);
            step<Level, Back>(z, table, place(thread, g));
            put<Level>(z, memory, place(thread, g), column);
        }
        __syncthreads();
    }

    template <int Level>
    static __device__ __forceinline__ void forth_from(float2* memory, const node_factors* table, int thread, int column)
    {
        if constexpr (Level < levels - 1) {
            step_in_place<Level, false>(memory, table, thread, column);
            forth_from<Level + 1>(memory, table, thread, column);
        }
    }

    template <int Level>
    static __device__ __forceinline__ void back_from(float2* memory, const node_factors* table, int thread, int column)
    {
        if constexpr (Level > 0) {
            step_in_place<Level, true>(memory, table, thread, column);
            back_from<Level - 1>(memory, table, thread, column);
        }
    }
};

}  // namespace ssmkit::cuda::detail
