#pragma once

#include <ssmkit/args/selective_scan_backward.hpp>
#include <ssmkit/detail/selective_scan_adjoint.hpp>
#include <ssmkit/detail/selective_scan_gradient_rows.hpp>
#include <ssmkit/detail/selective_scan_partials.hpp>
#include <ssmkit/detail/selective_scan_states.hpp>
#include <ssmkit/detail/selective_scan_tiles.hpp>
#include <ssmkit/detail/shuffle.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// The gradients of one batch row for one chunk of channels; what is shared between chunks or rows goes to partial sums.
template <class Arch, class T, class Param>
class backward_chunk {
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    using element = selective_element_t<T, Param>;
    static constexpr index n = lanes<R, Arch>, k = components<Param>;

public:
    backward_chunk(const selective_scan_backward_args<T, Param>& a, const backward_plan<Arch, T, Param>& plan, index b, index chunk,
                   const backward_scratch<Arch, T, Param>& m)
        : a_(a), f_(a.forward), plan_(plan), m_(m), b_(b), c0_(plan.channels.first(chunk)),
          channels_(plan.channels.channels(chunk)), tiles_(tiles_for<R, Arch>(channels_)), state_(f_.A.extent(1)),
          length_(f_.u.extent(1)), state_tile_(state_ * k * n), rate_tile_(state_ * rate_rows<Param> * n),
          visit_{f_.order, length_, f_.reverse}, B_(f_.B, visit_, f_.u.extent(2), plan.channels.B_per_lane, m.B),
          C_(f_.C, visit_, f_.u.extent(2), plan.channels.C_per_lane, m.C),
          rows_(a, visit_, b, m), slot_(b * plan.slots + plan.slot(c0_))
    {
    }

    void run()
    {
        load_channels(f_.delta_bias, c0_, channels_, tiles_ * n, R(1), m_.bias);
        load_rates<Arch, R, Param>(f_.A, c0_, channels_, m_.rates, rate_tile_);
        B_.enter_chunk(b_, c0_, channels_);
        C_.enter_chunk(b_, c0_, channels_);
        save_checkpoints();

        load_state(m_.carry, a_.dfinal_state);
        std::fill_n(plan_.dA + slot_ * state_ * k, tiles_ * state_tile_, R(0));
        std::fill_n(plan_.dD + slot_, tiles_ * n, R(0));
        std::fill_n(plan_.ddelta_bias + slot_, tiles_ * n, R(0));
        if (m_.sums_B) std::fill_n(m_.sums_B, sums_size(plan_.B), R(0));
        if (m_.sums_C) std::fill_n(m_.sums_C, sums_size(plan_.C), R(0));
        snapshot_ = a_.dsnapshots.data() ? f_.snapshot_after.extent(1) : 0;
        const index blocks = (length_ + scan_steps - 1) / scan_steps;
        for (index block = blocks; block-- > 0;) gradients_of_block(block);
        add_snapshot_gradients(0, m_.carry, 0, tiles_);

        if (a_.dinitial_state.data()) {
            store_states<Arch, R>(m_.carry, state_tile_, a_.dinitial_state.pointer(b_, c0_), a_.dinitial_state.stride(1),
                                  a_.dinitial_state.stride(2), state_, channels_);
        }
        if (m_.sums_B) write_sums(plan_.B, m_.sums_B, plan_.dB);
        if (m_.sums_C) write_sums(plan_.C, m_.sums_C, plan_.dC);
    }

private:
    /// A tile per tile of channels from (batch, dim, state), zero if it is not given.
    void load_state(R* to, const view<const Param, 3>& from) const
    {
        if (!from.data()) {
            std::fill_n(to, tiles_ * state_tile_, R(0));
            return;
        }
        load_states<Arch, R>(from.pointer(b_, c0_), from.stride(1), from.stride(2), state_, channels_, to, state_tile_);
    }

    v channel_values(const view<const R, 1>& values, index c) const
    {
        if (values.data() == nullptr) return v(R(0));
        return lane_range<R, Arch, false>{c, std::min(n, channels_ - c)}.load(values.pointer(c0_), values.stride(0));
    }

    /// Elements of the sums over time: a tile a tile, or a row a part.
    index sums_size(const gradient_partials& p) const
    {
        return p.per_lane ? tiles_ * state_tile_ : (p.row(c0_ + channels_ - 1) - p.row(c0_) + 1) * state_ * k;
    }

    index tile_channels(index t) const { return std::min(n, channels_ - t * n); }

    /// Whose memory is asked for while tile t of the block from `first` is at work: two tiles on, beyond the last tile in the
    /// block from `next`.
    struct tile_place {
        index first, t;
    };
    tile_place two_on(index first, index t, index next) const
    {
        return t + 2 < tiles_ ? tile_place{first, t + 2} : tile_place{next, (t + 2 - tiles_) % tiles_};
    }

    bool reset(index step) const { return f_.reset.data() && f_.reset(b_, visit_.position(step)); }

    /// Where the states before a block of steps are kept.
    R* checkpoint(index block, index t) const { return m_.checkpoints + (block * tiles_ + t) * state_tile_; }

    /// Runs forward and keeps the state before every block of steps.
    void save_checkpoints()
    {
        load_state(m_.checkpoints, f_.initial_state);
        for (index first = 0, block = 0; first + scan_steps < length_; first += scan_steps, ++block) {
            const index end = first + scan_steps;
            rows_.enter_block(first, scan_steps);
            B_.enter_block(first, scan_steps);
            for (index t = 0; t < tiles_; ++t) {
                B_.enter_tile(t * n);
                rows_.prepare_inputs(c0_ + t * n, tile_channels(t), m_.bias + t * n);
                const tile_place ahead = two_on(first, t, end);
                const index c = c0_ + ahead.t * n, channels = tile_channels(ahead.t);
                R* const after = checkpoint(block + 1, t);
                const R* h = checkpoint(block, t);
                for (index begin = first, stop; begin < end; begin = stop, h = after) {
                    if (reset(begin)) h = std::fill_n(after, state_tile_, R(0)) - state_tile_;
                    for (stop = begin + 1; stop < end && !reset(stop);) ++stop;
                    const index offset = (begin - first) * n;
                    const scan_run<R> run{.steps = stop - begin,
                                          .delta = m_.tile.delta + offset,
                                          .x = m_.tile.x + offset,
                                          .y = nullptr,
                                          .y_before = nullptr,
                                          .y_before_step = 0,
                                          .rates = m_.rates + t * rate_tile_,
                                          .h = h,
                                          .h_after = after,
                                          .B = B_.at(begin),
                                          .C = nullptr,
                                          .B_step = B_.step(),
                                          .C_step = 0,
                                          .ahead = {rows_ahead(f_.delta, b_, visit_, ahead.first, c, channels),
                                                    rows_ahead(f_.u, b_, visit_, ahead.first, c, channels),
                                                    {reinterpret_cast<const char*>(after + 2 * state_tile_), n * sizeof(R)},
                                                    {}}};
                    if (B_.per_lane()) {
                        scan_all_states<Arch, Param, false, R, true, false>(run, state_);
                    } else {
                        scan_all_states<Arch, Param, false, R, false, false>(run, state_);
                    }
                }
            }
        }
    }

    /// Adds to tiles `first` ... of the carried gradient those of the snapshots taken after `tokens` tokens.
    void add_snapshot_gradients(index tokens, R* carry, index first, index count) const
    {
        for (index i = snapshot_; i-- > 0;) {
            const index after = f_.snapshot_after(b_, i);
            if (after < tokens) return;
            if (after > tokens) continue;
            R* const buffer = m_.dh;
            const index c = c0_ + first * n;
            load_states<Arch, R>(a_.dsnapshots.pointer(b_, i, c), a_.dsnapshots.stride(2), a_.dsnapshots.stride(3), state_,
                                 std::min(channels_ - first * n, count * n), buffer, state_tile_);
            for (index e = 0; e < count * state_tile_; e += n) {
                store(load<R, Arch>(carry + e) + load<R, Arch>(buffer + e), carry + e);
            }
        }
    }

    bool snapshot_after(index tokens) const
    {
        for (index i = 0; i < snapshot_; ++i) {
            if (f_.snapshot_after(b_, i) == tokens) return true;
        }
        return false;
    }

    void gradients_of_block(index block)
    {
        const index first = block * scan_steps, steps = std::min(scan_steps, length_ - first), end = first + steps;
        B_.enter_block(first, steps);
        C_.enter_block(first, steps);
        rows_.enter_block(first, steps);
        // Runs end where the state is reset or a snapshot was taken.
        index cuts[scan_steps + 1], runs = 0;
        for (index s = first; s < end; ++s) {
            if (s == first || reset(s) || snapshot_after(s)) cuts[runs++] = s;
        }
        cuts[runs] = end;

        for (index t = 0, together; t < tiles_; t += together) {
            const bool pair = adjoint_tiles<Arch, Param> == 2 && t + 1 < tiles_ && !B_.per_lane() && !C_.per_lane();
            together = pair ? 2 : 1;
            for (index i = 0; i < together; ++i) {
                rows_.prepare(i, c0_ + (t + i) * n, tile_channels(t + i), m_.bias + (t + i) * n);
            }
            B_.enter_tile(t * n);
            C_.enter_tile(t * n);
            const index after = t + together;
            const bool part_begins = t * n % backward_part == 0, part_ends = after * n % backward_part == 0 || after == tiles_;
            if (part_begins || B_.per_lane()) std::fill_n(m_.dB, steps * state_tile_, R(0));
            if (part_begins || C_.per_lane()) std::fill_n(m_.dC, steps * state_tile_, R(0));
            if (pair) {
                if constexpr (adjoint_tiles<Arch, Param> == 2) run_states<2, false, false>(block, t, first, cuts, runs);
            } else {
                with_constants(B_.per_lane(), C_.per_lane(), [&](auto b, auto c) {
                    run_states<1, decltype(b)::value, decltype(c)::value>(block, t, first, cuts, runs);
                });
            }
            for (index i = 0; i < together; ++i) {
                const index slot = slot_ + (t + i) * n;
                rows_.finish(i, c0_ + (t + i) * n, tile_channels(t + i), channel_values(f_.D, (t + i) * n), plan_.dD + slot,
                             plan_.ddelta_bias + slot);
            }
            if (B_.per_lane()) collect_lanes(plan_.B, m_.dB, first, steps, t, m_.sums_B, plan_.dB);
            if (C_.per_lane()) collect_lanes(plan_.C, m_.dC, first, steps, t, m_.sums_C, plan_.dC);
            if (part_ends && !B_.per_lane()) collect_groups(plan_.B, m_.dB, first, steps, t, m_.sums_B, plan_.dB);
            if (part_ends && !C_.per_lane()) collect_groups(plan_.C, m_.dC, first, steps, t, m_.sums_C, plan_.dC);
        }
    }

    /// All states of W tiles through a block. The carried gradient takes what belongs to the borders between runs on the way.
    template <index W, bool BPerLane, bool CPerLane>
    void run_states(index block, index t, index first, const index* cuts, index runs)
    {
        index steps[scan_steps + 1];  // the cuts, from the block's first step
        bool resets[scan_steps], inside = false;
        for (index r = 0; r <= runs; ++r) steps[r] = cuts[r] - first;
        for (index r = 0; r < runs; ++r) {
            resets[r] = reset(cuts[r]);
            inside = inside || snapshot_after(cuts[r + 1]);
        }
        R* const carry = m_.carry + t * state_tile_;
        lines_ahead ahead[7 * W], *last = ahead;
        for (index w = 0; w < W; ++w) {
            const tile_place next = two_on(first, t + w, first - scan_steps);
            if (next.first >= 0) last = rows_.ahead(next.first, c0_ + next.t * n, tile_channels(next.t), last);
        }
        adjoint_run<R> run{.tile = m_.tile,
                           .rates = m_.rates + t * rate_tile_,
                           .h = checkpoint(block, t),
                           .carry = carry,
                           .dA = plan_.dA + slot_ * state_ * k + t * state_tile_,
                           .dB = m_.dB,
                           .dC = m_.dC,
                           .row = state_tile_,
                           .rate_tile = rate_tile_,
                           .state_tile = state_tile_,
                           .B = B_.at(first),
                           .C = C_.at(first),
                           .B_step = B_.step(),
                           .C_step = C_.step(),
                           .cuts = steps,
                           .resets = resets,
                           .runs = runs,
                           .first_run = 0,
                           .with_y = f_.z.data() != nullptr,
                           .first_states = true,
                           .ahead = ahead,
                           .rows_ahead = last - ahead};
        if (!inside) return adjoint_of_all_states<Arch, Param, W, BPerLane, CPerLane>(run, state_);
        // The gradients of snapshots join the carried one where they were taken: one run at a time, from the last. Every
        // run is reached by going forward from the checkpoint again; the output is wanted only once.
        for (index r = runs; r-- > 0; run.with_y = false, run.rows_ahead = 0) {
            add_snapshot_gradients(cuts[r + 1], carry, t, W);
            run.runs = r + 1;
            run.first_run = r;
            adjoint_of_all_states<Arch, Param, W, BPerLane, CPerLane>(run, state_);
        }
    }

    /// dB or dC of a block, summed over the lanes of a part of the channels: one row a token, or added up over time.
    void collect_groups(const gradient_partials& p, const R* rows, index first, index steps, index t, R* sums,
                        R* partial) const
    {
        if (!p.wanted) return;
        const index row = p.row(c0_ + t * n);
        for (index s = 0; s < steps; ++s) {
            R* const out = p.over_time ? sums + (row - p.row(c0_)) * state_ * k
                                       : partial + p.offset(b_, visit_.position(first + s), row);
            sum_rows<Arch, R>(rows + s * state_tile_, state_ * k, out, p.over_time);
        }
    }

    /// The same where every lane has its own: a row for each channel.
    void collect_lanes(const gradient_partials& p, const R* rows, index first, index steps, index t, R* sums, R* partial) const
    {
        if (!p.wanted) return;
        for (index s = 0; s < steps; ++s) {
            if (p.over_time) {
                R* const sum = sums + t * state_tile_;
                for (index e = 0; e < state_tile_; e += n) {
                    store(load<R, Arch>(sum + e) + load<R, Arch>(rows + s * state_tile_ + e), sum + e);
                }
            } else {
                store_tiles<Arch, R, R>(rows + s * state_tile_, 0,
                                        {partial + p.offset(b_, visit_.position(first + s), c0_ + t * n), 1, p.states,
                                         state_ * k, std::min(n, channels_ - t * n)});
            }
        }
    }

    void write_sums(const gradient_partials& p, const R* sums, R* partial) const
    {
        if (!p.per_lane) {
            std::copy_n(sums, (p.row(c0_ + channels_ - 1) - p.row(c0_) + 1) * state_ * k, partial + p.offset(b_, 0, p.row(c0_)));
        } else {
            store_tiles<Arch, R, R>(sums, state_tile_, {partial + p.offset(b_, 0, c0_), 1, p.states, state_ * k, channels_});
        }
    }

    const selective_scan_backward_args<T, Param>& a_;
    const selective_scan_args<T, Param>& f_;
    const backward_plan<Arch, T, Param>& plan_;
    const backward_scratch<Arch, T, Param>& m_;
    index b_, c0_, channels_, tiles_, state_, length_, state_tile_, rate_tile_;
    visiting_order visit_;
    scan_coefficient<Arch, R, element> B_, C_;
    gradient_rows<Arch, T, Param> rows_;
    index slot_;          // of the chunk's first channel in the sums over time
    index snapshot_ = 0;  // snapshots that have gradients
};

}  // namespace detail

/// Bytes of scratch memory with which selective_scan_backward(a) runs on any resource of at most this concurrency. In values of
/// Param's precision, for s real numbers of state a channel: s a token of the batch for every group, or every 256 channels
/// of one, for each of dB and dC that is asked for (dim s where groups are narrower than a register; nothing a token where they
/// are summed over time); s / 16 a
/// token and channel of the tasks that run at once, at most 1536 channels a task, to recompute the states from; (s + 2) a
/// channel and batch row; and some per channel.
template <class Arch = xsimd::default_arch, class T, class Param>
std::size_t selective_scan_backward_workspace_size(const selective_scan_backward_args<T, Param>& a, std::size_t concurrency = 1)
{
    std::size_t most = 0;
    for (std::size_t c = 1; c <= concurrency; ++c) {
        const detail::backward_plan<Arch, T, Param> plan(a, {}, c);
        most = std::max(most, plan.shared + c * plan.each);
    }
    return most;
}

/// The gradients of the selective scan: shapes, equations and options at selective_scan_backward_args. Throws shape_error
/// before anything is written. States are recomputed from checkpoints 16 steps apart. Work splits over batch, groups and
/// multiples of 256 channels of one; sums across them have a fixed order, so that results do not depend on the number of
/// threads, bit for bit.
template <class Arch = xsimd::default_arch, class T, class Param, execution_resource Exec = in_place>
void selective_scan_backward(const selective_scan_backward_args<T, Param>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t slots = concurrency(exec);
    const backward_plan<Arch, T, Param> sizes(a, {}, slots);
    const scratch own("selective_scan_backward", memory, sizes.shared + slots * sizes.each);
    const backward_plan<Arch, T, Param> plan(a, own.memory(), slots);
    const auto chunks = static_cast<std::size_t>(plan.channels.count);
    run_tasks(exec, static_cast<std::size_t>(a.forward.u.extent(0)) * chunks, [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(plan.shared + slot * plan.each, plan.each));
        backward_chunk<Arch, T, Param>(a, plan, static_cast<index>(task / chunks), static_cast<index>(task % chunks),
                                       backward_scratch<Arch, T, Param>(part, a, plan))
            .run();
    });
    const flush_denormals guard;
    reduce_coefficient(a.dB, plan.B, plan.dB, a.forward.u.extent(2));
    reduce_coefficient(a.dC, plan.C, plan.dC, a.forward.u.extent(2));
    reduce_channels<Arch>(a, plan);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, class Param, execution_resource Exec>
void selective_scan_backward(const selective_scan_backward_args<T, Param>& a, Exec&& exec)
{
    selective_scan_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
