#pragma once

// Transforms between real sequences and half of their spectra, any length, many channels side by side in the lanes:
//
//     arena sizes;                                  // without memory: only adds up
//     real_fft<float>(length, sizes);               // then sizes.size() bytes hold the tables
//     arena tables(memory);
//     const real_fft<float> fft(length, tables);    // once; may be shared by threads
//     inverse_rows<Arch>(fft, spectra, x, scratch); // (channels, length / 2 + 1) to (channels, length): numpy's irfft
//     forward_rows<Arch>(fft, x, spectra, scratch); // numpy's rfft
//
// with scratch of fft.scratch_size<Arch>() numbers, aligned as an arena aligns. Who has channels in lanes already (records: the
// real parts of `lanes` channels, then their imaginary parts) calls fft.inverse and fft.forward.

#include <algorithm>
#include <complex>
#include <cstddef>

#include <ssmkit/detail/complex_fft.hpp>

namespace ssmkit::detail {

template <class T>
class real_fft {
public:
    real_fft(index length, arena& memory) : n_(length), fft_(length % 2 == 0 ? std::max<index>(length / 2, 1) : length, memory)
    {
        const index half = n_ % 2 == 0 ? n_ / 2 : 0;
        twiddles_ = memory.take<T>(static_cast<std::size_t>(2 * half));
        const unit_roots roots(std::max<index>(n_, 1), memory);
        if (twiddles_ == nullptr) return;
        for (index k = 0; k < half; ++k) {
            const std::complex<double> w = roots(k);
            twiddles_[2 * k] = static_cast<T>(w.real());
            twiddles_[2 * k + 1] = static_cast<T>(w.imag());
        }
    }

    index length() const { return n_; }
    index bins() const { return n_ / 2 + 1; }

    /// Numbers of T that inverse and forward need to work in.
    template <class Arch>
    index work_size() const
    {
        return 4 * lanes<T, Arch> * std::max(fft_.records(), bins());
    }

    /// The same for whole rows.
    template <class Arch>
    index scratch_size() const
    {
        return work_size<Arch>() + 2 * lanes<T, Arch> * bins();
    }

    /// x_t = 1/n Σ_k X_k exp(2πi kt / n) over the whole spectrum, of which X holds bins() records; imaginary parts of the first
    /// bin and, for even n, of the last one are ignored. The result, n registers, lies at the address returned, within work.
    template <class Arch>
    const T* inverse(const T* X, T* work) const
    {
        using V = vec<T, Arch>;
        using number = complex_lanes<V>;
        constexpr index record = 2 * lanes<T, Arch>;
        T* const other = work + work_size<Arch>() / 2;
        if (n_ == 0) return work;
        const V scale(T(1) / static_cast<T>(n_)), zero(T(0));
        if (n_ % 2 != 0) {  // the parts exchanged: a transform forth is one back
            number{zero, number::load(X).re * scale}.store(work);
            for (index k = 1; k < bins(); ++k) {
                const number x = number::load(X + record * k).scaled(scale);
                x.swapped().store(work + record * k);
                x.conjugate().swapped().store(work + record * (n_ - k));
            }
            T* const z = fft_.template run<V>(work, other);
            for (index t = 0; t < n_; ++t) number::load(z + record * t).im.store_unaligned(z + lanes<T, Arch> * t);
            return z;
        }
        const index half = n_ / 2;  // x_{2j} + i x_{2j+1} is the inverse of X_k + X_{k+half} + i w_k (X_k - X_{k+half})
        for (index k = 0; k < half; ++k) {
            number a = number::load(X + record * k), b = number::load(X + record * (half - k)).conjugate();
            if (k == 0) a.im = b.im = zero;
            const number odd = (a - b).times(V(twiddles_[2 * k]), V(twiddles_[2 * k + 1])).times_i();
            (a + b + odd).scaled(scale).swapped().store(work + record * k);
        }
        T* const z = fft_.template run<V>(work, other);
        for (index j = 0; j < half; ++j) number::load(z + record * j).swapped().store(z + record * j);
        return z;
    }

    /// X_k = Σ_t x_t exp(-2πi kt / n), k < bins(): records, from n registers at x.
    template <class Arch>
    void forward(const T* x, T* X, T* work) const
    {
        using V = vec<T, Arch>;
        using number = complex_lanes<V>;
        constexpr index record = 2 * lanes<T, Arch>;
        T* const other = work + work_size<Arch>() / 2;
        const V zero(T(0));
        if (n_ == 0) return;
        if (n_ % 2 != 0) {
            for (index t = 0; t < n_; ++t) number{load<T, Arch>(x + lanes<T, Arch> * t), zero}.store(work + record * t);
            const T* const z = fft_.template run<V>(work, other);
            std::copy_n(z, record * bins(), X);
            zero.store_unaligned(X + lanes<T, Arch>);  // the first bin is real, also where rounding left something
            return;
        }
        const index half = n_ / 2;
        std::copy_n(x, record * half, work);
        const T* const z = fft_.template run<V>(work, other);
        for (index k = 0; k <= half; ++k) {
            const number a = number::load(z + record * (k % half)), b = number::load(z + record * ((half - k) % half)).conjugate();
            const number even = (a + b).scaled(V(T(0.5))), odd = (b - a).times_i().scaled(V(T(0.5)));
            number result = even - odd;
            if (k < half) result = even + odd.times(V(twiddles_[2 * k]), V(-twiddles_[2 * k + 1]));
            result.store(X + record * k);
        }
    }

private:
    index n_;
    complex_fft<T> fft_;
    T* twiddles_;
};

/// Every row x of (channels, length) from its half spectrum, a row of (channels, length / 2 + 1).
template <class Arch, class T>
void inverse_rows(const real_fft<T>& fft, const view<const std::complex<T>, 2>& spectra, const view<T, 2>& x, T* scratch)
{
    constexpr index n = lanes<T, Arch>;
    T *const records = scratch, *const work = scratch + 2 * n * fft.bins();
    for (index c = 0; c < x.extent(0); c += n) {
        const index count = std::min(n, x.extent(0) - c);
        if (count < n) std::fill_n(records, 2 * n * fft.bins(), T(0));
        for (index lane = 0; lane < count; ++lane) {
            for (index k = 0; k < fft.bins(); ++k) {
                const std::complex<T> value = spectra(c + lane, k);
                records[2 * n * k + lane] = value.real();
                records[2 * n * k + n + lane] = value.imag();
            }
        }
        const T* const result = fft.template inverse<Arch>(records, work);
        for (index lane = 0; lane < count; ++lane) {
            for (index t = 0; t < fft.length(); ++t) x(c + lane, t) = result[n * t + lane];
        }
    }
}

/// The half spectrum of every row.
template <class Arch, class T>
void forward_rows(const real_fft<T>& fft, const view<const T, 2>& x, const view<std::complex<T>, 2>& spectra, T* scratch)
{
    constexpr index n = lanes<T, Arch>;
    T *const records = scratch, *const work = scratch + 2 * n * fft.bins();
    for (index c = 0; c < x.extent(0); c += n) {
        const index count = std::min(n, x.extent(0) - c);
        if (count < n) std::fill_n(records, n * fft.length(), T(0));
        for (index lane = 0; lane < count; ++lane) {
            for (index t = 0; t < fft.length(); ++t) records[n * t + lane] = x(c + lane, t);
        }
        fft.template forward<Arch>(records, records, work);
        for (index lane = 0; lane < count; ++lane) {
            for (index k = 0; k < fft.bins(); ++k) {
                spectra(c + lane, k) = {records[2 * n * k + lane], records[2 * n * k + n + lane]};
            }
        }
    }
}

}  // namespace ssmkit::detail
