#pragma once

// The backward pass of S5, pieces and spans as in s5_plan.hpp, from the last piece to the first. A sweep ahead of it keeps the
// state that every piece begins with; within a span, products of panels are tasks by pieces, scans are tasks by tiles of states,
// and the gradients of the matrices, sums over the tokens, are tasks by columns: nothing depends on the number of threads.

#include <algorithm>
#include <cstdint>

#include <ssmkit/args/s5_backward.hpp>
#include <ssmkit/detail/s5_plan.hpp>

namespace ssmkit::detail {

/// The scan back through a tile of states of one piece.
template <class R>
struct s5_adjoint_rows {
    const R* input;      // B u, before its gain
    const R* h;          // states
    R* g;                // f C^H dy; becomes the gradient of B u
    index tile;          // from the real to the imaginary parts of all three
    index tokens;
    s5_token_system<R> system;
    const std::uint8_t* begins;
    const R* before;     // the state before the first token
    R* later;            // what reaches the last state from the tokens after; becomes what reaches the state before the first
};

/// Adds Σ s_t conj(h_{t-1}) to `sums` (one pair of registers) or, where poles change with the token, hands the gradients of pole
/// and gain to `token(t, to_pole, to_gain)`.
template <class Arch, bool Liquid, bool Varying, class R, class Token>
[[gnu::always_inline]] inline void s5_adjoint_scan(const s5_adjoint_rows<R>& r, R* sums, Token&& token)
{
    using c = complex_register<R, Arch>;
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    c later = c::load(r.later, n), sum(v(R(0)));
    for (index t = r.tokens - 1; t >= 0; --t) {
        const c s = c::load(r.g + t * n, r.tile) + later;
        c pole = c::load(r.system.poles + t * r.system.step, n), to_pole(v(R(0))), to_gained = s;
        const bool begins = r.begins && r.begins[t];
        if (!begins) to_pole = conj(t > 0 ? c::load(r.h + (t - 1) * n, r.tile) : c::load(r.before, n)) * s;
        if constexpr (Liquid) {
            const c input = c::load(r.input + t * n, r.tile);
            pole = pole + (r.system.gains ? c::load(r.system.gains + t * 2 * n, n) * input : input);
            to_gained = to_gained + to_pole;
        }
        later = begins ? c(v(R(0))) : conj(pole) * s;
        c to_gain(v(R(0))), to_input = to_gained;
        if constexpr (Varying) {
            if (r.system.gains) {
                to_gain = conj(c::load(r.input + t * n, r.tile)) * to_gained;
                to_input = conj(c::load(r.system.gains + t * 2 * n, n)) * to_gained;
            }
            token(t, to_pole, to_gain);
        } else {
            sum = sum + to_pole;
        }
        to_input.store(r.g + t * n, r.tile);
    }
    later.store(r.later, n);
    if constexpr (!Varying) sum.store(sums, n);
}

template <class Arch, bool Liquid, class R>
[[gnu::noinline, gnu::flatten]] void s5_adjoint_constant(const s5_adjoint_rows<R>& rows, R* sums)
{
    s5_adjoint_scan<Arch, Liquid, false>(rows, sums, [](auto&&...) {});
}

/// The same for intervals, with the chain rule to A and delta, three rows of `sums`, and to the intervals: dinterval[t].
template <class Arch, bool Liquid, class R>
[[gnu::noinline, gnu::flatten]] void s5_adjoint_varying(const s5_adjoint_rows<R>& rows, const R* rates, discretization method,
                                                        const R* intervals, R* sums, R* dinterval)
{
    constexpr index n = lanes<R, Arch>;
    s5_rate_gradients<R, Arch> gradients;
    const bool gain_varies = rows.system.gains != nullptr;
    s5_adjoint_scan<Arch, Liquid, true>(
        rows, sums, [&](index t, const auto& to_pole, const auto& to_gain) __attribute__((always_inline)) {
            const s5_step_lanes<R, Arch> s(s5_rates<R>(rates, n), method, intervals[t]);
            dinterval[t] = sum(gradients.add(s, intervals[t], to_pole, to_gain, gain_varies));
        });
    gradients.A.store(sums, n);
    gradients.delta.store_unaligned(sums + 2 * n);
}

template <class Arch, class T>
struct s5_adjoint {
    using R = compute_t<T>;
    using complex = std::complex<R>;
    static constexpr index n = lanes<R, Arch>;
    const s5_backward_args<T>& a;
    const s5_args<T>& f;
    s5_shape<Arch, T> s;
    s5_system_tiles<Arch, T> system;
    bool keep_input;
    R *in_matrix, *in_transposed, *out_transposed;  // B̄ as (dim, 2 state) and (2 state, dim), f C^H as (out, 2 state)
    R *u, *dy, *h, *g, *input, *du;                 // panels
    R *kept, *state, *later, *intervals;
    R *dB, *dC, *dD, *dinterval;
    double* rates;  // sums over all tokens: dĀ or, for intervals, dA and ddelta
    std::uint8_t* flags;
    bool backwards = false, second = false;
    index column = 0;

    s5_adjoint(const s5_backward_args<T>& args, std::size_t concurrency, arena& memory)
        : a(args), f(args.forward), s(f, concurrency)
    {
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count)); };
        keep_input = f.liquid || s5_gain_varies(f);
        system.take(memory, s, f.interval.data() != nullptr);
        in_matrix = take(packed_size<R, Arch>(s.dim, 2 * s.state_tiles));
        in_transposed = take(packed_size<R, Arch>(2 * s.state, s.dim_tiles));
        out_transposed = take(packed_size<R, Arch>(s.out, 2 * s.state_tiles));
        u = take(s.span * s.dim_panel());
        dy = take(s.span * s.out_panel());
        h = take(s.span * s.state_panel());
        g = take(s.span * s.state_panel());
        input = take(keep_input ? s.span * s.state_panel() : 0);
        du = take(std::min(s.span, static_cast<index>(concurrency)) * s.dim_panel());
        kept = take(s.total() * s.states_size());
        state = take(s.states_size());
        later = take(s.states_size());
        intervals = take(f.interval.data() ? s.span * s.piece : 0);
        dinterval = take(a.dinterval.data() ? s.span * s.piece * s.state_tiles : 0);
        dB = take(s.dim_tiles * n * 2 * s.state_tiles * n);
        dC = take(2 * s.state_tiles * n * s.out_tiles * n);
        dD = take(s.dim_tiles * n);
        rates = memory.take<double>(static_cast<std::size_t>(3 * s.state_tiles * n));
        flags = memory.take<std::uint8_t>(static_cast<std::size_t>(s.span * s.piece));
    }

    template <class Exec>
    void run(bool from_the_end, bool second_scan, Exec& exec)
    {
        backwards = from_the_end;
        second = second_scan;
        column = second ? s.state : 0;
        if (!second) {
            system.prepare(f, s);
            std::fill_n(dB, s.dim_tiles * n * 2 * s.state_tiles * n, R(0));
            std::fill_n(dD, s.dim_tiles * n, R(0));
            std::fill_n(rates, 3 * s.state_tiles * n, 0.0);
        }
        std::fill_n(dC, 2 * s.state_tiles * n * s.out_tiles * n, R(0));
        const auto by_states = [&](auto&& work) {
            run_tasks(exec, static_cast<std::size_t>(s.state_tiles), [&](std::size_t tile, std::size_t) {
                const flush_denormals guard;
                work(static_cast<index>(tile));
            });
        };
        by_states([&](index tile) { pack(tile); });
        const auto spans = [&](index first, index count, auto&& work) {
            run_tasks(exec, static_cast<std::size_t>(count), [&](std::size_t k, std::size_t slot) {
                const flush_denormals guard;
                work(static_cast<index>(k), first + static_cast<index>(k), static_cast<index>(slot));
            });
        };
        for (index first = 0; first < s.total(); first += s.span) {  // ahead: the states that pieces begin with
            const index count = std::min(s.span, s.total() - first);
            if (s.pieces > 1) spans(first, count, [&](index k, index i, index) { enter(k, i, h); });
            by_states([&](index tile) {
                for (index k = 0; k < count; ++k) keep(tile, k, first + k);
            });
        }
        for (index last = s.total(); last > 0; last -= std::min(s.span, last)) {
            const index count = std::min(s.span, last), first = last - count;
            spans(first, count, [&](index k, index i, index) {
                enter(k, i, keep_input ? input : h);
                const auto tokens_dy = s5_piece(a.dy, s.row(i), s.first(i), s.tokens(i), backwards);
                load_tiles<Arch, R>(as_rectangle(tokens_dy), dy + k * s.out_panel(), s.piece * n);
                multiply_panel<Arch>(panel<const R>{dy + k * s.out_panel(), s.piece * n, s.out}, s.tokens(i), out_transposed,
                                     2 * s.state_tiles, g + k * s.state_panel(), s.piece * n);
            });
            by_states([&](index tile) {
                for (index k = count; k-- > 0;) scan_back(tile, k, first + k);
            });
            // Tasks of both kinds at once: the products of pieces, then the sums of columns.
            const index columns = s.state_tiles + (s.out_tiles + product_columns - 1) / product_columns;
            spans(0, count + columns, [&](index task, index, index slot) {
                if (task < count) {
                    leave(task, first + task, du + slot * s.dim_panel());
                } else {
                    sum_column(task - count, first, count);
                }
            });
        }
        if (a.dC.data()) by_states([&](index tile) { finish_dC(tile); });
        if (second || !f.bidirectional) {
            by_states([&](index tile) { finish_states(tile); });
            for (index c = 0; c < s.dim && a.dD.data(); ++c) a.dD[c] = dD[c];
        }
    }

    void pack(index tile) const
    {
        const auto gain = [&](index i) { return s5_packed_gain(f, i); };
        const R factor = f.conjugate_pairs ? R(2) : R(1);
        pack_states_as_columns<Arch, R>(f.C.slice(1, column, s.state).transposed(0, 1), tile, factor, -factor, out_transposed,
                                        [](index) { return complex(1); });
        if (second) return;
        pack_states_as_columns<Arch, R>(f.B, tile, R(1), R(1), in_matrix, gain);
        pack_states_as_rows<Arch, R>(f.B, tile, R(1), R(1), in_transposed, gain);
    }

    void enter(index k, index i, R* inputs) const
    {
        const index tile = s.piece * n, tokens = s.tokens(i), b = s.row(i), first = s.first(i);
        R* const panel_u = u + k * s.dim_panel();
        s5_find_begins(f, b, first, tokens, backwards, flags + k * s.piece);
        for (index t = 0; t < tokens && f.interval.data(); ++t) {
            intervals[k * s.piece + t] = f.interval(b, backwards ? s.length - 1 - first - t : first + t);
        }
        load_tiles<Arch, R>(as_rectangle(s5_piece(f.u, b, first, tokens, backwards)), panel_u, tile);
        multiply_panel<Arch>(panel<const R>{panel_u, tile, s.dim}, tokens, in_matrix, 2 * s.state_tiles,
                             inputs + k * s.state_panel(), tile);
    }

    /// Poles and gains of piece i for a tile of states.
    template <class Buffers>
    s5_token_system<R> system_of(index tile, index k, index tokens, Buffers& buffers) const
    {
        if (f.interval.data() == nullptr) return {system.poles + tile * system.step};
        R* const gains = s5_gain_varies(f) ? buffers.gains : nullptr;
        s5_fill_system<Arch>(system.poles + tile * system.step, f.method, intervals + k * s.piece, tokens, buffers.poles, gains);
        return {buffers.poles, 2 * n, gains};
    }

    struct system_buffers {
        alignas(64) R poles[static_cast<std::size_t>(s5_longest_piece * 2 * n)];
        alignas(64) R gains[static_cast<std::size_t>(s5_longest_piece * 2 * n)];
    };

    const std::uint8_t* begins_of(index k) const { return f.reset.data() ? flags + k * s.piece : nullptr; }

    /// The states of a tile and piece, scanned from `from` to h.
    void scan(index tile, index k, index i, const R* from, const s5_token_system<R>& tokens_system, R* carried) const
    {
        const index at = k * s.state_panel() + tile * 2 * s.piece * n;
        (f.liquid ? s5_scan_tile<Arch, true, R> : s5_scan_tile<Arch, false, R>)(from + at, h + at, s.piece * n, s.tokens(i),
                                                                                tokens_system, begins_of(k), carried);
    }

    void keep(index tile, index k, index i) const
    {
        R* const carried = state + tile * 2 * n;
        if (s.first(i) == 0)
            load_state_tile<Arch, R>(f.initial_state, s.row(i), column + tile * n, std::min(n, s.state - tile * n), carried);
        std::copy_n(carried, 2 * n, kept + i * s.states_size() + tile * 2 * n);
        if (s.first(i) + s.tokens(i) == s.length) return;
        system_buffers buffers;
        scan(tile, k, i, h, system_of(tile, k, s.tokens(i), buffers), carried);
    }

    void scan_back(index tile, index k, index i) const
    {
        const index b = s.row(i), tokens = s.tokens(i), states = std::min(n, s.state - tile * n),
                    at = k * s.state_panel() + tile * 2 * s.piece * n;
        const R* const before = kept + i * s.states_size() + tile * 2 * n;
        R* const carried = later + tile * 2 * n;
        if (s.first(i) + tokens == s.length) load_state_tile<Arch, R>(a.dfinal_state, b, column + tile * n, states, carried);
        system_buffers buffers;
        const auto tokens_system = system_of(tile, k, tokens, buffers);
        alignas(64) R current[static_cast<std::size_t>(2 * n)], sums[static_cast<std::size_t>(3 * n)];
        std::copy_n(before, 2 * n, current);
        scan(tile, k, i, keep_input ? input : h, tokens_system, current);
        const s5_adjoint_rows<R> rows{
            keep_input ? input + at : nullptr, h + at, g + at, s.piece * n, tokens, tokens_system, begins_of(k), before, carried};
        index kinds = 2;
        if (f.interval.data()) {
            kinds = 3;
            R unused[static_cast<std::size_t>(s5_longest_piece)];
            R* const to_interval = a.dinterval.data() ? dinterval + (k * s.state_tiles + tile) * s.piece : unused;
            (f.liquid ? s5_adjoint_varying<Arch, true, R>
                      : s5_adjoint_varying<Arch, false, R>)(rows, system.poles + tile * system.step, f.method,
                                                            intervals + k * s.piece, sums, to_interval);
        } else {
            (f.liquid ? s5_adjoint_constant<Arch, true, R> : s5_adjoint_constant<Arch, false, R>)(rows, sums);
        }
        for (index j = 0; j < kinds * n; ++j) rates[tile * 3 * n + j] += static_cast<double>(sums[j]);
        if (s.first(i) == 0 && a.dinitial_state.data())
            store_state_tile<Arch, R>(carried, a.dinitial_state, b, column + tile * n, states);
    }

    /// du and dinterval of a piece; a second scan adds to what the first has stored.
    void leave(index k, index i, R* sums) const
    {
        const index tile = s.piece * n, tokens = s.tokens(i), b = s.row(i);
        if (a.dinterval.data()) {
            for (index t = 0; t < tokens; ++t) {
                const index at = backwards ? s.length - 1 - s.first(i) - t : s.first(i) + t;
                R total = second ? a.dinterval(b, at) : R(0);
                for (index j = 0; j < s.state_tiles; ++j) total += dinterval[(k * s.state_tiles + j) * s.piece + t];
                a.dinterval(b, at) = total;
            }
        }
        if (a.du.data() == nullptr) return;
        multiply_panel<Arch>(panel<const R>{g + k * s.state_panel(), tile, s.state, 2}, tokens, in_transposed, s.dim_tiles, sums,
                             tile);
        const auto tokens_du = s5_piece(a.du, b, s.first(i), tokens, backwards);
        if (second) {
            s5_add_stored<Arch, R>(tokens_du, sums, s.piece);
        } else if (f.D.data()) {
            s5_add_skip<Arch, R>(f.D, dy + k * s.out_panel(), tokens, sums, s.piece);
        }
        store_tiles<Arch, R>(sums, tile, as_rectangle(tokens_du));
    }

    /// Sums over the tokens of a span: dB̄ of a tile of states or, behind them, dC of a group of outputs and dD beside it.
    void sum_column(index group, index first, index count) const
    {
        const index tile = s.piece * n;
        for (index k = count; k-- > 0;) {  // from the last piece to the first, as the spans go
            const index tokens = s.tokens(first + k);
            const R* const panel_u = u + k * s.dim_panel();
            if (group < s.state_tiles) {
                if (!a.dB.data() && !a.dA.data() && !a.ddelta.data()) return;
                add_outer<Arch, 2>(panel<const R>{panel_u, tile, s.dim}, g + k * s.state_panel(), tile, 2 * group, tokens, dB);
                continue;
            }
            const R* const panel_dy = dy + k * s.out_panel();
            const index c = (group - s.state_tiles) * product_columns, columns = std::min(product_columns, s.out_tiles - c);
            if (a.dC.data()) {
                const panel<const R> states{h + k * s.state_panel(), tile, s.state, 2};
                columns == 1 ? add_outer<Arch, 1>(states, panel_dy, tile, c, tokens, dC)
                             : add_outer<Arch, 2>(states, panel_dy, tile, c, tokens, dC);
            }
            for (index j = c; j < c + columns && a.dD.data() && !second; ++j) {
                vec<R, Arch> sums(R(0));
                for (index t = 0; t < tokens; ++t) {
                    const index at = (j * s.piece + t) * n;
                    sums = multiply_add(load<R, Arch>(panel_u + at), load<R, Arch>(panel_dy + at), sums);
                }
                (sums + load<R, Arch>(dD + j * n)).store_unaligned(dD + j * n);
            }
        }
    }

    void finish_dC(index tile) const
    {
        const index states = std::min(n, s.state - tile * n), rows = 2 * s.state_tiles * n;
        const R factor = f.conjugate_pairs ? R(2) : R(1);
        for (index lane = 0; lane < states; ++lane) {
            for (index o = 0; o < s.out; ++o) {
                const auto sum_of = [&](index part) {
                    return dC[packed_offset<R, Arch>(rows, s.out_tiles, (2 * tile + part) * n + lane, o / n) + o % n];
                };
                a.dC(o, column + tile * n + lane) = {factor * sum_of(0), -factor * sum_of(1)};
            }
        }
    }

    /// dB from dB̄ and, by the chain rule, dA and ddelta.
    void finish_states(index tile) const
    {
        using wide = std::complex<double>;
        const index rows = s.dim_tiles * n;
        for (index lane = 0; lane < std::min(n, s.state - tile * n); ++lane) {
            const index i = tile * n + lane;
            const wide gain = s5_packed_gain(f, i);
            wide to_gain(0);
            for (index c = 0; c < s.dim; ++c) {
                const R* const sums = dB + (2 * tile * rows + c * 2) * n + lane;
                const wide to_B(static_cast<double>(sums[0]), static_cast<double>(sums[n]));
                to_gain += to_B * std::conj(wide(f.B(i, c)));
                if (a.dB.data()) a.dB(i, c) = complex(std::conj(gain) * to_B);
            }
            const double* const sums = rates + tile * 3 * n + lane;
            const wide to_pole(sums[0], sums[n]);
            wide dA = to_pole;
            double ddelta = f.interval.data() ? sums[2 * n] : 0;
            if (f.delta.data() && !s5_gain_varies(f)) {
                const auto d = discretize_backward(s5_rate(f, i), static_cast<double>(f.delta[i]), f.method, 1.0,
                                                   {f.interval.data() ? wide(0) : to_pole, to_gain});
                dA = f.interval.data() ? dA + d.A : d.A;
                ddelta += d.delta;
            }
            if (f.clip_eigs && static_cast<double>(f.A[i].real()) > -1e-4) dA = {0, dA.imag()};
            if (a.dA.data()) a.dA[i] = complex(dA);
            if (a.ddelta.data()) a.ddelta[i] = static_cast<R>(ddelta);
        }
    }
};

template <class Arch, class T, class Exec>
void run_s5_backward(const s5_backward_args<T>& a, arena& memory, Exec& exec)
{
    s5_adjoint<Arch, T> scan(a, concurrency(exec), memory);
    for (index b = 0; b < a.dinitial_state.extent(0) && a.forward.u.extent(1) == 0; ++b) {
        for (index i = 0; i < a.dinitial_state.extent(1); ++i) {
            a.dinitial_state(b, i) = a.dfinal_state.data() ? a.dfinal_state(b, i) : typename s5_args<T>::complex(0);
        }
    }
    scan.run(a.forward.reverse, false, exec);
    if (a.forward.bidirectional) scan.run(true, true, exec);
}

}  // namespace ssmkit::detail
