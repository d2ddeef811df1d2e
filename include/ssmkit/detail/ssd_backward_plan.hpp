#pragma once

// The memory of ssd's backward pass: how a call is cut into tasks, what they share and what each keeps to itself.

#include <algorithm>
#include <cstddef>

#include <ssmkit/args/ssd_backward.hpp>
#include <ssmkit/detail/ssd_decays.hpp>
#include <ssmkit/detail/ssd_pieces.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit::detail {

/// Heads that go through a sequence side by side, so that what they share is in a cache for all but the first (4: 5 % slower).
inline constexpr index ssd_backward_heads = 8;

/// How a call is cut into tasks, whatever the number of threads: a sequence and a part of the heads of one group.
template <class Arch, class T>
struct ssd_backward_plan {
    using R = compute_t<T>;

    index sequences, groups, heads_per_group, heads, parts;  // heads of a part; parts of a group
    index longest;                                           // tokens of a sequence, at most
    index row;                                               // elements of a row of dB or dC: state in whole registers
    index headdim;                                           // in whole registers
    R *dB, *dC;                                              // [batch][token][group][part][row]
    R *dA, *ddelta_bias;                                     // [sequence][head]
    R* dD;                                                   // [sequence][head][headdim]
    std::size_t shared, each;                                // bytes

    ssd_backward_plan(const ssd_backward_args<T>& a, workspace memory);

    /// Slots for the states before pieces: one that begins a sequence has none, the others are full but for the last.
    index slots() const { return longest / ssd_piece_tokens + 3; }
    /// Elements from a head's tokens to the next head's.
    index token_row() const { return longest + lanes<R, Arch>; }
    index tasks() const { return sequences * groups * parts; }
    index offset(index b, index token, index group, index part, index length) const
    {
        return (((b * length + token) * groups + group) * parts + part) * row;
    }
};

/// Scratch memory of one task.
template <class Arch, class T>
struct ssd_backward_scratch {
    using R = compute_t<T>;

    index* positions;          // [token] padding left out
    ssd_piece* pieces;         // [piece] `offset` counts tokens without padding
    R *raw, *delta, *ddelta;   // [head at hand][token]
    R* products;               // [token][token of the piece] C·B
    R* F;                      // the same, the sum of F over the heads
    R* states;                 // [head at hand][slot][tile of headdim][state][lane]; slot 0 stands for zero
    index* slots;              // [piece]
    R* gradient;               // [head at hand][tile of headdim][state][lane] of the state
    R *B, *C;                  // [token of the piece][row]
    R *turned_B, *turned_C;    // of all pieces, each [state][token]
    R *dB, *dC;                // the same: what the state before and the gradient behind contribute
    R* turned;                 // [tile of tokens][state][lane] of a piece
    R *high, *low, *decay, *to_end, *inputs, *direct, *dalpha, *later, *earlier;  // [token of the piece]
    R *pairs, *mixing, *D;     // [token][token] of the piece
    R *u, *dp, *y, *z, *scaled;  // [tile of headdim][token][lane]
    R *turned_u, *turned_dp;   // [tile of tokens][headdim][lane]
    R* lane_sums;              // [token][lane]

    ssd_backward_scratch(arena& memory, const ssd_backward_args<T>& a, const ssd_backward_plan<Arch, T>& p)
    {
        constexpr index n = lanes<R, Arch>, tokens = ssd_piece_tokens;
        const index length = p.longest, state = a.forward.B.extent(3), one_state = p.headdim * state;
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count)); };
        const index pieces_at_most = length;
        positions = memory.take<index>(static_cast<std::size_t>(length));
        pieces = memory.take<ssd_piece>(static_cast<std::size_t>(pieces_at_most));
        slots = memory.take<index>(static_cast<std::size_t>(pieces_at_most + 1));
        const index heads = std::min(p.heads, ssd_backward_heads);
        for (R** q : {&raw, &delta, &ddelta}) *q = take(heads * p.token_row());
        products = take(length * tokens + n);
        F = take(length * tokens + n);
        states = take(heads * p.slots() * one_state);
        gradient = take(heads * one_state);
        for (R** q : {&B, &C}) *q = take(tokens * p.row);
        for (R** q : {&turned_B, &turned_C, &dB, &dC}) *q = take(length * state + n);
        turned = take((tokens + n) * p.row);
        for (R** q : {&high, &low, &decay, &to_end, &inputs, &direct, &dalpha, &later, &earlier}) *q = take(tokens + n);
        for (R** q : {&pairs, &mixing, &D}) *q = take(tokens * tokens);
        for (R** q : {&u, &dp, &y, &z, &scaled}) *q = take(p.headdim * tokens);
        turned_u = take(p.headdim * (tokens + n));
        turned_dp = take(p.headdim * (tokens + n));
        lane_sums = take(tokens * n + n * n);
    }
};

template <class Arch, class T>
ssd_backward_plan<Arch, T>::ssd_backward_plan(const ssd_backward_args<T>& a, workspace memory)
{
    const ssd_args<T>& f = a.forward;
    constexpr index n = lanes<R, Arch>;
    const auto whole = [](index extent) { return (extent + n - 1) / n * n; };
    sequences = ssd_sequence_count(f);
    groups = f.B.extent(2);
    heads_per_group = groups ? f.u.extent(2) / groups : 0;
    const ssd_parts cut(sequences, groups, heads_per_group);
    heads = cut.heads;
    parts = cut.count;
    row = whole(f.B.extent(3));
    headdim = whole(f.u.extent(3));
    longest = longest_sequence(f.cu_seqlens, f.u.extent(1));
    arena all = memory.empty() ? arena() : arena(memory);
    const auto take = [&](index count) { return all.take<R>(static_cast<std::size_t>(count)); };
    const index rows = f.u.extent(0) * f.u.extent(1) * groups * parts;
    dB = take(a.dB.data() ? rows * row : 0);
    dC = take(a.dC.data() ? rows * row : 0);
    dA = take(sequences * f.u.extent(2));
    ddelta_bias = take(sequences * f.u.extent(2));
    dD = take(sequences * f.u.extent(2) * headdim);
    shared = all.size();
    arena one;
    ssd_backward_scratch<Arch, T>(one, a, *this);
    each = one.size();
}

}  // namespace ssmkit::detail
