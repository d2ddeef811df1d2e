#pragma once

// Sequences in segments: what one of them does to the state is known without the state, so that ranks of a cluster can each
// compute theirs and join them afterwards.
//
//     state behind = exp(log_decay) state before + final_state of the segment from zero
//
// Joining is associative (Blelloch, "Prefix sums and their applications", 1990, section 1.4): a prefix sum with join_segments,
// MPI_Exscan for instance, tells every rank its initial state.

#include <cmath>
#include <complex>
#include <limits>
#include <type_traits>

#include <ssmkit/args/selective_scan.hpp>
#include <ssmkit/args/ssd.hpp>
#include <ssmkit/check.hpp>
#include <ssmkit/reference/selective_scan.hpp>
#include <ssmkit/reference/ssd.hpp>

namespace ssmkit {

/// out, (batch, dim, state): the log of what all tokens of a segment leave of the state before it, the sum of Δ A; -infinity
/// where a reset lies among them. Of `a`, the outputs are ignored. Throws shape_error unless the shapes fit.
template <class T, class Param>
void segment_log_decay(const selective_scan_args<T, Param>& a, const view<Param, 3>& out)
{
    using real = compute_t<T>;
    constexpr const char* op = "segment_log_decay";
    detail::check_selective_scan_inputs(op, a);
    const index batch = a.u.extent(0), length = a.u.extent(1), dim = a.u.extent(2), state = a.A.extent(1);
    detail::require_shape(op, "out", out, {{"batch", batch}, {"dim", dim}, {"state", state}});
    for (index b = 0; b < batch; ++b) {
        bool reset = false;
        for (index t = 0; a.reset.data() && t < length; ++t) reset = reset || a.reset(b, t) != 0;
        for (index c = 0; c < dim; ++c) {
            real sum = 0;
            for (index t = 0; t < length; ++t) sum += reference::parts::selective_scan_step_size(a, b, t, c).value;
            for (index n = 0; n < state; ++n) {
                out(b, c, n) = reset ? Param(-std::numeric_limits<real>::infinity()) : sum * a.A(c, n);
            }
        }
    }
}

/// The same for ssd: out, (sequences, nheads).
template <class T>
void segment_log_decay(const ssd_args<T>& a, const view<compute_t<T>, 2>& out)
{
    using real = compute_t<T>;
    constexpr const char* op = "segment_log_decay";
    detail::check_ssd_inputs(op, a);
    const index sequences = ssd_sequence_count(a), nheads = a.u.extent(2);
    detail::require_shape(op, "out", out, {{"sequences", sequences}, {"nheads", nheads}});
    for (index sequence = 0; sequence < sequences; ++sequence) {
        for (index head = 0; head < nheads; ++head) {
            real sum = 0;
            for (const auto& step : reference::parts::ssd_steps(a, sequence, head)) {
                if (step.first) sum = -std::numeric_limits<real>::infinity();
                if (!step.padding && std::isfinite(sum)) sum += step.delta * a.A[head];
            }
            out(sequence, head) = sum;
        }
    }
}

/// What two neighbouring segments do together: log_decay and state of the second become those of both. All views have the
/// state's shape; log_decay of a head or channel has stride 0 where it is shared, and is then added up once. The first may be
/// a state alone, with a log_decay of 0: what comes out is the state behind the second. Throws shape_error unless the shapes
/// are equal.
template <class Param, std::size_t Rank>
void join_segments(const view<const Param, Rank>& first_log_decay, const view<const Param, Rank>& first_state,
                   const view<Param, Rank>& log_decay, const view<Param, Rank>& state)
{
    constexpr const char* op = "join_segments";
    for (std::size_t axis = 0; axis < Rank; ++axis) {
        const index extent = state.extent(axis);
        detail::require(first_log_decay.extent(axis) == extent, op, "first_log_decay", "has not the state's shape");
        detail::require(first_state.extent(axis) == extent, op, "first_state", "has not the state's shape");
        detail::require(log_decay.extent(axis) == extent, op, "log_decay", "has not the state's shape");
    }
    const auto forgets = [](const Param& decay) {
        if constexpr (std::is_floating_point_v<Param>) {
            return decay == -std::numeric_limits<Param>::infinity();
        } else {
            return decay.real() == -std::numeric_limits<typename Param::value_type>::infinity();
        }
    };
    const auto join_states = [&](const auto& self, const auto& h1, const auto& l, const auto& h) -> void {
        for (index i = 0; i < h.extent(0); ++i) {
            if constexpr (std::remove_cvref_t<decltype(h)>::rank > 1) {
                self(self, h1[i], l[i], h[i]);
            } else if (!forgets(l[i])) {  // else an infinity before it would come through as NaN
                h[i] += std::exp(l[i]) * h1[i];
            }
        }
    };
    const auto join_decays = [&](const auto& self, const auto& l1, const auto& l) -> void {
        const index distinct = l.stride(0) == 0 && l.extent(0) > 0 ? 1 : l.extent(0);
        for (index i = 0; i < distinct; ++i) {
            if constexpr (std::remove_cvref_t<decltype(l)>::rank > 1) {
                self(self, l1[i], l[i]);
            } else if (!forgets(l[i])) {
                l[i] += l1[i];
            }
        }
    };
    join_states(join_states, first_state, log_decay, state);
    join_decays(join_decays, first_log_decay, log_decay);
}

}  // namespace ssmkit
