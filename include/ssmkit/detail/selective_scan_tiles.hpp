#pragma once

// What the forward and the backward pass of the selective scan share: which positions are visited when, how channels are cut
// into chunks and how the parameters reach the lanes.

#include <algorithm>
#include <limits>
#include <numeric>

#include <ssmkit/args/selective_scan.hpp>
#include <ssmkit/detail/math.hpp>
#include <ssmkit/detail/tile.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit::detail {

/// Steps handled between loading and storing tiles, and the most channels handled together. Long rows suit the memory, whose
/// pages and prefetchers see few streams: 128 channels at a time cost 20 % more than 1536, whose tiles, rates and state
/// (0.5 MB for 16 states) still lie in a second-level cache. 8 or 32 steps: no gain.
inline constexpr index scan_steps = 16;
inline constexpr index scan_channels = 1536;
/// Where time is contiguous every channel is a page of its own, and a line of 16 steps by itself costs more to fetch than to
/// compute on; rows a power of 2 apart fall on few cache sets besides. More steps of fewer channels (64 steps: 5 % slower).
inline constexpr index scan_steps_time_contiguous = 128;
inline constexpr index scan_channels_time_contiguous = 128;

/// The position of each step: first to last, last to first, or as the caller's order has it.
struct visiting_order {
    view<const index, 1> order;  // empty: as they lie
    index length;
    bool reverse;

    index position(index step) const
    {
        const index k = reverse ? length - 1 - step : step;
        return order.data() ? order[k] : k;
    }

    /// Calls f(step, position, stride, count) for runs of steps whose positions advance by a constant stride.
    template <class F>
    void for_each_run(index first, index steps, F&& f) const
    {
        if (!order.data()) return f(first, position(first), reverse ? index{-1} : index{1}, steps);
        for (index s = first; s < first + steps;) {
            const index begin = position(s);
            index count = 1, stride = 0;  // stride 0 marks a single step
            if (s + 1 < first + steps) stride = position(s + 1) - begin;
            while (s + count < first + steps && position(s + count) == begin + count * stride) ++count;
            f(s, begin, count == 1 ? index{0} : stride, count);
            s += count;
        }
    }
};

/// Loads steps first ... first + steps - 1 of channels c0 ... of one batch row into tiles.
template <class Arch, class R, class E>
void load_steps(const view<const E, 3>& from, index b, const visiting_order& visit, index first, index steps, index c0,
                index channels, R* tiles, index tile_stride)
{
    visit.for_each_run(first, steps, [&](index s, index position, index stride, index count) {
        load_tiles<Arch, R, E>({from.pointer(b, position, c0), stride * from.stride(1), from.stride(2), count, channels},
                               tiles + (s - first) * lanes<R, Arch>, tile_stride);
    });
}

template <class Arch, class R, class E>
void store_steps(const R* tiles, index tile_stride, const view<E, 3>& to, index b, const visiting_order& visit, index first,
                 index steps, index c0, index channels)
{
    visit.for_each_run(first, steps, [&](index s, index position, index stride, index count) {
        store_tiles<Arch, R, E>(tiles + (s - first) * lanes<R, Arch>, tile_stride,
                                {to.pointer(b, position, c0), stride * to.stride(1), to.stride(2), count, channels});
    });
}

/// Cache lines of an array to be asked for while something else is computed, one a step: rows a stride apart; after `rows` of
/// them, the lines that follow those.
struct prefetch_rows {
    const char* next = nullptr;
    index stride = 0;
    index rows = std::numeric_limits<index>::max(), row = 0;
    index line = 64;  // from a line to the one that follows; negative where memory is walked down

    void step()
    {
        prefetch(next);
        next += stride;
        if (++row == rows) {
            row = 0;
            next += line - rows * stride;
        }
    }
};

/// The lines that load_steps and store_steps will touch at the `channels` channels from `channel`, from step `first`: of a
/// channel-contiguous array one a step, of a time-contiguous one a line of each channel, then the next. For other layouts, and
/// beyond the end, nothing of use.
template <class E>
prefetch_rows rows_ahead(const view<E, 3>& array, index b, const visiting_order& visit, index first, index channel, index channels)
{
    if (array.data() == nullptr || visit.order.data() || first >= visit.length) return {};
    const bool channels_lie_together = array.stride(2) == 1;
    if (!channels_lie_together && array.stride(1) != 1) return {};
    const index stride = channels_lie_together ? (visit.reverse ? -1 : 1) * array.stride(1) : array.stride(2);
    prefetch_rows ahead{reinterpret_cast<const char*>(array.pointer(b, visit.position(first), channel)),
                        stride * static_cast<index>(sizeof(E))};
    if (!channels_lie_together) ahead.rows = channels;
    if (visit.reverse) ahead.line = -ahead.line;
    return ahead;
}

/// Factor times the values of channels c0 ...; zeros where there are none, and behind the last up to `width`.
template <class R>
void load_channels(const view<const R, 1>& values, index c0, index channels, index width, R factor, R* to)
{
    for (index i = 0; i < width; ++i) to[i] = values.data() && i < channels ? factor * values[c0 + i] : R(0);
}

/// What a step of some channels takes into the recurrence: delta, x = delta u, and y = D u if there is a skip.
template <class Arch, class R, bool Softplus, bool Skip>
[[gnu::always_inline]] inline void prepare_lanes(const vec<R, Arch>& raw, const vec<R, Arch>& u, const R* bias, const R* D,
                                                 R* delta, R* x, R* y)
{
    const vec<R, Arch> biased = raw + load<R, Arch>(bias), step = Softplus ? softplus(biased) : biased;
    store(step, delta);
    store(step * u, x);
    if constexpr (Skip) store(load<R, Arch>(D) * u, y);
}

/// The same for the rows of a tile, in place: delta and x hold the inputs.
template <class Arch, class R, bool Softplus, bool Skip>
[[gnu::flatten]] void prepare_tile(R* delta, R* x, R* y, index steps, const R* bias, const R* D)
{
    for (index i = 0; i < steps * lanes<R, Arch>; i += lanes<R, Arch>) {
        prepare_lanes<Arch, R, Softplus, Skip>(load<R, Arch>(delta + i), load<R, Arch>(x + i), bias, D, delta + i, x + i, y + i);
    }
}

/// The same for one step of neighbouring channels, straight from the inputs' memory.
template <class Arch, class R, bool Softplus, bool Skip, class E>
[[gnu::flatten]] void prepare_row(const E* raw, const E* u, index channels, const R* bias, const R* D, R* delta, R* x, R* y,
                                  index tile)
{
    index at = 0;
    for_each_lanes<R, Arch>(channels, [&](auto range) __attribute__((always_inline)) {
        prepare_lanes<Arch, R, Softplus, Skip>(range.load(raw), range.load(u), bias + range.first, D + range.first, delta + at,
                                               x + at, y + at);
        at += tile;
    });
}

/// The same for some steps of a chunk of channels; without a skip, D and y are null. Row by row where the channels lie
/// together, as the memory lies; otherwise by way of tiles.
template <class Arch, class R, class T, class Param>
void prepare_steps(const selective_scan_args<T, Param>& a, const visiting_order& visit, index b, index first, index steps,
                   index c0, index channels, const R* bias, const R* D, R* delta, R* x, R* y, index tile)
{
    constexpr index n = lanes<R, Arch>;
    with_constants(a.delta_softplus, D != nullptr, [&](auto softplus, auto skip) {
        if (a.delta.stride(2) == 1 && a.u.stride(2) == 1) {
            for (index s = first; s < first + steps; ++s) {
                const index position = visit.position(s), at = (s - first) * n;
                prepare_row<Arch, R, softplus, skip>(a.delta.pointer(b, position, c0), a.u.pointer(b, position, c0), channels, bias,
                                                     D, delta + at, x + at, y + at, tile);
            }
            return;
        }
        load_steps<Arch, R>(a.delta, b, visit, first, steps, c0, channels, delta, tile);
        load_steps<Arch, R>(a.u, b, visit, first, steps, c0, channels, x, tile);
        for (index t = 0; t < tiles_for<R, Arch>(channels); ++t) {
            prepare_tile<Arch, R, softplus, skip>(delta + t * tile, x + t * tile, y + t * tile, steps, bias + t * n, D + t * n);
        }
    });
}

/// Real numbers in an element of Param: 2 for complex ones, kept as neighbouring rows (re, im) of a tile.
template <class Param>
inline constexpr index components = is_complex<Param> ? 2 : 1;

/// The real numbers behind a pointer to elements of Param.
template <class R, class P>
auto* as_real(P* p)
{
    if constexpr (is_complex<std::remove_const_t<P>>) {
        return reinterpret_cast<std::conditional_t<std::is_const_v<P>, const R, R>*>(p);
    } else {
        return p;
    }
}

/// Loads (channel, state) parameters starting at p into tiles whose rows are the states' components.
template <class Arch, class R, class P>
void load_states(const P* p, index channel_stride, index state_stride, index state, index channels, R* tiles,
                 index tile_stride)
{
    constexpr index k = components<P>;
    using E = std::conditional_t<is_complex<P>, R, P>;
    const E* const data = as_real<R>(p);
    if (k == 1 || state_stride == 1) {
        load_tiles<Arch, R, E>({data, state_stride, k * channel_stride, k * state, channels}, tiles, tile_stride);
        return;
    }
    for (index n = 0; n < state; ++n) {
        load_tiles<Arch, R, E>({data + n * k * state_stride, 1, k * channel_stride, k, channels},
                               tiles + n * k * lanes<R, Arch>, tile_stride);
    }
}

template <class Arch, class R, class P>
void store_states(const R* tiles, index tile_stride, P* p, index channel_stride, index state_stride, index state,
                  index channels)
{
    constexpr index k = components<P>;
    R* const data = as_real<R>(p);
    if (k == 1 || state_stride == 1) {
        store_tiles<Arch, R, R>(tiles, tile_stride, {data, state_stride, k * channel_stride, k * state, channels});
        return;
    }
    for (index n = 0; n < state; ++n) {
        store_tiles<Arch, R, R>(tiles + n * k * lanes<R, Arch>, tile_stride,
                                {data + n * k * state_stride, 1, k * channel_stride, k, channels});
    }
}

/// Rows that a state takes in the tile of rates: real, A log2(e); complex, Re(A) log2(e) and Im(A) / 2 pi as a sum of two.
template <class Param>
inline constexpr index rate_rows = is_complex<Param> ? 3 : 1;

/// Turns A into the tile of rates that decay() takes.
template <class Arch, class R, class Param>
void load_rates(const view<const Param, 2>& A, index c0, index channels, R* rates, index tile_stride)
{
    constexpr index n = lanes<R, Arch>;
    const index state = A.extent(1);
    using v = vec<R, Arch>;
    if constexpr (!is_complex<Param>) {
        load_states<Arch, R>(A.pointer(c0, 0), A.stride(0), A.stride(1), state, channels, rates, tile_stride);
        for (index t = 0; t < tiles_for<R, Arch>(channels); ++t) {
            R* p = rates + t * tile_stride;
            for (index i = 0; i < state; ++i, p += n) (v::load_unaligned(p) * v(R(log2_e))).store_unaligned(p);
        }
    } else {
        for (index c = 0; c < channels; ++c) {
            R* const p = rates + (c / n) * tile_stride + c % n;
            for (index i = 0; i < state; ++i) {
                const double turns = static_cast<double>(A(c0 + c, i).imag()) / 6.283185307179586477;
                p[(3 * i + 0) * n] = static_cast<R>(static_cast<double>(A(c0 + c, i).real()) * log2_e);
                p[(3 * i + 1) * n] = static_cast<R>(turns);
                p[(3 * i + 2) * n] = static_cast<R>(turns - static_cast<double>(static_cast<R>(turns)));
            }
        }
        for (index c = channels; c < tiles_for<R, Arch>(channels) * n; ++c) {
            for (index i = 0; i < 3 * state; ++i) rates[(c / n) * tile_stride + i * n + c % n] = R(0);
        }
    }
}

/// How the scan's channels are cut: chunks lie within one group of every parameter that is shared by neighbouring channels.
struct scan_partition {
    index segment;     // a chunk does not cross a multiple of this
    index chunk;       // channels of a full chunk
    index per_segment; // chunks in a segment
    index count;       // chunks in dim
    bool B_per_lane, C_per_lane;  // groups narrower than a register: every lane has its own B (C)

    index first(index i) const { return (i / per_segment) * segment + (i % per_segment) * chunk; }
    index channels(index i) const { return std::min(chunk, segment - (i % per_segment) * chunk); }
};

/// Cuts the channels into chunks of at most `widest`, and into at least `tasks` chunks over the whole batch where a chunk of
/// a register's width, or of `granule` channels, allows it.
template <class Arch, class T, class Param>
scan_partition partition_channels(const selective_scan_args<T, Param>& a, index widest, index tasks,
                                  index granule = lanes<compute_t<T>, Arch>)
{
    constexpr index n = lanes<compute_t<T>, Arch>;
    const index batch = a.u.extent(0), dim = a.u.extent(2);
    scan_partition p{};
    if (dim == 0 || batch == 0) return p;
    const index B_width = dim / a.B.extent(2), C_width = dim / a.C.extent(2);
    const index narrow = std::min(n, dim);
    p.B_per_lane = B_width < narrow;
    p.C_per_lane = C_width < narrow;
    p.segment = std::gcd(p.B_per_lane ? dim : B_width, p.C_per_lane ? dim : C_width);
    if (p.segment < narrow) {  // two groupings that do not nest: let the narrower one be each lane's own
        (B_width < C_width ? p.B_per_lane : p.C_per_lane) = true;
        p.segment = std::max(B_width, C_width);
    }
    const auto divide_up = [](index x, index by) { return (x + by - 1) / by; };
    const index segments = dim / p.segment;
    const index chunks = std::max(divide_up(p.segment, widest), divide_up(tasks, batch * segments));
    p.chunk = std::min(divide_up(divide_up(p.segment, chunks), granule) * granule, divide_up(p.segment, n) * n);
    p.per_segment = divide_up(p.segment, p.chunk);
    p.count = segments * p.per_segment;
    return p;
}

/// B or C on its way to the lanes, for one chunk of channels. A value shared by all lanes is read as a scalar, from the
/// caller's memory where it lies as the kernel wants it and otherwise from a packed copy; values of each lane's own come as
/// tiles.
template <class Arch, class R, class Element>
class scan_coefficient {
public:
    static constexpr index k = components<Element>;

    /// Scratch elements needed for chunks of `channels` and blocks of `steps`.
    static index scratch(index state, index channels, index steps, bool per_lane, bool constant)
    {
        const index n = lanes<R, Arch>;
        if (!per_lane) return steps * state * k;
        return (constant ? tiles_for<R, Arch>(channels) : steps) * n * state * k;
    }

    scan_coefficient(const view<const Element, 4>& from, const visiting_order& visit, index dim, bool per_lane, R* memory)
        : from_(from), visit_(visit), width_(dim ? dim / from.extent(2) : 1), memory_(memory), per_lane_(per_lane),
          constant_(is_constant(from))
    {
    }

    static bool is_constant(const view<const Element, 4>& from) { return from.stride(1) == 0 || from.extent(1) <= 1; }

    bool per_lane() const { return per_lane_; }

    /// Before the first step of a chunk.
    void enter_chunk(index b, index c0, index channels)
    {
        b_ = b;
        c0_ = c0;
        channels_ = channels;
        const index n = lanes<R, Arch>;
        if (!per_lane_ || !constant_ || from_.extent(1) == 0) return;
        for (index c = 0; c < channels; c += n) {
            load_lanes(0, c0 + c, std::min(n, channels - c), memory_ + (c / n) * n * state() * k);
        }
    }

    /// Before the first step of a block of steps.
    void enter_block(index first, index steps)
    {
        first_ = first;
        steps_ = steps;
        if (per_lane_) return;
        const index group = c0_ / width_;
        const bool as_is = std::is_same_v<Element, R> || is_complex<Element>;
        if (as_is && from_.stride(3) == 1 && !visit_.order.data()) {
            data_ = reinterpret_cast<const R*>(from_.pointer(b_, visit_.position(first), group));
            step_ = (visit_.reverse ? -k : k) * from_.stride(1);
            return;
        }
        R* out = memory_;
        for (index s = first; s < first + steps; ++s) {
            const Element* const p = from_.pointer(b_, visit_.position(s), group);
            for (index i = 0; i < state(); ++i, out += k) put(p[i * from_.stride(3)], out, 1);
        }
        data_ = memory_;
        step_ = state() * k;
    }

    /// Before the steps of one tile of channels: c is its first channel within the chunk.
    void enter_tile(index c)
    {
        if (!per_lane_) return;
        const index n = lanes<R, Arch>, tile = n * state() * k;
        if (constant_) {
            data_ = memory_ + (c / n) * tile;
            step_ = 0;
            return;
        }
        for (index s = 0; s < steps_; ++s) {
            load_lanes(visit_.position(first_ + s), c0_ + c, std::min(n, channels_ - c), memory_ + s * tile);
        }
        data_ = memory_;
        step_ = tile;
    }

    /// The values at a step of the current block, and how far on those of the next step lie.
    const R* at(index step) const { return data_ + (step - first_) * step_; }
    index step() const { return step_; }

private:
    index state() const { return from_.extent(3); }

    static void put(const Element& from, R* to, index stride)
    {
        if constexpr (is_complex<Element>) {
            to[0] = from.real();
            to[stride] = from.imag();
        } else {
            to[0] = static_cast<R>(from);
        }
    }

    void load_lanes(index position, index channel, index channels, R* tile) const
    {
        const index n = lanes<R, Arch>;
        if (width_ == 1) {
            load_states<Arch, R>(from_.pointer(b_, position, channel), from_.stride(2), from_.stride(3), state(), channels,
                                 tile, 0);
            return;
        }
        for (index i = 0; i < n; ++i) {
            const Element* const p = from_.pointer(b_, position, (channel + std::min(i, channels - 1)) / width_);
            for (index m = 0; m < state(); ++m) put(p[m * from_.stride(3)], tile + m * k * n + i, n);
        }
    }

    view<const Element, 4> from_;
    const visiting_order& visit_;
    index width_;
    R* memory_;
    bool per_lane_, constant_;
    index b_ = 0, c0_ = 0, channels_ = 0, first_ = 0, steps_ = 0;
    const R* data_ = nullptr;
    index step_ = 0;
};

}  // namespace ssmkit::detail
