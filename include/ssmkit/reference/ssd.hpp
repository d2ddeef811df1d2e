#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <ssmkit/args/ssd.hpp>
#include <ssmkit/reference/scalar.hpp>

namespace ssmkit::reference {

namespace parts {

/// What a head does with a token.
template <class Real>
struct ssd_step {
    index t = 0;           // the token's position
    bool padding = false;  // it does not happen at all
    bool first = false;    // of a sequence that does not continue the state: zero before this token
    Real raw = 0;          // step size before softplus,
    Real r = 0;            // before the limits
    Real delta = 0;        // and as used
};

/// The steps of a head through a sequence, in the order of visiting.
template <class T>
std::vector<ssd_step<compute_t<T>>> ssd_steps(const ssd_args<T>& a, index sequence, index head)
{
    using real = compute_t<T>;
    const bool packed = a.cu_seqlens.data() != nullptr;
    const index b = packed ? 0 : sequence;
    const index begin = packed ? a.cu_seqlens[sequence] : 0;
    const index end = packed ? a.cu_seqlens[sequence + 1] : a.u.extent(1);
    std::vector<ssd_step<real>> steps;
    std::int32_t current = 0;  // whom the state belongs to; at first it is the initial state, that of sequence 0
    for (index i = 0; i < end - begin; ++i) {
        ssd_step<real> s;
        s.t = a.reverse ? end - 1 - i : begin + i;
        if (a.seq_idx.data()) {
            const std::int32_t id = a.seq_idx(b, s.t);
            s.padding = id < 0;
            s.first = !s.padding && id != current;
            if (s.first) current = id;
        }
        if (!s.padding) {
            s.raw = static_cast<real>(a.delta(b, s.t, head)) + (a.delta_bias.data() ? a.delta_bias[head] : real(0));
            s.r = a.delta_softplus ? softplus(s.raw) : s.raw;
            s.delta = s.r < a.delta_min ? a.delta_min : s.r > a.delta_max ? a.delta_max : s.r;  // a NaN is neither
        }
        steps.push_back(s);
    }
    return steps;
}

template <class T>
index ssd_batch(const ssd_args<T>& a, index sequence)
{
    return a.cu_seqlens.data() ? 0 : sequence;
}

/// Takes h, one row of a head's state, through some of its steps and calls `after(step, p)` behind each, with the output
/// before the gate; that of padding is zero.
template <class T, class After>
void ssd_channel(const ssd_args<T>& a, const std::vector<ssd_step<compute_t<T>>>& steps, index b, index head, index channel,
                 index first_step, index last_step, std::vector<compute_t<T>>& h, After&& after)
{
    using real = compute_t<T>;
    const index group = head / (a.u.extent(2) / a.B.extent(2)), state = a.B.extent(3);
    for (index step = first_step; step < last_step; ++step) {
        const ssd_step<real>& s = steps[static_cast<std::size_t>(step)];
        real p = 0;
        if (!s.padding) {
            const real u = static_cast<real>(a.u(b, s.t, head, channel)), decay = std::exp(s.delta * a.A[head]);
            const real input = a.prescaled ? u : s.delta * u;
            for (index n = 0; n < state; ++n) {
                real& h_n = h[static_cast<std::size_t>(n)];
                if (s.first) h_n = 0;
                h_n = decay * h_n + input * static_cast<real>(a.B(b, s.t, group, n));
                p += h_n * static_cast<real>(a.C(b, s.t, group, n));
            }
            if (a.D.data()) p += a.D(head, channel) * u;
        }
        after(step, p);
    }
}

template <class T>
std::vector<compute_t<T>> ssd_initial_state(const ssd_args<T>& a, index sequence, index head, index channel)
{
    std::vector<compute_t<T>> h(static_cast<std::size_t>(a.B.extent(3)));
    if (a.initial_state.data()) {
        for (std::size_t n = 0; n < h.size(); ++n) h[n] = a.initial_state(sequence, head, channel, n);
    }
    return h;
}

}  // namespace parts

/// ssd (args/ssd.hpp) as its recurrence says it, token by token: the oracle of the tests, for any strides and options, in
/// compute_t<T> throughout. Chunks only tell what to put out when.
template <class T>
void ssd(const ssd_args<T>& a)
{
    check(a);
    using real = compute_t<T>;
    const auto keep = [](const auto& out, const std::vector<real>& h, auto... at) {
        for (std::size_t n = 0; n < h.size(); ++n) out(at..., n) = h[n];
    };
    for (index sequence = 0; sequence < ssd_sequence_count(a); ++sequence) {
        const index b = parts::ssd_batch(a, sequence);
        for (index head = 0; head < a.u.extent(2); ++head) {
            const auto steps = parts::ssd_steps(a, sequence, head);
            const index length = static_cast<index>(steps.size());

            real log_decay = 0;
            for (index step = 0; step < length; ++step) {
                const auto& s = steps[static_cast<std::size_t>(step)];
                if (step % a.chunk == 0 || s.first) log_decay = 0;
                if (!s.padding) log_decay += s.delta * a.A[head];
                if (a.delta_out.data()) a.delta_out(b, s.t, head) = s.delta;
                if (a.log_decay.data()) a.log_decay(b, s.t, head) = log_decay;
            }

            for (index channel = 0; channel < a.u.extent(3); ++channel) {
                std::vector<real> h = parts::ssd_initial_state(a, sequence, head, channel);
                for (index c = 0, first = 0; first < length; ++c, first += a.chunk) {
                    const index last = length - first > a.chunk ? first + a.chunk : length;
                    if (a.prev_states.data()) keep(a.prev_states, h, b, c, head, channel);
                    if (a.chunk_states.data()) {
                        std::vector<real> from_zero(h.size());
                        parts::ssd_channel(a, steps, b, head, channel, first, last, from_zero, [](index, real) {});
                        keep(a.chunk_states, from_zero, b, c, head, channel);
                    }
                    parts::ssd_channel(a, steps, b, head, channel, first, last, h, [&](index step, real p) {
                        const auto& s = steps[static_cast<std::size_t>(step)];
                        const bool gated = a.z.data() && !s.padding;
                        const real y = gated ? p * parts::silu(static_cast<real>(a.z(b, s.t, head, channel))) : p;
                        if (a.y_ungated.data()) a.y_ungated(b, s.t, head, channel) = static_cast<T>(p);
                        a.y(b, s.t, head, channel) = static_cast<T>(y);
                    });
                }
                if (a.final_state.data()) keep(a.final_state, h, sequence, head, channel);
            }
        }
    }
}

}  // namespace ssmkit::reference
