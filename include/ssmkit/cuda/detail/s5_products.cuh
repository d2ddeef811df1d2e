#pragma once

// S5's two products, of all tokens with a matrix that they share: B u before the scan, C h + D u after it.

#include <cstdint>

#include <ssmkit/cuda/detail/tensor_core.cuh>
#include <ssmkit/cuda/device.cuh>
#include <ssmkit/view.hpp>

namespace ssmkit::cuda::detail {

/// 128 tokens by 64 columns a block, 32 by 32 a warp, 32 terms of the sums at a time. Rows of 40 and 132 floats meet each bank once
/// where a warp reads its operands.
inline constexpr int product_tokens = 128, product_columns = 64, product_terms = 32, product_threads = 256;
inline constexpr int product_row = product_terms + 8, product_turned_row = product_tokens + 4;

inline index padded(index n, index to) { return (n + to - 1) / to * to; }

/// out = Σ over parts of left · rightᵀ + D u. The right side lies packed, its terms padded to product_terms for each part and its
/// rows to product_columns, with zeros.
template <class T, class Y>
struct product_args {
    view<const T, 3> left[2]{};   ///< (batch, length, terms) each
    int parts = 1;                ///< of left
    const float* right = nullptr; ///< (columns padded, parts * terms padded), 16-byte aligned
    view<const float, 1> D{};     ///< (columns) optional
    view<const Y, 3> u{};         ///< (batch, length, columns) with D; may be out
    view<Y, 3> out{};             ///< (batch, length, columns)
};

struct split_operand {
    std::uint32_t high[4], low[4];
};

__device__ __forceinline__ split_operand split(const std::uint32_t (&v)[4])
{
    split_operand s;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        s.high[i] = float_products::head(v[i]);
        s.low[i] = float_products::rest(v[i], s.high[i]);
    }
    return s;
}

/// On the tensor cores, by three products of tf32 for each of float, or two where left has 11 bits at most. A tensor core cuts its
/// sums off, always towards 0: those of 32 terms are added up apart, to the nearest, so that this does not add up. Turned: left's
/// tokens are neighbours in memory rather than its terms.
template <bool Turned, class T, class Y>
__global__ void __launch_bounds__(product_threads, 2) s5_product_kernel(const __grid_constant__ product_args<T, Y> q)
{
    constexpr int loads = product_tokens * product_terms / product_threads;
    __shared__ __align__(16) float left_tile[Turned ? product_terms * product_turned_row : product_tokens * product_row];
    __shared__ __align__(16) float right_tile[product_columns * product_row];
    const index length = q.out.extent(1), columns = q.out.extent(2), terms = q.left[0].extent(2);
    const index token_tiles = (length + product_tokens - 1) / product_tokens;
    const index column_tiles = (columns + product_columns - 1) / product_columns;
    const index c0 = blockIdx.x % column_tiles * product_columns, tile = blockIdx.x / column_tiles;
    const index b = tile / token_tiles, t0 = tile % token_tiles * product_tokens;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, m0 = warp % 4 * 32, n0 = warp / 4 * 32;

    // A thread's loads of the left tile: its own token or term, and every 2nd term or every 8th token.
    const int own_token = Turned ? threadIdx.x % product_tokens : warp, own_term = Turned ? threadIdx.x / product_tokens : lane;
    constexpr int token_step = Turned ? 0 : product_threads / 32, term_step = Turned ? product_threads / product_tokens : 0;
    const index stages = (terms + product_terms - 1) / product_terms, right_stride = q.parts * stages * product_terms;
    T left_ahead[loads];
    float4 right_ahead[2];
    const auto fetch = [&](index stage) {
        const index k0 = stage % stages * product_terms + own_term;
        const view<const T, 3>& from = stage < stages ? q.left[0] : q.left[1];
        const T* at = from.pointer(b, t0 + own_token, k0);
        const index far = token_step * from.stride(1) + term_step * from.stride(2);
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            left_ahead[i] = T{};
            if (t0 + own_token + i * token_step < length && k0 + i * term_step < terms) left_ahead[i] = *at;
            at += far;
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int item = threadIdx.x + i * product_threads;
            const int row = item / (product_terms / 4), column = item % (product_terms / 4) * 4;
            right_ahead[i] = *reinterpret_cast<const float4*>(q.right + (c0 + row) * right_stride + stage * product_terms + column);
        }
    };
    const auto put = [&] {
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int token = own_token + i * token_step, term = own_term + i * term_step;
            left_tile[Turned ? term * product_turned_row + token : token * product_row + term] = widened(left_ahead[i]);
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int item = threadIdx.x + i * product_threads;
            const int row = item / (product_terms / 4), column = item % (product_terms / 4) * 4;
            *reinterpret_cast<float4*>(right_tile + row * product_row + column) = right_ahead[i];
        }
    };

    float total[2][4][4] = {};
    const index all_stages = q.parts * stages;
    if (all_stages > 0) fetch(0);
    for (index stage = 0; stage < all_stages; ++stage) {
        __syncthreads();  // the tiles before are used up
        put();
        __syncthreads();
        if (stage + 1 < all_stages) fetch(stage + 1);
        float sums[2][4][4] = {};
#pragma unroll
        for (int k = 0; k < product_terms; k += float_products::depth) {
            split_operand x[2], y[2];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                if constexpr (Turned) {
                    x[i] = split(float_products::left_columns(left_tile, product_turned_row, m0 + 16 * i, k, lane).v);
                } else {
                    x[i] = split(float_products::left_rows(left_tile, product_row, m0 + 16 * i, k, lane).v);
                }
                y[i] = split(float_products::right_rows(right_tile, product_row, n0 + 16 * i, k, lane).v);
            }
#pragma unroll
            for (int i = 0; i < 2; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const std::uint32_t(&high)[4] = y[j / 2].high, (&low)[4] = y[j / 2].low;
                    const int at = j % 2 * 2;
                    if constexpr (sizeof(T) > 2) float_products::product(sums[i][j], x[i].low, high[at], high[at + 1]);
                    float_products::product(sums[i][j], x[i].high, low[at], low[at + 1]);
                    float_products::product(sums[i][j], x[i].high, high[at], high[at + 1]);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
#pragma unroll
                for (int e = 0; e < 4; ++e) total[i][j][e] += sums[i][j][e];
            }
        }
    }
    const bool skips = q.D.data() != nullptr;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const index t = t0 + m0 + 16 * i + lane / 4 + e / 2 * 8, c = c0 + n0 + 8 * j + lane % 4 * 2 + e % 2;
                if (t >= length || c >= columns) continue;
                float y = total[i][j][e];
                if (skips) y = fmaf(q.D[c], widened(q.u(b, t, c)), y);
                q.out(b, t, c) = narrowed<Y>(y);
            }
        }
    }
}

/// True if the rows of a batch follow one another as the tokens of one do.
template <class T>
bool batch_continues_time(const view<T, 3>& v)
{
    return v.extent(0) <= 1 || v.stride(0) == v.extent(1) * v.stride(1);
}

/// All batch rows as one.
template <class T>
view<T, 3> one_row(const view<T, 3>& v)
{
    return {v.data(), {v.extent(0) > 0 ? 1 : 0, v.extent(0) * v.extent(1), v.extent(2)}, {0, v.stride(1), v.stride(2)}};
}

template <class T, class Y>
void launch_s5_product(const char* op, product_args<T, Y> q, cudaStream_t stream)
{
    if (q.out.empty()) return;
    if (batch_continues_time(q.out) && batch_continues_time(q.left[0]) && (!q.D.data() || batch_continues_time(q.u))) {
        q.out = one_row(q.out), q.u = one_row(q.u);
        for (auto& left : q.left) left = one_row(left);
    }
    const index blocks = q.out.extent(0) * ((q.out.extent(1) + product_tokens - 1) / product_tokens) *
                         ((q.out.extent(2) + product_columns - 1) / product_columns);
    ssmkit::detail::require(blocks < (index{1} << 31), op, "u", "has more tokens than a grid has blocks");
    const auto beside = [&](std::size_t axis) { return q.left[0].stride(axis) == 1 || q.left[0].stride(axis) == -1; };
    const auto grid = static_cast<unsigned>(blocks);
    if constexpr (!std::is_same_v<T, float> || std::is_same_v<Y, float>) {
        if (beside(1) && !beside(2)) {
            s5_product_kernel<true, T, Y><<<grid, product_threads, 0, stream>>>(q);
            require_success(op, cudaGetLastError());
            return;
        }
    }
    s5_product_kernel<false, T, Y><<<grid, product_threads, 0, stream>>>(q);
    require_success(op, cudaGetLastError());
}

}  // namespace ssmkit::cuda::detail
