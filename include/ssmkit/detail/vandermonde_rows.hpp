#pragma once

// The two products of detail/vandermonde_tables.hpp: a row of sums over the poles, and sums over a row for every pole.

#include <algorithm>
#include <cstdint>

#include <ssmkit/detail/tile_product.hpp>
#include <ssmkit/detail/vandermonde_tables.hpp>

namespace ssmkit::detail {

/// Factors of a product in `parts` parts, each so far behind the one before.
template <class R>
struct power_product {
    broadcast_rows<R> left;
    index left_part;
    tiled_rows<R> right;
    index right_part;
    index parts, count;  // of parts, and of terms in each
};

/// out[r * row + c] = Σ left(r, k) right(k, c) for `rows` r and `tiles` registers of c. `streaming`: out is aligned, and its
/// stores go around the caches.
template <class Arch, class R>
[[gnu::noinline, gnu::flatten]] void multiply_powers(const power_product<R>& factors, index rows, index tiles, R* out, index row,
                                                     bool streaming = false)
{
    constexpr index n = lanes<R, Arch>;
    const power_product<R> p = factors;
    for_each_column_group<Arch>(tiles, [&](index tile, auto columns) __attribute__((always_inline)) {
        for_each_row_group<Arch>(rows, [&](index first, auto group) __attribute__((always_inline)) {
            vec<R, Arch> sums[group * columns];
            unrolled<group * columns>([&](auto i) __attribute__((always_inline)) { sums[i] = vec<R, Arch>(R(0)); });
            for (index part = 0; part < p.parts; ++part) {
                add_product<Arch, group, columns>(
                    sums, broadcast_rows<R>{p.left.data + first * p.left.row + part * p.left_part, p.left.row, p.left.step},
                    tiled_rows<R>{p.right.data + part * p.right_part + tile * p.right.tile, p.right.tile, p.right.step}, p.count);
            }
            unrolled<group * columns>([&](auto i) __attribute__((always_inline)) {
                R* const to = out + (first + i / columns) * row + (tile + i % columns) * n;
                streaming ? store_streaming(sums[i], to) : store(sums[i], to);
            });
        });
    });
}

/// Kernels of this size or more go around the caches: a fifth less time at 16 MB, a tenth at 4 MB.
inline constexpr index vandermonde_streaming_bytes = index{4} << 20;

/// True if all of a kernel's rows, and their pieces, are aligned to registers and too many for the caches.
template <class Arch, class R, std::size_t Rank>
bool streams_around_caches(const view<R, Rank>& K)
{
    constexpr index n = lanes<R, Arch>;
    bool aligned = reinterpret_cast<std::uintptr_t>(K.data()) % (n * sizeof(R)) == 0 && K.stride(Rank - 1) == 1;
    for (std::size_t axis = 0; axis + 1 < Rank; ++axis) aligned &= K.extent(axis) <= 1 || K.stride(axis) % n == 0;
    return aligned && K.size() * static_cast<index>(sizeof(R)) >= vandermonde_streaming_bytes;
}

/// Rows of K_l = Re Σ_n w_n λ_n^l for the poles of one channel, l = 0 ... length - 1.
template <class R, class Arch>
class vandermonde_sums {
public:
    vandermonde_sums(arena& memory, index state, index length, bool real)
        : tables_(memory, state, length, vandermonde_rows, real),
          pitch_(tables_.pitch()),
          right_(memory.take<R>(static_cast<std::size_t>((real ? 1 : 2) * pitch_ * Q))),
          left_(memory.take<R>(static_cast<std::size_t>(2 * pitch_ * G))),
          weights_(memory.take<R>(static_cast<std::size_t>(2 * pitch_))),
          out_(memory.take<R>(static_cast<std::size_t>(vandermonde_segment)))
    {
    }

    index pitch() const { return pitch_; }

    void prepare(const pole_row& poles)
    {
        tables_.prepare(poles);
        tables_.extend_along_steps(right_);
    }

    /// `add`: to what K holds. `streaming`: around the caches; end with a streaming_fence.
    void write(planar<const double> w, const view<R, 1>& K, bool streaming, bool add = false)
    {
        for (index first = 0; first < K.extent(0); first += vandermonde_segment) {
            const index steps = std::min(K.extent(0) - first, vandermonde_segment), rows = (steps + Q - 1) / Q;
            tables_.start_segment(first / vandermonde_segment);
            weigh(w, rows);
            const bool in_place = K.stride(0) == 1 && !add;
            const index whole = in_place ? steps / Q : 0;
            if (whole > 0) multiply(0, whole, Q, K.pointer(first), streaming);
            if (whole == rows) continue;
            multiply(whole, rows - whole, std::min(Q, steps), out_, false);
            const R* value = out_;
            for (index l = first + whole * Q; l < first + steps; ++l, ++value) K[l] = add ? K[l] + *value : *value;
        }
    }

private:
    static constexpr index n = lanes<R, Arch>, Q = vandermonde_steps, G = vandermonde_rows;

    void multiply(index first, index rows, index steps, R* out, bool streaming) const
    {
        multiply_powers<Arch>(power_product<R>{.left = {left_ + first * 2 * pitch_, 2 * pitch_, 1},
                                               .left_part = pitch_,
                                               .right = {right_, n, Q},
                                               .right_part = pitch_ * Q,
                                               .parts = tables_.real() ? 1 : 2,
                                               .count = tables_.state()},
                              rows, (steps + n - 1) / n, out, Q, streaming);
    }

    /// Rows a of the left factor: w λ^{64 a} with the segment's start value, the imaginary parts negated.
    [[gnu::noinline, gnu::flatten]] void weigh(planar<const double> w, index rows)
    {
        const planar<const double> start = tables_.start();
        const planar<R> weight{weights_, weights_ + pitch_};
        for (index i = 0; i < pitch_; i += lanes<double, Arch>) {
            const planar<const double> at{w.re + i, w.im + i}, begin{start.re + i, start.im + i};
            store_complex(load_complex<Arch>(at) * load_complex<Arch>(begin), weight + i);
        }
        for (index i = 0; i < pitch_; i += n) {
            const auto x = load_complex<Arch>(weight + i);
            const complex_vec<R, Arch> conjugate{x.re, -x.im};
            store_complex(conjugate, planar<R>{left_ + i, left_ + pitch_ + i});
            for (index a = 1; a < rows; ++a) {
                const R* const power = tables_.coarse(a) + i;
                const auto p = load_complex<Arch>(planar<const R>{power, power + pitch_});
                R* const to = left_ + a * 2 * pitch_ + i;
                store(x.re * p.re - x.im * p.im, to);  // conj(x p) = conj(x) conj(p)
                store(multiply_add(conjugate.im, p.re, -(x.re * p.im)), to + pitch_);
            }
        }
    }

    vandermonde_tables<R, Arch> tables_;
    index pitch_;
    R *right_, *left_, *weights_, *out_;
};

/// S0_n = Σ_l u_l λ_n^l and S1_n = Σ_l l u_l λ_n^l for the poles of one channel.
template <class R, class Arch>
class vandermonde_moments {
public:
    vandermonde_moments(arena& memory, index state, index length, bool real)
        : tables_(memory, state, length, vandermonde_steps, real), pitch_(tables_.pitch()), sum_(take_planar(memory, pitch_)),
          weighted_(take_planar(memory, pitch_)), rows_(memory.take<R>(static_cast<std::size_t>(2 * vandermonde_segment))),
          products_(memory.take<R>(static_cast<std::size_t>(2 * G * 2 * pitch_)))
    {
    }

    void prepare(const pole_row& poles)
    {
        tables_.prepare(poles);
        tables_.extend_along_poles();
    }

    /// Of a row of at most `length` elements.
    void of(const view<const R, 1>& u)
    {
        for (const planar<double>& s : {sum_, weighted_}) {
            std::fill_n(s.re, pitch_, 0.0);
            std::fill_n(s.im, pitch_, 0.0);
        }
        for (index first = 0; first < u.extent(0); first += vandermonde_segment) {
            const index steps = std::min(u.extent(0) - first, vandermonde_segment), rows = (steps + Q - 1) / Q;
            load_segment(u.slice(0, first, steps), rows);
            // Columns are the poles: real parts, then imaginary ones.
            multiply_powers<Arch>(power_product<R>{.left = {rows_, Q, 1},
                                                   .left_part = 0,
                                                   .right = {tables_.fine(0), n, 2 * pitch_},
                                                   .right_part = 0,
                                                   .parts = 1,
                                                   .count = std::min(Q, steps)},
                                  2 * rows, (tables_.real() ? 1 : 2) * pitch_ / n, products_, 2 * pitch_);
            tables_.start_segment(first / vandermonde_segment);
            add_segment(rows, static_cast<double>(first));
        }
    }

    planar<const double> sum() const { return sum_; }
    planar<const double> weighted() const { return weighted_; }

private:
    static constexpr index n = lanes<R, Arch>, Q = vandermonde_steps, G = vandermonde_rows;

    /// Rows u_{64 a + b}, and behind them rows b u_{64 a + b}; zeros beyond the last.
    [[gnu::noinline, gnu::flatten]] void load_segment(const view<const R, 1>& u, index rows)
    {
        R* const weighted = rows_ + rows * Q;
        for_each_lanes<R, Arch>(u.extent(0), [&](auto range) { range.store(range.load(u.data(), u.stride(0)), rows_); });
        std::fill(rows_ + u.extent(0), weighted, R(0));
        for (index a = 0; a < rows; ++a) {
            for (index b = 0; b < Q; ++b) weighted[a * Q + b] = static_cast<R>(b) * rows_[a * Q + b];
        }
    }

    /// Of the rows' sums P_a and weighted sums W_a: S0 += start Σ λ^{64 a} P_a, S1 += start Σ λ^{64 a} (W_a + (first + 64 a) P_a).
    [[gnu::noinline, gnu::flatten]] void add_segment(index rows, double first)
    {
        using d = vec<double, Arch>;
        const auto parts = [&](R* row, index i) { return planar<R>{row + i, row + pitch_ + i}; };
        const auto product = [&](index row, index i) __attribute__((always_inline)) {
            auto x = load_complex<Arch>(parts(products_ + row * 2 * pitch_, i));
            if (tables_.real()) x.im = vec<R, Arch>(R(0));
            return x;
        };
        for (index i = 0; i < pitch_; i += n) {
            complex_vec<R, Arch> sum = product(0, i), weighted = product(rows, i);
            for (index a = 1; a < rows; ++a) {
                const R* const power = tables_.coarse(a) + i;
                const auto p = load_complex<Arch>(planar<const R>{power, power + pitch_});
                const auto x = product(a, i);
                sum = sum + x * p;
                weighted = weighted + (product(rows + a, i) + scaled(vec<R, Arch>(static_cast<R>(a * Q)), x)) * p;
            }
            store_complex(sum, parts(products_, i));
            store_complex(weighted, parts(products_ + 2 * pitch_, i));
        }
        for (index i = 0; i < pitch_; i += lanes<double, Arch>) {
            const auto widened = [&](const R* row) __attribute__((always_inline)) {
                return complex_vec<double, Arch>{load<double, Arch>(row + i), load<double, Arch>(row + pitch_ + i)};
            };
            const planar<const double> start{tables_.start().re + i, tables_.start().im + i};
            const auto factor = load_complex<Arch>(start), sum = widened(products_), weighted = widened(products_ + 2 * pitch_);
            store_complex(load_complex<Arch>(sum_ + i) + factor * sum, sum_ + i);
            store_complex(load_complex<Arch>(weighted_ + i) + factor * (weighted + scaled(d(first), sum)), weighted_ + i);
        }
    }

    vandermonde_tables<R, Arch> tables_;
    index pitch_;
    planar<double> sum_, weighted_;
    R *rows_, *products_;
};

}  // namespace ssmkit::detail
