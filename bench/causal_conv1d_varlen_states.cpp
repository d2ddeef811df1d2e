#include <memory>
#include <vector>

#include <ssmkit/causal_conv1d_varlen_states.hpp>
#include <ssmkit/reference/causal_conv1d_varlen_states.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

/// The states after 64 packed sequences of 1 to 7 tokens: nothing but copies, strided where a state's slots lie together.
task states_task(index dim, index state_len, bool dim_contiguous, std::size_t threads)
{
    constexpr index sequences = 64;
    struct data {
        array<float> x, states;
        std::vector<index> cu_seqlens;
    };
    const auto d = std::make_shared<data>();
    d->cu_seqlens.push_back(0);
    for (index i = 0; i < sequences; ++i) d->cu_seqlens.push_back(d->cu_seqlens.back() + 1 + i % 7);
    const index tokens = d->cu_seqlens.back();
    d->x = fill<float>(static_cast<std::size_t>(tokens * dim), -1, 1, 1);
    d->states.resize(static_cast<std::size_t>(sequences * dim * state_len));
    const auto args = [=](float* to) {
        return ssmkit::causal_conv1d_varlen_states_args<float>{
            .x = {d->x.data(), tokens, dim},
            .cu_seqlens = {d->cu_seqlens.data(), sequences + 1},
            .states = dim_contiguous ? view<float, 3>(to, sequences, state_len, dim).transposed(1, 2)
                                     : view<float, 3>(to, sequences, dim, state_len)};
    };
    task t;
    t.run = [=] {
        if (threads == 1) return ssmkit::causal_conv1d_varlen_states(args(d->states.data()));
        ssmkit::causal_conv1d_varlen_states(args(d->states.data()), pool(threads));
    };
    const double elements = static_cast<double>(d->states.size());
    t.needs = {.updates = elements, .bytes = 2 * 4 * elements};
    array<float> expected(d->states.size());
    ssmkit::reference::causal_conv1d_varlen_states(args(expected.data()));
    t.run();
    t.mismatch = mismatch("states", args(d->states.data()).states, args(expected.data()).states);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const bool turned : {false, true}) {
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"causal_conv1d_varlen_states", "ssmkit", std::string("64x1536x3") + (turned ? "-dim_contiguous" : ""),
                            "f32", n, [=] { return states_task(1536, 3, turned, n); }});
        }
    }
}};

}  // namespace
}  // namespace bench
