#pragma once

// What both passes of S7's scan share: pieces of a few dozen tokens, whose products with B and C are tasks of their own, and
// spans of them, between whose products the recurrence runs; and a token's matrices, rows of states, meeting vectors. The lanes
// run along the states.

#include <algorithm>

#include <ssmkit/args/s7_scan_backward.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit::detail {

template <class Arch, class T>
struct s7_shape {
    using R = compute_t<T>;
    static constexpr index longest_piece = 32;
    index batch, length, state, pitch;  // pitch: states in whole registers
    index piece, pieces, span;

    s7_shape(const s7_scan_args<T>& a, std::size_t concurrency)
        : batch(a.u.extent(0)), length(a.u.extent(1)), state(a.A.extent(2)),
          pitch((state + lanes<R, Arch> - 1) / lanes<R, Arch> * lanes<R, Arch>), piece(std::min(longest_piece, length)),
          pieces(length > 0 ? (length + piece - 1) / piece : 0),
          span(concurrency > 1 ? std::min(static_cast<index>(4 * concurrency), std::max<index>(total(), 1)) : 1)
    {
    }

    index total() const { return batch * pieces; }
    index row(index i) const { return i / pieces; }
    index first(index i) const { return i % pieces * piece; }
    index tokens(index i) const { return std::min(piece, length - first(i)); }
    index panel() const { return piece * pitch; }

    /// Calls work(k, i) for `count` pieces from `from` on, k counting from 0.
    template <class Exec, class F>
    void for_pieces(Exec& exec, index from, index count, F&& work) const
    {
        run_tasks(exec, static_cast<std::size_t>(count), [&](std::size_t k, std::size_t) {
            const flush_denormals guard;
            work(static_cast<index>(k), from + static_cast<index>(k));
        });
    }
};

/// out = start + Σ_c weight_c M(c, :), padded with zeros to whole registers. Two sums, so that the next row need not wait.
template <class Arch, class R, class T>
[[gnu::noinline, gnu::flatten]] void s7_sum_rows(const view<const T, 2>& M, const view<const T, 1>& weights,
                                                 const view<const T, 1>& start, R* out)
{
    using v = vec<R, Arch>;
    const index rows = M.extent(0), row = M.stride(0), stride = M.extent(1) > 1 ? M.stride(1) : 1;
    for_each_lanes<R, Arch>(M.extent(1), [&](auto range) __attribute__((always_inline)) {
        v even = start.data() ? range.load(start.data(), start.stride(0)) : v(R(0)), odd(R(0));
        index c = 0;
        for (; c + 2 <= rows; c += 2) {
            even = multiply_add(v(static_cast<R>(weights[c])), range.load(M.data() + c * row, stride), even);
            odd = multiply_add(v(static_cast<R>(weights[c + 1])), range.load(M.data() + (c + 1) * row, stride), odd);
        }
        if (c < rows) even = multiply_add(v(static_cast<R>(weights[c])), range.load(M.data() + c * row, stride), even);
        (even + odd).store_unaligned(out + range.first);
    });
}

/// out_c = Σ_n M(c, n) x_n
template <class Arch, class R, class T>
[[gnu::noinline, gnu::flatten]] void s7_dot_rows(const view<const T, 2>& M, const R* x, const view<T, 1>& out)
{
    using v = vec<R, Arch>;
    const index stride = M.extent(1) > 1 ? M.stride(1) : 1;
    for (index c = 0; c < M.extent(0); ++c) {
        v sums(R(0));
        const T* const p = M.data() + c * M.stride(0);
        for_each_lanes<R, Arch>(M.extent(1), [&](auto range) __attribute__((always_inline)) {
            sums = multiply_add(range.load(p, stride), range.load(x), sums);
        });
        out[c] = static_cast<T>(sum(sums));
    }
}

/// M(c, :) = weight_c x
template <class Arch, class R, class T>
[[gnu::noinline, gnu::flatten]] void s7_store_rows(const view<const T, 1>& weights, const R* x, const view<T, 2>& M)
{
    using v = vec<R, Arch>;
    const index stride = M.extent(1) > 1 ? M.stride(1) : 1;
    for (index c = 0; c < M.extent(0); ++c) {
        T* const p = M.data() + c * M.stride(0);
        for_each_lanes<R, Arch>(M.extent(1), [&](auto range) __attribute__((always_inline)) {
            range.store(v(static_cast<R>(weights[c])) * range.load(x), p, stride);
        });
    }
}

/// A² + 1/2 for a register of states; the factor is 1 minus its inverse.
template <class Arch, class R, class T, class Range>
[[gnu::always_inline]] inline vec<R, Arch> s7_denominator(const view<const T, 1>& A, Range range)
{
    const vec<R, Arch> x = range.load(A.data(), A.extent(0) > 1 ? A.stride(0) : 1);
    return multiply_add(x, x, vec<R, Arch>(R(0.5)));
}

/// The recurrence over a piece: rows of B u + bias become states.
template <class Arch, class R, class T>
[[gnu::noinline, gnu::flatten]] void s7_scan_rows(const view<const T, 2>& A, R* rows, index pitch, R* state)
{
    using v = vec<R, Arch>;
    for_each_lanes<R, Arch>(A.extent(1), [&](auto range) __attribute__((always_inline)) {
        v h = load<R, Arch>(state + range.first);
        for (index t = 0; t < A.extent(0); ++t) {
            R* const row = rows + t * pitch + range.first;
            const v factor = v(R(1)) - v(R(1)) / s7_denominator<Arch, R>(A[t], range);
            h = multiply_add(factor, h, load<R, Arch>(row));
            h.store_unaligned(row);
        }
        h.store_unaligned(state + range.first);
    });
}

template <class Arch, class R>
void s7_load_state(const view<const R, 2>& v, index b, index state, index pitch, R* out)
{
    std::fill_n(out, pitch, R(0));
    for (index n = 0; n < state && v.data(); ++n) out[n] = v(b, n);
}

}  // namespace ssmkit::detail
