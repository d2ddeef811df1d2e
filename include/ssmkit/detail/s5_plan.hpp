#pragma once

// What the two passes of S5 share: how a call is cut into pieces, its parameters packed, and the scan of a tile of states.
//
// A piece is a few dozen tokens of one sequence: its input is turned into a panel, multiplied with B̄, scanned tile by tile and
// multiplied with C while it is in the second-level cache; B̄ u and the states go no further. Several pieces in a row, of one
// sequence or of several, make a span; within it, the products are tasks by pieces and the scan is tasks by tiles of states, so
// that one sequence keeps all threads busy and nothing depends on their number.

#include <algorithm>
#include <complex>
#include <cstdint>

#include <ssmkit/detail/panel_product.hpp>
#include <ssmkit/detail/s5_system.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit::detail {

/// Tokens in a piece: panels of 256 channels and 256 states are half of a second-level cache. 48, 96 and 128 take the same time.
inline constexpr index s5_longest_piece = 64;

template <class Arch, class T>
struct s5_shape {
    using R = compute_t<T>;
    static constexpr index n = lanes<R, Arch>;
    index batch, length, dim, state, out;
    index state_tiles, dim_tiles, out_tiles;
    index piece, pieces;  // tokens in a piece; pieces in a sequence
    index span;           // pieces in a span

    s5_shape(const s5_args<T>& a, std::size_t concurrency)
        : batch(a.u.extent(0)), length(a.u.extent(1)), dim(a.u.extent(2)), state(a.A.extent(0)), out(a.C.extent(0)),
          state_tiles(tiles_for<R, Arch>(state)), dim_tiles(tiles_for<R, Arch>(dim)), out_tiles(tiles_for<R, Arch>(out)),
          piece(std::min(s5_longest_piece, length)), pieces(length > 0 ? (length + piece - 1) / piece : 0),
          span(concurrency > 1 ? std::min(static_cast<index>(4 * concurrency), std::max<index>(total(), 1)) : 1)
    {
    }

    index total() const { return batch * pieces; }
    index states_size() const { return state_tiles * 2 * n; }  // a state as tiles: real parts, imaginary parts
    index state_panel() const { return state_tiles * 2 * piece * n; }
    index dim_panel() const { return dim_tiles * piece * n; }
    index out_panel() const { return out_tiles * piece * n; }

    index row(index i) const { return i / pieces; }
    index first(index i) const { return i % pieces * piece; }
    index tokens(index i) const { return std::min(piece, length - first(i)); }
};

/// Parameters made ready for one scan of a call. Tiles of states: real parts, then imaginary parts.
template <class Arch, class T>
struct s5_system_tiles {
    using R = compute_t<T>;
    using complex = std::complex<R>;
    static constexpr index n = lanes<R, Arch>;
    R* poles = nullptr;  // of every state; for intervals, s5_rates instead
    index step = 0;      // numbers from a tile to the next

    void take(arena& memory, const s5_shape<Arch, T>& s, bool varying)
    {
        step = (varying ? s5_rates<R>::rows : 2) * n;
        poles = memory.take<R>(static_cast<std::size_t>(s.state_tiles * step));
    }

    void prepare(const s5_args<T>& a, const s5_shape<Arch, T>& s) const
    {
        std::fill_n(poles, s.state_tiles * step, R(0));
        for (index i = 0; i < s.state; ++i) {
            R* const tile = poles + i / n * step;
            if (a.interval.data()) {
                s5_rates<R>::write(tile, n, i % n, s5_rate(a, i), static_cast<double>(a.delta[i]));
            } else {
                const std::complex<double> pole = s5_system(a, i).pole;
                tile[i % n] = static_cast<R>(pole.real());
                tile[n + i % n] = static_cast<R>(pole.imag());
            }
        }
    }
};

/// What B is multiplied by as it is packed.
template <class T>
std::complex<double> s5_packed_gain(const s5_args<T>& a, index state)
{
    return s5_gain_varies(a) ? 1.0 : s5_system(a, state).gain;
}

/// Column tiles for the states [tile], rows for the channels: M(state, channel) times gain(state), the parts with factors.
template <class Arch, class R, class Gain>
void pack_states_as_columns(const view<const std::complex<R>, 2>& M, index tile, R re_factor, R im_factor, R* out, Gain&& gain)
{
    constexpr index n = lanes<R, Arch>;
    const index channels = M.extent(1), first = tile * n, count = std::min(n, M.extent(0) - first);
    out += tile * channels * 2 * n;
    std::fill_n(out, channels * 2 * n, R(0));
    for (index lane = 0; lane < count; ++lane) {
        const std::complex<R> g(gain(first + lane));
        for (index c = 0; c < channels; ++c) {
            const std::complex<R> m = M(first + lane, c);
            R* const to = out + c * 2 * n + lane;
            to[0] = re_factor * (g.real() * m.real() - g.imag() * m.imag());
            to[n] = im_factor * (g.real() * m.imag() + g.imag() * m.real());
        }
    }
}

/// Column tiles for the channels, rows for the states of a tile: their real parts, then their imaginary parts.
template <class Arch, class R, class Gain>
void pack_states_as_rows(const view<const std::complex<R>, 2>& M, index tile, R re_factor, R im_factor, R* out, Gain&& gain)
{
    constexpr index n = lanes<R, Arch>;
    const index channels = M.extent(1), first = tile * n, count = std::min(n, M.extent(0) - first), rows = 2 * M.extent(0);
    const index tiles = tiles_for<R, Arch>(channels);
    for (index lane = 0; lane < count; ++lane) {
        const std::complex<R> g(gain(first + lane));
        const index re = 2 * first + lane, im = re + count;
        for (index ct = 0; ct < tiles; ++ct) {
            R *const to_re = out + packed_offset<R, Arch>(rows, tiles, re, ct), *const to_im = out + packed_offset<R, Arch>(
                                                                                                         rows, tiles, im, ct);
            for (index i = 0; i < n; ++i) {
                const bool inside = ct * n + i < channels;
                const std::complex<R> m = inside ? M(first + lane, ct * n + i) : std::complex<R>(0);
                to_re[i] = inside ? re_factor * (g.real() * m.real() - g.imag() * m.imag()) : R(0);
                to_im[i] = inside ? im_factor * (g.real() * m.imag() + g.imag() * m.real()) : R(0);
            }
        }
    }
}

/// The tokens of a piece as visited.
template <class T>
view<T, 2> s5_piece(const view<T, 3>& v, index b, index first, index tokens, bool backwards)
{
    return (backwards ? v.reversed(1) : v)[b].slice(0, first, tokens);
}

template <class T>
rectangle<T> as_rectangle(const view<T, 2>& v)
{
    return {v.data(), v.stride(0), v.extent(1) == 1 ? 1 : v.stride(1), v.extent(0), v.extent(1)};
}

/// Which tokens of a piece begin a sequence.
template <class T>
void s5_find_begins(const s5_args<T>& a, index b, index first, index tokens, bool backwards, std::uint8_t* flags)
{
    for (index t = 0; t < tokens && a.reset.data(); ++t) {
        flags[t] = s5_begins(a, b, backwards ? a.u.extent(1) - 1 - first - t : first + t, backwards);
    }
}

/// A column of states of one sequence to a tile and back.
template <class Arch, class R>
void load_state_tile(const view<const std::complex<R>, 2>& v, index b, index first, index count, R* tile)
{
    constexpr index n = lanes<R, Arch>;
    for (index i = 0; i < n; ++i) {
        const std::complex<R> h = v.data() && i < count ? v(b, first + i) : std::complex<R>(0);
        tile[i] = h.real();
        tile[n + i] = h.imag();
    }
}

template <class Arch, class R>
void store_state_tile(const R* tile, const view<std::complex<R>, 2>& v, index b, index first, index count)
{
    for (index i = 0; i < count; ++i) v(b, first + i) = {tile[i], tile[lanes<R, Arch> + i]};
}

/// Poles of the tokens of a piece and, where they follow the interval, gains: for each the real parts and the imaginary parts.
template <class R>
struct s5_token_system {
    const R* poles = nullptr;
    index step = 0;  // from a token to the next; 0 if all have the same
    const R* gains = nullptr;
};

/// The same for intervals, computed into buffers.
template <class Arch, class R>
[[gnu::noinline, gnu::flatten]] void s5_fill_system(const R* rates, discretization method, const R* intervals, index tokens,
                                                    R* poles, R* gains)
{
    constexpr index n = lanes<R, Arch>;
    for (index t = 0; t < tokens; ++t) {
        const s5_step_lanes<R, Arch> s(s5_rates<R>(rates, n), method, intervals[t]);
        s.pole().store(poles + t * 2 * n, n);
        if (gains) s.gain().store(gains + t * 2 * n, n);
    }
}

/// h_t = pole_t h_{t-1} + input_t for a tile of states: `in` and `out` have their imaginary parts `tile` further on and may be
/// the same. The lanes run along the states, which do not see each other.
template <class Arch, bool Liquid, class R>
[[gnu::noinline, gnu::flatten]] void s5_scan_tile(const R* in, R* out, index tile, index tokens, const s5_token_system<R>& system,
                                                  const std::uint8_t* begins, R* state)
{
    using c = complex_register<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    c h = c::load(state, n);
    for (index t = 0; t < tokens; ++t) {
        c input = c::load(in + t * n, tile), pole = c::load(system.poles + t * system.step, n);
        if (system.gains) input = c::load(system.gains + t * 2 * n, n) * input;
        if constexpr (Liquid) pole = pole + input;
        h = begins && begins[t] ? input : multiply_add(pole, h, input);
        h.store(out + t * n, tile);
    }
    h.store(state, n);
}

/// sums += D times a panel with as many channels.
template <class Arch, class R>
void s5_add_skip(const view<const R, 1>& D, const R* from, index tokens, R* sums, index piece)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    for_each_lanes<R, Arch>(D.extent(0), [&](auto range) {
        const v skip = range.load(D.data(), D.stride(0));
        for (index t = 0; t < tokens; ++t) {
            const index at = range.first * piece + t * n;
            multiply_add(skip, load<R, Arch>(from + at), load<R, Arch>(sums + at)).store_unaligned(sums + at);
        }
    });
}

/// sums += what is stored already.
template <class Arch, class R, class T>
void s5_add_stored(const view<T, 2>& stored, R* sums, index piece)
{
    constexpr index n = lanes<R, Arch>;
    for (index c = 0; c < stored.extent(1); c += n) {
        alignas(64) R before[static_cast<std::size_t>(s5_longest_piece * n)];
        load_tiles<Arch, R>(as_rectangle(view<const T, 2>(stored.slice(1, c, std::min(n, stored.extent(1) - c)))), before, n);
        for (index j = 0; j < stored.extent(0) * n; ++j) sums[c * piece + j] += before[j];
    }
}

}  // namespace ssmkit::detail
