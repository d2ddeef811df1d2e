#pragma once

// ConvS5 by way of S5. The pixels of an image do not see each other within the recurrence: what a kernel gathers around a pixel
// is one long input of an S5 at that pixel, and what an output kernel spreads is as many outputs, added up where they belong.
// So a band of pixels over a few images is one call of S5, whose matrices are the kernels, and stays in the caches.

#include <algorithm>
#include <complex>

#include <ssmkit/args/convs5_backward.hpp>
#include <ssmkit/s5.hpp>

namespace ssmkit::detail {

/// Images that are computed in one go; the backward pass keeps the states before each such piece.
inline constexpr index convs5_piece = 16;

template <class T>
struct convs5_shape {
    using R = compute_t<T>;
    index length, height, width, dim, state, out;
    index in_rows, in_columns, out_rows, out_columns;
    index pixels, inputs, outputs;  // inputs and outputs of the S5 at a pixel
    index piece, pieces, band;      // images in a piece; pixels in a band

    explicit convs5_shape(const convs5_args<T>& a)
        : length(a.u.extent(1)),
          height(a.u.extent(2)),
          width(a.u.extent(3)),
          dim(a.u.extent(4)),
          state(a.A.extent(0)),
          out(a.C.extent(3)),
          in_rows(a.B.extent(0)),
          in_columns(a.B.extent(1)),
          out_rows(a.C.extent(0)),
          out_columns(a.C.extent(1)),
          pixels(height * width),
          inputs(in_rows * in_columns * dim),
          outputs(out_rows * out_columns * out),
          piece(std::min(convs5_piece, length)),
          pieces(length > 0 ? (length + piece - 1) / piece : 0)
    {
        constexpr index megabyte = (index{1} << 20) / static_cast<index>(sizeof(R));
        band = std::clamp<index>(megabyte / std::max<index>(1, piece * (inputs + outputs)), 1, std::max<index>(1, pixels));
    }

    /// Calls f(first, count) for bands of pixels.
    template <class F>
    void for_bands(F&& f) const
    {
        for (index first = 0; first < pixels; first += band) f(first, std::min(band, pixels - first));
    }

    /// Calls f(t, q, tap, i, j) for `tokens` images, the pixels [first, first + count) and every element of a kernel with the
    /// pixel (i, j) that it meets; Sign -1: from which it is met.
    template <index Sign, class F>
    void for_taps(index rows, index columns, index tokens, index first, index count, F&& f) const
    {
        for (index q = 0; q < count; ++q) {
            const index i = (first + q) / width, j = (first + q) % width;
            for (index t = 0; t < tokens; ++t) {
                for (index tap = 0; tap < rows * columns; ++tap) {
                    f(t, q, tap, i + Sign * (tap / columns - (rows - 1) / 2), j + Sign * (tap % columns - (columns - 1) / 2));
                }
            }
        }
    }

    bool inside(index i, index j) const { return i >= 0 && i < height && j >= 0 && j < width; }

    /// What a kernel meets: to[q][t][tap][channel], zero outside the image; v holds (tokens, height, width, channels).
    template <index Sign, class E>
    void gather(const view<const E, 4>& v, index rows, index columns, index first, index count, R* to) const
    {
        const index channels = v.extent(3);
        for_taps<Sign>(rows, columns, v.extent(0), first, count, [&](index t, index, index, index i, index j) {
            if (inside(i, j)) {
                const E* const from = v.pointer(t, i, j);
                for (index c = 0; c < channels; ++c) to[c] = static_cast<R>(from[c * v.stride(3)]);
            } else {
                std::fill_n(to, channels, R(0));
            }
            to += channels;
        });
    }

    /// The way back: adds to sums[t][pixel][channel].
    template <index Sign>
    void scatter(const R* from, index rows, index columns, index channels, index tokens, index first, index count, R* sums) const
    {
        for_taps<Sign>(rows, columns, tokens, first, count, [&](index t, index, index, index i, index j) {
            if (inside(i, j)) {
                R* const to = sums + (t * pixels + i * width + j) * channels;
                for (index c = 0; c < channels; ++c) to[c] += from[c];
            }
            from += channels;
        });
    }

    template <class E>
    void store(const R* sums, const view<E, 4>& v) const
    {
        for (index t = 0; t < v.extent(0); ++t) {
            for (index q = 0; q < pixels; ++q) {
                for (index c = 0; c < v.extent(3); ++c) v(t, q / width, q % width, c) = static_cast<E>(*sums++);
            }
        }
    }

    /// States of an image to (pixel, state) and back.
    void load_states(const view<const std::complex<R>, 4>& v, index b, std::complex<R>* h) const
    {
        for (index q = 0; q < pixels; ++q) {
            for (index n = 0; n < state; ++n) h[q * state + n] = v.data() ? v(b, q / width, q % width, n) : std::complex<R>(0);
        }
    }
    void store_states(const std::complex<R>* h, const view<std::complex<R>, 4>& v, index b) const
    {
        for (index q = 0; q < pixels && v.data(); ++q) {
            for (index n = 0; n < state; ++n) v(b, q / width, q % width, n) = h[q * state + n];
        }
    }
};

/// The kernels as matrices of an S5: (state, inputs) and (outputs, state).
template <class T>
struct convs5_matrices {
    using complex = std::complex<compute_t<T>>;
    view<complex, 2> B, C;

    convs5_matrices(const convs5_shape<T>& s, arena& memory)
        : B(memory.take<complex>(static_cast<std::size_t>(s.state * s.inputs)), s.state, s.inputs),
          C(memory.take<complex>(static_cast<std::size_t>(s.outputs * s.state)), s.outputs, s.state)
    {
    }

    /// Calls f(element of B or C, element of the kernel) for all of them.
    template <class E, class F>
    static void pair_inputs(const view<complex, 2>& B, const view<E, 4>& kernel, F&& f)
    {
        index column = 0;
        for (index tap = 0; tap < kernel.extent(0) * kernel.extent(1); ++tap) {
            for (index d = 0; d < kernel.extent(2); ++d, ++column) {
                for (index n = 0; n < kernel.extent(3); ++n)
                    f(B(n, column), kernel(tap / kernel.extent(1), tap % kernel.extent(1), d, n));
            }
        }
    }
    template <class E, class F>
    static void pair_outputs(const view<complex, 2>& C, const view<E, 4>& kernel, F&& f)
    {
        for (index tap = 0; tap < kernel.extent(0) * kernel.extent(1); ++tap) {
            for (index o = 0; o < kernel.extent(3); ++o) {
                const index row = tap * kernel.extent(3) + o;
                for (index n = 0; n < kernel.extent(2); ++n)
                    f(C(row, n), kernel(tap / kernel.extent(1), tap % kernel.extent(1), n, o));
            }
        }
    }

    void load(const convs5_args<T>& a) const
    {
        const auto copy = [](complex& to, const complex& from) { to = from; };
        pair_inputs(B, a.B, copy);
        pair_outputs(C, a.C, copy);
    }
};

/// A view of the images [first, first + count) of a sequence.
template <class E>
view<E, 4> convs5_images(const view<E, 5>& v, index b, index first, index count)
{
    return v[b].slice(0, first, count);
}

}  // namespace ssmkit::detail
