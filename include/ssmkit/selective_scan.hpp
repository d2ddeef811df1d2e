#pragma once

#include <ssmkit/detail/selective_scan_states.hpp>
#include <ssmkit/detail/selective_scan_tiles.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// One step's outputs of neighbouring channels: scale times the sum over the states, before and after the gate.
template <class Arch, class R, bool Gated, class E>
[[gnu::flatten]] void finish_row(const R* sums, index tile, R scale, const E* z, index channels, E* ungated, E* y)
{
    for_each_lanes<R, Arch>(channels, [&](auto range) __attribute__((always_inline)) {
        auto value = load<R, Arch>(sums) * vec<R, Arch>(scale);
        sums += tile;
        if (ungated) range.store(value, ungated);
        if constexpr (Gated) value *= silu(range.load(z));
        range.store(value, y);
    });
}

/// Scratch memory of one task of the scan.
template <class Arch, class T, class Param>
struct scan_scratch {
    using R = compute_t<T>;
    using coefficient = scan_coefficient<Arch, R, selective_element_t<T, Param>>;
    R *delta;  // later z
    R *x;      // at first u
    R *y, *rates, *h, *B, *C;
    R *bias, *D;  // [channels]

    scan_scratch(arena& memory, const selective_scan_args<T, Param>& a, const scan_partition& p, index steps)
    {
        const index width = tiles_for<R, Arch>(p.chunk) * lanes<R, Arch>, state = a.A.extent(1);
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count)); };
        delta = take(width * steps);
        x = take(width * steps);
        y = take(width * steps);
        bias = take(width);
        D = take(width);
        rates = take(width * state * rate_rows<Param>);
        h = take(width * state * components<Param>);
        B = take(coefficient::scratch(state, p.chunk, steps, p.B_per_lane, coefficient::is_constant(a.B)));
        C = take(coefficient::scratch(state, p.chunk, steps, p.C_per_lane, coefficient::is_constant(a.C)));
    }
};

/// How a call is cut into tasks, and the scratch memory of each.
template <class Arch, class T, class Param>
struct scan_plan {
    index steps;  // handled between loading and storing tiles
    scan_partition channels;
    std::size_t bytes;

    scan_plan(const selective_scan_args<T, Param>& a, std::size_t concurrency)
        : steps(a.u.stride(2) == 1 ? scan_steps : scan_steps_time_contiguous),
          channels(partition_channels<Arch>(a, a.u.stride(2) == 1 ? scan_channels : scan_channels_time_contiguous,
                                            tasks(a, static_cast<index>(concurrency))))
    {
        arena one;
        scan_scratch<Arch, T, Param>(one, a, channels, steps);
        bytes = one.size();
    }

    /// One thread takes rows as long as they come; several get two tasks each, to even out their speeds, unless those are
    /// narrower than 256 channels: two threads on four tasks of 64 took longer than one alone.
    static index tasks(const selective_scan_args<T, Param>& a, index concurrency)
    {
        if (concurrency == 1) return 1;
        return std::clamp(a.u.extent(0) * a.u.extent(2) / 256, concurrency, 2 * concurrency);
    }
};

/// The whole sequence of one batch row for one chunk of channels.
template <class Arch, class T, class Param>
void scan_chunk(const selective_scan_args<T, Param>& a, const scan_plan<Arch, T, Param>& plan, index b, index chunk,
                const scan_scratch<Arch, T, Param>& m)
{
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    const scan_partition& p = plan.channels;
    const index tile = n * plan.steps;
    alignas(64) static constexpr R zeros[static_cast<std::size_t>(n)] = {};

    const index length = a.u.extent(1), state = a.A.extent(1);
    const index c0 = p.first(chunk), channels = p.channels(chunk), tiles = tiles_for<R, Arch>(channels);
    const index state_tile = state * components<Param> * n, rate_tile = state * rate_rows<Param> * n;
    const visiting_order visit{a.order, length, a.reverse};
    const bool skip = a.D.data() != nullptr;
    constexpr R output_scale = is_complex<Param> ? 2 : 1;
    scan_coefficient<Arch, R, selective_element_t<T, Param>> B(a.B, visit, a.u.extent(2), p.B_per_lane, m.B);
    scan_coefficient<Arch, R, selective_element_t<T, Param>> C(a.C, visit, a.u.extent(2), p.C_per_lane, m.C);
    load_channels(a.delta_bias, c0, channels, tiles * n, R(1), m.bias);
    load_channels(a.D, c0, channels, tiles * n, R(1) / output_scale, m.D);
    load_rates<Arch, R, Param>(a.A, c0, channels, m.rates, rate_tile);
    if (a.initial_state.data()) {
        load_states<Arch, R>(a.initial_state.pointer(b, c0), a.initial_state.stride(1), a.initial_state.stride(2), state,
                             channels, m.h, state_tile);
    } else {
        std::fill_n(m.h, tiles * state_tile, R(0));
    }
    B.enter_chunk(b, c0, channels);
    C.enter_chunk(b, c0, channels);

    const auto store_state = [&](index t, Param* to, index channel_stride, index state_stride) {
        store_states<Arch, R>(m.h + t * state_tile, 0, to + t * n * channel_stride, channel_stride, state_stride, state,
                              std::min(n, channels - t * n));
    };
    index snapshot = 0;
    const auto next_snapshot = [&](index i) {
        return i < a.snapshot_after.extent(1) ? a.snapshot_after(b, i) : length + 1;
    };
    const auto emit_snapshots = [&](index t, index i, index tokens) {
        for (; next_snapshot(i) == tokens; ++i) {
            store_state(t, a.snapshots.pointer(b, i, c0), a.snapshots.stride(2), a.snapshots.stride(3));
        }
        return i;
    };

    const auto finish = [&](index first, index steps) {
        const bool gated = a.z.data() != nullptr, both = a.y_ungated.data() != nullptr;
        if (a.y.stride(2) == 1 && (!gated || a.z.stride(2) == 1) && (!both || a.y_ungated.stride(2) == 1)) {
            for (index s = first; s < first + steps; ++s) {
                const index position = visit.position(s);
                const auto row = gated ? finish_row<Arch, R, true, T> : finish_row<Arch, R, false, T>;
                row(m.y + (s - first) * n, tile, output_scale, gated ? a.z.pointer(b, position, c0) : nullptr, channels,
                    both ? a.y_ungated.pointer(b, position, c0) : nullptr, a.y.pointer(b, position, c0));
            }
            return;
        }
        const auto for_each_row = [&](auto&& f) {
            for (index t = 0; t < tiles; ++t) {
                for (index i = t * tile; i < t * tile + steps * n; i += n) f(m.y + i, m.delta + i);
            }
        };
        if (is_complex<Param>) for_each_row([&](R* y, const R*) { store(load<R, Arch>(y) * v(output_scale), y); });
        if (both) store_steps<Arch, R>(m.y, tile, a.y_ungated, b, visit, first, steps, c0, channels);
        if (gated) {
            load_steps<Arch, R>(a.z, b, visit, first, steps, c0, channels, m.delta, tile);
            for_each_row([&](R* y, const R* z) { store(load<R, Arch>(y) * silu(load<R, Arch>(z)), y); });
        }
        store_steps<Arch, R>(m.y, tile, a.y, b, visit, first, steps, c0, channels);
    };
    for (index first = 0; first < length; first += plan.steps) {
        const index steps = std::min(plan.steps, length - first), end = first + steps;
        prepare_steps<Arch, R>(a, visit, b, first, steps, c0, channels, m.bias, skip ? m.D : nullptr, m.delta, m.x, m.y, tile);
        B.enter_block(first, steps);
        C.enter_block(first, steps);
        index emitted = snapshot;
        for (index t = 0; t < tiles; ++t) {
            R *const delta = m.delta + t * tile, *const x = m.x + t * tile, *const y = m.y + t * tile;
            B.enter_tile(t * n);
            C.enter_tile(t * n);
            emitted = snapshot;
            // Runs end where the state is emitted or reset.
            for (index begin = first; begin < end;) {
                emitted = emit_snapshots(t, emitted, begin);
                if (a.reset.data() && a.reset(b, visit.position(begin))) std::fill_n(m.h + t * state_tile, state_tile, R(0));
                index stop = std::min(end, next_snapshot(emitted));
                if (a.reset.data()) {
                    index s = begin + 1;
                    while (s < stop && !a.reset(b, visit.position(s))) ++s;
                    stop = s;
                }
                const index offset = (begin - first) * n, count = std::min(n, channels - t * n);
                scan_all_states<Arch, Param, R>({.steps = stop - begin,
                                                 .delta = delta + offset,
                                                 .x = x + offset,
                                                 .y = y + offset,
                                                 .y_before = skip ? y + offset : zeros,
                                                 .y_before_step = skip ? n : 0,
                                                 .rates = m.rates + t * rate_tile,
                                                 .h = m.h + t * state_tile,
                                                 .h_after = m.h + t * state_tile,
                                                 .B = B.at(begin),
                                                 .C = C.at(begin),
                                                 .B_step = B.step(),
                                                 .C_step = C.step(),
                                                 .ahead = {rows_ahead(a.delta, b, visit, end, c0 + t * n, count),
                                                           rows_ahead(a.u, b, visit, end, c0 + t * n, count),
                                                           rows_ahead(a.z, b, visit, first, c0 + t * n, count),
                                                           rows_ahead(a.y, b, visit, first, c0 + t * n, count)}},
                                                state, p.B_per_lane, p.C_per_lane);
                begin = stop;
            }
        }
        if (state == 0 && !skip) std::fill_n(m.y, tiles * tile, R(0));
        finish(first, steps);
        snapshot = emitted;
    }
    for (index t = 0; t < tiles; ++t) {
        emit_snapshots(t, snapshot, length);
        if (a.final_state.data()) {
            store_state(t, a.final_state.pointer(b, c0), a.final_state.stride(1), a.final_state.stride(2));
        }
    }
}

}  // namespace detail

/// Bytes of scratch memory with which selective_scan(a) runs on any resource of at most this concurrency. One thread takes
/// 4 (50 + 2 state) bytes a channel of float, of at most 1536 channels, whatever the length; several together take about as
/// much.
template <class Arch = xsimd::default_arch, class T, class Param>
std::size_t selective_scan_workspace_size(const selective_scan_args<T, Param>& a, std::size_t concurrency = 1)
{
    std::size_t most = 0;
    for (std::size_t c = 1; c <= concurrency; ++c) {
        most = std::max(most, c * detail::scan_plan<Arch, T, Param>(a, c).bytes);
    }
    return most;
}

/// The selective scan: shapes, equations and options at selective_scan_args. Throws shape_error before anything is written.
/// Work splits over batch and channels; the result does not depend on the split, bit for bit. float results lie within 4e-6
/// of the largest output of a double computation, on every instruction set.
template <class Arch = xsimd::default_arch, class T, class Param, execution_resource Exec = in_place>
void selective_scan(const selective_scan_args<T, Param>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const scan_plan<Arch, T, Param> plan(a, concurrency(exec));
    const scratch own("selective_scan", memory, plan.bytes * concurrency(exec));
    const auto chunks = static_cast<std::size_t>(plan.channels.count);
    run_tasks(exec, static_cast<std::size_t>(a.u.extent(0)) * chunks, [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(slot * plan.bytes, plan.bytes));
        scan_chunk<Arch>(a, plan, static_cast<index>(task / chunks), static_cast<index>(task % chunks),
                         scan_scratch<Arch, T, Param>(part, a, plan.channels, plan.steps));
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, class Param, execution_resource Exec>
void selective_scan(const selective_scan_args<T, Param>& a, Exec&& exec)
{
    selective_scan<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
