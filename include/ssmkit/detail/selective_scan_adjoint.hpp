#pragma once

// The backward recurrence of the selective scan on registers: a few states of one tile of channels over one block of steps.

#include <ssmkit/detail/selective_scan_states.hpp>

namespace ssmkit::detail {

/// States taken at once: their carried gradients and their part of dA stay in registers.
template <class Arch, class Param>
inline constexpr index adjoint_states = is_complex<Param> ? (many_registers<Arch> ? 4 : 2) : (many_registers<Arch> ? 8 : 4);

/// Rows of one tile of channels, `lanes` wide, one a step of the block.
template <class R>
struct adjoint_tile {
    R *delta, *x, *dp;  // step size, delta u, gradient of the output before the gate
    R* y;               // out: sum_n C h (complex: twice the real part)
    R* input;           // out: sum_n Re(G conj(B)), the gradient of delta u
    R* decay;           // out: sum_n Re(G conj(A k)), the gradient of delta through the decay
    R* memory;          // [step][state of the group][a, k][component]
};

/// What a group of states takes through a block of steps; pointers are to the group's first state.
template <class R>
struct adjoint_run {
    adjoint_tile<R> tile;
    const R* rates;      // [state][rate_rows]
    const R* h;          // [state][component] before the block
    R *carry, *dA;       // [state][component]
    R *dB, *dC;          // [step][row]; added to
    index row;           // elements of a step in dB and dC
    const R *B, *C;      // a step's values
    index B_step, C_step;
    const index* cuts;   // runs of steps within the block: cuts[r] ... cuts[r + 1] - 1
    const bool* resets;  // [run] the state is zero before it
    index runs;
    index first_run;     // runs first_run ... runs - 1 are taken backward, the ones before only forward
    bool with_y;
};

/// k_t = a_t h_{t-1} and a_t of N real states, forward over the runs. G_t = dp_t C_t + a_{t+1} G_{t+1} and what follows from it,
/// backward. Lanes run along channels. Two passes over 16 steps, with a and k in the first-level cache between them.
template <class Arch, class R, bool BPerLane, bool CPerLane, std::size_t... I>
[[gnu::noinline, gnu::flatten]] void adjoint_of_states(const adjoint_run<R>& run, std::index_sequence<I...>)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>, N = static_cast<index>(sizeof...(I));
    const adjoint_tile<R> tile = run.tile;
    const R* const rates = run.rates;
    {
        v h[] = {load<R, Arch>(run.h + static_cast<index>(I) * n)...};
        for (index r = 0; r < run.runs; ++r) {
            if (run.resets[r]) unrolled<N>([&](auto i) { h[i] = v(R(0)); });
            for (index s = run.cuts[r]; s < run.cuts[r + 1]; ++s) {
                const v delta = load<R, Arch>(tile.delta + s * n), x = load<R, Arch>(tile.x + s * n);
                const R *const B = run.B + s * run.B_step, *const C = run.C + s * run.C_step;
                R* const kept = tile.memory + s * 2 * N * n;
                v y(R(0));
                unrolled<N>([&](auto i) {
                    const v a = fast_exp2(delta * load<R, Arch>(rates + i * n));
                    const v k = a * h[i];
                    store(a, kept + 2 * i * n);
                    store(k, kept + (2 * i + 1) * n);
                    h[i] = multiply_add(x, coefficient<Arch, R, BPerLane>(B, i), k);
                    if (run.with_y) y = multiply_add(coefficient<Arch, R, CPerLane>(C, i), h[i], y);
                });
                if (run.with_y) store(load<R, Arch>(tile.y + s * n) + y, tile.y + s * n);
            }
        }
    }
    v carry[] = {load<R, Arch>(run.carry + static_cast<index>(I) * n)...};
    v dA[] = {load<R, Arch>(run.dA + static_cast<index>(I) * n)...};
    for (index r = run.runs; r-- > run.first_run;) {
        for (index s = run.cuts[r + 1]; s-- > run.cuts[r];) {
            const v delta = load<R, Arch>(tile.delta + s * n), x = load<R, Arch>(tile.x + s * n);
            const v dp = load<R, Arch>(tile.dp + s * n);
            const R *const B = run.B + s * run.B_step, *const C = run.C + s * run.C_step;
            const R* const kept = tile.memory + s * 2 * N * n;
            R *const dB = run.dB + s * run.row, *const dC = run.dC + s * run.row;
            v input(R(0)), decay(R(0));
            unrolled<N>([&](auto i) {
                const v b = coefficient<Arch, R, BPerLane>(B, i), k = load<R, Arch>(kept + (2 * i + 1) * n);
                const v G = multiply_add(dp, coefficient<Arch, R, CPerLane>(C, i), carry[i]);
                const v h = multiply_add(x, b, k), Gk = G * k;
                decay = multiply_add(Gk, load<R, Arch>(rates + i * n), decay);
                dA[i] = multiply_add(delta, Gk, dA[i]);
                input = multiply_add(G, b, input);
                store(multiply_add(x, G, load<R, Arch>(dB + i * n)), dB + i * n);
                store(multiply_add(dp, h, load<R, Arch>(dC + i * n)), dC + i * n);
                carry[i] = load<R, Arch>(kept + 2 * i * n) * G;
            });
            store(load<R, Arch>(tile.input + s * n) + input, tile.input + s * n);
            store(multiply_add(decay, v(R(1 / log2_e)), load<R, Arch>(tile.decay + s * n)), tile.decay + s * n);
        }
        if (run.resets[r]) unrolled<N>([&](auto i) { carry[i] = v(R(0)); });
    }
    unrolled<N>([&](auto i) {
        store(carry[i], run.carry + i * n);
        store(dA[i], run.dA + i * n);
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
    {
        v re[] = {load<R, Arch>(run.h + static_cast<index>(2 * I) * n)...};
        v im[] = {load<R, Arch>(run.h + static_cast<index>(2 * I + 1) * n)...};
        for (index r = 0; r < run.runs; ++r) {
            if (run.resets[r]) unrolled<N>([&](auto i) { re[i] = im[i] = v(R(0)); });
            for (index s = run.cuts[r]; s < run.cuts[r + 1]; ++s) {
                const v delta = load<R, Arch>(tile.delta + s * n), x = load<R, Arch>(tile.x + s * n);
                const R *const B = run.B + s * run.B_step, *const C = run.C + s * run.C_step;
                R* const kept = tile.memory + s * 4 * N * n;
                v y(R(0));
                unrolled<N>([&](auto i) {
                    const R* const rate = rates + 3 * i * n;
                    const v size = fast_exp2(delta * load<R, Arch>(rate));
                    const auto [cosine, sine] = cos_sin_of_turns(delta, load<R, Arch>(rate + n), load<R, Arch>(rate + 2 * n));
                    const v a = size * cosine, b = size * sine;
                    const v k = a * re[i] - b * im[i], l = multiply_add(a, im[i], b * re[i]);
                    store(a, kept + 4 * i * n);
                    store(b, kept + (4 * i + 1) * n);
                    store(k, kept + (4 * i + 2) * n);
                    store(l, kept + (4 * i + 3) * n);
                    re[i] = multiply_add(x, coefficient<Arch, R, BPerLane>(B, 2 * i), k);
                    im[i] = multiply_add(x, coefficient<Arch, R, BPerLane>(B, 2 * i + 1), l);
                    if (run.with_y) {
                        y += coefficient<Arch, R, CPerLane>(C, 2 * i) * re[i] -
                             coefficient<Arch, R, CPerLane>(C, 2 * i + 1) * im[i];
                    }
                });
                if (run.with_y) store(multiply_add(two, y, load<R, Arch>(tile.y + s * n)), tile.y + s * n);
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
            const R* const kept = tile.memory + s * 4 * N * n;
            R *const dB = run.dB + s * run.row, *const dC = run.dC + s * run.row;
            v input(R(0)), size(R(0)), turn(R(0));
            unrolled<N>([&](auto i) {
                const v b_re = coefficient<Arch, R, BPerLane>(B, 2 * i), b_im = coefficient<Arch, R, BPerLane>(B, 2 * i + 1);
                const v a = load<R, Arch>(kept + 4 * i * n), b = load<R, Arch>(kept + (4 * i + 1) * n);
                const v k = load<R, Arch>(kept + (4 * i + 2) * n), l = load<R, Arch>(kept + (4 * i + 3) * n);
                const v G = multiply_add(dp, coefficient<Arch, R, CPerLane>(C, 2 * i), re[i]);
                const v H = im[i] - dp * coefficient<Arch, R, CPerLane>(C, 2 * i + 1);
                const v q = multiply_add(G, k, H * l), p = H * k - G * l;  // G conj(k)
                size = multiply_add(q, load<R, Arch>(rates + 3 * i * n), size);
                turn = multiply_add(p, load<R, Arch>(rates + (3 * i + 1) * n), turn);
                dA_re[i] = multiply_add(delta, q, dA_re[i]);
                dA_im[i] = multiply_add(delta, p, dA_im[i]);
                input = multiply_add(G, b_re, multiply_add(H, b_im, input));
                const v h_re = multiply_add(x, b_re, k), h_im = multiply_add(x, b_im, l);
                R *const to_B = dB + 2 * i * n, *const to_C = dC + 2 * i * n;
                store(multiply_add(x, G, load<R, Arch>(to_B)), to_B);
                store(multiply_add(x, H, load<R, Arch>(to_B + n)), to_B + n);
                store(multiply_add(dp, h_re, load<R, Arch>(to_C)), to_C);
                store(load<R, Arch>(to_C + n) - dp * h_im, to_C + n);
                re[i] = multiply_add(a, G, b * H);
                im[i] = a * H - b * G;
            });
            store(load<R, Arch>(tile.input + s * n) + input, tile.input + s * n);
            const v decay = multiply_add(size, v(R(1 / log2_e)), turn * v(R(6.283185307179586477)));
            store(load<R, Arch>(tile.decay + s * n) + decay, tile.decay + s * n);
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

/// Takes all states through the block: as many at a time as registers hold, then the remainder.
template <class Arch, class Param, bool BPerLane, bool CPerLane, class R>
void adjoint_of_all_states(adjoint_run<R> run, index state)
{
    constexpr index n = lanes<R, Arch>, k = components<Param>, most = adjoint_states<Arch, Param>;
    const auto advance = [&]<index N>(std::integral_constant<index, N>) {
        for (; state >= N; state -= N) {
            constexpr auto states = std::make_index_sequence<static_cast<std::size_t>(N)>{};
            if constexpr (is_complex<Param>) {
                adjoint_of_complex_states<Arch, R, BPerLane, CPerLane>(run, states);
            } else {
                adjoint_of_states<Arch, R, BPerLane, CPerLane>(run, states);
            }
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
