#pragma once

#include <complex>
#include <cstddef>
#include <type_traits>
#include <utility>

#include <ssmkit/detail/simd.hpp>
#include <ssmkit/detail/unit_roots.hpp>

namespace ssmkit::detail {

/// How many numbers of type T stand side by side in a V: the lanes of a register, or 1 for a number by itself.
template <class V, class T>
inline constexpr index width_of = 1;
template <class T, class Arch>
inline constexpr index width_of<xsimd::batch<T, Arch>, T> = lanes<T, Arch>;

/// A complex number of each lane. In memory, a record: the real parts, then the imaginary ones.
template <class V>
struct complex_lanes {
    V re, im;

    template <class T>
    [[gnu::always_inline]] static complex_lanes load(const T* p)
    {
        if constexpr (std::is_same_v<V, T>) {
            return {p[0], p[1]};
        } else {
            return {V::load_unaligned(p), V::load_unaligned(p + width_of<V, T>)};
        }
    }

    template <class T>
    [[gnu::always_inline]] void store(T* p) const
    {
        if constexpr (std::is_same_v<V, T>) {
            p[0] = re;
            p[1] = im;
        } else {
            re.store_unaligned(p);
            im.store_unaligned(p + width_of<V, T>);
        }
    }

    [[gnu::always_inline]] complex_lanes operator+(const complex_lanes& b) const { return {re + b.re, im + b.im}; }
    [[gnu::always_inline]] complex_lanes operator-(const complex_lanes& b) const { return {re - b.re, im - b.im}; }
    [[gnu::always_inline]] complex_lanes times_i() const { return {-im, re}; }
    [[gnu::always_inline]] complex_lanes conjugate() const { return {re, -im}; }
    [[gnu::always_inline]] complex_lanes swapped() const { return {im, re}; }

    [[gnu::always_inline]] complex_lanes times(const V& c, const V& s) const
    {
        if constexpr (std::is_floating_point_v<V>) {
            return {re * c - im * s, re * s + im * c};
        } else {
            return {subtract_product(re * c, im, s), multiply_add(im, c, re * s)};
        }
    }

    /// By c - is.
    [[gnu::always_inline]] complex_lanes times_conjugate(const V& c, const V& s) const
    {
        return {multiply_add(im, s, re * c), subtract_product(im * c, re, s)};
    }

    [[gnu::always_inline]] complex_lanes scaled(const V& f) const { return {re * f, im * f}; }
};

/// The DFT of R complex numbers, in place: Σ_j x_j exp(-2πi jk / R).
template <index R, class V>
[[gnu::always_inline]] inline void small_dft(complex_lanes<V> (&x)[static_cast<std::size_t>(R)])
{
    if constexpr (R == 2) {
        const auto a = x[0] + x[1];
        x[1] = x[0] - x[1];
        x[0] = a;
    } else if constexpr (R == 3) {
        const auto sum = x[1] + x[2], difference = (x[1] - x[2]).scaled(V(0.86602540378443864676)).times_i();
        const auto middle = x[0] - sum.scaled(V(0.5));
        x[0] = x[0] + sum;
        x[1] = middle - difference;
        x[2] = middle + difference;
    } else if constexpr (R == 4) {
        const auto a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3], d = (x[1] - x[3]).times_i();
        x[0] = a + c;
        x[1] = b - d;
        x[2] = a - c;
        x[3] = b + d;
    } else {
        static_assert(R == 5);
        const V c1(0.30901699437494742410), c2(-0.80901699437494742410);
        const V s1(0.95105651629515357212), s2(0.58778525229247312917);
        const auto a = x[1] + x[4], b = x[2] + x[3], d = x[1] - x[4], e = x[2] - x[3];
        const auto p = x[0] + a.scaled(c1) + b.scaled(c2), q = x[0] + a.scaled(c2) + b.scaled(c1);
        const auto r = (d.scaled(s1) + e.scaled(s2)).times_i(), t = (d.scaled(s2) - e.scaled(s1)).times_i();
        x[0] = x[0] + a + b;
        x[1] = p - r;
        x[2] = q - t;
        x[3] = q + t;
        x[4] = p + r;
    }
}

/// The DFT of n complex numbers in every lane, n = 2^a 3^b 5^c: Stockham's passes of radix 5, 3, 4 and 2, from one array to
/// another and back, so that the order stays natural. Twiddles, computed in double, come from an arena.
template <class T>
class smooth_fft {
public:
    static bool fits(index n)
    {
        for (const index p : {2, 3, 5}) {
            while (n % p == 0) n /= p;
        }
        return n == 1;
    }

    smooth_fft(index n, arena& memory) : n_(n)
    {
        for (const index radix : {5, 3, 4, 2}) {
            for (; n % radix == 0; n /= radix) radices_[passes_++] = radix;
        }
        index count = 0;
        for_each_pass([&](index radix, index m, index) { count += 2 * (radix - 1) * m; });
        twiddles_ = memory.take<T>(static_cast<std::size_t>(count));
        const unit_roots roots(n_, memory);
        if (twiddles_ == nullptr) return;
        T* out = twiddles_;
        for_each_pass([&](index radix, index m, index stride) {
            for (index p = 0; p < m; ++p) {
                for (index i = 1; i < radix; ++i) {
                    const std::complex<double> w = roots(p * i * stride);
                    *out++ = static_cast<T>(w.real());
                    *out++ = static_cast<T>(-w.imag());
                }
            }
        });
    }

    index size() const { return n_; }

    /// Transforms n records at x with as many at y to work in; the result lies at the address returned, x or y.
    template <class V>
    T* run(T* x, T* y) const
    {
        const T* w = twiddles_;
        for_each_pass([&](index radix, index m, index stride) {
            const auto with = [&](auto r) { pass<r(), V>(x, y, w, m, stride); };
            if (radix == 2) with(std::integral_constant<index, 2>{});
            if (radix == 3) with(std::integral_constant<index, 3>{});
            if (radix == 4) with(std::integral_constant<index, 4>{});
            if (radix == 5) with(std::integral_constant<index, 5>{});
            w += 2 * (radix - 1) * m;
            std::swap(x, y);
        });
        return x;
    }

private:
    template <class F>
    void for_each_pass(F&& f) const
    {
        index m = n_, stride = 1;
        for (index i = 0; i < passes_; ++i) {
            m /= radices_[i];
            f(radices_[i], m, stride);
            stride *= radices_[i];
        }
    }

    template <index R, class V>
    [[gnu::noinline, gnu::flatten]] static void pass(const T* x, T* y, const T* w, index m, index stride)
    {
        using number = complex_lanes<V>;
        constexpr index record = 2 * width_of<V, T>;
        for (index p = 0; p < m; ++p, w += 2 * (R - 1)) {
            const T* const in = x + record * stride * p;
            T* const out = y + record * stride * R * p;
            for (index q = 0; q < stride; ++q) {
                number a[static_cast<std::size_t>(R)];
                unrolled<R>([&](auto i) { a[i] = number::load(in + record * (q + stride * m * i)); });
                small_dft<R, V>(a);
                a[0].store(out + record * q);
                unrolled<R - 1>([&](auto i) {
                    a[i + 1].times(V(w[2 * i]), V(w[2 * i + 1])).store(out + record * (q + stride * (i + 1)));
                });
            }
        }
    }

    index n_;
    index radices_[64] = {};
    index passes_ = 0;
    T* twiddles_;
};

/// The DFT of n complex numbers in every lane, any n: lengths with other prime factors than 2, 3 and 5 as a convolution
/// (Bluestein, "A linear filtering approach to the computation of the discrete Fourier transform", 1968), of which the
/// filter's transform is computed once, in double.
template <class T>
class complex_fft {
public:
    complex_fft(index n, arena& memory)
        : n_(n), smooth_(smooth_fft<T>::fits(n)), fft_(smooth_ ? n : padded(n), memory)
    {
        if (smooth_) return;
        const index m = fft_.size();
        chirp_ = memory.take<T>(static_cast<std::size_t>(2 * n));
        filter_ = memory.take<T>(static_cast<std::size_t>(2 * m));
        const smooth_fft<double> exact(m, memory);
        double* const a = memory.take<double>(static_cast<std::size_t>(2 * m));
        double* const b = memory.take<double>(static_cast<std::size_t>(2 * m));
        const unit_roots roots(2 * n, memory);
        if (chirp_ == nullptr) return;
        for (index j = 0; j < 2 * m; ++j) a[j] = 0;
        index square = 0;  // j² modulo 2n: of larger numbers the angle would be lost
        for (index j = 0; j < n; ++j) {
            const std::complex<double> c = roots(square);
            chirp_[2 * j] = static_cast<T>(c.real());
            chirp_[2 * j + 1] = static_cast<T>(-c.imag());
            a[2 * j] = c.real() / static_cast<double>(m);
            a[2 * j + 1] = c.imag() / static_cast<double>(m);
            if (j > 0) {
                a[2 * (m - j)] = a[2 * j];
                a[2 * (m - j) + 1] = a[2 * j + 1];
            }
            square = (square + 2 * j + 1) % (2 * n);
        }
        const double* const transformed = exact.template run<double>(a, b);
        for (index j = 0; j < 2 * m; ++j) filter_[j] = static_cast<T>(transformed[j]);
    }

    index size() const { return n_; }

    /// Records that an array for run must have room for.
    index records() const { return fft_.size(); }

    /// Transforms n records at x; the result lies at the address returned, x or y.
    template <class V>
    T* run(T* x, T* y) const
    {
        if (smooth_) return fft_.template run<V>(x, y);
        using number = complex_lanes<V>;
        constexpr index record = 2 * width_of<V, T>;
        const index m = fft_.size();
        for (index j = 0; j < n_; ++j) {
            number::load(x + record * j).times(V(chirp_[2 * j]), V(chirp_[2 * j + 1])).store(x + record * j);
        }
        for (index j = n_; j < m; ++j) number{V(T(0)), V(T(0))}.store(x + record * j);
        T* const spectrum = fft_.template run<V>(x, y);
        for (index j = 0; j < m; ++j) {  // with the parts exchanged, so that the transform forth is the one back
            number::load(spectrum + record * j)
                .times(V(filter_[2 * j]), V(filter_[2 * j + 1]))
                .swapped()
                .store(spectrum + record * j);
        }
        T* const result = fft_.template run<V>(spectrum, spectrum == x ? y : x);
        for (index j = 0; j < n_; ++j) {
            number::load(result + record * j).swapped().times(V(chirp_[2 * j]), V(chirp_[2 * j + 1])).store(result + record * j);
        }
        return result;
    }

private:
    /// The least 2^a, 3 2^a or 5 2^a that a convolution of n with n numbers fits into.
    static index padded(index n)
    {
        const index need = 2 * n - 1;
        index best = 0;
        for (const index odd : {1, 3, 5}) {
            index size = odd;
            while (size < need) size *= 2;
            if (best == 0 || size < best) best = size;
        }
        return best;
    }

    index n_;
    bool smooth_;
    smooth_fft<T> fft_;
    T *chirp_ = nullptr, *filter_ = nullptr;
};

}  // namespace ssmkit::detail
