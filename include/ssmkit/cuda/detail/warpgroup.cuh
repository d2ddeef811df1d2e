#pragma once

// Matrix products of a warpgroup (four warps together) out of shared memory, on the tensor cores of sm_90a: bfloat16 in, float sums.
// A lane's sums, and left operands from registers, lie as those of a warp's products do (tensor_core.cuh): warp w has rows 16 w to
// 16 w + 15. Products are under way until they are waited for; registers and tiles they use are not to be touched before.

#include <cstdint>

#include <ssmkit/cuda/detail/tensor_core.cuh>

namespace ssmkit::cuda::detail {

/// Whether the code is compiled for a device that has them: a feature of sm_90a, which code for sm_90 has to do without.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr bool warpgroup_products = true;
#else
inline constexpr bool warpgroup_products = false;
#endif

/// A tile of 16-bit elements as these products read it: panels of 64 columns, rows of 128 bytes whose sixteen-byte words are swapped
/// by the row's number, so that neither rows nor columns meet in a bank. It begins at a multiple of 1024 bytes.
template <int Rows>
struct swizzled_tile {
    static_assert(Rows % 8 == 0);
    static constexpr int panel = Rows * 64;
    __device__ static constexpr int at(int row, int column)
    {
        return column / 64 * panel + row * 64 + ((column / 8 ^ row) % 8 * 8 + column % 8);
    }
    __device__ static constexpr int far(int rows) { return rows * 64; }  // to the element so many rows on, a multiple of 8
};

/// How an operand lies in shared memory: address, and distances between its parts, in units of 16 bytes.
using operand_descriptor = std::uint64_t;

__device__ __forceinline__ operand_descriptor describe(const void* tile, std::uint32_t panel_bytes)
{
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(tile));
    constexpr std::uint64_t eight_rows = 1024, swizzle_128_bytes = std::uint64_t{1} << 62;
    return address >> 4 | std::uint64_t{panel_bytes >> 4} << 16 | eight_rows >> 4 << 32 | swizzle_128_bytes;
}

/// The operand, 64 rows (m or n) of `Rows`, whose terms are the tile's columns: those from 16 k on.
template <int Rows>
__device__ __forceinline__ operand_descriptor term_columns(operand_descriptor tile, int k)
{
    return tile + static_cast<std::uint64_t>((k / 4 * swizzled_tile<Rows>::panel * 2 + k % 4 * 32) >> 4);
}
/// The same whose terms are the tile's rows: those from 16 k on.
__device__ __forceinline__ operand_descriptor term_rows(operand_descriptor tile, int k)
{
    return tile + static_cast<std::uint64_t>((k * 16 * 128) >> 4);
}

/// Before the first of several products, whose registers were written by other means.
__device__ __forceinline__ void begin_products()
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
/// After the last of them.
__device__ __forceinline__ void end_products()
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
/// Waits for all groups of products but the last `Pending`, of which `sums` are results.
template <int Pending, int Tiles>
__device__ __forceinline__ void wait_for_products(float (&sums)[Tiles][4])
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
#pragma unroll
        for (int c = 0; c < 4; ++c) asm volatile("" : "+f"(sums[i][c])::"memory");  // not read before
    }
#endif
}
/// What threads wrote to shared memory is there for products that begin after a barrier.
__device__ __forceinline__ void publish_tiles()
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

#define SSMKIT_SUMS_8(s, i)                                                                                                        \
    "+f"(s[i][0]), "+f"(s[i][1]), "+f"(s[i][2]), "+f"(s[i][3]), "+f"(s[i + 1][0]), "+f"(s[i + 1][1]), "+f"(s[i + 1][2]),            \
        "+f"(s[i + 1][3])
#define SSMKIT_SUMS_32(s, i) SSMKIT_SUMS_8(s, i), SSMKIT_SUMS_8(s, i + 2), SSMKIT_SUMS_8(s, i + 4), SSMKIT_SUMS_8(s, i + 6)
#define SSMKIT_NAMES_32                                                                                                            \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, "      \
    "%26, %27, %28, %29, %30, %31"
#define SSMKIT_NAMES_64                                                                                                            \
    SSMKIT_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "   \
                    "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

/// sums (64, 64) = x y, or += with `add`: 16 terms, which are columns of both tiles.
__device__ __forceinline__ void multiply_tiles(float (&sums)[8][4], operand_descriptor x, operand_descriptor y, bool add)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" SSMKIT_NAMES_32 "}, %32, %33, add, 1, 1, 0, 0;\n}"
                 : SSMKIT_SUMS_32(sums, 0)
                 : "l"(x), "l"(y), "r"(static_cast<int>(add)));
#endif
}

/// The same, x from registers.
__device__ __forceinline__ void multiply_tile(float (&sums)[8][4], const left_operand& x, operand_descriptor y, bool add)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" SSMKIT_NAMES_32 "}, {%32, %33, %34, %35}, %36, add, 1, 1, 0;\n}"
                 : SSMKIT_SUMS_32(sums, 0)
                 : "r"(x.v[0]), "r"(x.v[1]), "r"(x.v[2]), "r"(x.v[3]), "l"(y), "r"(static_cast<int>(add)));
#endif
}

/// sums (64, 128) += x y: 16 terms, which are rows of y's tile.
__device__ __forceinline__ void multiply_turned_tile(float (&sums)[16][4], const left_operand& x, operand_descriptor y)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" SSMKIT_NAMES_64 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;\n"
                 : SSMKIT_SUMS_32(sums, 0), SSMKIT_SUMS_32(sums, 8)
                 : "r"(x.v[0]), "r"(x.v[1]), "r"(x.v[2]), "r"(x.v[3]), "l"(y));
#endif
}

#undef SSMKIT_SUMS_8
#undef SSMKIT_SUMS_32
#undef SSMKIT_NAMES_32
#undef SSMKIT_NAMES_64

/// Four matrices of 8 x 8 to shared memory; lane l names the row l % 8 of matrix l / 8 (Turned: its column).
template <bool Turned>
__device__ __forceinline__ void store_matrices(void* row, std::uint32_t v0, std::uint32_t v1, std::uint32_t v2, std::uint32_t v3)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
    if constexpr (Turned) {
        asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(address), "r"(v0), "r"(v1), "r"(v2),
                     "r"(v3)
                     : "memory");
    } else {
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(address), "r"(v0), "r"(v1), "r"(v2), "r"(v3)
                     : "memory");
    }
#endif
}

}  // namespace ssmkit::cuda::detail
