#pragma once

// Tiles: blocks of a (step, channel) array turned so that a SIMD register holds neighbouring channels of one step, whatever
// the array's layout. In a chunk of many channels, tile b (channels b * lanes ...) follows tile b - 1.

#include <cstddef>

#include <ssmkit/detail/shuffle.hpp>

namespace ssmkit::detail {

/// A rectangle of an array in memory: `steps` rows starting at `data`, `channels` elements in each.
template <class E>
struct rectangle {
    E* data;
    index step_stride, channel_stride;
    index steps, channels;
};

template <class T, class Arch>
constexpr index tiles_for(index channels)
{
    return (channels + lanes<T, Arch> - 1) / lanes<T, Arch>;
}

/// Loads up to `lanes` steps of up to `lanes` channels whose steps are contiguous, and turns them: row s of the tile at
/// tile + s * lanes holds the channels of step s. `ascending` says which way the steps run through memory.
template <class Arch, class T, class E, bool Ascending>
[[gnu::flatten]] void load_turned(const E* data, index channel_stride, index steps, index channels, T* tile)
{
    constexpr index n = lanes<T, Arch>;
    vec<T, Arch> rows[static_cast<std::size_t>(n)];
    const E* const first = Ascending ? data : data - (steps - 1);
    if (steps == n && channels == n) {
        for (index c = 0; c < n; ++c) rows[c] = load<T, Arch>(first + c * channel_stride);
    } else {
        for (index c = 0; c < n; ++c) {
            rows[c] = c < channels ? lane_range<T, Arch, false>{0, steps}.load(first + c * channel_stride) : vec<T, Arch>(T(0));
        }
    }
    transpose<T, Arch>(rows);
    for (index s = 0; s < steps; ++s) rows[Ascending ? s : steps - 1 - s].store_unaligned(tile + s * n);
}

template <class Arch, class T, class E, bool Ascending>
[[gnu::flatten]] void store_turned(const T* tile, index steps, index channels, E* data, index channel_stride)
{
    constexpr index n = lanes<T, Arch>;
    vec<T, Arch> rows[static_cast<std::size_t>(n)];
    for (index s = 0; s < n; ++s) rows[s] = vec<T, Arch>(T(0));
    for (index s = 0; s < steps; ++s) rows[Ascending ? s : steps - 1 - s] = load<T, Arch>(tile + s * n);
    transpose<T, Arch>(rows);
    E* const first = Ascending ? data : data - (steps - 1);
    if (steps == n && channels == n) {
        for (index c = 0; c < n; ++c) store(rows[c], first + c * channel_stride);
    } else {
        for (index c = 0; c < channels; ++c) {
            lane_range<T, Arch, false>{0, steps}.store(rows[c], first + c * channel_stride);
        }
    }
}

/// Turns a rectangle into tiles: element (s, c) goes to tiles[(c / lanes) * tile_stride + s * lanes + c % lanes]. Lanes
/// beyond the last channel become zero.
template <class Arch, class T, class E>
[[gnu::flatten]] void load_tiles(const rectangle<const E>& from, T* tiles, index tile_stride)
{
    constexpr index n = lanes<T, Arch>;
    if (from.channel_stride == 1) {  // row by row, as the memory lies
        for (index s = 0; s < from.steps; ++s) {
            T* row = tiles + s * n;
            const E* const p = from.data + s * from.step_stride;
            for_each_lanes<T, Arch>(from.channels, [&](auto range) {
                range.load(p).store_unaligned(row);
                row += tile_stride;
            });
        }
        return;
    }
    for (index c = 0; c < from.channels; c += n, tiles += tile_stride) {
        const index channels = from.channels - c < n ? from.channels - c : n;
        const E* const p = from.data + c * from.channel_stride;
        if (from.step_stride == 1) {
            for (index s = 0; s < from.steps; s += n) {
                load_turned<Arch, T, E, true>(p + s, from.channel_stride, from.steps - s < n ? from.steps - s : n, channels,
                                              tiles + s * n);
            }
        } else if (from.step_stride == -1) {
            for (index s = 0; s < from.steps; s += n) {
                load_turned<Arch, T, E, false>(p - s, from.channel_stride, from.steps - s < n ? from.steps - s : n, channels,
                                               tiles + s * n);
            }
        } else {
            for (index s = 0; s < from.steps; ++s) {
                for (index i = 0; i < n; ++i) {
                    tiles[s * n + i] =
                        i < channels ? static_cast<T>(p[s * from.step_stride + i * from.channel_stride]) : T(0);
                }
            }
        }
    }
}

/// The way back; lanes beyond the last channel are dropped.
template <class Arch, class T, class E>
[[gnu::flatten]] void store_tiles(const T* tiles, index tile_stride, const rectangle<E>& to)
{
    constexpr index n = lanes<T, Arch>;
    if (to.channel_stride == 1) {
        for (index s = 0; s < to.steps; ++s) {
            const T* row = tiles + s * n;
            E* const p = to.data + s * to.step_stride;
            for_each_lanes<T, Arch>(to.channels, [&](auto range) {
                range.store(load<T, Arch>(row), p);
                row += tile_stride;
            });
        }
        return;
    }
    for (index c = 0; c < to.channels; c += n, tiles += tile_stride) {
        const index channels = to.channels - c < n ? to.channels - c : n;
        E* const p = to.data + c * to.channel_stride;
        if (to.step_stride == 1) {
            for (index s = 0; s < to.steps; s += n) {
                store_turned<Arch, T, E, true>(tiles + s * n, to.steps - s < n ? to.steps - s : n, channels, p + s,
                                               to.channel_stride);
            }
        } else if (to.step_stride == -1) {
            for (index s = 0; s < to.steps; s += n) {
                store_turned<Arch, T, E, false>(tiles + s * n, to.steps - s < n ? to.steps - s : n, channels, p - s,
                                                to.channel_stride);
            }
        } else {
            for (index s = 0; s < to.steps; ++s) {
                for (index i = 0; i < channels; ++i) {
                    p[s * to.step_stride + i * to.channel_stride] = static_cast<E>(tiles[s * n + i]);
                }
            }
        }
    }
}

}  // namespace ssmkit::detail
