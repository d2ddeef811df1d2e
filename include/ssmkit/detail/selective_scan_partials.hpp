#pragma once

// The memory of the selective scan's backward pass: how a call is cut into tasks, what each keeps to itself, and how the partial
// sums that they leave are added up.

#include <algorithm>

#include <ssmkit/args/selective_scan_backward.hpp>
#include <ssmkit/detail/selective_scan_adjoint.hpp>
#include <ssmkit/detail/selective_scan_tiles.hpp>

namespace ssmkit::detail {

/// Channels whose part of dB and dC is summed together before the sums are added up: a task takes whole parts, and how many
/// does not matter to the result. Where time is contiguous a task takes one: every channel is a page of its own, and the pages
/// of 1536 channels are more than the second-level TLB holds (15 % slower). Where channels are, long rows are 3 % faster.
inline constexpr index backward_part = 256;

/// Where dB or dC is summed up before it is written. One row of `states` real numbers a part and token where a group spans
/// registers, one a channel and token where every lane has its own; a single token where the gradient is summed over time.
struct gradient_partials {
    bool wanted, per_lane, over_time;
    index segment, parts;  // channels of a segment, parts in it
    index rows;            // per batch row: parts of all segments, or channels
    index tokens;          // 1 if summed over time
    index states;          // real numbers a row and token

    template <class Param>
    gradient_partials(const view<Param, 4>& gradient, const scan_partition& p, bool lane, index dim, index length)
        : wanted(!gradient.empty()), per_lane(lane), over_time(gradient.stride(1) == 0), segment(std::max(index{1}, p.segment)),
          parts((segment + backward_part - 1) / backward_part), rows(lane ? dim : dim / segment * parts),
          tokens(over_time ? 1 : length), states(gradient.extent(3) * components<Param>)
    {
    }

    index size(index batch) const { return wanted ? batch * rows * tokens * states : 0; }
    index offset(index b, index token, index row) const { return ((b * tokens + token) * rows + row) * states; }

    /// The part that a channel belongs to, and the first channel of a row.
    index row(index channel) const { return channel / segment * parts + channel % segment / backward_part; }
    index channel(index row) const { return per_lane ? row : row / parts * segment + row % parts * backward_part; }
};

/// How a call of the backward pass is cut, and its scratch memory.
template <class Arch, class T, class Param>
struct backward_plan {
    using R = compute_t<T>;

    scan_partition channels;
    gradient_partials B, C;
    R *dB, *dC;                // partial sums
    R *dA, *dD, *ddelta_bias;  // [batch][slot]: tiles of the channels, each segment padded to whole tiles
    index segment_slots, slots;
    std::size_t shared, each;  // bytes

    backward_plan(const selective_scan_backward_args<T, Param>& a, workspace memory, std::size_t concurrency);

    index slot(index channel) const
    {
        return B.segment ? channel / B.segment * segment_slots + channel % B.segment : 0;
    }
};

/// Scratch memory of one task: a chunk of channels of one batch row.
template <class Arch, class T, class Param>
struct backward_scratch {
    using R = compute_t<T>;
    using coefficient = scan_coefficient<Arch, R, selective_element_t<T, Param>>;
    struct {
        R *delta, *u, *dy, *z;
    } raw;                   // [step][lane] of the tiles at hand, as given; later ddelta, du and dz
    R* bias;                 // [channel] of delta
    R *rates, *carry;        // [tile][state][component][lane]
    R* dh;                   // [tile][state][component][lane] the gradients of a snapshot
    R *checkpoints;          // [block of steps][tile][state][component][lane], the state before the block
    R *dB, *dC;              // [step][state][component][lane]
    R *B, *C;
    R *sums_B, *sums_C;      // [tile][state][component][lane] over time, where every lane has its own
    adjoint_tile<R> tile;

    backward_scratch(arena& memory, const selective_scan_backward_args<T, Param>& a, const backward_plan<Arch, T, Param>& plan)
    {
        const selective_scan_args<T, Param>& f = a.forward;
        constexpr index n = lanes<R, Arch>, k = components<Param>;
        const index state = f.A.extent(1), tiles = tiles_for<R, Arch>(plan.channels.chunk), width = tiles * n;
        const index blocks = std::max(index{1}, (f.u.extent(1) + scan_steps - 1) / scan_steps);
        const index parts = (width + backward_part - 1) / backward_part;
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count)); };
        for (R** p : {&raw.delta, &raw.u, &raw.dy, &raw.z}) *p = take(adjoint_tiles<Arch, Param> * n * scan_steps);
        bias = take(width);
        rates = take(width * state * rate_rows<Param>);
        carry = take(width * state * k);
        dh = a.dsnapshots.data() ? take(width * state * k) : nullptr;
        checkpoints = take(blocks * width * state * k);
        dB = take(scan_steps * state * k * n);
        dC = take(scan_steps * state * k * n);
        B = take(coefficient::scratch(state, plan.channels.chunk, scan_steps, plan.channels.B_per_lane,
                                       coefficient::is_constant(f.B)));
        C = take(coefficient::scratch(state, plan.channels.chunk, scan_steps, plan.channels.C_per_lane,
                                       coefficient::is_constant(f.C)));
        sums_B = plan.B.wanted && plan.B.over_time ? take(plan.B.per_lane ? width * state * k : parts * state * k) : nullptr;
        sums_C = plan.C.wanted && plan.C.over_time ? take(plan.C.per_lane ? width * state * k : parts * state * k) : nullptr;
        for (R** p : {&tile.delta, &tile.x, &tile.dp, &tile.y, &tile.input, &tile.decay}) {
            *p = take(adjoint_tiles<Arch, Param> * n * scan_steps);
        }
        tile.a = take(scan_steps * adjoint_states<Arch, Param> * k * n);
        tile.h = take(2 * scan_steps * adjoint_states<Arch, Param> * k * n);
    }
};

template <class Arch, class T, class Param>
backward_plan<Arch, T, Param>::backward_plan(const selective_scan_backward_args<T, Param>& a, workspace memory,
                                             std::size_t concurrency)
    : channels(partition_channels<Arch>(a.forward, a.forward.u.stride(2) == 1 ? scan_channels : backward_part,
                                        concurrency > 1 ? 2 * static_cast<index>(concurrency) : 1, backward_part)),
      B(a.dB, channels, channels.B_per_lane, a.forward.u.extent(2), a.forward.u.extent(1)),
      C(a.dC, channels, channels.C_per_lane, a.forward.u.extent(2), a.forward.u.extent(1)),
      segment_slots(tiles_for<R, Arch>(B.segment) * lanes<R, Arch>), slots(a.forward.u.extent(2) / B.segment * segment_slots)
{
    const index batch = a.forward.u.extent(0), state = a.forward.A.extent(1);
    arena all = memory.empty() ? arena() : arena(memory);
    const auto take = [&](index count) { return all.take<R>(static_cast<std::size_t>(count)); };
    dB = take(B.size(batch));
    dC = take(C.size(batch));
    dA = take(batch * slots * state * components<Param>);
    dD = take(batch * slots);
    ddelta_bias = take(batch * slots);
    shared = all.size();
    arena one;
    backward_scratch<Arch, T, Param>(one, a, *this);
    each = one.size();
}

/// Adds up partial sums in the order of rows and tokens.
template <class Param, class R>
void reduce_coefficient(const view<Param, 4>& gradient, const gradient_partials& p, const R* partial, index dim)
{
    constexpr index k = components<Param>;
    if (gradient.data() == nullptr) return;
    // An axis that is summed over has one element, even where there is nothing to sum.
    const auto distinct = [&](std::size_t axis) { return gradient.stride(axis) == 0 ? index{1} : gradient.extent(axis); };
    const index groups = gradient.extent(2), state = gradient.extent(3);
    for (index b = 0; b < distinct(0); ++b) {
        for (index t = 0; t < distinct(1); ++t) {
            for (index g = 0; g < std::min(groups, distinct(2)); ++g) {
                for (index i = 0; i < state; ++i) gradient(b, t, g, i) = Param(0);
            }
        }
    }
    if (!p.wanted) return;
    const index width = dim / groups;
    for (index b = 0; b < gradient.extent(0); ++b) {
        for (index t = 0; t < p.tokens; ++t) {
            for (index row = 0; row < p.rows; ++row) {
                const R* const values = partial + p.offset(b, t, row);
                const index g = p.channel(row) / width;
                Param* const out = gradient.pointer(b, t, g);
                for (index i = 0; i < state; ++i) {
                    if constexpr (k == 2) {
                        out[i * gradient.stride(3)] += Param(values[2 * i], values[2 * i + 1]);
                    } else {
                        out[i * gradient.stride(3)] += values[i];
                    }
                }
            }
        }
    }
}

/// Sums over the batch of what each chunk gathered for its channels.
template <class Arch, class T, class Param>
void reduce_channels(const selective_scan_backward_args<T, Param>& a, const backward_plan<Arch, T, Param>& plan)
{
    using R = compute_t<T>;
    constexpr index n = lanes<R, Arch>, k = components<Param>;
    const index batch = a.forward.u.extent(0), state = a.forward.A.extent(1);
    for (index channel = 0; channel < a.forward.u.extent(2); ++channel) {
        const index slot = plan.slot(channel), c = channel % plan.B.segment;
        const auto over_batch = [&](const R* p, index step) {
            R sum(0);
            for (index b = 0; b < batch; ++b) sum += p[b * step];
            return sum;
        };
        if (a.dD.data()) a.dD[channel] = over_batch(plan.dD + slot, plan.slots);
        if (a.ddelta_bias.data()) a.ddelta_bias[channel] = over_batch(plan.ddelta_bias + slot, plan.slots);
        if (!a.dA.data()) continue;
        const R* const tile = plan.dA + (slot - c % n) * state * k + c % n;
        const auto value = [&](index row) { return over_batch(tile + row * n, plan.slots * state * k); };
        for (index m = 0; m < state; ++m) {
            if constexpr (k == 2) {
                a.dA(channel, m) = Param(value(2 * m), value(2 * m + 1));
            } else {
                a.dA(channel, m) = value(m);
            }
        }
    }
}

}  // namespace ssmkit::detail
