#pragma once

// The backward recurrence of the selective scan on registers: a few states of one tile of channels over one block of steps.

#include <ssmkit/detail/selective_scan_states.hpp>

namespace ssmkit::detail {

/// States taken at once, over all tiles: their carried gradients and their part of dA stay in registers.
template <class Arch, class Param>
inline constexpr index adjoint_states = is_complex<Param> ? (many_registers<Arch> ? 4 : 2) : (many_registers<Arch> ? 8 : 4);

/// Tiles of channels taken at once. Two share the traffic of the sums over channels, dB and dC, which for 16 states are of the
/// size of the first-level cache.
template <class Arch, class Param>
inline constexpr index adjoint_tiles = !is_complex<Param> && many_registers<Arch> ? 2 : 1;

/// Rows of one tile of channels, `lanes` wide, one a step of the block; those of a second tile follow `scan_steps` rows on.
template <class R>
struct adjoint_tile {
    R *delta, *x, *dp;  // step size, delta u, gradient of the output before the gate
    R* y;               // out: sum_n C h (complex: twice the real part)
    R* input;           // out: sum_n Re(G conj(B)), the gradient of delta u
    R* decay;           // out: sum_n Re(G conj(A k)), the gradient of delta through the decay; real: log2(e) times that
    R* a;               // [step][state of the group][component][tile]
    R* h;               // the same, [step and run]: of every run the state before it and after each of its steps
};

/// Memory that a block is going to need: a line a step.
struct lines_ahead {
    const char* first;
    index stride;

    void ask(index step) const { prefetch(first + step * stride); }
};

/// What a group of states takes through a block of steps; pointers are to the group's first state in the first tile.
template <class R>
struct adjoint_run {
    adjoint_tile<R> tile;
    const R* rates;      // [state][rate_rows]
    const R* h;          // [state][component] before the block
    R *carry, *dA;       // [state][component]
    R *dB, *dC;          // [step][row]; added to
    index row;           // elements of a step in dB and dC
    index rate_tile, state_tile;  // elements from a tile to the next in rates, and in h, carry and dA
    const R *B, *C;      // a step's values
    index B_step, C_step;
    const index* cuts;   // runs of steps within the block: cuts[r] ... cuts[r + 1] - 1
    const bool* resets;  // [run] the state is zero before it
    index runs;
    index first_run;     // runs first_run ... runs - 1 are taken backward, the ones before only forward
    bool with_y;
    bool first_states;   // y, input and decay start at zero
    const lines_ahead* ahead;  // memory to ask for on the way, a line of each a step
    index rows_ahead;
};

/// a_t and h_t of N real states, forward over the runs. G_t = dp_t C_t + a_{t+1} G_{t+1} and what follows from it, backward.
/// Lanes run along the channels of W tiles. Two passes over 16 steps, with a and h in the first-level cache between them.
template <class Arch, class R, index W, index N, bool WithY, bool BPerLane, bool CPerLane>
[[gnu::noinline, gnu::flatten]] void adjoint_of_states(const adjoint_run<R>& the_run)
{
    const adjoint_run<R> run = the_run;  // stores to the tiles could alias what lies behind a reference
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>, tile_rows = scan_steps * n, kept_row = N * W * n;
    const adjoint_tile<R> tile = run.tile;
    // What each of the tiles has for a state is numbered [state][tile].
    const auto each = [](auto&& f) {
        unrolled<N>([&](auto i) { unrolled<W>([&](auto w) { f(i, w, std::integral_constant<index, i * W + w>{}); }); });
    };
    const auto rate = [&](index i, index w) { return load<R, Arch>(run.rates + w * run.rate_tile + i * n); };
    const auto load_tiles_of = [&](const R* p, v* to) {
        each([&](auto i, auto w, auto k) { to[k] = load<R, Arch>(p + w * run.state_tile + i * n); });
    };
    const auto load_row = [&](const R* p, index s, v* to) {
        unrolled<W>([&](auto w) { to[w] = load<R, Arch>(p + w * tile_rows + s * n); });
    };
    const auto store_row = [&](const v* row, R* to, index s) {
        unrolled<W>([&](auto w) { store(row[w], to + w * tile_rows + s * n); });
    };
    const auto sums_before = [&](const R* p, index s, v* to) {
        if (!run.first_states) return load_row(p, s, to);
        unrolled<W>([&](auto w) { to[w] = v(R(0)); });
    };
    {
        v h[N * W];
        load_tiles_of(run.h, h);
        R* kept = tile.h;
        const auto keep = [&] {
            each([&](auto, auto, auto k) { store(h[k], kept + k * n); });
            kept += kept_row;
        };
        for (index r = 0; r < run.runs; ++r) {
            if (run.resets[r]) each([&](auto, auto, auto k) { h[k] = v(R(0)); });
            keep();
            for (index s = run.cuts[r]; s < run.cuts[r + 1]; ++s) {
                const R *const B = run.B + s * run.B_step, *const C = run.C + s * run.C_step;
                R* const decays = tile.a + s * kept_row;
                v delta[W], x[W], y[W];
                load_row(tile.delta, s, delta);
                load_row(tile.x, s, x);
                if constexpr (WithY) sums_before(tile.y, s, y);
                each([&](auto i, auto w, auto k) {
                    const v a = fast_exp2(delta[w] * rate(i, w));
                    store(a, decays + k * n);
                    h[k] = multiply_add(a, h[k], x[w] * coefficient<Arch, R, BPerLane>(B, i));
                    if constexpr (WithY) y[w] = multiply_add(coefficient<Arch, R, CPerLane>(C, i), h[k], y[w]);
                });
                keep();
                for (index i = 0; i < run.rows_ahead; ++i) run.ahead[i].ask(s);
                if constexpr (WithY) store_row(y, tile.y, s);
            }
        }
    }
    v carry[N * W], dA[N * W];
    load_tiles_of(run.carry, carry);
    load_tiles_of(run.dA, dA);
    for (index r = run.runs; r-- > run.first_run;) {
        for (index s = run.cuts[r + 1]; s-- > run.cuts[r];) {
            const R *const B = run.B + s * run.B_step, *const C = run.C + s * run.C_step;
            const R* const decays = tile.a + s * kept_row;
            const R *const before = tile.h + (s + r) * kept_row, *const after = before + kept_row;
            R *const dB = run.dB + s * run.row, *const dC = run.dC + s * run.row;
            v delta[W], x[W], dp[W], input[W], decay[W];
            load_row(tile.delta, s, delta);
            load_row(tile.x, s, x);
            load_row(tile.dp, s, dp);
            sums_before(tile.input, s, input);
            sums_before(tile.decay, s, decay);
            unrolled<N>([&](auto i) {
                const v b = coefficient<Arch, R, BPerLane>(B, i), c = coefficient<Arch, R, CPerLane>(C, i);
                v to_B = load<R, Arch>(dB + i * n), to_C = load<R, Arch>(dC + i * n);
                unrolled<W>([&](auto w) {
                    constexpr index k = i * W + w;
                    const v G = multiply_add(dp[w], c, carry[k]);
                    input[w] = multiply_add(G, b, input[w]);
                    to_B = multiply_add(x[w], G, to_B);
                    to_C = multiply_add(dp[w], load<R, Arch>(after + k * n), to_C);
                    carry[k] = load<R, Arch>(decays + k * n) * G;
                    const v rate_gradient = carry[k] * load<R, Arch>(before + k * n);  // G a h_{t-1}
                    decay[w] = multiply_add(rate_gradient, rate(i, w), decay[w]);
                    dA[k] = multiply_add(delta[w], rate_gradient, dA[k]);
                });
                store(to_B, dB + i * n);
                store(to_C, dC + i * n);
            });
            store_row(input, tile.input, s);
            store_row(decay, tile.decay, s);
        }
        if (run.resets[r]) each([&](auto, auto, auto k) { carry[k] = v(R(0)); });
    }
    each([&](auto i, auto w, auto k) {
        store(carry[k], run.carry + w * run.state_tile + i * n);
        store(dA[k], run.dA + w * run.state_tile + i * n);
    });
}

/// The same for N complex states.
template <class Arch, class R, bool BPerLane, bool CPerLane, std::size_t... I>
[[gnu::noinline, gnu::flatten]] void adjoint_of_complex_states(const adjoint_run<R>& run, std::index_sequence<I...>)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>, N = static_cast<index>(sizeof...(I));
    const adjoint_tile<R> tile = run.tile;
    const R* const rates = run.rates;
    const v two(R(2));
    const auto sum_before = [&](const R* p, index s) { return run.first_states ? v(R(0)) : load<R, Arch>(p + s * n); };
    {
        v re[] = {load<R, Arch>(run.h + static_cast<index>(2 * I) * n)...};
        v im[] = {load<R, Arch>(run.h + static_cast<index>(2 * I + 1) * n)...};
        R* kept = tile.h;
        const auto keep = [&] {
            unrolled<N>([&](auto i) {
                store(re[i], kept + 2 * i * n);
                store(im[i], kept + (2 * i + 1) * n);
            });
            kept += 2 * N * n;
        };
        for (index r = 0; r < run.runs; ++r) {
            if (run.resets[r]) unrolled<N>([&](auto i) { re[i] = im[i] = v(R(0)); });
            keep();
            for (index s = run.cuts[r]; s < run.cuts[r + 1]; ++s) {
                const v delta = load<R, Arch>(tile.delta + s * n), x = load<R, Arch>(tile.x + s * n);
                const R *const B = run.B + s * run.B_step, *const C = run.C + s * run.C_step;
                R* const decays = tile.a + s * 2 * N * n;
                v y(R(0));
                unrolled<N>([&](auto i) {
                    const R* const rate = rates + 3 * i * n;
                    const v size = fast_exp2(delta * load<R, Arch>(rate));
                    const auto [cosine, sine] = cos_sin_of_turns(delta, load<R, Arch>(rate + n), load<R, Arch>(rate + 2 * n));
                    const v a = size * cosine, b = size * sine;
                    store(a, decays + 2 * i * n);
                    store(b, decays + (2 * i + 1) * n);
                    const v next = multiply_add(a, re[i], multiply_add(-b, im[i], x * coefficient<Arch, R, BPerLane>(B, 2 * i)));
                    im[i] = multiply_add(a, im[i], multiply_add(b, re[i], x * coefficient<Arch, R, BPerLane>(B, 2 * i + 1)));
                    re[i] = next;
                    if (run.with_y) {
                        y += coefficient<Arch, R, CPerLane>(C, 2 * i) * re[i] -
                             coefficient<Arch, R, CPerLane>(C, 2 * i + 1) * im[i];
                    }
                });
                keep();
                for (index i = 0; i < run.rows_ahead; ++i) run.ahead[i].ask(s);
                if (run.with_y) store(multiply_add(two, y, sum_before(tile.y, s)), tile.y + s * n);
            }
        }
    }
    v re[] = {load<R, Arch>(run.carry + static_cast<index>(2 * I) * n)...};
    v im[] = {load<R, Arch>(run.carry + static_cast<index>(2 * I + 1) * n)...};
    v dA_re[] = {load<R, Arch>(run.dA + static_cast<index>(2 * I) * n)...};
    v dA_im[] = {load<R, Arch>(run.dA + static_cast<index>(2 * I + 1) * n)...};
    for (index r = run.runs; r-- > run.first_run;) {
        for (index s = run.cuts[r + 1]; s-- > run.cuts[r];) {
            const v delta = load<R, Arch>(tile.delta + s * n), x = load<R, Arch>(tile.x + s * n);
            const v dp = two * load<R, Arch>(tile.dp + s * n);
            const R *const B = run.B + s * run.B_step, *const C = run.C + s * run.C_step;
            const R *const decays = tile.a + s * 2 * N * n, *const before = tile.h + (s + r) * 2 * N * n;
            const R* const after = before + 2 * N * n;
            R *const dB = run.dB + s * run.row, *const dC = run.dC + s * run.row;
            v input(R(0)), size(R(0)), turn(R(0));
            unrolled<N>([&](auto i) {
                const v b_re = coefficient<Arch, R, BPerLane>(B, 2 * i), b_im = coefficient<Arch, R, BPerLane>(B, 2 * i + 1);
                const v a = load<R, Arch>(decays + 2 * i * n), b = load<R, Arch>(decays + (2 * i + 1) * n);
                const v h_re = load<R, Arch>(before + 2 * i * n), h_im = load<R, Arch>(before + (2 * i + 1) * n);
                const v G = multiply_add(dp, coefficient<Arch, R, CPerLane>(C, 2 * i), re[i]);
                const v H = im[i] - dp * coefficient<Arch, R, CPerLane>(C, 2 * i + 1);
                input = multiply_add(G, b_re, multiply_add(H, b_im, input));
                R *const to_B = dB + 2 * i * n, *const to_C = dC + 2 * i * n;
                store(multiply_add(x, G, load<R, Arch>(to_B)), to_B);
                store(multiply_add(x, H, load<R, Arch>(to_B + n)), to_B + n);
                store(multiply_add(dp, load<R, Arch>(after + 2 * i * n), load<R, Arch>(to_C)), to_C);
                store(load<R, Arch>(to_C + n) - dp * load<R, Arch>(after + (2 * i + 1) * n), to_C + n);
                re[i] = multiply_add(a, G, b * H);
                im[i] = a * H - b * G;
                // conj(a) G conj(h_{t-1})
                const v q = multiply_add(re[i], h_re, im[i] * h_im), p = im[i] * h_re - re[i] * h_im;
                size = multiply_add(q, load<R, Arch>(rates + 3 * i * n), size);
                turn = multiply_add(p, load<R, Arch>(rates + (3 * i + 1) * n), turn);
                dA_re[i] = multiply_add(delta, q, dA_re[i]);
                dA_im[i] = multiply_add(delta, p, dA_im[i]);
            });
            store(sum_before(tile.input, s) + input, tile.input + s * n);
            const v decay = multiply_add(size, v(R(1 / log2_e)), turn * v(R(6.283185307179586477)));
            store(sum_before(tile.decay, s) + decay, tile.decay + s * n);
        }
        if (run.resets[r]) unrolled<N>([&](auto i) { re[i] = im[i] = v(R(0)); });
    }
    unrolled<N>([&](auto i) {
        store(re[i], run.carry + 2 * i * n);
        store(im[i], run.carry + (2 * i + 1) * n);
        store(dA_re[i], run.dA + 2 * i * n);
        store(dA_im[i], run.dA + (2 * i + 1) * n);
    });
}

/// Takes all states of W tiles through the block: as many at a time as registers hold, then the remainder.
template <class Arch, class Param, index W, bool BPerLane, bool CPerLane, class R>
void adjoint_of_all_states(adjoint_run<R> run, index state)
{
    if (state == 0) return;
    constexpr index n = lanes<R, Arch>, k = components<Param>, most = adjoint_states<Arch, Param> / W;
    const index rows = run.rows_ahead, rows_a_group = (rows * most + state - 1) / state;
    const lines_ahead* const last = run.ahead + rows;
    const auto advance = [&]<index N>(std::integral_constant<index, N>) {
        for (; state >= N; state -= N) {
            run.rows_ahead = std::min(rows_a_group, last - run.ahead);
            if constexpr (is_complex<Param>) {
                constexpr auto states = std::make_index_sequence<static_cast<std::size_t>(N)>{};
                adjoint_of_complex_states<Arch, R, BPerLane, CPerLane>(run, states);
            } else {
                run.with_y ? adjoint_of_states<Arch, R, W, N, true, BPerLane, CPerLane>(run)
                           : adjoint_of_states<Arch, R, W, N, false, BPerLane, CPerLane>(run);
            }
            run.first_states = false;
            run.ahead += run.rows_ahead;
            run.rates += N * rate_rows<Param> * n;
            for (R** p : {&run.carry, &run.dA, &run.dB, &run.dC}) *p += N * k * n;
            run.h += N * k * n;
            run.B += N * k * (BPerLane ? n : 1);
            run.C += N * k * (CPerLane ? n : 1);
        }
    };
    advance(std::integral_constant<index, most>{});
    if constexpr (most > 4) advance(std::integral_constant<index, 4>{});
    if constexpr (most > 1) advance(std::integral_constant<index, 1>{});
}

}  // namespace ssmkit::detail
