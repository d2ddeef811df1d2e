#pragma once

// What S4's kernel and its gradients share. With z = 2 (1-ω) / (1+ω) = iy, y_j = 2 tan(π j / L'), the nodes lie on the imaginary
// axis, and 2 / (1+ω) = 1 + iy/2. In place of Λ, P and B stand ΔΛ, ΔP and ΔB, so that a Δ for every state costs nothing. The
// node ω = -1 of an even L', where z is infinite, is computed by itself: there M = 4 I.

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <numbers>

#include <ssmkit/args/s4_kernel.hpp>
#include <ssmkit/detail/cauchy_sums.hpp>
#include <ssmkit/detail/real_fft.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit::detail {

template <class T>
std::complex<double> widen(const std::complex<T>& x)
{
    return {static_cast<double>(x.real()), static_cast<double>(x.imag())};
}

template <class T>
std::complex<T> narrow(const std::complex<double>& x)
{
    return {static_cast<T>(x.real()), static_cast<T>(x.imag())};
}

/// Nodes that are worked on at once: their sums stay in the first-level cache.
inline constexpr index s4_chunk = 256;

struct s4_sizes {
    index channels, dim, state, copies, rank, columns;  // columns: the input's, then one for each initial state
    index length, transform, bins, padded;

    template <class Arch, class T>
    static s4_sizes of(const s4_kernel_args<T>& a, index length, bool states)
    {
        s4_sizes s{};
        s.channels = a.C.extent(0), s.dim = a.C.extent(1), s.state = a.C.extent(2), s.copies = a.A.extent(0),
        s.rank = a.P.extent(0);
        s.columns = 1 + (states ? a.initial_state.extent(0) : 0);
        s.length = length, s.transform = s4_transform_length(a, length), s.bins = s.transform / 2 + 1;
        s.padded = (s.bins + cauchy_padding<T, Arch> - 1) / cauchy_padding<T, Arch> * cauchy_padding<T, Arch>;
        return s;
    }

    index left() const { return channels + rank; }  // of the Cauchy sums: C and Q
    index right() const { return columns + rank; }  // B, the states and P
    index sums() const { return left() * right(); }
    index rows() const { return channels * columns; }  // of kernels for each channel of dim
};

/// The nodes' y as sums of two T; behind the last finite one, ones.
template <class T>
struct s4_nodes {
    T *y, *y_low;

    imaginary_nodes<T> all() const { return {y, y_low}; }

    s4_nodes(const s4_sizes& s, arena& memory)
        : y(memory.take<T>(static_cast<std::size_t>(s.padded))), y_low(memory.take<T>(static_cast<std::size_t>(s.padded)))
    {
        if (y == nullptr) return;
        for (index j = 0; j < s.padded; ++j) {
            const bool finite = 2 * j < s.transform;
            const double exact =
                finite ? 2 * std::tan(std::numbers::pi * static_cast<double>(j) / static_cast<double>(s.transform)) : 1;
            y[j] = static_cast<T>(exact);
            y_low[j] = static_cast<T>(exact - static_cast<double>(y[j]));
        }
    }
};

/// A channel's system in double, one of each conjugate pair.
struct s4_system {
    using number = std::complex<double>;
    number* pole;   // ΔΛ (state)
    number* left;   // C, then Q = conj(P) (left, state)
    number* right;  // ΔB, the states' columns, then ΔP (right, state)
    number* state;  // s (columns - 1, state)
    double* delta;  // Δ rate (state)

    s4_system(const s4_sizes& s, arena& memory)
        : pole(memory.take<number>(static_cast<std::size_t>(s.state))),
          left(memory.take<number>(static_cast<std::size_t>(s.left() * s.state))),
          right(memory.take<number>(static_cast<std::size_t>(s.right() * s.state))),
          state(memory.take<number>(static_cast<std::size_t>((s.columns - 1) * s.state))),
          delta(memory.take<double>(static_cast<std::size_t>(s.state)))
    {
    }

    /// True for the entries of C that the band limit takes for zero.
    template <class T>
    static bool masked(const s4_kernel_args<T>& a, index h, index n)
    {
        return a.delta(h, n) * std::abs(a.A(h % a.A.extent(0), n).imag()) / (2 * std::numbers::pi) >= a.bandlimit / 2;
    }

    template <class T>
    void fill(const s4_kernel_args<T>& a, const s4_sizes& s, index h)
    {
        const index copy = h % s.copies;
        for (index n = 0; n < s.state; ++n) {
            delta[n] = a.delta(h, n) * a.rate;
            pole[n] = delta[n] * a.A(copy, n);
            for (index c = 0; c < s.channels; ++c) left[c * s.state + n] = masked(a, h, n) ? 0.0 : widen(a.C(c, h, n));
            right[n] = delta[n] * widen(a.B(copy, n));
            for (index r = 0; r < s.rank; ++r) {
                const number p = widen(a.P(r, copy, n));
                left[(s.channels + r) * s.state + n] = std::conj(p);
                right[(s.columns + r) * s.state + n] = delta[n] * p;
            }
        }
        for (index b = 0; b + 1 < s.columns; ++b) {  // (I + ΔA/2) s
            number* const given = state + b * s.state;
            number* const column = right + (1 + b) * s.state;
            for (index n = 0; n < s.state; ++n) {
                given[n] = widen(a.initial_state(b, h, n));
                column[n] = given[n] + 0.5 * pole[n] * given[n];
            }
            for (index r = 0; r < s.rank; ++r) {
                const double product = state_product(s, r, b);
                for (index n = 0; n < s.state; ++n) column[n] -= 0.5 * product * right[(s.columns + r) * s.state + n];
            }
        }
    }

    /// Q_r · s over the full spectrum.
    double state_product(const s4_sizes& s, index r, index b) const
    {
        double sum = 0;
        for (index n = 0; n < s.state; ++n) sum += 2 * (left[(s.channels + r) * s.state + n] * state[b * s.state + n]).real();
        return sum;
    }

    /// The transform of kernel c for column i where ω = -1.
    double last_bin(const s4_sizes& s, index c, index i) const
    {
        double sum = 0;
        for (index n = 0; n < s.state; ++n) sum += (left[c * s.state + n] * right[i * s.state + n]).real();
        return sum;
    }
};

/// Cauchy sums of every left with every right vector at a chunk of nodes: parts of left x and right y at
/// [2 (x right() + y)] and [2 (x right() + y) + 1], each s4_chunk long.
template <class T>
struct s4_sums {
    T *table, *values, *inverse;

    s4_sums(const s4_sizes& s, arena& memory)
        : table(memory.take<T>(
              static_cast<std::size_t>(s.state * (3 + 2 * cauchy_terms) * ((s.sums() + cauchy_terms - 1) / cauchy_terms)))),
          values(memory.take<T>(static_cast<std::size_t>(2 * (s.sums() + cauchy_terms) * s4_chunk))),
          inverse(memory.take<T>(static_cast<std::size_t>(2 * s.rank * s.rank * s4_chunk)))
    {
    }

    /// Tables of all sums, four at a time.
    void prepare(const s4_sizes& s, const s4_system& m) const
    {
        T* out = table;
        for (index first = 0; first < s.sums(); first += cauchy_terms) {
            const index terms = std::min(cauchy_terms, s.sums() - first);
            for (index n = 0; n < s.state; ++n, out += 3 + 2 * terms) {
                imaginary_nodes<T>::put_pole(m.pole[n], out);
                for (index i = 0; i < terms; ++i) {
                    const index x = (first + i) / s.right(), y = (first + i) % s.right();
                    imaginary_nodes<T>::put_numerator(m.left[x * s.state + n] * m.right[y * s.state + n], m.pole[n],
                                                      out + 3 + 2 * i);
                }
            }
        }
    }

    T* re(const s4_sizes& s, index x, index y) const { return values + 2 * (x * s.right() + y) * s4_chunk; }

    template <class Arch>
    void compute(const s4_sizes& s, const imaginary_nodes<T>& nodes, index first, index count) const
    {
        const T* in = table;
        for (index k = 0; k < s.sums(); k += cauchy_terms) {
            const index terms = std::min(cauchy_terms, s.sums() - k);
            cauchy_sums<Arch>(nodes, first, count, in, s.state, terms,
                              values + 2 * k * s4_chunk, s4_chunk);
            in += s.state * (3 + 2 * terms);
        }
        invert<Arch>(s, count);
    }

private:
    /// (I + Q·P)^-1 at every node, element (r, t) at [2 (r rank + t)] and behind it: by cofactors up to rank 2, by elimination
    /// with pivots beyond.
    template <class Arch>
    void invert(const s4_sizes& s, index count) const
    {
        using V = vec<T, Arch>;
        using number = complex_lanes<V>;
        const auto element = [&](index r, index t, index l) {
            const T* const p = re(s, s.channels + r, s.columns + t) + l;
            number x{load<T, Arch>(p), load<T, Arch>(p + s4_chunk)};
            if (r == t) x.re = x.re + V(T(1));
            return x;
        };
        const auto put = [&](index r, index t, index l, const number& x) {
            T* const p = inverse + 2 * (r * s.rank + t) * s4_chunk + l;
            x.re.store_unaligned(p);
            x.im.store_unaligned(p + s4_chunk);
        };
        const auto reciprocal = [](const number& x) {
            const V g = V(T(1)) / (x.re * x.re + x.im * x.im);
            return number{x.re * g, -(x.im * g)};
        };
        if (s.rank == 1) {
            for (index l = 0; l < count; l += lanes<T, Arch>) put(0, 0, l, reciprocal(element(0, 0, l)));
        } else if (s.rank == 2) {
            for (index l = 0; l < count; l += lanes<T, Arch>) {
                const number a = element(0, 0, l), b = element(0, 1, l), c = element(1, 0, l), d = element(1, 1, l);
                const number over = reciprocal(a.times(d.re, d.im) - b.times(c.re, c.im));
                put(0, 0, l, d.times(over.re, over.im));
                put(0, 1, l, number{-b.re, -b.im}.times(over.re, over.im));
                put(1, 0, l, number{-c.re, -c.im}.times(over.re, over.im));
                put(1, 1, l, a.times(over.re, over.im));
            }
        } else if (s.rank > 2) {
            for (index l = 0; l < count; ++l) invert_one(s, l);
        }
    }

    void invert_one(const s4_sizes& s, index l) const
    {
        // Gauss and Jordan in place, in the sums' own memory, which nobody needs after this.
        const index n = s.rank;
        using number = std::complex<T>;
        const auto m = [&](index r, index t) { return re(s, s.channels + r, s.columns + t) + l; };
        const auto x = [&](index r, index t) { return inverse + 2 * (r * n + t) * s4_chunk + l; };
        const auto get = [](const T* p) { return number(p[0], p[s4_chunk]); };
        const auto put = [](T* p, number value) {
            p[0] = value.real();
            p[s4_chunk] = value.imag();
        };
        for (index r = 0; r < n; ++r) {
            for (index t = 0; t < n; ++t) put(x(r, t), r == t ? T(1) : T(0));
            m(r, r)[0] += T(1);
        }
        for (index k = 0; k < n; ++k) {
            index pivot = k;
            for (index r = k + 1; r < n; ++r) {
                if (std::abs(get(m(r, k))) > std::abs(get(m(pivot, k)))) pivot = r;
            }
            const number over = number(1) / get(m(pivot, k));
            for (index t = 0; t < n; ++t) {
                for (const auto& matrix : {0, 1}) {
                    T* const upper = matrix ? x(k, t) : m(k, t);
                    T* const lower = matrix ? x(pivot, t) : m(pivot, t);
                    const number top = get(lower) * over, other = get(upper);
                    put(lower, other);
                    put(upper, top);
                }
            }
            for (index r = 0; r < n; ++r) {
                if (r == k) continue;
                const number factor = get(m(r, k));
                for (index t = 0; t < n; ++t) {
                    put(m(r, t), get(m(r, t)) - factor * get(m(k, t)));
                    put(x(r, t), get(x(r, t)) - factor * get(x(k, t)));
                }
            }
        }
    }
};

/// A complex number of each lane at p (real part) and p + pitch.
template <class Arch, class T>
[[gnu::always_inline]] inline complex_lanes<vec<T, Arch>> load_parts(const T* p, index pitch)
{
    return {load<T, Arch>(p), load<T, Arch>(p + pitch)};
}

template <class V>
[[gnu::always_inline]] inline complex_lanes<V> product(const complex_lanes<V>& a, const complex_lanes<V>& b)
{
    return a.times(b.re, b.im);
}

/// a conj(b)
template <class V>
[[gnu::always_inline]] inline complex_lanes<V> conjugate_product(const complex_lanes<V>& a, const complex_lanes<V>& b)
{
    return a.times_conjugate(b.re, b.im);
}

}  // namespace ssmkit::detail
