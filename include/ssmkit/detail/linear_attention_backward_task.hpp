#pragma once

// The backward pass of linear_attention: token by token, for one sequence and some heads of one group. The states are computed
// once to keep those before every 16 tokens, and again from there to keep them all while the adjoint goes back over the 16.

#include <algorithm>
#include <cstddef>

#include <ssmkit/args/linear_attention_backward.hpp>
#include <ssmkit/detail/math.hpp>
#include <ssmkit/detail/shuffle.hpp>
#include <ssmkit/detail/ssd_pieces.hpp>
#include <ssmkit/detail/tile.hpp>
#include <ssmkit/detail/tile_product.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit::detail {

/// Tokens whose states are kept at once: 16 of 128 keys and 64 values are 512 KB. 4: 40 % slower, 8: 20 %, 32: the same.
inline constexpr index linear_attention_piece = 16;

/// Registers of values that go through a sequence together: 4, or 2 of 16 (half of it with AVX-512: 15 % slower).
template <class Arch>
inline constexpr index linear_attention_columns = many_registers<Arch> ? 4 : 2;

/// How a call is cut into tasks, whatever the number of threads: a sequence and a part of the heads of one group; and what the
/// tasks share.
template <class Arch, class T>
struct linear_attention_backward_plan {
    using R = compute_t<T>;

    index sequences, groups, heads_per_group, heads, parts;  // heads of a part; parts of a group
    index longest;                                           // tokens of a sequence, at most
    index row;                                               // elements of a row of dq, dk or dgk: key in whole registers
    R *dq, *dk, *dgk;                                        // [batch][token][group][part][row], or null
    std::size_t shared, each;                                // bytes

    linear_attention_backward_plan(const linear_attention_backward_args<T>& a, workspace memory);

    index tasks() const { return sequences * groups * parts; }
    index offset(index b, index token, index group, index part, index length) const
    {
        return (((b * length + token) * groups + group) * parts + part) * row;
    }
};

/// Scratch memory of one task. A tile row is [register of values][lane].
template <class Arch, class T>
struct linear_attention_backward_scratch {
    using R = compute_t<T>;
    static constexpr index tile_row = linear_attention_columns<Arch> * lanes<R, Arch>;

    R *k, *q, *decay;             // [token of the piece][key]
    R *v, *dy, *du, *dv;          // [token of the piece][tile row]
    R *u, *error;                 // [token of the piece][tile row] what was taken in, and v - S'^T k
    R* checkpoints;               // [piece][key][tile row] the state before it
    R* state;                     // [key][tile row]
    R* decayed;                   // [token of the piece][key][tile row] S'
    R* gradient;                  // [key][tile row] of the state
    R *lanes_q, *lanes_k, *lanes_g;  // [key][lane] what is still to be summed over lanes
    R *dg, *dbeta;                // [token] of the head

    linear_attention_backward_scratch(arena& memory, const linear_attention_backward_args<T>& a,
                                      const linear_attention_backward_plan<Arch, T>& p)
    {
        constexpr index tokens = linear_attention_piece, n = lanes<R, Arch>;
        const index key = a.forward.k.extent(3), pieces = (p.longest + tokens - 1) / tokens;
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count)); };
        for (R** rows : {&k, &q, &decay}) *rows = take(tokens * key);
        for (R** rows : {&v, &dy, &du, &dv, &u, &error}) *rows = take(tokens * tile_row);
        checkpoints = take(pieces * key * tile_row);
        state = take(key * tile_row);
        decayed = take(tokens * key * tile_row);
        gradient = take(key * tile_row);
        for (R** rows : {&lanes_q, &lanes_k, &lanes_g}) *rows = take(p.row * n);
        for (R** rows : {&dg, &dbeta}) *rows = take(p.longest);
    }
};

template <class Arch, class T>
linear_attention_backward_plan<Arch, T>::linear_attention_backward_plan(const linear_attention_backward_args<T>& a,
                                                                        workspace memory)
{
    const linear_attention_args<T>& f = a.forward;
    constexpr index n = lanes<R, Arch>;
    sequences = linear_attention_sequence_count(f);
    groups = f.k.extent(2);
    heads_per_group = groups ? f.v.extent(2) / groups : 0;
    const ssd_parts cut(sequences, groups, heads_per_group);
    heads = cut.heads;
    parts = cut.count;
    row = (f.k.extent(3) + n - 1) / n * n;
    longest = longest_sequence(f.cu_seqlens, f.v.extent(1));
    arena all = memory.empty() ? arena() : arena(memory);
    const index rows = f.v.extent(0) * f.v.extent(1) * groups * parts;
    const auto take_for = [&](const view<R, 4>& gradient) {
        return gradient.data() ? all.take<R>(static_cast<std::size_t>(rows * row)) : nullptr;
    };
    dq = take_for(a.dq);
    dk = take_for(a.dk);
    dgk = take_for(a.dgk);
    shared = all.size();
    arena one;
    linear_attention_backward_scratch<Arch, T>(one, a, *this);
    each = one.size();
}

/// One sequence for some heads of one group.
template <class Arch, class T>
class linear_attention_backward_task {
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    using scratch = linear_attention_backward_scratch<Arch, T>;
    static constexpr index n = lanes<R, Arch>, tokens = linear_attention_piece, tile_row = scratch::tile_row;

public:
    linear_attention_backward_task(const linear_attention_backward_args<T>& a, const linear_attention_backward_plan<Arch, T>& plan,
                                   const scratch& m, index task)
        : a_(a), f_(a.forward), plan_(plan), m_(m), sequence_(task / (plan.groups * plan.parts)),
          group_(task / plan.parts % plan.groups), part_(task % plan.parts), b_(f_.cu_seqlens.data() ? 0 : sequence_),
          first_head_(group_ * plan.heads_per_group + part_ * plan.heads),
          last_head_(std::min((group_ + 1) * plan.heads_per_group, first_head_ + plan.heads)), key_(f_.k.extent(3)),
          value_(f_.v.extent(3)), begin_(f_.cu_seqlens.data() ? f_.cu_seqlens[sequence_] : 0),
          length_((f_.cu_seqlens.data() ? f_.cu_seqlens[sequence_ + 1] : f_.v.extent(1)) - begin_),
          scale_(linear_attention_scale<T>(f_.scale, key_))
    {
    }

    void run()
    {
        for (R* const rows : {plan_.dq, plan_.dk, plan_.dgk}) {
            if (!rows) continue;
            for (index i = 0; i < length_; ++i) std::fill_n(rows + offset(i), plan_.row, R(0));
        }
        for (head_ = first_head_; head_ < last_head_; ++head_) {
            std::fill_n(m_.dg, length_, R(0));
            std::fill_n(m_.dbeta, length_, R(0));
            for_each_column_group<Arch, linear_attention_columns<Arch>>(tiles_for<R, Arch>(value_), [&](index first, auto columns) {
                first_ = first * n;
                f_.beta.data() ? columns_of_head<true, columns()>() : columns_of_head<false, columns()>();
            });
            for (index i = 0; i < length_; ++i) {
                if (a_.dg.data()) a_.dg(b_, position(i), head_) = m_.dg[i];
                if (a_.dbeta.data()) a_.dbeta(b_, position(i), head_) = m_.dbeta[i];
            }
        }
    }

private:
    index position(index visit) const { return f_.reverse ? begin_ + length_ - 1 - visit : begin_ + visit; }
    index offset(index visit) const { return plan_.offset(b_, position(visit), group_, part_, f_.v.extent(1)); }

    /// Registers of values: forth, then back.
    template <bool Delta, index Columns>
    void columns_of_head()
    {
        load_state<Columns>(f_.initial_state, m_.state);
        for (index first = 0; first < length_; first += tokens) {
            std::copy_n(m_.state, key_ * tile_row, m_.checkpoints + first / tokens * key_ * tile_row);
            if (first + tokens < length_) advance<Delta, false, Columns>(first);
        }
        load_state<Columns>(a_.dfinal_state, m_.gradient);
        for (index first = (length_ - 1) / tokens * tokens; length_ > 0 && first >= 0; first -= tokens) {
            std::copy_n(m_.checkpoints + first / tokens * key_ * tile_row, key_ * tile_row, m_.state);
            advance<Delta, true, Columns>(first);
            for (index i = count_; i-- > 0;) retreat<Delta, Columns>(first, i);
            if (a_.dv.data()) put_rows<Columns>(a_.dv, first, m_.dv);
        }
        if (a_.dinitial_state.data()) store_state<Columns>();
    }

    /// Columns `first_` on of a state, zeros where there is none.
    template <index Columns>
    [[gnu::flatten]] void load_state(const view<const R, 4>& from, R* to) const
    {
        if (!from.data()) {
            std::fill_n(to, key_ * tile_row, R(0));
            return;
        }
        for (index i = 0; i < key_; ++i) {
            load_row<Columns>(from.pointer(sequence_, head_, i, first_), from.stride(3), to + i * tile_row);
        }
    }

    template <index Columns>
    [[gnu::flatten]] void store_state() const
    {
        const view<R, 4>& to = a_.dinitial_state;
        for (index i = 0; i < key_; ++i) {
            store_row<Columns>(m_.gradient + i * tile_row, to.pointer(sequence_, head_, i, first_), to.stride(3));
        }
    }

    template <index Columns, class E>
    void load_row(const E* from, index stride, R* to) const
    {
        unrolled<Columns>([&](auto c) {
            const index count = std::min(n, value_ - first_ - c * n);
            store(count == n ? lane_range<R, Arch, true>{}.load(from + c * n * stride, stride)
                             : lane_range<R, Arch, false>{0, count}.load(from + c * n * stride, stride),
                  to + c * n);
        });
    }

    template <index Columns, class E>
    void store_row(const R* from, E* to, index stride) const
    {
        unrolled<Columns>([&](auto c) {
            const lane_range<R, Arch, false> range{0, std::min(n, value_ - first_ - c * n)};
            range.store(load<R, Arch>(from + c * n), to + c * n * stride, stride);
        });
    }

    template <index Columns, class E>
    [[gnu::flatten]] void get_rows(const view<const E, 4>& from, index first, R* to) const
    {
        for (index i = 0; i < count_; ++i) {
            load_row<Columns>(from.pointer(b_, position(first + i), head_, first_), from.stride(3), to + i * tile_row);
        }
    }

    template <index Columns, class E>
    [[gnu::flatten]] void put_rows(const view<E, 4>& to, index first, const R* from) const
    {
        for (index i = 0; i < count_; ++i) {
            store_row<Columns>(from + i * tile_row, to.pointer(b_, position(first + i), head_, first_), to.stride(3));
        }
    }

    /// What the tokens of a piece bring: k, q, decays and the values' rows.
    template <index Columns>
    [[gnu::flatten]] void read_piece(index first)
    {
        count_ = std::min(tokens, length_ - first);
        const v rate(static_cast<R>(log2_e));
        for (index i = 0; i < count_; ++i) {
            const index t = position(first + i);
            const v head(f_.g.data() ? static_cast<R>(f_.g(b_, t, head_)) : R(0));
            const T *const k = f_.k.pointer(b_, t, group_), *const q = f_.q.pointer(b_, t, group_);
            const T* const gk = f_.gk.data() ? f_.gk.pointer(b_, t, group_) : nullptr;
            for_each_lanes<R, Arch>(key_, [&](auto range) __attribute__((always_inline)) {
                range.store(range.load(k, f_.k.stride(3)), m_.k + i * key_);
                range.store(range.load(q, f_.q.stride(3)), m_.q + i * key_);
                const v log_decay = gk ? head + range.load(gk, f_.gk.stride(3)) : head;
                range.store(fast_exp2(log_decay * rate), m_.decay + i * key_);
            });
        }
        get_rows<Columns>(f_.v, first, m_.v);
        get_rows<Columns>(a_.dy, first, m_.dy);
    }

    /// The state through a piece, one pass over it from token to token. With `Keep`, S', u and v - S'^T k of the tokens are kept.
    template <bool Delta, bool Keep, index Columns>
    [[gnu::flatten]] void advance(index first)
    {
        read_piece<Columns>(first);
        v Sk[Columns], u[Columns];
        const auto pass = [&](index t, auto&& before, R* to) __attribute__((always_inline)) {  // to S' of token t
            const R *const k = m_.k + t * key_, *const decay = m_.decay + t * key_;
            unrolled<Columns>([&](auto c) __attribute__((always_inline)) { Sk[c] = v(R(0)); });
            for (index i = 0; i < key_; ++i) {
                const v k_i(k[i]), decay_i(decay[i]);
                unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
                    const v S = decay_i * before(i, c);
                    store(S, to + i * tile_row + c * n);
                    if constexpr (Delta) Sk[c] = multiply_add(k_i, S, Sk[c]);
                });
            }
        };
        const R* const state = m_.state;
        pass(0, [&](index i, auto c) __attribute__((always_inline)) { return load<R, Arch>(state + i * tile_row + c * n); },
             m_.decayed);
        for (index t = 0; t < count_; ++t) {
            const v beta(Delta ? static_cast<R>(f_.beta(b_, position(first + t), head_)) : R(1));
            unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
                const index at = t * tile_row + c * n;
                const v error = load<R, Arch>(m_.v + at) - Sk[c];
                u[c] = Delta ? beta * error : error;
                if constexpr (Keep) {
                    store(error, m_.error + at);
                    store(u[c], m_.u + at);
                }
            });
            const R *const k = m_.k + t * key_, *const decayed = m_.decayed + (Keep ? t * key_ * tile_row : 0);
            const auto ended = [&](index i, auto c) __attribute__((always_inline)) {
                return multiply_add(v(k[i]), u[c], load<R, Arch>(decayed + i * tile_row + c * n));
            };
            if (t + 1 < count_) {
                pass(t + 1, ended, m_.decayed + (Keep ? (t + 1) * key_ * tile_row : 0));
            } else if (!Keep) {
                for (index i = 0; i < key_; ++i) {
                    unrolled<Columns>(
                        [&](auto c) __attribute__((always_inline)) { store(ended(i, c), m_.state + i * tile_row + c * n); });
                }
            }
        }
    }

    /// The adjoint over token t of the piece that begins with token `first`.
    template <bool Delta, index Columns>
    [[gnu::flatten]] void retreat(index first, index t)
    {
        const R *const k = m_.k + t * key_, *const q = m_.q + t * key_, *const decay = m_.decay + t * key_;
        const R* const decayed = m_.decayed + t * key_ * tile_row;
        R* const gradient = m_.gradient;
        v dy[Columns], u[Columns], du[Columns], step[Columns];  // step: β du
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            dy[c] = load<R, Arch>(m_.dy + t * tile_row + c * n);
            u[c] = load<R, Arch>(m_.u + t * tile_row + c * n);
            du[c] = v(R(0));
        });
        // G_t = scale q_t ⊗ dy_t + what comes from later, and du_t.
        const auto take_dy = [&](index i, auto c) __attribute__((always_inline)) {
            const v G = multiply_add(v(scale_ * q[i]), dy[c], load<R, Arch>(gradient + i * tile_row + c * n));
            du[c] = multiply_add(v(k[i]), G, du[c]);
            return G;
        };
        v dg(R(0));
        // The rest, with G_t from `taken`.
        const auto give = [&](auto&& taken) __attribute__((always_inline)) {
            const bool each = plan_.dgk != nullptr;
            R *const lanes_q = m_.lanes_q, *const lanes_k = m_.lanes_k, *const lanes_g = m_.lanes_g;
            for (index i = 0; i < key_; ++i) {
                const v k_i(k[i]), decay_i(decay[i]);
                v to_q(R(0)), to_k(R(0)), to_g(R(0));
                unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
                    const index at = i * tile_row + c * n;
                    const v S = load<R, Arch>(decayed + at);
                    v G = taken(i, c);
                    to_q = multiply_add(S, dy[c], to_q);
                    to_k = multiply_add(G, u[c], to_k);
                    if constexpr (Delta) {
                        to_k -= S * step[c];
                        G -= k_i * step[c];
                    }
                    to_g = multiply_add(G, S, to_g);
                    store(decay_i * G, gradient + at);
                });
                dg += to_g;
                store(to_q, lanes_q + i * n);
                store(to_k, lanes_k + i * n);
                if (each) store(to_g, lanes_g + i * n);
            }
        };
        const v beta(Delta ? static_cast<R>(f_.beta(b_, position(first + t), head_)) : R(1));
        const auto set_step = [&]() __attribute__((always_inline)) {
            unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
                step[c] = Delta ? beta * du[c] : du[c];
                store(step[c], m_.dv + t * tile_row + c * n);
            });
        };
        if constexpr (Delta) {  // what goes back to S' depends on all of du
            for (index i = 0; i < key_; ++i) {
                unrolled<Columns>(
                    [&](auto c) __attribute__((always_inline)) { store(take_dy(i, c), gradient + i * tile_row + c * n); });
            }
            set_step();
            give([&](index i, auto c) __attribute__((always_inline)) { return load<R, Arch>(gradient + i * tile_row + c * n); });
        } else {
            give(take_dy);
            set_step();
        }
        v u_dy(R(0)), error_du(R(0));
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            u_dy = multiply_add(u[c], dy[c], u_dy);
            if constexpr (Delta) error_du = multiply_add(load<R, Arch>(m_.error + t * tile_row + c * n), du[c], error_du);
        });
        const index row = offset(first + t);
        if (plan_.dq) {  // S_t = S'_t + k_t ⊗ u_t, of which lanes_q has the first term
            const v factor(scale_ * sum<R, Arch>(u_dy));
            add_lane_sums(m_.lanes_q, v(scale_), plan_.dq + row, [&](auto range, const v& sums) __attribute__((always_inline)) {
                return multiply_add(factor, range.load(k), sums);
            });
        }
        const auto as_they_are = [](auto, const v& sums) __attribute__((always_inline)) { return sums; };
        if (plan_.dk) add_lane_sums(m_.lanes_k, v(R(1)), plan_.dk + row, as_they_are);
        if (plan_.dgk) add_lane_sums(m_.lanes_g, v(R(1)), plan_.dgk + row, as_they_are);
        m_.dg[first + t] += sum<R, Arch>(dg);
        if constexpr (Delta) m_.dbeta[first + t] += sum<R, Arch>(error_du);
    }

    /// out_i += complete(factor Σ_lane from_i).
    template <class Complete>
    [[gnu::flatten]] void add_lane_sums(const R* from, const v& factor, R* out, Complete&& complete) const
    {
        for_each_lanes<R, Arch>(key_, [&](auto range) __attribute__((always_inline)) {
            v rows[static_cast<std::size_t>(n)];
            for (index r = 0; r < n; ++r) rows[r] = r < range.count ? load<R, Arch>(from + (range.first + r) * n) : v(R(0));
            range.store(range.load(out) + complete(range, factor * sum_each<R, Arch>(rows)), out);
        });
    }

    const linear_attention_backward_args<T>& a_;
    const linear_attention_args<T>& f_;
    const linear_attention_backward_plan<Arch, T>& plan_;
    const scratch& m_;
    index sequence_, group_, part_, b_, first_head_, last_head_;
    index key_, value_, begin_, length_;
    R scale_;
    index head_ = 0, first_ = 0;  // at hand: the head and its first column
    index count_ = 0;             // tokens of the piece at hand
};

/// Adds up the parts' rows in their order.
template <class T, class Plan>
void linear_attention_add_parts(const view<compute_t<T>, 4>& gradient, const Plan& plan, const compute_t<T>* rows)
{
    if (gradient.data() == nullptr) return;
    const index length = gradient.extent(1);
    for (index b = 0; b < gradient.extent(0); ++b) {
        for (index t = 0; t < length; ++t) {
            for (index g = 0; g < gradient.extent(2); ++g) {
                for (index i = 0; i < gradient.extent(3); ++i) {
                    compute_t<T> sum = 0;
                    for (index part = 0; part < plan.parts; ++part) sum += rows[plan.offset(b, t, g, part, length) + i];
                    gradient(b, t, g, i) = sum;
                }
            }
        }
    }
}

}  // namespace ssmkit::detail
