#pragma once

// B, C and their gradients in ssd's backward pass: what all heads of a part share.

#include <algorithm>

#include <ssmkit/detail/ssd_backward_plan.hpp>
#include <ssmkit/detail/ssd_head.hpp>
#include <ssmkit/detail/tile.hpp>

namespace ssmkit::detail {

/// The maps of one sequence and group, for one part of its heads: a piece at a time in m.B and m.C, rows of tokens, and all
/// pieces in m.turned_B and m.turned_C with the tokens along the lanes.
template <class Arch, class T>
class ssd_backward_maps {
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    static constexpr index n = lanes<R, Arch>, tokens = ssd_piece_tokens;

public:
    ssd_backward_maps(const ssd_backward_args<T>& a, const ssd_backward_plan<Arch, T>& plan, const ssd_backward_scratch<Arch, T>& m,
                      index b, index group, index part)
        : a_(a), plan_(plan), m_(m), b_(b), group_(group), part_(part), state_(a.forward.B.extent(3))
    {
    }

    /// Before the first piece, of `count` tokens in all.
    void clear(index count) const
    {
        std::fill_n(m_.F, count * tokens, R(0));
        std::fill_n(m_.dB, count * state_, R(0));
        std::fill_n(m_.dC, count * state_, R(0));
    }

    void write_padding(index t) const
    {
        if (a_.dB.data()) std::fill_n(plan_.dB + row_of(t), plan_.row, R(0));
        if (a_.dC.data()) std::fill_n(plan_.dC + row_of(t), plan_.row, R(0));
    }

    /// B and C of a piece, row by row, zeros behind the states.
    void load_piece(const ssd_piece& p) const
    {
        const auto copy = [&](const view<const T, 4>& from, R* to) {
            for (index i = 0; i < p.count; ++i, to += plan_.row) {
                const T* const row = from.pointer(b_, m_.positions[p.offset + i], group_);
                if (from.stride(3) == 1) {
                    index at = 0;
                    for_each_lanes<R, Arch>(state_, [&](auto range) {
                        store(range.load(row), to + at);
                        at += n;
                    });
                } else {
                    for (index k = 0; k < plan_.row; ++k) to[k] = k < state_ ? static_cast<R>(row[k * from.stride(3)]) : R(0);
                }
            }
        };
        copy(a_.forward.B, m_.B);
        copy(a_.forward.C, m_.C);
    }

    broadcast_rows<R> rows(const R* maps) const { return {maps, plan_.row, 1}; }

    /// B and C of a piece with the tokens along the lanes, and C·B: for all heads of the part.
    void turn(const ssd_piece& p) const
    {
        load_piece(p);
        const auto copy = [&](const R* maps, R* to) {
            load_tiles<Arch, R, R>({maps, 1, plan_.row, state_, p.count}, m_.turned, state_ * n);
            for (index k = 0; k < state_; ++k) {
                for_each_lanes<R, Arch>(p.count, [&](auto range) {
                    range.store(load<R, Arch>(m_.turned + range.first * state_ + k * n), to + (p.offset * state_ + k * p.count));
                });
            }
        };
        copy(m_.B, m_.turned_B);
        copy(m_.C, m_.turned_C);
        ssd_map_product<Arch>(p.count, rows(m_.C), tiled_rows<R>{m_.turned_B + p.offset * state_, n, p.count}, state_,
                              m_.products + p.offset * tokens);
    }

    /// Adds what is in `turned` to the sums of a piece, [state][token] both, and its inner products with B or C to `dots`.
    [[gnu::flatten]] void add(const ssd_piece& p, const R* maps, R* sums, R* dots) const
    {
        for_each_lanes<R, Arch>(p.count, [&](auto range) {
            v dot(R(0));
            for (index k = 0; k < state_; ++k) {
                const v x = load<R, Arch>(m_.turned + range.first * state_ + k * n);
                range.store(range.load(sums + k * p.count) + x, sums + k * p.count);
                dot = multiply_add(x, range.load(maps + k * p.count), dot);
            }
            range.store(dot, dots);
        });
    }

    /// The part's dC_i, with Σ_{j <= i} F_ij B_j, and dB_j, with Σ_{i >= j} F_ij C_i, for all its heads at once.
    void finish(const ssd_piece& p) const
    {
        load_piece(p);
        const R* const F = m_.F + p.offset * tokens;
        const auto write = [&](const R* sums, R* to, auto&& add_pairs) {
            load_tiles<Arch, R, R>({sums + p.offset * state_, 1, p.count, p.count, state_}, m_.turned, tokens * n);
            // One row at a time: more columns keep enough sums under way.
            for_each_column_group<Arch, many_registers<Arch> ? 4 : 2>(plan_.row / n, [&](index first, auto columns) {
                add_pairs(m_.turned + first * tokens * n, first * n, columns);
            });
            for (index i = 0; i < p.count; ++i) {
                R* const row = to + row_of(m_.positions[p.offset + i]);
                for (index k = 0; k < plan_.row; k += n) store(load<R, Arch>(m_.turned + k * tokens + i * n), row + k);
            }
        };
        if (a_.dC.data()) {
            write(m_.dC, plan_.dC, [&](R* tiles, index k, auto columns) {
                for (index i = 0; i < p.count; ++i) add_rows<columns()>(F + i * tokens, 1, m_.B + k, i + 1, tiles + i * n);
            });
        }
        if (a_.dB.data()) {
            write(m_.dB, plan_.dB, [&](R* tiles, index k, auto columns) {
                for (index j = 0; j < p.count; ++j) {
                    add_rows<columns()>(F + j * tokens + j, tokens, m_.C + j * plan_.row + k, p.count - j, tiles + j * n);
                }
            });
        }
    }

private:
    index row_of(index t) const { return plan_.offset(b_, t, group_, part_, a_.forward.u.extent(1)); }

    /// Adds Σ_k factors_k maps_k to a row of `Columns` tiles.
    template <index Columns>
    [[gnu::noinline, gnu::flatten]] void add_rows(const R* factors, index step, const R* maps, index count, R* row) const
    {
        v sums[Columns];
        unrolled<Columns>([&](auto c) { sums[c] = load<R, Arch>(row + c * tokens * n); });
        for (index k = 0; k < count; ++k, factors += step, maps += plan_.row) {
            const v factor(*factors);
            unrolled<Columns>([&](auto c) { sums[c] = multiply_add(factor, load<R, Arch>(maps + c * n), sums[c]); });
        }
        unrolled<Columns>([&](auto c) { store(sums[c], row + c * tokens * n); });
    }

    const ssd_backward_args<T>& a_;
    const ssd_backward_plan<Arch, T>& plan_;
    const ssd_backward_scratch<Arch, T>& m_;
    index b_, group_, part_, state_;
};

}  // namespace ssmkit::detail
