#pragma once

// Convolution of real sequences in the ring where X^{2N} = -1, by a transform that never leaves the lanes of one row:
//
//     x_0 ... x_{2N-1}  ->  z_j = x_j + i x_{j+N}        R[X] / (X^{2N} + 1) is C[X] / (X^N - i): no half spectra to untangle
//     X^N - i = Π (X^M - c_b)                            radix 2, 3, 4, 5 splits, in place; the twiddles belong to the block b,
//                                                        one number for all lanes; the order of the blocks is left as it falls
//
// The lanes run along the row until a block is one register wide; `lanes` such blocks are transposed in registers and lanes run
// along blocks from there. A product there, and the same way back. Blocks are split depth first, so that every cache level is
// filled once each way.

#include <algorithm>
#include <complex>
#include <cstddef>

#include <ssmkit/detail/complex_fft.hpp>
#include <ssmkit/detail/shuffle.hpp>

namespace ssmkit::detail {

template <class T, class Arch>
class negacyclic {
public:
    using V = vec<T, Arch>;
    using number = complex_lanes<V>;
    static constexpr index n = lanes<T, Arch>, record = 2 * n, group = record * n;

    /// The least N that the ring takes, of which 2N is at least `real` real numbers: 2^a, 3 2^a or 5 2^a.
    static index size_for(index real)
    {
        index best = 0;
        for (const index odd : {1, 3, 5}) {
            index size = odd * std::max(n * n, 4 * n);
            while (2 * size < real) size *= 2;
            if (best == 0 || size < best) best = size;
        }
        return best;
    }

    negacyclic(index size, arena& memory) : size_(size)
    {
        index rest = size / n;  // blocks of one register
        for (const index odd : {3, 5}) {
            if (rest % odd == 0) add_level(odd, rest);
        }
        if (rest % 4 == 0) add_level(4, rest);
        for (index odd_power = rest; odd_power > 1; odd_power /= 4) {
            if (odd_power == 2) add_level(2, rest);
        }
        while (rest > 1) add_level(4, rest);
        index count = 0, blocks = 1;
        for (index l = 0; l < levels_; ++l) {
            first_[l] = count;
            count += blocks * twiddles_of(radices_[l]);
            blocks *= radices_[l];
        }
        twiddles_ = memory.take<T>(static_cast<std::size_t>(count));
        group_twiddles_ = memory.take<T>(static_cast<std::size_t>(8 * (blocks / n)));
        lane_twiddles_ = memory.take<T>(static_cast<std::size_t>(record * lane_roots));
        const unit_roots roots(16 * 4 * blocks, memory);
        if (twiddles_ == nullptr) return;
        const auto turn = [&](index r, index B, index part, index i = 0) {  // exp(2πi ((1/4 + r) / B + i) / part)
            const index whole = 64 * blocks, unit = blocks / B * (16 / part);
            return roots((1 + 4 * (r + B * i)) * unit % whole);
        };
        const auto put = [](T*& out, const std::complex<double>& w) {
            *out++ = static_cast<T>(w.real());
            *out++ = static_cast<T>(w.imag());
        };
        T* out = twiddles_;
        index B = 1;
        for (index l = 0; l < levels_; B *= radices_[l++]) {
            for (index b = 0; b < B; ++b) {
                const index r = order(b, l);
                if (radices_[l] == 4) {
                    put(out, turn(r, B, 2));
                    put(out, turn(r, B, 4));
                } else if (radices_[l] == 2) {
                    put(out, turn(r, B, 2));
                } else {
                    for (index j = 1; j < radices_[l]; ++j) put(out, odd_turn(r, B, j, radices_[l]));
                }
            }
        }
        out = group_twiddles_;
        for (index g = 0; g < blocks / n; ++g) {
            const index r = order(g * n, levels_);
            for (const index part : {2, 4, 8, 16}) put(out, turn(r, blocks, part));
        }
        // What is left of the angle: that of the lane within the group, without the group's quarter.
        out = lane_twiddles_;
        const auto lanes_of = [&](index part, index i) {
            for (index lane = 0; lane < n; ++lane) {
                const index r = order(lane, levels_), whole = 64 * blocks;
                const std::complex<double> w = roots(4 * (r + blocks * i) * (16 / part) % whole);
                out[lane] = static_cast<T>(w.real());
                out[n + lane] = static_cast<T>(w.imag());
            }
            out += record;
        };
        lanes_of(2, 0);
        if constexpr (n >= 4) lanes_of(4, 0);
        if constexpr (n >= 8) {
            for (index i = 0; i < 4; ++i) {
                lanes_of(8, i);
                if constexpr (n == 16) lanes_of(16, i);
            }
        }
    }

    index size() const { return size_; }

    /// Numbers of T that a transformed row takes.
    static std::size_t buffer_size(index size) { return static_cast<std::size_t>(2 * size); }

    /// Transforms a row and replaces every z of the result by product(offset, z), where offset is that of the record in the
    /// buffer. read(j) gives the real numbers j ... j + lanes - 1; j < N, or j < 2N unless Low: then the upper half is zero.
    template <bool Low, class Read, class Product>
    void forward(const Read& read, T* x, const Product& product) const
    {
        read_pass<Low>(read, x);
        below<way::forth>(x, product);
    }

    /// The same and back: write(j, x) takes N times the real numbers j ... j + lanes - 1; j < N only if Low.
    template <bool Low, class Read, class Product, class Write>
    void convolve(const Read& read, T* x, const Product& product, const Write& write) const
    {
        read_pass<Low>(read, x);
        below<way::both>(x, product);
        write_pass<Low>(x, write);
    }

    /// The way back from product(offset) of every record.
    template <bool Low, class Product, class Write>
    void inverse(const Product& product, T* x, const Write& write) const
    {
        below<way::back>(x, [&](index offset, const number&) { return product(offset); });
        write_pass<Low>(x, write);
    }

private:
    enum class way { forth, back, both };

    /// A block of this many bytes is split level by level: half of a small first-level cache.
    static constexpr index chunk_bytes = 16384;

    /// Vectors of roots that depend on the lane: see the constructor.
    static constexpr index lane_roots = n == 2 ? 1 : n == 4 ? 2 : n == 8 ? 6 : 10;
    static_assert(n == 2 || n == 4 || n == 8 || n == 16);

    void add_level(index radix, index& rest)
    {
        radices_[levels_++] = radix;
        rest /= radix;
    }

    static constexpr index twiddles_of(index radix) { return radix == 2 ? 2 : radix == 5 ? 8 : 4; }

    /// Which of the blocks' roots block b has on a level: its digits, the first counting least.
    index order(index b, index level) const
    {
        index weight[48], blocks = 1, r = 0;
        for (index l = 0; l < level; ++l) {
            weight[l] = blocks;
            blocks *= radices_[l];
        }
        for (index l = level; l-- > 0; b /= radices_[l]) r += b % radices_[l] * weight[l];
        return r;
    }

    /// exp(2πi (1/4 + r) / B j / radix) of the few blocks that are split by 3 or 5.
    static std::complex<double> odd_turn(index r, index B, index j, index radix)
    {
        const double turns = static_cast<double>((1 + 4 * r) * j % (4 * B * radix)) / static_cast<double>(4 * B * radix);
        return std::polar(1.0, 6.283185307179586477 * turns);
    }

    /// Everything below the first level.
    template <way Way, class Product>
    void below(T* x, const Product& product) const
    {
        const index parts = radices_[0], size = size_ / parts;
        if (is_chunk(size_)) return chunk<Way>(1, 0, parts, size, x, product);
        for (index part = 0; part < parts; ++part) descend<Way>(1, part, size, x, product);
    }

    static bool is_chunk(index count) { return count * 2 * static_cast<index>(sizeof(T)) <= chunk_bytes; }

    template <class F>
    [[gnu::always_inline]] static void with_radix(index radix, F&& f)
    {
        if (radix == 4) return f(std::integral_constant<index, 4>{});
        if (radix == 2) return f(std::integral_constant<index, 2>{});
        if (radix == 3) return f(std::integral_constant<index, 3>{});
        f(std::integral_constant<index, 5>{});
    }

    // ---- Butterflies: R numbers, of which the roots of one block are at w ---------------------------------------------

    template <index R, bool Real = false>
    [[gnu::always_inline]] static void split(number (&x)[static_cast<std::size_t>(R)], const T* w)
    {
        const auto root = [&](index i) { return number{V(w[2 * i]), V(w[2 * i + 1])}; };
        const auto times = [](const number& a, const number& b) {
            return Real ? number{a.re * b.re, a.re * b.im} : a.times(b.re, b.im);
        };
        if constexpr (R == 4) {
            split4<Real>(x, root(0), root(1));
        } else if constexpr (R == 2) {
            const number b = times(x[1], root(0));
            x[1] = x[0] - b;
            x[0] = x[0] + b;
        } else {
            unrolled<R - 1>([&](auto i) { x[i + 1] = times(x[i + 1], root(i)); });
            unrolled<R>([&](auto i) { x[i] = x[i].swapped(); });  // the sign of small_dft's exponent
            small_dft<R, V>(x);
            unrolled<R>([&](auto i) { x[i] = x[i].swapped(); });
        }
    }

    template <index R>
    [[gnu::always_inline]] static void join(number (&x)[static_cast<std::size_t>(R)], const T* w)
    {
        const auto root = [&](index i) { return number{V(w[2 * i]), V(w[2 * i + 1])}; };
        if constexpr (R == 4) {
            join4(x, root(0), root(1));
        } else if constexpr (R == 2) {
            const number a = x[0] + x[1];
            x[1] = (x[0] - x[1]).times_conjugate(root(0).re, root(0).im);
            x[0] = a;
        } else {
            small_dft<R, V>(x);
            unrolled<R - 1>([&](auto i) { x[i + 1] = x[i + 1].times_conjugate(root(i).re, root(i).im); });
        }
    }

    /// Of 4: a is the square root of what X^M is in the block, b the fourth root; part i goes to place i.
    template <bool Real>
    [[gnu::always_inline]] static void split4(number (&x)[4], const number& a, const number& b)
    {
        number t0, t1, t2, t3;
        if constexpr (Real) {
            const V re2 = x[2].re * a.re, im2 = x[2].re * a.im, re3 = x[3].re * a.re, im3 = x[3].re * a.im;
            t0 = {x[0].re + re2, im2};
            t2 = {x[0].re - re2, -im2};
            t1 = {x[1].re + re3, im3};
            t3 = {x[1].re - re3, -im3};
        } else {
            const number p = x[2].times(a.re, a.im), q = x[3].times(a.re, a.im);
            t0 = x[0] + p;
            t2 = x[0] - p;
            t1 = x[1] + q;
            t3 = x[1] - q;
        }
        const number p = t1.times(b.re, b.im), q = t3.times(b.re, b.im);
        x[0] = t0 + p;
        x[2] = t0 - p;
        x[1] = {t2.re - q.im, t2.im + q.re};
        x[3] = {t2.re + q.im, t2.im - q.re};
    }

    [[gnu::always_inline]] static void join4(number (&x)[4], const number& a, const number& b)
    {
        const number t0 = x[0] + x[2], t1 = (x[0] - x[2]).times_conjugate(b.re, b.im);
        const number t2 = x[1] + x[3], d = x[1] - x[3];
        const number t3 = number{d.im, -d.re}.times_conjugate(b.re, b.im);
        x[0] = t0 + t2;
        x[1] = t1 + t3;
        x[2] = (t0 - t2).times_conjugate(a.re, a.im);
        x[3] = (t1 - t3).times_conjugate(a.re, a.im);
    }

    // ---- Passes: a block of R rows of `stride` numbers of T -----------------------------------------------------------

    template <index R, bool Forth>
    [[gnu::noinline, gnu::flatten]] static void pass(T* x, index blocks, index stride, const T* w)
    {
        for (; blocks > 0; --blocks, x += (R - 1) * stride, w += twiddles_of(R)) {
            for (T* const end = x + stride; x < end; x += record) {
                number a[static_cast<std::size_t>(R)];
                unrolled<R>([&](auto i) { a[i] = number::load(x + i * stride); });
                if constexpr (Forth) {
                    split<R>(a, w);
                } else {
                    join<R>(a, w);
                }
                unrolled<R>([&](auto i) { a[i].store(x + i * stride); });
            }
        }
    }

    template <bool Low, class Read>
    void read_pass(const Read& read, T* x) const
    {
        with_radix(radices_[0], [&](auto radix) {
            constexpr index R = radix();
            const index rows = size_ / R;
            for (index j = 0; j < rows; j += n) {
                number a[static_cast<std::size_t>(R)];
                unrolled<R>([&](auto i) {
                    a[i].re = read(j + i * rows);
                    if constexpr (Low) {
                        a[i].im = V(T(0));
                    } else {
                        a[i].im = read(size_ + j + i * rows);
                    }
                });
                split<R, Low>(a, twiddles_);
                unrolled<R>([&](auto i) { a[i].store(x + 2 * (j + i * rows)); });
            }
        });
    }

    template <bool Low, class Write>
    void write_pass(const T* x, const Write& write) const
    {
        with_radix(radices_[0], [&](auto radix) {
            constexpr index R = radix();
            const index rows = size_ / R;
            for (index j = 0; j < rows; j += n) {
                number a[static_cast<std::size_t>(R)];
                unrolled<R>([&](auto i) { a[i] = number::load(x + 2 * (j + i * rows)); });
                join<R>(a, twiddles_);
                unrolled<R>([&](auto i) {
                    write(j + i * rows, a[i].re);
                    if constexpr (!Low) write(size_ + j + i * rows, a[i].im);
                });
            }
        });
    }

    const T* roots(index level, index b) const { return twiddles_ + first_[level] + b * twiddles_of(radices_[level]); }

    /// Block b of a level, `size` complex numbers.
    template <way Way, class Product>
    void descend(index level, index b, index size, T* whole, const Product& product) const
    {
        if (is_chunk(size)) return chunk<Way>(level, b, 1, size, whole, product);
        T* const x = whole + 2 * size * b;
        const index radix = radices_[level], part = size / radix;
        if constexpr (Way != way::back) {
            with_radix(radix, [&](auto r) { pass<r(), true>(x, 1, 2 * part, roots(level, b)); });
        }
        for (index i = 0; i < radix; ++i) descend<Way>(level + 1, b * radix + i, part, whole, product);
        if constexpr (Way != way::forth) {
            with_radix(radix, [&](auto r) { pass<r(), false>(x, 1, 2 * part, roots(level, b)); });
        }
    }

    /// The same for `blocks` neighbouring blocks that fit into the nearest cache together: level by level.
    template <way Way, class Product>
    void chunk(index level, index b, index blocks, index size, T* whole, const Product& product) const
    {
        T* const x = whole + 2 * size * b;
        const index total = size * blocks, top = level;
        for (; level < levels_; ++level) {
            size /= radices_[level];
            if constexpr (Way != way::back) {
                with_radix(radices_[level], [&](auto r) { pass<r(), true>(x, blocks, 2 * size, roots(level, b)); });
            }
            b *= radices_[level];
            blocks *= radices_[level];
        }
        for (index i = 0; i < 2 * total; i += group) leaves<Way>(whole, x - whole + i, product);
        if constexpr (Way != way::forth) {
            while (level-- > top) {
                b /= radices_[level];
                blocks /= radices_[level];
                with_radix(radices_[level], [&](auto r) { pass<r(), false>(x, blocks, 2 * size, roots(level, b)); });
                size *= radices_[level];
            }
        }
    }

    // ---- Blocks of a register: `lanes` of them, turned so that the lanes run along the blocks -------------------------

    template <way Way, class Product>
    [[gnu::noinline, gnu::flatten]] void leaves(T* whole, index offset, const Product& product) const
    {
        T* const x = whole + offset;
        const T* const w = group_twiddles_ + offset / group * 8;
        const auto root = [&](index part, index vector) {  // of the group, times that of the lane
            return number::load(lane_twiddles_ + vector * record).times(V(w[2 * part]), V(w[2 * part + 1]));
        };
        alignas(64) T tile[static_cast<std::size_t>(group)];
        const auto multiplied = [&](number (&a)[4], index first) {
            unrolled<4>([&](auto i) { a[i] = product(offset + (first + i) * record, a[i]); });
        };
        const auto load4 = [](number (&a)[4], const T* from, index step) {
            unrolled<4>([&](auto i) { a[i] = number::load(from + i * step); });
        };
        const auto store4 = [](const number (&a)[4], T* to, index step) {
            unrolled<4>([&](auto i) { a[i].store(to + i * step); });
        };
        const auto inner = [&](index i, number (&a)[4], T* from, T* to) {  // the last split, by 4 or by 2 twice
            if constexpr (Way != way::back) load4(a, from, record);
            if constexpr (n == 16) {
                const number p = root(2, 2 + 2 * i), q = root(3, 3 + 2 * i);
                if constexpr (Way != way::back) split4<false>(a, p, q);
                multiplied(a, 4 * i);
                if constexpr (Way != way::forth) join4(a, p, q);
            }
            store4(a, to, record);
        };
        if constexpr (Way != way::back) turn(x, tile);  // on the way back, the product alone says what is there
        T* const results = Way == way::forth ? x : tile;
        if constexpr (n == 16) {
            const number a = root(0, 0), b = root(1, 1);
            number z[4];
            if constexpr (Way != way::back) {
                for (index s = 0; s < 4; ++s) {
                    load4(z, tile + s * record, 4 * record);
                    split4<false>(z, a, b);
                    store4(z, tile + s * record, 4 * record);
                }
            }
            for (index i = 0; i < 4; ++i) inner(i, z, tile + 4 * i * record, results + 4 * i * record);
            if constexpr (Way != way::forth) {
                for (index s = 0; s < 4; ++s) {
                    load4(z, tile + s * record, 4 * record);
                    join4(z, a, b);
                    store4(z, tile + s * record, 4 * record);
                }
            }
        } else if constexpr (n == 8) {
            const number a = root(0, 0), b = root(1, 1);
            number z[8];
            if constexpr (Way != way::back) unrolled<8>([&](auto i) { z[i] = number::load(tile + i * record); });
            const auto with_rows = [&](index s, auto&& f) {
                number r[4] = {z[s], z[s + 2], z[s + 4], z[s + 6]};
                f(r);
                for (index i = 0; i < 4; ++i) z[s + 2 * i] = r[i];
            };
            if constexpr (Way != way::back) {
                unrolled<2>([&](auto s) { with_rows(s, [&](number (&r)[4]) { split4<false>(r, a, b); }); });
            }
            unrolled<4>([&](auto i) {
                const number p = root(2, 2 + i);
                number &u = z[2 * i], &v = z[2 * i + 1];
                if constexpr (Way != way::back) {
                    const number t = v.times(p.re, p.im);
                    v = u - t;
                    u = u + t;
                }
                u = product(offset + 2 * i * record, u);
                v = product(offset + (2 * i + 1) * record, v);
                if constexpr (Way != way::forth) {
                    const number sum = u + v;
                    v = (u - v).times_conjugate(p.re, p.im);
                    u = sum;
                }
            });
            if constexpr (Way != way::forth) {
                unrolled<2>([&](auto s) { with_rows(s, [&](number (&r)[4]) { join4(r, a, b); }); });
            }
            unrolled<8>([&](auto i) { z[i].store(results + i * record); });
        } else if constexpr (n == 4) {
            const number a = root(0, 0), b = root(1, 1);
            number z[4];
            if constexpr (Way != way::back) {
                load4(z, tile, record);
                split4<false>(z, a, b);
            }
            multiplied(z, 0);
            if constexpr (Way != way::forth) join4(z, a, b);
            store4(z, results, record);
        } else {
            const number p = root(0, 0);
            number s, d;
            if constexpr (Way != way::back) {
                const number u = number::load(tile), t = number::load(tile + record).times(p.re, p.im);
                s = u + t;
                d = u - t;
            }
            s = product(offset, s);
            d = product(offset + record, d);
            if constexpr (Way != way::forth) {
                const number sum = s + d;
                d = (s - d).times_conjugate(p.re, p.im);
                s = sum;
            }
            s.store(results);
            d.store(results + record);
        }
        if constexpr (Way != way::forth) turn(tile, x);
    }

    /// Records of blocks to records of the blocks' elements, and back.
    [[gnu::always_inline]] static void turn(const T* from, T* to)
    {
        unrolled<2>([&](auto part) {
            V r[static_cast<std::size_t>(n)];
            unrolled<n>([&](auto i) { r[i] = V::load_unaligned(from + i * record + part * n); });
            transpose<T, Arch>(r);
            unrolled<n>([&](auto i) { r[i].store_unaligned(to + i * record + part * n); });
        });
    }

    index size_;
    index radices_[48] = {}, first_[48] = {};
    index levels_ = 0;
    T *twiddles_, *group_twiddles_, *lane_twiddles_;
};

}  // namespace ssmkit::detail
