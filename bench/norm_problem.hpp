#pragma once

// What the benchmarks of gated_norm, add_norm and their backward passes share.

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include <ssmkit/view.hpp>

#include "harness.hpp"

namespace bench {

struct norm_shape {
    ssmkit::index batch, length, dim;
    bool time_contiguous = false;

    std::size_t tokens() const { return static_cast<std::size_t>(batch * length); }
    std::size_t elements() const { return tokens() * static_cast<std::size_t>(dim); }

    std::string name() const
    {
        return std::to_string(batch) + "x" + std::to_string(length) + "x" + std::to_string(dim) +
               (time_contiguous ? "-time_contiguous" : "");
    }
};

/// (batch, length, dim) of random numbers, or of zeros to be written.
template <class T>
struct norm_tensor {
    norm_shape shape;
    array<T> data;

    explicit norm_tensor(const norm_shape& s) : shape(s), data(s.elements()) {}
    norm_tensor(const norm_shape& s, double low, double high, std::uint64_t seed)
        : shape(s), data(fill<T>(s.elements(), low, high, seed))
    {
    }

    ssmkit::view<T, 3> view()
    {
        const auto [batch, length, dim] = std::tuple(shape.batch, shape.length, shape.dim);
        if (shape.time_contiguous) return ssmkit::view<T, 3>(data.data(), batch, dim, length).transposed(1, 2);
        return {data.data(), batch, length, dim};
    }
};

/// Adds the rows of an operation. Problem<T>(shape) has run(threads), reference(), plain(), mismatch(expected problem)
/// and needs().
template <template <class> class Problem>
void add_norm_rows(std::vector<row>& rows, const char* op)
{
    const auto add = [&]<class T>(std::type_identity<T>, const char* variant, const norm_shape& shape,
                                  std::size_t threads, auto call) {
        rows.push_back({op, variant, shape.name(), dtype_name<T>(), threads, [=] {
                            const auto p = std::make_shared<Problem<T>>(shape);
                            const auto expected = std::make_shared<Problem<T>>(shape);
                            task t;
                            t.run = [=] { call(*p); };
                            t.needs = p->needs();
                            t.run();
                            expected->reference();
                            t.mismatch = p->mismatch(*expected);
                            return t;
                        }});
    };
    const std::type_identity<float> f32;
    const std::type_identity<ssmkit::bfloat16> bf16;
    // A prefill in and beyond the cache, a decoding step, an awkward size.
    for (norm_shape shape : {norm_shape{1, 2048, 1536}, norm_shape{1, 64, 1536}, norm_shape{1, 1, 1536},
                             norm_shape{3, 509, 131}}) {
        for (const bool time_contiguous : {false, true}) {
            if (time_contiguous && shape.length == 1) continue;
            shape.time_contiguous = time_contiguous;
            for (const std::size_t n : thread_counts()) {
                add(f32, "ssmkit", shape, n, [n](auto& p) { p.run(n); });
            }
            if (!time_contiguous) {
                add(f32, "plain", shape, 1, [](auto& p) { p.plain(); });
                add(bf16, "ssmkit", shape, 1, [](auto& p) { p.run(1); });
            }
        }
    }
    add(f32, "reference", {3, 509, 131}, 1, [](auto& p) { p.reference(); });
}

/// The least traffic and arithmetic of an operation.
inline work norm_work(const norm_shape& shape, double bytes_an_element, double fmas_an_element)
{
    work w;
    w.updates = w.token_channels = static_cast<double>(shape.elements());
    w.fmas = fmas_an_element * w.updates;
    w.bytes = bytes_an_element * w.updates;
    return w;
}

}  // namespace bench
