#pragma once

// The least that a decoding step over a large state can cost: one pass over it, in place.

#include <memory>

#include "harness.hpp"

namespace plain {  // plain/update_in_place.cpp

void update_in_place(std::size_t n, float a, float b, float* x);

}  // namespace plain

namespace bench {

/// The share of an in-place update's speed over n floats: 1 where nothing but memory counts.
inline rival share_of_update_in_place(std::size_t n, std::size_t threads)
{
    const auto x = std::make_shared<array<float>>(fill<float>(n, -1, 1, 7));
    return {"share_of_update_in_place", [=] {
                if (threads == 1) return plain::update_in_place(n, 0.999f, 0.001f, x->data());
                pool(threads)(threads, [&](std::size_t task) {
                    const std::size_t first = n / threads * task, last = task + 1 == threads ? n : first + n / threads;
                    plain::update_in_place(last - first, 0.999f, 0.001f, x->data() + first);
                });
            }};
}

}  // namespace bench
