#pragma once

// Matrix products of a warp out of tiles in shared memory, on the tensor cores: bfloat16 as it is, float by three products of tf32.
// Both take 16 rows of the left operand and 16 columns of the right one, in two halves of 8; `depth` terms of the sums at a time.
// A lane has rows lane / 4 and lane / 4 + 8 of the sums, and in each half columns 2 (lane % 4) and the next: sums[0..1] and [2..3].

#include <cstdint>

#include <ssmkit/cuda/device.cuh>

namespace ssmkit::cuda::detail {

struct left_operand {
    std::uint32_t v[4];
};
struct right_operand {
    std::uint32_t v[4];  // 0, 1: columns 0 to 7; 2, 3: columns 8 to 15
};

/// A weight that drops what it is for, NaN included.
inline constexpr std::uint32_t dropped_bits = 0xff800000u;

__device__ __forceinline__ float weighted(float x, float weight)
{
    return __float_as_uint(weight) == dropped_bits ? 0.0f : x * weight;
}

__device__ __forceinline__ float finite_or_zero(float x)
{
    return fabsf(x) <= 3.402823466e38f ? x : 0.0f;
}

/// Asks for 16 bytes to come from global to shared memory, or for zeros.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool there)
{
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from), "r"(there ? 16 : 0) : "memory");
}

__device__ __forceinline__ void copy_async(void* to, const void* from)
{
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(address), "l"(from) : "memory");
}

/// The compiler takes some stores of sixteen bytes apart.
__device__ __forceinline__ void store_sixteen(void* to, const uint4& word)
{
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};\n" ::"l"(to), "r"(word.x), "r"(word.y), "r"(word.z), "r"(word.w) : "memory");
}

__device__ __forceinline__ void commit_copies()
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}

/// Waits for all groups of copies of this thread.
__device__ __forceinline__ void wait_for_copies()
{
    asm volatile("cp.async.wait_group 0;\n" ::: "memory");
}

template <bool Turned>
__device__ __forceinline__ void load_matrices(std::uint32_t (&v)[4], const void* row)
{
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
    if constexpr (Turned) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                     : "r"(address)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                     : "r"(address)
                     : "memory");
    }
}

struct bfloat16_products {
    using element = bfloat16;
    static constexpr int depth = 16;

    __device__ static __forceinline__ std::uint32_t pack(float low, float high)
    {
        std::uint32_t both;  // the intrinsic's halves would be put together once more
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
        return both;
    }
    __device__ static __forceinline__ float low(std::uint32_t both) { return __uint_as_float(both << 16); }
    __device__ static __forceinline__ float high(std::uint32_t both) { return __uint_as_float(both & 0xffff0000u); }

    /// Left operand (m, k) from tile[m][k].
    __device__ static __forceinline__ left_operand left_rows(const element* tile, int row, int m, int k, int lane)
    {
        left_operand x;
        load_matrices<false>(x.v, tile + (m + lane % 16) * row + k + lane / 16 * 8);
        return x;
    }
    /// Left operand (m, k) from tile[k][m].
    __device__ static __forceinline__ left_operand left_columns(const element* tile, int row, int m, int k, int lane)
    {
        left_operand x;
        load_matrices<true>(x.v, tile + (k + lane % 8 + lane / 16 * 8) * row + m + lane / 8 % 2 * 8);
        return x;
    }
    /// Right operand (k, n) from tile[n][k].
    __device__ static __forceinline__ right_operand right_rows(const element* tile, int row, int n, int k, int lane)
    {
        right_operand y;
        load_matrices<false>(y.v, tile + (n + lane % 8 + lane / 16 * 8) * row + k + lane / 8 % 2 * 8);
        return y;
    }
    /// Right operand (k, n) from tile[k][n].
    __device__ static __forceinline__ right_operand right_columns(const element* tile, int row, int n, int k, int lane)
    {
        right_operand y;
        load_matrices<true>(y.v, tile + (k + lane % 16) * row + n + lane / 16 * 8);
        return y;
    }
    /// Left operand from sums, whose columns from k * depth on become its terms: a lane has them already.
    template <int Tiles>
    __device__ static __forceinline__ left_operand left_sums(const float (&s)[Tiles][4], int k)
    {
        return {{pack(s[2 * k][0], s[2 * k][1]), pack(s[2 * k][2], s[2 * k][3]), pack(s[2 * k + 1][0], s[2 * k + 1][1]),
                 pack(s[2 * k + 1][2], s[2 * k + 1][3])}};
    }
    /// f(x, k) for each element, k being its term.
    template <class F>
    __device__ static __forceinline__ left_operand map(const left_operand& x, int lane, F&& f)
    {
        const int k = lane % 4 * 2;
        left_operand y;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int at = k + i / 2 * 8;
            y.v[i] = pack(f(low(x.v[i]), at), f(high(x.v[i]), at + 1));
        }
        return y;
    }
    __device__ static __forceinline__ void product(float (&sum)[4], const left_operand& x, std::uint32_t y0, std::uint32_t y1)
    {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};\n"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(x.v[0]), "r"(x.v[1]), "r"(x.v[2]), "r"(x.v[3]), "r"(y0), "r"(y1));
    }
    __device__ static __forceinline__ void multiply(float (&first)[4], float (&second)[4], const left_operand& x,
                                                    const right_operand& y)
    {
        product(first, x, y.v[0], y.v[1]);
        product(second, x, y.v[2], y.v[3]);
    }
    /// sums + weight x, the weight being of a row and of the row eight on: the left operand's terms are the sums' columns.
    template <int Tiles>
    __device__ static __forceinline__ void add_left(float (&s)[Tiles][4], int k, const left_operand& x, const float (&weight)[2])
    {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float* const to = s[2 * k + i / 2] + i % 2 * 2;
            to[0] = fmaf(weight[i % 2], low(x.v[i]), to[0]);
            to[1] = fmaf(weight[i % 2], high(x.v[i]), to[1]);
        }
    }
    /// A tile's sums to rows of a matrix turned around: their columns are its eight rows, `row` apart.
    __device__ static __forceinline__ void store_turned(element* to, int row, const float (&s)[4], int lane)
    {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            std::uint32_t x = pack(s[2 * half], s[2 * half + 1]);
            asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(x));
            *reinterpret_cast<std::uint32_t*>(to + lane / 4 * row + 8 * half + lane % 4 * 2) = x;
        }
    }
    /// Two neighbours of a tile, the first at an even place.
    __device__ static __forceinline__ void store_two(element* to, float first, float second)
    {
        *reinterpret_cast<std::uint32_t*>(to) = pack(first, second);
    }
};

/// x = high + low, each of 11 bits: x y = high high + (high low + low high), the fourth product being below 2^-22 of it. Terms 0 to 3
/// and 4 to 7 of an instruction are the even and the odd ones here, so that a lane finds its two side by side.
struct float_products {
    using element = float;
    static constexpr int depth = 8;

    __device__ static __forceinline__ left_operand left_rows(const element* tile, int row, int m, int k, int lane)
    {
        const float* const at = tile + (m + lane / 4) * row + k + lane % 4 * 2;
        const float2 upper = *reinterpret_cast<const float2*>(at), lower = *reinterpret_cast<const float2*>(at + 8 * row);
        return {{__float_as_uint(upper.x), __float_as_uint(lower.x), __float_as_uint(upper.y), __float_as_uint(lower.y)}};
    }
    __device__ static __forceinline__ left_operand left_columns(const element* tile, int row, int m, int k, int lane)
    {
        const float* const at = tile + (k + lane % 4 * 2) * row + m + lane / 4;
        return {{__float_as_uint(at[0]), __float_as_uint(at[8]), __float_as_uint(at[row]), __float_as_uint(at[row + 8])}};
    }
    __device__ static __forceinline__ right_operand right_rows(const element* tile, int row, int n, int k, int lane)
    {
        const float* const at = tile + (n + lane / 4) * row + k + lane % 4 * 2;
        const float2 first = *reinterpret_cast<const float2*>(at), second = *reinterpret_cast<const float2*>(at + 8 * row);
        return {{__float_as_uint(first.x), __float_as_uint(first.y), __float_as_uint(second.x), __float_as_uint(second.y)}};
    }
    __device__ static __forceinline__ right_operand right_columns(const element* tile, int row, int n, int k, int lane)
    {
        const float* const at = tile + (k + lane % 4 * 2) * row + n + lane / 4;
        return {{__float_as_uint(at[0]), __float_as_uint(at[row]), __float_as_uint(at[8]), __float_as_uint(at[row + 8])}};
    }
    template <int Tiles>
    __device__ static __forceinline__ left_operand left_sums(const float (&s)[Tiles][4], int k)
    {
        return {{__float_as_uint(s[k][0]), __float_as_uint(s[k][2]), __float_as_uint(s[k][1]), __float_as_uint(s[k][3])}};
    }
    template <class F>
    __device__ static __forceinline__ left_operand map(const left_operand& x, int lane, F&& f)
    {
        const int k = lane % 4 * 2;
        left_operand y;
#pragma unroll
        for (int i = 0; i < 4; ++i) y.v[i] = __float_as_uint(f(__uint_as_float(x.v[i]), k + i / 2));
        return y;
    }
    /// Rounded to 11 bits; a NaN whose bits overflow in this is still one in `rest`.
    __device__ static __forceinline__ std::uint32_t head(std::uint32_t x) { return (x + 0x1000u) & 0xffffe000u; }
    __device__ static __forceinline__ std::uint32_t rest(std::uint32_t x, std::uint32_t high)
    {
        return __float_as_uint(__uint_as_float(x) - __uint_as_float(high));
    }
    __device__ static __forceinline__ void product(float (&sum)[4], const std::uint32_t (&x)[4], std::uint32_t y0, std::uint32_t y1)
    {
        asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};\n"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y0), "r"(y1));
    }
    __device__ static __forceinline__ void multiply(float (&first)[4], float (&second)[4], const left_operand& x,
                                                    const right_operand& y)
    {
        std::uint32_t xh[4], xl[4], yh[4], yl[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            xh[i] = head(x.v[i]), xl[i] = rest(x.v[i], xh[i]);
            yh[i] = head(y.v[i]), yl[i] = rest(y.v[i], yh[i]);
        }
        product(first, xl, yh[0], yh[1]);
        product(second, xl, yh[2], yh[3]);
        product(first, xh, yl[0], yl[1]);
        product(second, xh, yl[2], yl[3]);
        product(first, xh, yh[0], yh[1]);
        product(second, xh, yh[2], yh[3]);
    }
    template <int Tiles>
    __device__ static __forceinline__ void add_left(float (&s)[Tiles][4], int k, const left_operand& x, const float (&weight)[2])
    {
#pragma unroll
        for (int i = 0; i < 4; ++i) s[k][i % 2 * 2 + i / 2] = fmaf(weight[i % 2], __uint_as_float(x.v[i]), s[k][i % 2 * 2 + i / 2]);
    }
    __device__ static __forceinline__ void store_turned(element* to, int row, const float (&s)[4], int lane)
    {
#pragma unroll
        for (int c = 0; c < 4; ++c) to[(lane % 4 * 2 + c % 2) * row + lane / 4 + c / 2 * 8] = s[c];
    }
    __device__ static __forceinline__ void store_two(element* to, float first, float second)
    {
        *reinterpret_cast<float2*>(to) = make_float2(first, second);
    }
};

}  // namespace ssmkit::cuda::detail
