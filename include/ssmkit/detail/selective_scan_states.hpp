#pragma once

// The recurrence of the selective scan on registers: runs of steps over one tile of channels.

#include <utility>

#include <ssmkit/detail/selective_scan_tiles.hpp>

namespace ssmkit::detail {

/// Steps of a run over one tile of channels; rows are `lanes` wide.
template <class R>
struct scan_run {
    index steps;
    const R* delta;        // [steps]
    const R* x;            // [steps]            delta * u
    R* y;                  // [steps]            out: the sum over the states, before skip and gate
    const R* y_before;     // [steps] or a zero  what that sum starts from
    index y_before_step;
    const R* rates;        // [state][rate_rows]
    const R* h;            // [state][components] before the first step
    R* h_after;            // [state][components] out: after the last; may be h
    const R *B, *C;        // a step's values: [state][components] scalars, or rows if each lane has its own
    index B_step, C_step;
    prefetch_rows ahead[4];
};

/// A value per lane, or one for all.
template <class Arch, class R, bool PerLane>
vec<R, Arch> coefficient(const R* p, index i)
{
    if constexpr (PerLane) {
        return load<R, Arch>(p + i * lanes<R, Arch>);
    } else {
        return vec<R, Arch>(p[i]);
    }
}

/// Advances N real states of `lanes` channels by a run of steps. Lanes run along channels, whose recurrences are
/// independent; the N states stay in registers. Per state and step: a product for the exponent, exp2, and one product and two
/// fused multiply-adds for B u, h and y. Not inlined: g++ 12 spills the states when it clones this into its callers.
template <class Arch, class R, bool Output, bool BPerLane, bool CPerLane, std::size_t... I>
[[gnu::noinline, gnu::flatten]] void scan_states(const scan_run<R>& run, std::index_sequence<I...>)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    prefetch_rows ahead[] = {run.ahead[0], run.ahead[1], run.ahead[2], run.ahead[3]};
    v h[] = {load<R, Arch>(run.h + static_cast<index>(I) * n)...};
    const R *B = run.B, *C = run.C, *y_before = run.y_before;
    for (index s = 0; s < run.steps; ++s, B += run.B_step, C += run.C_step, y_before += run.y_before_step) {
        const v delta = load<R, Arch>(run.delta + s * n), x = load<R, Arch>(run.x + s * n);
        v y = Output ? load<R, Arch>(y_before) : v(R(0));
        const auto advance = [&](auto i) {
            const v decay = fast_exp2(delta * load<R, Arch>(run.rates + i * n));
            h[i] = multiply_add(decay, h[i], x * coefficient<Arch, R, BPerLane>(B, i));
            if constexpr (Output) y = multiply_add(coefficient<Arch, R, CPerLane>(C, i), h[i], y);
        };
        (advance(std::integral_constant<index, static_cast<index>(I)>{}), ...);
        if constexpr (Output) y.store_unaligned(run.y + s * n);
        for (prefetch_rows& rows : ahead) rows.step();
    }
    ((h[I].store_unaligned(run.h_after + static_cast<index>(I) * n)), ...);
}

/// The same for N complex states: y grows by Re(C h), to be doubled by the caller.
template <class Arch, class R, bool Output, bool BPerLane, bool CPerLane, std::size_t... I>
[[gnu::noinline, gnu::flatten]] void scan_complex_states(const scan_run<R>& run, std::index_sequence<I...>)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    v re[] = {load<R, Arch>(run.h + static_cast<index>(2 * I) * n)...};
    v im[] = {load<R, Arch>(run.h + static_cast<index>(2 * I + 1) * n)...};
    const R *B = run.B, *C = run.C, *y_before = run.y_before;
    for (index s = 0; s < run.steps; ++s, B += run.B_step, C += run.C_step, y_before += run.y_before_step) {
        const v delta = load<R, Arch>(run.delta + s * n), x = load<R, Arch>(run.x + s * n);
        v y = Output ? load<R, Arch>(y_before) : v(R(0));
        const auto advance = [&](auto i) {
            const R* const rate = run.rates + 3 * i * n;
            const v size = fast_exp2(delta * load<R, Arch>(rate));
            const auto [cosine, sine] = cos_sin_of_turns(delta, load<R, Arch>(rate + n), load<R, Arch>(rate + 2 * n));
            const v a = size * cosine, b = size * sine;
            const v next = multiply_add(a, re[i], multiply_add(-b, im[i], x * coefficient<Arch, R, BPerLane>(B, 2 * i)));
            im[i] = multiply_add(a, im[i], multiply_add(b, re[i], x * coefficient<Arch, R, BPerLane>(B, 2 * i + 1)));
            re[i] = next;
            if constexpr (Output) {
                y = multiply_add(coefficient<Arch, R, CPerLane>(C, 2 * i), re[i],
                               multiply_add(-coefficient<Arch, R, CPerLane>(C, 2 * i + 1), im[i], y));
            }
        };
        (advance(std::integral_constant<index, static_cast<index>(I)>{}), ...);
        if constexpr (Output) y.store_unaligned(run.y + s * n);
    }
    ((re[I].store_unaligned(run.h_after + static_cast<index>(2 * I) * n)), ...);
    ((im[I].store_unaligned(run.h_after + static_cast<index>(2 * I + 1) * n)), ...);
}

/// Advances all states: as many at a time as registers hold, then the remainder.
template <class Arch, class Param, bool Output, class R, bool BPerLane, bool CPerLane>
void scan_all_states(scan_run<R> run, index state)
{
    constexpr index n = lanes<R, Arch>, k = components<Param>;
    // 16 real states lie in half of 32 registers; 16 registers spill them, which costs less than a further pass over y.
    // Complex ones take two registers each, and their cosines more besides.
    constexpr index most = !is_complex<Param> ? 16 : many_registers<Arch> ? 4 : 2;
    const auto advance = [&]<index N>(std::integral_constant<index, N>) {
        for (; state >= N; state -= N) {
            constexpr auto states = std::make_index_sequence<static_cast<std::size_t>(N)>{};
            if constexpr (is_complex<Param>) {
                scan_complex_states<Arch, R, Output, BPerLane, CPerLane>(run, states);
            } else {
                scan_states<Arch, R, Output, BPerLane, CPerLane>(run, states);
            }
            run.rates += N * rate_rows<Param> * n;
            run.h += N * k * n;
            run.h_after += N * k * n;
            run.B += N * k * (BPerLane ? n : 1);
            run.C += N * k * (CPerLane ? n : 1);
            run.y_before = run.y;
            run.y_before_step = n;
        }
    };
    advance(std::integral_constant<index, most>{});
    if constexpr (most > 4) advance(std::integral_constant<index, 4>{});
    if constexpr (most > 1) advance(std::integral_constant<index, 1>{});
}

template <class Arch, class Param, class R>
void scan_all_states(const scan_run<R>& run, index state, bool B_per_lane, bool C_per_lane)
{
    with_constants(B_per_lane, C_per_lane, [&](auto b, auto c) {
        scan_all_states<Arch, Param, true, R, decltype(b)::value, decltype(c)::value>(run, state);
    });
}

}  // namespace ssmkit::detail
