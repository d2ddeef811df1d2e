#pragma once

// One sequence of ssd for some heads: step sizes and decays, the pieces one after another, skip, gate and states.

#include <algorithm>
#include <type_traits>

#include <ssmkit/args/ssd.hpp>
#include <ssmkit/detail/ssd_decays.hpp>
#include <ssmkit/detail/ssd_head.hpp>
#include <ssmkit/detail/ssd_pieces.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit::detail {

/// States of so many columns and fewer go token by token, if the sequences are that long (shorter ones: up to 1.8 times the
/// time, since a state is read and written for a few tokens only).
inline constexpr index ssd_small_state = 32, ssd_long_sequence = 128;

/// In what a relative of ssd differs from it. The first two go token by token: ssd_form::recurrent.
template <class T>
struct ssd_rule {
    view<const T, 4> log_decay{};  // (batch, length, ngroups, state)  of each state, added to that of the head
    view<const T, 3> beta{};       // (batch, length, nheads)          the delta rule's step
    compute_t<T> scale = 1;        // factor of C
    bool causal = true;            // otherwise every token sees the inputs of all, and nothing decays
};

/// A walk through a sequence.
enum class ssd_pass {
    whole,         // outputs and states, token after token
    chunk_states,  // the states that chunks make of zero
    gather,        // the state that all inputs add up to
    read,          // the outputs of one state
};

/// How a call is cut into tasks: a sequence and some heads of one group.
struct ssd_partition {
    index heads_per_group, heads, per_group, count;  // heads of a task; tasks of a group and of a sequence

    template <class T>
    ssd_partition(const ssd_args<T>& a, std::size_t concurrency)
    {
        const index groups = a.B.extent(2), sequences = std::max(index{1}, ssd_sequence_count(a));
        heads_per_group = groups ? a.u.extent(2) / groups : 0;
        // Several threads get two tasks each, to even out their speeds.
        const index tasks = concurrency > 1 ? 2 * static_cast<index>(concurrency) : 1;
        const index wanted = (tasks - 1) / (sequences * std::max(index{1}, groups)) + 1;
        const index parts = std::clamp(wanted, index{1}, std::max(index{1}, heads_per_group));
        heads = (heads_per_group + parts - 1) / parts;
        per_group = heads ? (heads_per_group + heads - 1) / heads : 0;
        count = groups * per_group;
    }
};

/// Elements from a tile of a state to the next: the lower 12 bits of their addresses differ by some KB, since by these Zen looks
/// for a store that a load has to wait for (tiles 8 KB apart: the delta rule took up to twice as long).
template <class R, class Arch>
index ssd_state_tile_size(index state)
{
    constexpr index page = 4096 / static_cast<index>(sizeof(R)), step = 1088 / static_cast<index>(sizeof(R));
    const index size = state * lanes<R, Arch>;
    return size + ((step - size) % page + page) % page;
}

/// Whether pieces are products of matrices. Not where C·B is of use to one head alone (24 heads of 64, 128 states: 24 % less
/// token by token) or where the state is small (16: 15 % less), if 32 registers keep enough of it through a block of tokens.
template <class Arch, class T>
bool ssd_in_chunks(const ssd_args<T>& a)
{
    if (a.form != ssd_form::automatic) return a.form == ssd_form::chunked;
    if (!many_registers<Arch> || a.u.extent(1) < ssd_long_sequence) return true;
    return a.u.extent(2) != a.B.extent(2) && a.B.extent(3) > ssd_small_state;
}

/// Scratch memory of one task.
template <class Arch, class T>
struct ssd_scratch {
    using R = compute_t<T>;

    R* state;              // [head][tile of headdim][state][lane]
    index state_tile;      // elements from a tile of the state to the next
    bool* live;            // [head] the state is not zero
    R* log_decay;          // [head] running sum of Δ A
    ssd_piece* pieces;     // [piece] of the block
    R *B, *C;              // [token][state] of the block, where the caller's do not lie so
    R* turned_B;           // [tile of tokens][state][lane] of a piece
    R* products;           // [token][token of the piece] C·B of the block
    R *raw, *delta;        // [token] of the block and the head at hand; 64 more for whole registers
    R *high, *low;         // [token] of the piece: running sum of log2 decays, in two parts
    R *decay, *to_end;     // [token] of the piece
    R* mixing;             // [token][token] of the piece
    R *u, *input, *y, *z;  // [tile of headdim][token][lane] of the piece
    R* decays;             // [token][state] of the piece, where each state has its own
    R *beta, *CB;          // [token] of the piece, for the delta rule

    ssd_scratch(arena& memory, const ssd_args<T>& a, const ssd_rule<T>& rule, const ssd_partition& p)
    {
        constexpr index n = lanes<R, Arch>;
        const index state_count = a.B.extent(3), tiles = tiles_for<R, Arch>(a.u.extent(3));
        const index tokens = ssd_in_chunks<Arch>(a) ? ssd_piece_tokens : ssd_block_tokens;
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count)); };
        state_tile = ssd_state_tile_size<R, Arch>(state_count);
        state = take(p.heads * tiles * state_tile);
        live = memory.take<bool>(static_cast<std::size_t>(p.heads));
        log_decay = take(p.heads);
        pieces = memory.take<ssd_piece>(static_cast<std::size_t>(ssd_block_tokens));
        B = take(ssd_block_tokens * state_count);
        C = take(ssd_block_tokens * state_count);
        turned_B = take((ssd_piece_tokens + n) * state_count);
        products = take(ssd_block_tokens * ssd_piece_tokens);
        raw = take(ssd_block_tokens + n);
        delta = take(ssd_block_tokens + n);
        for (R** q : {&high, &low, &decay, &to_end}) *q = take(tokens + n);
        mixing = take(ssd_piece_tokens * ssd_piece_tokens);
        for (R** q : {&u, &input, &y, &z}) *q = take(tiles * tokens * n);
        decays = take(rule.log_decay.data() ? tokens * state_count : 0);
        for (R** q : {&beta, &CB}) *q = take(rule.beta.data() ? tokens : 0);
    }
};

template <class Arch, class T>
std::size_t ssd_task_bytes(const ssd_args<T>& a, const ssd_rule<T>& rule, const ssd_partition& p)
{
    arena one;
    ssd_scratch<Arch, T>(one, a, rule, p);
    return one.size();
}

/// One sequence for some heads of one group.
template <class Arch, class T>
class ssd_task {
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    static constexpr index n = lanes<R, Arch>;

public:
    ssd_task(const ssd_args<T>& a, const ssd_rule<T>& rule, const ssd_partition& partition, const ssd_scratch<Arch, T>& m,
             index sequence, index part)
        : a_(a), rule_(rule), m_(m), sequence_(sequence), b_(a.cu_seqlens.data() ? 0 : sequence),
          group_(part / partition.per_group),
          first_head_(group_ * partition.heads_per_group + part % partition.per_group * partition.heads),
          last_head_(std::min((group_ + 1) * partition.heads_per_group, first_head_ + partition.heads)),
          headdim_(a.u.extent(3)), state_(a.B.extent(3)), tiles_(tiles_for<R, Arch>(headdim_)), chunked_(ssd_in_chunks<Arch>(a)),
          tokens_(chunked_ ? ssd_piece_tokens : ssd_block_tokens)
    {
    }

    void run()
    {
        for (index head = first_head_; head < last_head_; ++head) {
            load_states(a_.initial_state, head);
            live(head) = a_.initial_state.data() != nullptr;
        }
        if (rule_.causal) {
            sweep(ssd_pass::whole);
        } else {
            sweep(ssd_pass::gather);
            sweep(ssd_pass::read);
        }
        if (a_.final_state.data()) {
            for (index head = first_head_; head < last_head_; ++head) {
                store_states(a_.final_state.pointer(sequence_, head), a_.final_state.stride(2), a_.final_state.stride(3), head);
            }
        }
        if (a_.chunk_states.data()) sweep(ssd_pass::chunk_states);
    }

private:
    R* state(index head) const { return m_.state + (head - first_head_) * tiles_ * m_.state_tile; }
    bool& live(index head) const { return m_.live[head - first_head_]; }

    void load_states(const view<const R, 4>& from, index head) const
    {
        if (!from.data()) {
            std::fill_n(state(head), tiles_ * m_.state_tile, R(0));
            return;
        }
        load_tiles<Arch, R, R>({from.pointer(sequence_, head), from.stride(3), from.stride(2), state_, headdim_}, state(head),
                               m_.state_tile);
    }

    void store_states(R* to, index headdim_stride, index state_stride, index head)
    {
        if (!live(head)) std::fill_n(state(head), tiles_ * m_.state_tile, R(0));
        store_tiles<Arch, R, R>(state(head), m_.state_tile, {to, state_stride, headdim_stride, state_, headdim_});
    }

    void sweep(ssd_pass pass)
    {
        const bool packed = a_.cu_seqlens.data() != nullptr, edges = a_.chunk_states.data() || a_.prev_states.data();
        const index begin = packed ? a_.cu_seqlens[sequence_] : 0;
        const index end = packed ? a_.cu_seqlens[sequence_ + 1] : a_.u.extent(1);
        ssd_walk walk(begin, end, a_.reverse, a_.seq_idx.data() ? a_.seq_idx[b_] : view<const std::int32_t, 1>{}, tokens_,
                      edges ? a_.chunk : std::max(index{1}, end - begin));
        walk_ = &walk;
        for (index count; (count = walk.next(m_.pieces, ssd_block_tokens)) > 0;) {
            if (chunked_ && pass == ssd_pass::whole) {
                for (index i = 0; i < count; ++i) multiply_C_by_B(m_.pieces[i]);
            } else {
                for (index i = 0; i < count; ++i) pack(m_.pieces[i]);
            }
            for (index head = first_head_; head < last_head_; ++head) {
                prepare_steps(head, count, pass == ssd_pass::whole);
                for (index i = 0; i < count; ++i) {
                    // Behind the block's last piece comes the first one of the next head.
                    const bool last = i + 1 == count;
                    take_piece(head, m_.pieces[i], last ? head + 1 : head, m_.pieces[last ? 0 : i + 1], pass);
                }
            }
        }
    }

    /// Rows of B or C as broadcasts read them: where they lie, if that is one after the other in R, or from their copy.
    broadcast_rows<R> rows_of(const view<const T, 4>& from, R* copy, const ssd_piece& p) const
    {
        if (in_place(from)) {
            const auto* const first = reinterpret_cast<const R*>(from.pointer(b_, walk_->position(p.visit), group_));
            return {first, walk_->step() * from.stride(1), 1};
        }
        return {copy + p.offset * state_, state_, 1};
    }

    static bool in_place(const view<const T, 4>& from) { return std::is_same_v<T, R> && from.stride(3) == 1; }

    void pack(const ssd_piece& p) const
    {
        if (p.padding) return;
        const auto copy = [&](const view<const T, 4>& from, R* to) {
            if (in_place(from)) return;
            for (index i = 0; i < p.count; ++i) {
                const T* const row = from.pointer(b_, walk_->position(p.visit + i), group_);
                for (index k = 0; k < state_; ++k) to[(p.offset + i) * state_ + k] = static_cast<R>(row[k * from.stride(3)]);
            }
        };
        copy(a_.B, m_.B);
        copy(a_.C, m_.C);
    }

    /// C_i·B_j within a piece, for all heads of the group.
    void multiply_C_by_B(const ssd_piece& p) const
    {
        if (p.padding) return;
        pack(p);
        const broadcast_rows<R> B = rows_of(a_.B, m_.B, p), C = rows_of(a_.C, m_.C, p);
        const index tile = state_ * n;
        load_tiles<Arch, R, R>({B.data, 1, B.row, state_, p.count}, m_.turned_B, tile);
        ssd_map_product<Arch>(p.count, C, tiled_rows<R>{m_.turned_B, tile, n}, state_, m_.products + p.offset * ssd_piece_tokens);
    }

    /// The step sizes of a head through the block, and the outputs that follow from them alone.
    void prepare_steps(index head, index pieces, bool outputs)
    {
        const R bias = a_.delta_bias.data() ? a_.delta_bias[head] : R(0);
        index tokens = 0;
        for (index k = 0; k < pieces; ++k) {
            const ssd_piece& p = m_.pieces[k];
            for (index i = 0; i < p.count; ++i, ++tokens) {
                m_.raw[tokens] = p.padding ? R(0) : static_cast<R>(a_.delta(b_, walk_->position(p.visit + i), head)) + bias;
            }
        }
        ssd_limit_steps<Arch>(a_, m_.raw, tokens, m_.delta);
        if (!outputs || (!a_.delta_out.data() && !a_.log_decay.data())) return;
        for (index k = 0; k < pieces; ++k) {
            const ssd_piece& p = m_.pieces[k];
            for (index i = 0; i < p.count; ++i) {
                const index visit = p.visit + i, t = walk_->position(visit);
                const R delta = p.padding ? R(0) : m_.delta[p.offset + i];
                if (visit % a_.chunk == 0 || (p.fresh && i == 0)) log_decay(head) = 0;
                if (!p.padding) log_decay(head) += delta * a_.A[head];
                if (a_.delta_out.data()) a_.delta_out(b_, t, head) = delta;
                if (a_.log_decay.data()) a_.log_decay(b_, t, head) = log_decay(head);
            }
        }
    }

    R& log_decay(index head) { return m_.log_decay[head - first_head_]; }

    /// Takes a head through a piece.
    void take_piece(index head, const ssd_piece& p, index next_head, const ssd_piece& next, ssd_pass pass)
    {
        if (p.visit % a_.chunk == 0) {
            if (pass == ssd_pass::chunk_states) live(head) = false;
            if (pass == ssd_pass::whole && a_.prev_states.data()) store_chunk_state(a_.prev_states, p.visit / a_.chunk, head);
        }
        if (p.fresh) live(head) = false;
        if (p.padding) {
            if (pass == ssd_pass::whole) write_padding(head, p);
        } else if (pass == ssd_pass::read) {
            read(head, p);
        } else {
            compute(head, p, next_head, next, pass);
            live(head) = true;
        }
        const index after = p.visit + p.count;
        if (pass == ssd_pass::chunk_states && (after % a_.chunk == 0 || after == walk_->length())) {
            store_chunk_state(a_.chunk_states, p.visit / a_.chunk, head);
        }
    }

    void store_chunk_state(const view<R, 5>& to, index chunk, index head)
    {
        store_states(to.pointer(b_, chunk, head), to.stride(3), to.stride(4), head);
    }

    template <class E>
    rectangle<E> rows(const view<E, 4>& array, index head, const ssd_piece& p) const
    {
        return {array.pointer(b_, walk_->position(p.visit), head), walk_->step() * array.stride(1), array.stride(3), p.count,
                headdim_};
    }

    void write_padding(index head, const ssd_piece& p) const
    {
        for (const view<T, 4>* out : {&a_.y, &a_.y_ungated}) {
            if (!out->data()) continue;
            for (index i = 0; i < p.count; ++i) {
                for (index c = 0; c < headdim_; ++c) (*out)(b_, walk_->position(p.visit + i), head, c) = T(0);
            }
        }
    }

    /// Where a piece's rows of u or y lie, to be asked for.
    template <class E>
    rows_to_come rows_ahead(const view<E, 4>& array, index head, const ssd_piece& p) const
    {
        if (head >= last_head_ || array.stride(3) != 1) return {};
        constexpr index size = static_cast<index>(sizeof(E));
        return {reinterpret_cast<const char*>(array.pointer(b_, walk_->position(p.visit), head)),
                walk_->step() * array.stride(1) * size, (headdim_ * size + 63) / 64};
    }

    void compute(index head, const ssd_piece& p, index next_head, const ssd_piece& next, ssd_pass pass)
    {
        const bool outputs = pass == ssd_pass::whole;
        const index token_tile = tokens_ * n;
        load_tiles<Arch, R, T>(rows(a_.u, head, p), m_.u, token_tile);
        const R *const delta = m_.delta + p.offset, A = a_.A[head];
        const bool mild = chunked_ && ssd_sum_decays<Arch>(delta, p.count, A, m_.high, m_.low);
        const bool chunked = chunked_ && (mild || a_.form == ssd_form::chunked);
        chunked ? form_matrices(p, outputs) : exponentiate_decays(delta, p.count, A);
        const R* const factors = chunked ? m_.to_end : delta;
        if (chunked || !a_.prescaled) ssd_scale_rows<Arch>(m_.u, factors, tiles_, token_tile, p.count, m_.input);
        const ssd_head_piece<R> piece{.count = p.count,
                                      .headdim_tiles = tiles_,
                                      .state = state_,
                                      .token_tile = token_tile,
                                      .state_tile = m_.state_tile,
                                      .live = live(head),
                                      .B = rows_of(a_.B, m_.B, p),
                                      .C = rows_of(a_.C, m_.C, p),
                                      .mixing = m_.mixing,
                                      .decay = m_.decay,
                                      .decays = {m_.decays, state_, 1},
                                      .beta = m_.beta,
                                      .CB = m_.CB,
                                      .u = m_.u,
                                      .input = chunked || !a_.prescaled ? m_.input : m_.u,
                                      .y = m_.y,
                                      .h = state(head),
                                      .h_after = state(head),
                                      .ahead = {rows_ahead(a_.u, next_head, next), rows_ahead(a_.y, head, p)}};
        if (chunked) {
            ssd_chunked_piece<Arch>(piece, outputs);
        } else if (state_ == 0) {
            std::fill_n(m_.y, tiles_ * token_tile, R(0));
        } else {
            const bool each = rule_.log_decay.data() != nullptr;
            if (each) exponentiate_each(p, delta);
            if (rule_.beta.data()) {
                prepare_delta_rule(head, piece, p);
                each ? ssd_delta_piece<Arch, true>(piece) : ssd_delta_piece<Arch, false>(piece);
            } else {
                each ? ssd_recurrent_piece<Arch, true>(piece) : ssd_recurrent_piece<Arch, false>(piece);
            }
        }
        if (outputs) finish(head, p);
    }

    /// The outputs of a piece for a state that stays as it is.
    void read(index head, const ssd_piece& p)
    {
        const index token_tile = tokens_ * n;
        if (a_.D.data()) load_tiles<Arch, R, T>(rows(a_.u, head, p), m_.u, token_tile);
        const ssd_head_piece<R> piece{.count = p.count,
                                      .headdim_tiles = tiles_,
                                      .state = state_,
                                      .token_tile = token_tile,
                                      .state_tile = m_.state_tile,
                                      .live = live(head),
                                      .B = {},
                                      .C = rows_of(a_.C, m_.C, p),
                                      .mixing = nullptr,
                                      .decay = nullptr,
                                      .u = nullptr,
                                      .input = nullptr,
                                      .y = m_.y,
                                      .h = state(head),
                                      .h_after = nullptr,
                                      .ahead = {}};
        ssd_read_piece<Arch>(piece);
        finish(head, p);
    }

    /// The decay of every state, that of the head included.
    [[gnu::flatten]] void exponentiate_each(const ssd_piece& p, const R* head_log_decay) const
    {
        const v rate(static_cast<R>(log2_e));
        for (index i = 0; i < p.count; ++i) {
            const T* const row = rule_.log_decay.pointer(b_, walk_->position(p.visit + i), group_);
            const v head(head_log_decay[i]);
            for_each_lanes<R, Arch>(state_, [&](auto range) __attribute__((always_inline)) {
                range.store(fast_exp2((range.load(row, rule_.log_decay.stride(3)) + head) * rate), m_.decays + i * state_);
            });
        }
    }

    [[gnu::flatten]] void prepare_delta_rule(index head, const ssd_head_piece<R>& piece, const ssd_piece& p) const
    {
        for (index i = 0; i < p.count; ++i) {
            m_.beta[i] = static_cast<R>(rule_.beta(b_, walk_->position(p.visit + i), head));
            v CB(R(0));
            for_each_lanes<R, Arch>(state_, [&](auto range) __attribute__((always_inline)) {
                CB = multiply_add(range.load(piece.B.data + i * piece.B.row, piece.B.step),
                                  range.load(piece.C.data + i * piece.C.row, piece.C.step), CB);
            });
            m_.CB[i] = sum<R, Arch>(CB);
        }
    }

    /// M_ij = C_i·B_j exp(Δ_{j+1} A + ... + Δ_i A) Δ_j for j <= i, and what the inputs of a piece leave at its end.
    void form_matrices(const ssd_piece& p, bool outputs) const
    {
        const R* const delta = m_.delta + p.offset;
        ssd_exponentiate_sums<Arch>(m_.high, m_.low, p.count, m_.decay, m_.to_end);
        if (!a_.prescaled) multiply(m_.to_end, delta, p.count);
        if (!outputs) return;
        ssd_decay_pairs<Arch>(m_.products + p.offset * ssd_piece_tokens, m_.high, m_.low, p.count, m_.mixing);
        if (!a_.prescaled) ssd_scale_columns<Arch>(m_.mixing, delta, p.count, m_.mixing);
    }

    [[gnu::flatten]] static void multiply(R* values, const R* factors, index count)
    {
        for (index i = 0; i < count; i += n) store(load<R, Arch>(values + i) * load<R, Arch>(factors + i), values + i);
    }

    [[gnu::flatten]] void exponentiate_decays(const R* delta, index count, R A) const
    {
        const v rate(static_cast<R>(static_cast<double>(A) * log2_e));
        for (index i = 0; i < count; i += n) store(fast_exp2(load<R, Arch>(delta + i) * rate), m_.decay + i);
    }

    /// From H C to the outputs: skip and gate.
    void finish(index head, const ssd_piece& p) const
    {
        const index token_tile = tokens_ * n;
        if (rule_.scale != R(1)) {
            for (index t = 0; t < tiles_; ++t) scale(p.count, m_.y + t * token_tile);
        }
        if (a_.D.data()) {
            for (index t = 0; t < tiles_; ++t) add_skip(head, t, p.count, m_.u + t * token_tile, m_.y + t * token_tile);
        }
        if (a_.y_ungated.data()) store_tiles<Arch, R, T>(m_.y, token_tile, rows(a_.y_ungated, head, p));
        if (a_.z.data()) {
            load_tiles<Arch, R, T>(rows(a_.z, head, p), m_.z, token_tile);
            for (index t = 0; t < tiles_; ++t) gate(p.count, m_.z + t * token_tile, m_.y + t * token_tile);
        }
        store_tiles<Arch, R, T>(m_.y, token_tile, rows(a_.y, head, p));
    }

    [[gnu::flatten]] void add_skip(index head, index t, index count, const R* u, R* y) const
    {
        const lane_range<R, Arch, false> channels{t * n, std::min(n, headdim_ - t * n)};
        const v D = channels.load(a_.D.pointer(head), a_.D.stride(1));
        for (index i = 0; i < count * n; i += n) store(multiply_add(D, load<R, Arch>(u + i), load<R, Arch>(y + i)), y + i);
    }

    [[gnu::flatten]] void scale(index count, R* y) const
    {
        const v factor(rule_.scale);
        for (index i = 0; i < count * n; i += n) store(factor * load<R, Arch>(y + i), y + i);
    }

    [[gnu::flatten]] static void gate(index count, const R* z, R* y)
    {
        for (index i = 0; i < count * n; i += n) store(load<R, Arch>(y + i) * silu(load<R, Arch>(z + i)), y + i);
    }

    const ssd_args<T>& a_;
    const ssd_rule<T>& rule_;
    const ssd_scratch<Arch, T>& m_;
    index sequence_, b_, group_, first_head_, last_head_;
    index headdim_, state_, tiles_;
    bool chunked_;
    index tokens_;  // of a piece, at most
    const ssd_walk* walk_ = nullptr;
};

/// Bytes of scratch memory with which run_ssd runs on any resource of at most this concurrency.
template <class Arch, class T>
std::size_t ssd_bytes(const ssd_args<T>& a, const ssd_rule<T>& rule, std::size_t concurrency)
{
    std::size_t most = 0;
    for (std::size_t c = 1; c <= concurrency; ++c) {
        most = std::max(most, c * ssd_task_bytes<Arch>(a, rule, ssd_partition(a, c)));
    }
    return most;
}

/// ssd, or the relative that `rule` says, for arguments that fit.
template <class Arch, class T, class Exec>
void run_ssd(const char* op, const ssd_args<T>& a, const ssd_rule<T>& rule, workspace memory, Exec&& exec)
{
    const ssd_partition partition(a, concurrency(exec));
    const std::size_t bytes = ssd_task_bytes<Arch>(a, rule, partition);
    const scratch own(op, memory, bytes * concurrency(exec));
    const auto parts = static_cast<std::size_t>(partition.count);
    run_tasks(exec, static_cast<std::size_t>(ssd_sequence_count(a)) * parts, [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(slot * bytes, bytes));
        const ssd_scratch<Arch, T> m(part, a, rule, partition);
        ssd_task<Arch, T>(a, rule, partition, m, static_cast<index>(task / parts), static_cast<index>(task % parts)).run();
    });
}

}  // namespace ssmkit::detail
