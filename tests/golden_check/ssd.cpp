#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ssmkit/args/ssd.hpp>
#include <ssmkit/args/ssd_backward.hpp>

#include "golden.hpp"
#include "limits.hpp"

namespace {

using golden::index, golden::problem, golden::view;

template <class Args>
void run(problem& p, const Args& a)
{
    p.run(a);
}

/// D, (nheads) or (nheads, headdim).
template <class E>
view<const E, 2> skip(problem& p, index headdim)
{
    if (!p.has("D")) return {};
    return p.shape("D").size() == 1 ? ssmkit::tied_over_head(p.input<E>("D", 0), headdim) : p.input<E>("D", 0, 1);
}

template <class E>
view<E, 2> skip_gradient(problem& p, index headdim)
{
    if (!p.has("dD")) return {};
    return p.shape("dD").size() == 1 ? ssmkit::summed_over_head(p.output<E>("dD", 0), headdim) : p.output<E>("dD", 0, 1);
}

/// A number per token as the authors have it, (batch, nheads, chunks, chunk): behind the last token the steps are zero, so
/// that a step is 0 there and a running sum stays what it was.
template <class E>
void hand_in(const view<E, 4>& stored, const std::vector<E>& tokens, index length, bool running_sum)
{
    if (stored.data() == nullptr) return;
    const index nheads = stored.extent(1), chunk = stored.extent(3);
    for (index b = 0; b < stored.extent(0); ++b) {
        for (index head = 0; head < nheads; ++head) {
            for (index t = 0; t < stored.extent(2) * chunk; ++t) {
                const bool beyond = t >= length;
                const index from = std::min(t, length - 1);
                E& to = stored(b, head, t / chunk, t % chunk);
                to = beyond && !running_sum ? E(0) : tokens[static_cast<std::size_t>((b * length + from) * nheads + head)];
            }
        }
    }
}

const golden::handler ssd_chunk_scan("ssd_chunk_scan", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    p.descriptive("ngroups", "nheads", "headdim", "dstate", "D", "has_z", "has_dt_bias", "has_initial_states", "has_seq_idx",
                  "has_cu_seqlens", "has_dfinal_states");
    const std::vector<index> shape = p.shape("x");
    const index batch = shape.at(0), length = shape.at(1), nheads = shape.at(2), headdim = shape.at(3);
    const auto [low, high] = golden::limits(p.flag<nlohmann::json>("dt_limit"));
    const ssmkit::ssd_args<T> inputs{
        .u = p.input<T>("x", 0, 1, 2, 3),
        .delta = p.input<T>("dt", 0, 1, 2),
        .A = p.input<real>("A", 0),
        .B = p.input<T>("B", 0, 1, 2, 3),
        .C = p.input<T>("C", 0, 1, 2, 3),
        .D = skip<real>(p, headdim),
        .z = p.input<T>("z", 0, 1, 2, 3),
        .delta_bias = p.input<real>("dt_bias", 0),
        .delta_softplus = p.flag<bool>("dt_softplus"),
        .delta_min = static_cast<real>(low),
        .delta_max = static_cast<real>(high),
        .initial_state = p.input<real>("initial_states", 0, 1, 2, 3),
        .seq_idx = p.input<std::int32_t>("seq_idx", 0, 1),
        .chunk = p.flag<index>("chunk_size"),
    };
    ssmkit::ssd_args<T> forward = inputs;
    forward.y = p.output<T>("out", 0, 1, 2, 3);
    forward.final_state = p.output<real>("final_states", 0, 1, 2, 3);
    forward.chunk_states = p.output<real>("chunk_states", 0, 1, 2, 3, 4);
    forward.prev_states = p.output<real>("prev_states", 0, 1, 2, 3, 4);
    std::vector<real> steps(static_cast<std::size_t>(batch * length * nheads)), sums(steps.size());
    forward.delta_out = {steps, batch, length, nheads};
    forward.log_decay = {sums, batch, length, nheads};
    run(p, forward);
    hand_in(p.output<real>("dt_out", 0, 1, 2, 3), steps, length, false);
    hand_in(p.output<real>("dA_cumsum", 0, 1, 2, 3), sums, length, true);

    if (p.has("cu_seqlens")) {  // where the authors have both, either says the same
        if (p.has("initial_states")) throw golden::unknown("initial_states with cu_seqlens: of which sequence?");
        ssmkit::ssd_args<T> packed = inputs;
        packed.seq_idx = {};
        packed.cu_seqlens = p.input<index>("cu_seqlens", 0);
        packed.y = p.output<T>("out", 0, 1, 2, 3);
        packed.final_state = p.output<real>("varlen_states", 0, 1, 2, 3);
        run(p, packed);
    }

    if (!p.has("dout")) return;
    const ssmkit::ssd_backward_args<T> backward{
        .forward = inputs,
        .dy = p.input<T>("dout", 0, 1, 2, 3),
        .dfinal_state = p.input<real>("dfinal_states", 0, 1, 2, 3),
        .du = p.output<T>("dx", 0, 1, 2, 3),
        .ddelta = p.output<T>("ddt", 0, 1, 2),
        .dz = p.output<T>("dz", 0, 1, 2, 3),
        .dA = p.output<real>("dA", 0),
        .dB = p.output<real>("dB", 0, 1, 2, 3),
        .dC = p.output<real>("dC", 0, 1, 2, 3),
        .dD = skip_gradient<real>(p, headdim),
        .ddelta_bias = p.output<real>("ddt_bias", 0),
        .dinitial_state = p.output<real>("dinitial_states", 0, 1, 2, 3),
    };
    run(p, backward);
});

// X holds Δ x already and A the logarithm of the decay of each token.
const golden::handler ssd_minimal_discrete("ssd_minimal_discrete", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    p.descriptive("has_initial_states");
    const std::vector<real> ones(static_cast<std::size_t>(p.shape("X").at(2)), real(1));
    // (batch, 1, nheads, headdim, state)
    const auto without_middle = []<class E>(const view<E, 5>& v) -> view<E, 4> {
        if (v.data() == nullptr) return {};
        if (v.extent(1) != 1) throw std::runtime_error("initial_states has more than one state a row");
        return v.transposed(0, 1)[0];
    };
    const ssmkit::ssd_args<T> forward{
        .u = p.input<T>("X", 0, 1, 2, 3),
        .delta = p.input<T>("A", 0, 1, 2),
        .A = {ones, p.shape("X").at(2)},
        .B = p.input<T>("B", 0, 1, 2, 3),
        .C = p.input<T>("C", 0, 1, 2, 3),
        .delta_min = -std::numeric_limits<real>::infinity(),
        .prescaled = true,
        .initial_state = without_middle(p.input<real>("initial_states", 0, 1, 2, 3, 4)),
        .chunk = p.flag<index>("block_len"),
        .y = p.output<T>("out", 0, 1, 2, 3),
        .final_state = p.output<real>("final_states", 0, 1, 2, 3),
    };
    run(p, forward);
    if (!p.has("dout")) return;
    const ssmkit::ssd_backward_args<T> backward{
        .forward = forward,
        .dy = p.input<T>("dout", 0, 1, 2, 3),
        .dfinal_state = p.input<real>("dfinal_states", 0, 1, 2, 3),
        .du = p.output<T>("dX", 0, 1, 2, 3),
        .ddelta = p.output<T>("dA", 0, 1, 2),
        .dB = p.output<real>("dB", 0, 1, 2, 3),
        .dC = p.output<real>("dC", 0, 1, 2, 3),
        .dinitial_state = without_middle(p.output<real>("dinitial_states", 0, 1, 2, 3, 4)),
    };
    run(p, backward);
});

// Element (i, j) is the sum of x over j < t <= i: the logarithm of the decay of a chunk that begins behind token j, which ssd
// puts out where x is its step and A is 1. A call for each column; on and above the diagonal no token is left, and the
// matrix is 0 and -inf by definition.
const golden::handler segsum("segsum", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    const auto x = p.input<T>("x", 0, 2, 1);  // (batch, length, nheads)
    const auto out = p.output<real>("out", 0, 1, 2, 3);
    const index batch = x.extent(0), length = x.extent(1), nheads = x.extent(2);
    const T nothing(real(0));
    const real one = 1;
    std::vector<T> y(static_cast<std::size_t>(batch * length * nheads));
    for (index j = 0; j < length; ++j) {
        for (index b = 0; b < batch; ++b) {
            for (index head = 0; head < nheads; ++head) {
                for (index i = 0; i <= j; ++i) out(b, head, i, j) = i == j ? real(0) : -std::numeric_limits<real>::infinity();
            }
        }
        const index count = length - 1 - j;
        if (count == 0) continue;
        run(p, ssmkit::ssd_args<T>{
                   .u = {&nothing, {batch, count, nheads, 1}, {}},
                   .delta = x.slice(1, j + 1, count),
                   .A = {&one, {nheads}, {}},
                   .B = {&nothing, {batch, count, 1, 1}, {}},
                   .C = {&nothing, {batch, count, 1, 1}, {}},
                   .delta_min = -std::numeric_limits<real>::infinity(),
                   .chunk = count,
                   .y = {y, batch, count, nheads, 1},
                   .log_decay = {out.pointer(0, 0, j + 1, j),
                                 {batch, count, nheads},
                                 {out.stride(0), out.stride(2), out.stride(1)}},
               });
    }
});

}  // namespace
