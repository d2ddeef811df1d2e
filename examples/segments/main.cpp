// A sequence split over four ranks, as a program on a cluster would: every rank knows its own tokens only. Here the ranks are
// rounds of a loop, and a loop over join_segments stands where MPI_Exscan would be called with it.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include <ssmkit/segments.hpp>
#include <ssmkit/ssd.hpp>

namespace {

using ssmkit::view;

constexpr ssmkit::index ranks = 4, length = 1000, nheads = 3, headdim = 16, state = 32;

std::vector<float> numbers(ssmkit::index count, float low, float high, unsigned bits)
{
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) {
        bits = bits * 1664525u + 1013904223u;  // Knuth and Lewis
        value = low + (high - low) * static_cast<float>(bits >> 8) / (1 << 24);
    }
    return values;
}

/// A decay of each head for every element of its state.
view<float, 4> by_head(std::vector<float>& log_decay)
{
    return {log_decay.data(), {1, nheads, headdim, state}, {nheads, 1, 0, 0}};
}

}  // namespace

int main()
{
    const auto u = numbers(length * nheads * headdim, -1, 1, 1), delta = numbers(length * nheads, 0.001f, 0.01f, 2);
    const auto A = numbers(nheads, -2, -1, 3), B = numbers(length * state, -1, 1, 4), C = numbers(length * state, -1, 1, 5);
    std::vector<float> whole(u.size()), split(u.size());
    ssmkit::ssd_args<float> all{.u = {u, 1, length, nheads, headdim},
                                .delta = {delta, 1, length, nheads},
                                .A = {A, nheads},
                                .B = {B, 1, length, 1, state},
                                .C = {C, 1, length, 1, state},
                                .y = {whole, 1, length, nheads, headdim}};
    ssmkit::ssd(all);

    // What a rank has of it.
    const auto part_of = [&](ssmkit::index rank) {
        const ssmkit::index first = length * rank / ranks, count = length * (rank + 1) / ranks - first;
        ssmkit::ssd_args<float> part = all;
        for (auto* v : {&part.u, &part.B, &part.C}) *v = v->slice(1, first, count);
        part.delta = part.delta.slice(1, first, count);
        part.y = view<float, 4>(split, 1, length, nheads, headdim).slice(1, first, count);
        return part;
    };

    // 1. Every rank summarises its segment: the state that it makes of zero, and its decay.
    struct summary {
        std::vector<float> log_decay = std::vector<float>(nheads), h = std::vector<float>(nheads * headdim * state);
    };
    std::vector<summary> segments(ranks);
    for (ssmkit::index rank = 0; rank < ranks; ++rank) {
        summary& s = segments[static_cast<std::size_t>(rank)];
        ssmkit::ssd_args<float> part = part_of(rank);
        part.final_state = {s.h, 1, nheads, headdim, state};
        ssmkit::ssd(part);
        ssmkit::segment_log_decay(part, view<float, 2>(s.log_decay, 1, nheads));
    }

    // 2. The prefix sum: behind segment r lies what segments 0 ... r make of zero together.
    for (std::size_t rank = 1; rank < ranks; ++rank) {
        summary &before = segments[rank - 1], &s = segments[rank];
        ssmkit::join_segments<float, 4>(by_head(before.log_decay), view<float, 4>(before.h, 1, nheads, headdim, state),
                                        by_head(s.log_decay), view<float, 4>(s.h, 1, nheads, headdim, state));
    }

    // 3. Every rank computes its outputs from the state before it.
    for (ssmkit::index rank = 0; rank < ranks; ++rank) {
        ssmkit::ssd_args<float> part = part_of(rank);
        if (rank > 0) part.initial_state = {segments[static_cast<std::size_t>(rank - 1)].h, 1, nheads, headdim, state};
        ssmkit::ssd(part);
    }

    float difference = 0, largest = 0;
    for (std::size_t i = 0; i < whole.size(); ++i) {
        difference = std::max(difference, std::abs(whole[i] - split[i]));
        largest = std::max(largest, std::abs(whole[i]));
    }
    std::printf("%lld tokens on %lld ranks: y up to %.3f, split and whole differ by %.1e\n", static_cast<long long>(length),
                static_cast<long long>(ranks), static_cast<double>(largest), static_cast<double>(difference));
    return difference <= 1e-5f * largest ? 0 : 1;
}
