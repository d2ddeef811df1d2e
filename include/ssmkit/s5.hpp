#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include <ssmkit/detail/s5_plan.hpp>

namespace ssmkit {
namespace detail {

/// One scan of a call over all sequences.
template <class Arch, class T>
struct s5_forward {
    using R = compute_t<T>;
    using complex = std::complex<R>;
    static constexpr index n = lanes<R, Arch>;
    const s5_args<T>& a;
    s5_shape<Arch, T> s;
    s5_system_tiles<Arch, T> system;
    R *in_matrix, *out_matrix, *u, *h, *y, *state;
    std::uint8_t* flags;
    bool backwards = false;
    index column = 0;  // where this scan's states begin in C, initial_state and final_state

    s5_forward(const s5_args<T>& args, std::size_t concurrency, arena& memory) : a(args), s(args, concurrency)
    {
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count)); };
        system.take(memory, s, a.interval.data() != nullptr);
        in_matrix = take(packed_size<R, Arch>(s.dim, 2 * s.state_tiles));
        out_matrix = take(packed_size<R, Arch>(2 * s.state, s.out_tiles));
        u = take(s.span * s.dim_panel());
        h = take(s.span * s.state_panel());
        y = take(std::min(s.span, static_cast<index>(concurrency)) * s.out_panel());
        state = take(s.states_size());
        flags = memory.take<std::uint8_t>(static_cast<std::size_t>(s.span * s.piece));
    }

    template <class Exec>
    void run(bool from_the_end, index first_column, Exec& exec)
    {
        backwards = from_the_end;
        column = first_column;
        if (column == 0) system.prepare(a, s);
        run_tasks(exec, static_cast<std::size_t>(s.state_tiles),
                  [&](std::size_t tile, std::size_t) { pack(static_cast<index>(tile)); });
        for (index first = 0; first < s.total(); first += s.span) {
            const index count = std::min(s.span, s.total() - first);
            run_tasks(exec, static_cast<std::size_t>(count), [&](std::size_t k, std::size_t) {
                const flush_denormals guard;
                enter(static_cast<index>(k), first + static_cast<index>(k));
            });
            run_tasks(exec, static_cast<std::size_t>(s.state_tiles), [&](std::size_t tile, std::size_t) {
                const flush_denormals guard;
                for (index k = 0; k < count; ++k) scan(static_cast<index>(tile), k, first + k);
            });
            run_tasks(exec, static_cast<std::size_t>(count), [&](std::size_t k, std::size_t slot) {
                const flush_denormals guard;
                leave(static_cast<index>(k), first + static_cast<index>(k), y + static_cast<index>(slot) * s.out_panel());
            });
        }
    }

    void pack(index tile) const
    {
        const auto gain = [&](index i) { return s5_packed_gain(a, i); };
        const R f = a.conjugate_pairs ? R(2) : R(1);
        pack_states_as_columns<Arch, R>(a.B, tile, R(1), R(1), in_matrix, gain);
        pack_states_as_rows<Arch, R>(a.C.slice(1, column, s.state).transposed(0, 1), tile, f, -f, out_matrix,
                                     [](index) { return complex(1); });
    }

    /// B u of piece i, the k-th of the span; times the gain unless that changes with the token.
    void enter(index k, index i) const
    {
        const index tile = s.piece * n, tokens = s.tokens(i);
        R* const panel_u = u + k * s.dim_panel();
        const auto tokens_u = s5_piece(a.u, s.row(i), s.first(i), tokens, backwards);
        s5_find_begins(a, s.row(i), s.first(i), tokens, backwards, flags + k * s.piece);
        load_tiles<Arch, R>(as_rectangle(tokens_u), panel_u, tile);
        multiply_panel<Arch>(panel<const R>{panel_u, tile, s.dim}, tokens, in_matrix, 2 * s.state_tiles, h + k * s.state_panel(),
                             tile);
    }

    /// The states of a tile, in place of B u.
    void scan(index tile, index k, index i) const
    {
        const index b = s.row(i), first = s.first(i), tokens = s.tokens(i), states = std::min(n, s.state - tile * n);
        R* const carried = state + tile * 2 * n;
        if (first == 0) load_state_tile<Arch, R>(a.initial_state, b, column + tile * n, states, carried);
        const std::uint8_t* const begins = a.reset.data() ? flags + k * s.piece : nullptr;
        R* const rows = h + k * s.state_panel() + tile * 2 * s.piece * n;
        s5_token_system<R> tokens_system{system.poles + tile * system.step};
        alignas(64) R poles[static_cast<std::size_t>(s5_longest_piece * 2 * n)],
            gains[static_cast<std::size_t>(s5_longest_piece * 2 * n)];
        if (a.interval.data()) {
            R intervals[static_cast<std::size_t>(s5_longest_piece)];
            for (index t = 0; t < tokens; ++t) intervals[t] = a.interval(b, backwards ? s.length - 1 - first - t : first + t);
            tokens_system = {poles, 2 * n, s5_gain_varies(a) ? gains : nullptr};
            s5_fill_system<Arch>(system.poles + tile * system.step, a.method, intervals, tokens, poles,
                                 s5_gain_varies(a) ? gains : nullptr);
        }
        (a.liquid ? s5_scan_tile<Arch, true, R> : s5_scan_tile<Arch, false, R>)(rows, rows, s.piece * n, tokens, tokens_system,
                                                                                begins, carried);
        if (first + tokens == s.length && a.final_state.data()) {
            store_state_tile<Arch, R>(carried, a.final_state, b, column + tile * n, states);
        }
    }

    /// C h and D u; a second scan of the call adds to what the first has stored.
    void leave(index k, index i, R* sums) const
    {
        const index tile = s.piece * n, tokens = s.tokens(i);
        multiply_panel<Arch>(panel<const R>{h + k * s.state_panel(), tile, s.state, 2}, tokens, out_matrix, s.out_tiles, sums,
                             tile);
        const auto tokens_y = s5_piece(a.y, s.row(i), s.first(i), tokens, backwards);
        if (column > 0) {
            s5_add_stored<Arch, R>(tokens_y, sums, s.piece);
        } else if (a.D.data()) {
            s5_add_skip<Arch, R>(a.D, u + k * s.dim_panel(), tokens, sums, s.piece);
        }
        store_tiles<Arch, R>(sums, tile, as_rectangle(tokens_y));
    }
};

template <class Arch, class T, class Exec>
void run_s5(const s5_args<T>& a, arena& memory, Exec& exec)
{
    s5_forward<Arch, T> scan(a, concurrency(exec), memory);
    for (index b = 0; b < a.final_state.extent(0) && a.u.extent(1) == 0; ++b) {
        for (index i = 0; i < a.final_state.extent(1); ++i) {
            a.final_state(b, i) = a.initial_state.data() ? a.initial_state(b, i) : typename s5_args<T>::complex(0);
        }
    }
    scan.run(a.reverse, 0, exec);
    if (a.bidirectional) scan.run(true, scan.s.state, exec);
}

}  // namespace detail

/// Bytes of scratch memory with which s5(a) runs on any resource of at most this concurrency. In values of compute_t<T>:
/// 2 state (dim + out) for the packed B and C, and 64 (dim + 2 state + out) or, with threads, four times that for each.
template <class Arch = xsimd::default_arch, class T>
std::size_t s5_workspace_size(const s5_args<T>& a, std::size_t concurrency = 1)
{
    detail::arena count;
    detail::s5_forward<Arch, T>(a, concurrency, count);
    return count.size();
}

/// S5: shapes, equations and options at s5_args. Throws shape_error before anything is written. Projections and scan are one:
/// neither B̄ u nor the states reach memory beyond the caches. Work splits over time and states; the result does not depend on
/// the split, bit for bit. float results lie within 1e-5 of the largest output of a double computation as long as the memory
/// is short, 1 / (1 - |Ā|) up to some hundred tokens. Where u is stored in 16 bits, bidirectional rounds y twice.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s5(const s5_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const scratch own("s5", memory, s5_workspace_size<Arch>(a, concurrency(exec)));
    arena parts(own.memory());
    run_s5<Arch>(a, parts, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void s5(const s5_args<T>& a, Exec&& exec)
{
    s5<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
