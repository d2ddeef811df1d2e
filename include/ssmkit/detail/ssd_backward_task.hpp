#pragma once

// The gradients of one sequence of ssd for some heads of one group, in pieces of a few tokens from the last to the first. In the
// names of args/ssd_backward.hpp, with S the state before a piece, R the gradient of the state behind it, s_i the decay from
// before the piece to behind token i, e_j that from token j to the piece's end, E_ij that from token j to token i, and κ_j = Δ_j,
// or 1 if the inputs come prescaled:
//
//     w_j   = Σ_{i >= j} E_ij C_i·B_j dp_i + e_j R B_j             du_j = D dp_j + κ_j w_j
//     F_ij  = E_ij κ_j dp_i·u_j                                    summed over the heads of a part before it meets B and C
//     dC_i  = s_i S^T dp_i + Σ_j F_ij B_j
//     dB_j  = e_j κ_j R^T u_j + Σ_i F_ij C_i
//     R     = s_last R + Σ_i s_i dp_i ⊗ C_i                        of the piece before
//     dα_t  = Σ_{i >= t} s_i dp_i·(S C_i) + s_last <R, S> + Σ_{j < t} e_j κ_j u_j·(R B_j) + Σ_{i >= t > j} F_ij C_i·B_j
//     dΔ_t  = u_t·w_t + A dα_t                                     dA = Σ Δ_t dα_t
//
// α_t = Δ_t A; none of its four parts is a difference.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <ssmkit/args/ssd_backward.hpp>
#include <ssmkit/detail/shuffle.hpp>
#include <ssmkit/detail/ssd_backward_maps.hpp>
#include <ssmkit/detail/ssd_backward_plan.hpp>
#include <ssmkit/detail/ssd_backward_tiles.hpp>
#include <ssmkit/detail/ssd_decays.hpp>

namespace ssmkit::detail {

template <class Arch, class T>
class ssd_backward_task {
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    static constexpr index n = lanes<R, Arch>, tokens = ssd_piece_tokens, token_tile = tokens * n;
    static constexpr R not_a_number = std::numeric_limits<R>::quiet_NaN();

public:
    ssd_backward_task(const ssd_backward_args<T>& a, const ssd_backward_plan<Arch, T>& plan, const ssd_backward_scratch<Arch, T>& m,
                      index task)
        : a_(a), f_(a.forward), plan_(plan), m_(m), sequence_(task / (plan.groups * plan.parts)),
          b_(f_.cu_seqlens.data() ? 0 : sequence_), group_(task / plan.parts % plan.groups), part_(task % plan.parts),
          first_head_(group_ * plan.heads_per_group + part_ * plan.heads),
          last_head_(std::min((group_ + 1) * plan.heads_per_group, first_head_ + plan.heads)), headdim_(f_.u.extent(3)),
          state_(f_.B.extent(3)), tiles_(plan.headdim / n), one_state_(plan.headdim * state_),
          maps_(a, plan, m, b_, group_, part_)
    {
    }

    void run()
    {
        leave_out_padding();
        maps_.clear(count_);
        for (index i = 0; i < pieces_; ++i) maps_.turn(m_.pieces[i]);
        for (first_at_hand_ = first_head_; first_at_hand_ < last_head_; first_at_hand_ = last_at_hand_) {
            last_at_hand_ = std::min(last_head_, first_at_hand_ + ssd_backward_heads);
            take_heads();
        }
        for (index i = 0; i < pieces_; ++i) maps_.finish(m_.pieces[i]);
    }

private:
    /// Lists the tokens that happen and cuts them into pieces; the gradients of the others are zero.
    void leave_out_padding()
    {
        const bool packed = f_.cu_seqlens.data() != nullptr;
        const index begin = packed ? f_.cu_seqlens[sequence_] : 0;
        const index end = packed ? f_.cu_seqlens[sequence_ + 1] : f_.u.extent(1);
        std::int32_t current = 0;  // whom the state belongs to: at first it is the initial state, that of sequence 0
        for (index visit = 0; visit < end - begin; ++visit) {
            const index t = f_.reverse ? end - 1 - visit : begin + visit;
            const std::int32_t id = f_.seq_idx.data() ? f_.seq_idx(b_, t) : 0;
            if (id < 0) {
                write_padding(t);
                continue;
            }
            const bool fresh = id != current;
            current = id;
            if (count_ == 0 || fresh || m_.pieces[pieces_ - 1].count == tokens) {
                m_.pieces[pieces_++] = {visit, 0, count_, fresh, false};
            }
            ++m_.pieces[pieces_ - 1].count;
            m_.positions[count_++] = t;
        }
    }

    void write_padding(index t) const
    {
        maps_.write_padding(t);
        for (index head = first_head_; head < last_head_; ++head) {
            if (a_.ddelta.data()) a_.ddelta(b_, t, head) = T(0);
            for (index c = 0; c < headdim_; ++c) {
                if (a_.du.data()) a_.du(b_, t, head, c) = T(0);
                if (a_.dz.data()) a_.dz(b_, t, head, c) = T(0);
            }
        }
    }

    /// Calls f(first, position, stride, count) for runs of a piece's tokens whose positions follow each other.
    template <class F>
    void for_each_run(const ssd_piece& p, F&& f) const
    {
        const index* const at = m_.positions + p.offset;
        const index step = f_.reverse ? -1 : 1;
        for (index i = 0, end; i < p.count; i = end) {
            for (end = i + 1; end < p.count && at[end] == at[end - 1] + step; ++end) {
            }
            f(i, at[i], step, end - i);
        }
    }

    /// Asks for the rows of some tokens, numbered without padding.
    void ask_for_rows(index head, index first_token, index i, index count) const
    {
        const auto ask = [&](const auto& array, index token) {
            if (!array.data() || array.stride(3) != 1) return;
            const auto* const row = reinterpret_cast<const char*>(array.pointer(b_, m_.positions[token], head));
            for (index byte = 0; byte < headdim_ * static_cast<index>(sizeof(T)); byte += 64) prefetch(row + byte);
        };
        for (index token = std::max(index{0}, first_token + i); token < std::min(count_, first_token + i + count); ++token) {
            ask(f_.u, token);
            ask(a_.dy, token);
            ask(f_.z, token);
            ask(a_.du, token);
            ask(a_.dz, token);
        }
    }

    void load_rows(const view<const T, 4>& from, index head, const ssd_piece& p, R* to) const
    {
        for_each_run(p, [&](index i, index t, index step, index count) {
            load_tiles<Arch, R, T>({from.pointer(b_, t, head), step * from.stride(1), from.stride(3), count, headdim_}, to + i * n,
                                   token_tile);
        });
    }

    void store_rows(const R* from, const view<T, 4>& to, index head, const ssd_piece& p) const
    {
        for_each_run(p, [&](index i, index t, index step, index count) {
            store_tiles<Arch, R, T>(from + i * n, token_tile,
                                    {to.pointer(b_, t, head), step * to.stride(1), to.stride(3), count, headdim_});
        });
    }

    void take_heads()
    {
        for (index head = first_at_hand_; head < last_at_hand_; ++head) prepare_head(head);
        keep_states();
        bool live = a_.dfinal_state.data() != nullptr;
        for (index i = pieces_; i-- > 0;) {
            maps_.load_piece(m_.pieces[i]);
            for (index head = first_at_hand_; head < last_at_hand_; ++head) {
                plan_.dA[number(head)] += gradients_of_piece(head, m_.pieces[i], m_.slots[i], live);
            }
            live = !m_.pieces[i].fresh;
        }
        for (index head = first_at_hand_; head < last_at_hand_; ++head) {
            if (!live) std::fill_n(gradient(head), one_state_, R(0));
            if (a_.dinitial_state.data()) {
                const auto& to = a_.dinitial_state;
                store_tiles<Arch, R, R>(gradient(head), state_ * n,
                                        {to.pointer(sequence_, head), to.stride(3), to.stride(2), state_, headdim_});
            }
            plan_.ddelta_bias[number(head)] = finish_steps(head);
        }
    }

    /// The place of a head among the sums over time, and those of the heads at hand.
    index number(index head) const { return sequence_ * f_.u.extent(2) + head; }
    R* raw(index head) const { return m_.raw + (head - first_at_hand_) * plan_.token_row(); }
    R* delta(index head) const { return m_.delta + (head - first_at_hand_) * plan_.token_row(); }
    R* ddelta(index head) const { return m_.ddelta + (head - first_at_hand_) * plan_.token_row(); }
    R* gradient(index head) const { return m_.gradient + (head - first_at_hand_) * one_state_; }
    R* state(index head, index slot) const { return m_.states + ((head - first_at_hand_) * plan_.slots() + slot) * one_state_; }

    void load_state(const view<const R, 4>& from, index head, R* to) const
    {
        load_tiles<Arch, R, R>({from.pointer(sequence_, head), from.stride(3), from.stride(2), state_, headdim_}, to, state_ * n);
    }

    void prepare_head(index head) const
    {
        const R bias = f_.delta_bias.data() ? f_.delta_bias[head] : R(0);
        for (index k = 0; k < count_; ++k) raw(head)[k] = static_cast<R>(f_.delta(b_, m_.positions[k], head)) + bias;
        ssd_limit_steps<Arch>(f_, raw(head), count_, delta(head));
        if (f_.initial_state.data()) load_state(f_.initial_state, head, state(head, 1));
        if (a_.dfinal_state.data()) load_state(a_.dfinal_state, head, gradient(head));
        std::fill_n(plan_.dD + number(head) * plan_.headdim, plan_.headdim, R(0));
        plan_.dA[number(head)] = 0;
    }

    /// κ: what the inputs of a piece are multiplied by, or null for 1.
    const R* input_factors(index head, const ssd_piece& p) const { return f_.prescaled ? nullptr : delta(head) + p.offset; }

    /// Decays of a piece. A step that is not a number makes those NaN that it takes part in, and no others: it is left out of
    /// the running sums.
    void exponentiate(index head, const ssd_piece& p)
    {
        const R A = f_.A[head];
        R clean[static_cast<std::size_t>(tokens)];
        no_numbers_ = 0;
        for (index i = 0; i < p.count; ++i) {
            const R step = delta(head)[p.offset + i];
            const bool number = !std::isnan(step * A);
            clean[i] = number ? step : R(0);
            no_numbers_ += !number;
            crossed_[i] = no_numbers_;
        }
        ssd_sum_decays<Arch>(clean, p.count, A, m_.high, m_.low);
        ssd_exponentiate_sums<Arch>(m_.high, m_.low, p.count, m_.decay, m_.to_end);
        for (index i = 0; no_numbers_ > 0 && i < p.count; ++i) {
            if (crossed_[i] > 0) m_.decay[i] = not_a_number;
            if (crossed_[i] < no_numbers_) m_.to_end[i] = not_a_number;
        }
        const R* const factors = input_factors(head, p);
        for (index i = 0; i < p.count; ++i) m_.inputs[i] = factors ? m_.to_end[i] * factors[i] : m_.to_end[i];
    }

    /// products_ij times the decay from token j to token i, for j <= i.
    void decay_pairs(const R* products, index count, R* out) const
    {
        ssd_decay_pairs<Arch>(products, m_.high, m_.low, count, out);
        for (index i = 0; no_numbers_ > 0 && i < count; ++i) {
            for (index j = 0; j < i; ++j) {
                if (crossed_[i] != crossed_[j]) out[i * tokens + j] = not_a_number;
            }
        }
    }

    /// Runs forward and keeps the state before every piece that has one.
    void keep_states()
    {
        bool live = f_.initial_state.data() != nullptr;
        index slot = live ? 1 : 0;
        for (index i = 0; i < pieces_; ++i) {
            const ssd_piece& p = m_.pieces[i];
            if (p.fresh) live = false;
            m_.slots[i] = live ? slot : 0;
            if (i + 1 == pieces_ || m_.pieces[i + 1].fresh) continue;  // nobody asks for what this piece leaves
            maps_.load_piece(p);
            for (index head = first_at_hand_; head < last_at_hand_; ++head) {
                load_rows(f_.u, head, p, m_.u);
                exponentiate(head, p);
                ssd_scale_rows<Arch>(m_.u, m_.inputs, tiles_, token_tile, p.count, m_.scaled);
                ssd_head_piece<R> piece = piece_of(p);
                piece.live = live;
                piece.decay = m_.decay;
                piece.input = m_.scaled;
                piece.h = state(head, slot);
                piece.h_after = state(head, slot + 1);
                ssd_chunked_piece<Arch>(piece, false);
            }
            live = true;
            ++slot;
        }
    }

    ssd_head_piece<R> piece_of(const ssd_piece& p) const
    {
        return {.count = p.count,
                .headdim_tiles = tiles_,
                .state = state_,
                .token_tile = token_tile,
                .state_tile = state_ * n,
                .live = false,
                .B = maps_.rows(m_.B),
                .C = maps_.rows(m_.C),
                .mixing = nullptr,
                .decay = nullptr,
                .u = nullptr,
                .input = nullptr,
                .y = nullptr,
                .h = nullptr,
                .h_after = nullptr,
                .ahead = {}};
    }

    /// Everything of one head and piece; returns what the piece adds to dA. `live`: the gradient of the state behind it may
    /// be other than zero.
    R gradients_of_piece(index head, const ssd_piece& p, index slot, bool live)
    {
        R* const gradient_behind = gradient(head);
        load_rows(f_.u, head, p, m_.u);
        load_rows(a_.dy, head, p, m_.dp);
        exponentiate(head, p);
        const R *const products = m_.products + p.offset * tokens, *const factors = input_factors(head, p);
        decay_pairs(products, p.count, m_.pairs);
        if (f_.z.data()) gate(head, p, slot);
        ssd_head_piece<R> piece = piece_of(p);

        // Behind the last head comes the piece before.
        const bool last = head + 1 == last_at_hand_;
        const index next_head = last ? first_at_hand_ : head + 1, next_token = last ? p.offset - tokens : p.offset;

        // w, du and dD.
        piece.live = live;
        piece.mixing = m_.pairs;
        piece.decay = m_.to_end;
        piece.u = m_.dp;
        piece.y = m_.y;
        piece.h = gradient_behind;
        piece.h_after = gradient_behind;
        for_each_column_group<Arch>(tiles_, [&](index first, auto columns) {
            for_each_row_group<Arch>(p.count, [&](index j, auto rows) {
                if (first == 0) ask_for_rows(next_head, next_token, j, rows());
                ssd_input_gradient_tile<Arch, R, rows(), columns()>(piece, j, first);
            });
        });
        finish_inputs(head, p, factors, plan_.dD + number(head) * plan_.headdim);

        // The pairs of tokens.
        const index token_tiles = tiles_for<R, Arch>(p.count);
        transpose_tiles<Arch>(m_.u, token_tile, p.count, tiles_, m_.turned_u);
        transpose_tiles<Arch>(m_.dp, token_tile, p.count, tiles_, m_.turned_dp);
        ssd_headdim_product<Arch>(p.count, token_tiles, m_.dp, token_tile, m_.turned_u, headdim_, tiles_,
                                  static_cast<const R*>(nullptr), m_.D, tokens, n);
        decay_pairs(m_.D, p.count, m_.mixing);
        if (factors) ssd_scale_columns<Arch>(m_.mixing, factors, p.count, m_.mixing);
        add_pairs(p, products);

        // The state before and the gradient behind.
        R across = 0;
        std::fill_n(m_.later, tokens, R(0));
        std::fill_n(m_.earlier, tokens, R(0));
        const auto contribute = [&](const R* of, const R* turned, const R* scales, const R* maps, R* sums, R* dots) {
            ssd_headdim_product<Arch>(state_, token_tiles, of, state_ * n, turned, headdim_, tiles_, scales, m_.turned, n,
                                      state_ * n);
            maps_.add(p, maps + p.offset * state_, sums + p.offset * state_, dots);
        };
        if (slot > 0) {
            contribute(state(head, slot), m_.turned_dp, m_.decay, m_.turned_C, m_.dC, m_.later);
            if (live) across = m_.decay[p.count - 1] * inner_product(gradient_behind, state(head, slot));
        }
        if (live) contribute(gradient_behind, m_.turned_u, m_.inputs, m_.turned_B, m_.dB, m_.earlier);
        const R dA = finish_decays(head, p, across);

        // The gradient of the state before.
        ssd_scale_rows<Arch>(m_.dp, m_.decay, tiles_, token_tile, p.count, m_.scaled);
        piece.B = maps_.rows(m_.C);
        piece.decay = m_.decay;
        piece.input = m_.scaled;
        ssd_chunked_piece<Arch>(piece, false);
        return dA;
    }

    /// dp = dy silu(z), and dz.
    void gate(index head, const ssd_piece& p, index slot)
    {
        const R* const factors = input_factors(head, p);
        ssd_head_piece<R> piece = piece_of(p);
        const R* mixing = m_.pairs;
        if (factors) {
            ssd_scale_columns<Arch>(m_.pairs, factors, p.count, m_.mixing);
            mixing = m_.mixing;
        }
        piece.live = slot > 0;
        piece.mixing = mixing;
        piece.decay = m_.decay;
        piece.u = m_.u;
        piece.y = m_.y;
        piece.h = state(head, slot);
        for_each_column_group<Arch>(tiles_, [&](index first, auto columns) {
            for_each_row_group<Arch>(
                p.count, [&](index i, auto rows) { ssd_output_tile<Arch, R, rows(), columns()>(piece, i, first); });
        });
        load_rows(f_.z, head, p, m_.z);
        for (index t = 0; t < tiles_; ++t) gate_tile(p.count, skip(head, t), t * token_tile);
        if (a_.dz.data()) store_rows(m_.z, a_.dz, head, p);
    }

    v skip(index head, index t) const
    {
        if (!f_.D.data()) return v(R(0));
        return lane_range<R, Arch, false>{t * n, std::min(n, headdim_ - t * n)}.load(f_.D.pointer(head), f_.D.stride(1));
    }

    [[gnu::flatten]] void gate_tile(index count, v D, index tile) const
    {
        const bool with_skip = f_.D.data() != nullptr;
        for (index i = tile; i < tile + count * n; i += n) {
            const auto silu = silu_with_derivative(load<R, Arch>(m_.z + i));
            const v dy = load<R, Arch>(m_.dp + i), y = load<R, Arch>(m_.y + i);
            const v p = with_skip ? multiply_add(D, load<R, Arch>(m_.u + i), y) : y;
            store(dy * p * silu.derivative, m_.z + i);
            store(dy * silu.value, m_.dp + i);
        }
    }

    /// du = D dp + κ w, direct = u·w and the sums for dD.
    void finish_inputs(index head, const ssd_piece& p, const R* factors, R* dD) const
    {
        std::fill_n(m_.lane_sums, p.count * n, R(0));
        for (index t = 0; t < tiles_; ++t) finish_input_tile(p.count, t * token_tile, skip(head, t), factors, dD + t * n);
        sum_rows<Arch>(m_.lane_sums, p.count, m_.direct, false);
        if (a_.du.data()) store_rows(m_.y, a_.du, head, p);
    }

    [[gnu::flatten]] void finish_input_tile(index count, index tile, v D, const R* factors, R* to_dD) const
    {
        const bool with_skip = f_.D.data() != nullptr;
        v dD = load<R, Arch>(to_dD);
        for (index i = 0; i < count; ++i) {
            const index at = tile + i * n;
            const v u = load<R, Arch>(m_.u + at), dp = load<R, Arch>(m_.dp + at), w = load<R, Arch>(m_.y + at);
            store(multiply_add(u, w, load<R, Arch>(m_.lane_sums + i * n)), m_.lane_sums + i * n);
            const v du = factors ? w * v(factors[i]) : w;
            store(with_skip ? multiply_add(D, dp, du) : du, m_.y + at);
            dD = multiply_add(dp, u, dD);
        }
        store(dD, to_dD);
    }

    /// F of the head joins the others', and dα_t takes Σ_{i >= t > j} F_ij C_i·B_j: sums over i, from the last token on, whose
    /// elements before t are added up.
    [[gnu::flatten]] void add_pairs(const ssd_piece& p, const R* products) const
    {
        R* const F = m_.F + p.offset * tokens;
        v over_i[static_cast<std::size_t>(tokens / n)];
        for (v& sums : over_i) sums = v(R(0));
        for (index i = p.count; i-- > 0;) {
            v before(R(0));
            for_each_lanes<R, Arch>(i, [&](auto range) {  // j < i; the tile's other lanes are added, not summed
                const index at = i * tokens + range.first;
                v& sums = over_i[range.first / n];
                sums = multiply_add(load<R, Arch>(m_.mixing + at), load<R, Arch>(products + at), sums);
                before += keep_lanes(sums, range.count);
            });
            store(before, m_.lane_sums + i * n);
            for_each_lanes<R, Arch>(i + 1, [&](auto range) {
                range.store(range.load(F + i * tokens) + range.load(m_.mixing + i * tokens), F + i * tokens);
            });
        }
        sum_rows<Arch>(m_.lane_sums, p.count, m_.dalpha, false);
    }

    /// Zeros in all but the first `count` lanes.
    static v keep_lanes(const v& x, index count) { return count == n ? x : native::keep_first<R, Arch>(x, count); }

    [[gnu::flatten]] R inner_product(const R* x, const R* y) const
    {
        v sum_of(R(0));
        for (index i = 0; i < one_state_; i += n) sum_of = multiply_add(load<R, Arch>(x + i), load<R, Arch>(y + i), sum_of);
        return sum<R, Arch>(sum_of);
    }

    /// Completes dα and writes dΔ; returns Σ Δ dα.
    R finish_decays(index head, const ssd_piece& p, R across) const
    {
        const R A = f_.A[head];
        R later = 0, earlier = 0, dA = 0;
        for (index i = p.count; i-- > 0;) {
            later += m_.later[i];
            m_.dalpha[i] += later + across;
        }
        for (index i = 0; i < p.count; ++i) {
            const R dalpha = m_.dalpha[i] + earlier;
            earlier += m_.earlier[i];
            ddelta(head)[p.offset + i] = (f_.prescaled ? R(0) : m_.direct[i]) + A * dalpha;
            // A decay of nothing counts for nothing, be it NaN.
            if (i > 0 || !p.fresh) dA += delta(head)[p.offset + i] * dalpha;
        }
        return dA;
    }

    /// From dΔ to ddelta; returns its sum.
    R finish_steps(index head) const
    {
        R sum_of = 0;
        for (index k = 0; k < count_; k += n) finish_step_lanes(raw(head) + k, ddelta(head) + k);
        for (index k = 0; k < count_; ++k) {
            const R value = headdim_ * state_ > 0 ? ddelta(head)[k] : R(0);
            sum_of += value;
            if (a_.ddelta.data()) a_.ddelta(b_, m_.positions[k], head) = static_cast<T>(value);
        }
        return sum_of;
    }

    [[gnu::flatten]] void finish_step_lanes(const R* step, R* gradient_of_step) const
    {
        const v given = load<R, Arch>(step), zero(R(0));
        const auto r = f_.delta_softplus ? softplus_with_derivative(given) : value_and_derivative<R, Arch>{given, v(R(1))};
        const v inside = load<R, Arch>(gradient_of_step) * r.derivative;
        const v above_least = xsimd::select(r.value < v(f_.delta_min), zero, inside);
        store(xsimd::select(r.value > v(f_.delta_max), zero, above_least), gradient_of_step);
    }

    const ssd_backward_args<T>& a_;
    const ssd_args<T>& f_;
    const ssd_backward_plan<Arch, T>& plan_;
    const ssd_backward_scratch<Arch, T>& m_;
    index sequence_, b_, group_, part_, first_head_, last_head_;
    index headdim_, state_, tiles_, one_state_;
    ssd_backward_maps<Arch, T> maps_;
    index first_at_hand_ = 0, last_at_hand_ = 0;
    // Steps of the piece and head at hand that are NaN: up to each token, and in all.
    index crossed_[static_cast<std::size_t>(tokens)] = {}, no_numbers_ = 0;
    index count_ = 0, pieces_ = 0;  // tokens that happen, and pieces of them
};

}  // namespace ssmkit::detail
