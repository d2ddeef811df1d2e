#pragma once

#include <cstddef>
#include <vector>

#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

#include "config.hpp"
#include "linear.hpp"
#include "state.hpp"
#include "stopwatch.hpp"

namespace mamba_lm {

/// Columns of a buffer as the library's (batch, length, dim) with a batch of one.
inline view<float, 3> columns(matrix& m, index first, index count)
{
    return {m.data() + first, {1, m.rows(), count}, {m.size(), m.cols(), 1}};
}
inline view<float, 3> columns(matrix& m) { return columns(m, 0, m.cols()); }

/// The same columns as `count` heads or groups: (batch, length, count, channels of each).
inline view<float, 4> columns_of(const view<float, 3>& v, index count)
{
    const index each = v.extent(2) / count;
    return {v.data(), {1, v.extent(1), count, each}, {v.stride(0), v.stride(1), each, 1}};
}

/// A parameter that may be left out.
inline view<const float, 1> optional(const std::vector<float>& values)
{
    return values.empty() ? view<const float, 1>{} : view<const float, 1>{values, static_cast<index>(values.size())};
}

/// What the layers of a model share while it reads: who computes, where the time goes, and what is known of the text.
class workbench {
public:
    workbench(const config& c, ssmkit::threads& pool) : pool(pool), before(c), after(c) {}

    /// Reads as many columns of `from` as the layer has inputs.
    void project(const linear& l, matrix& from, matrix& to)
    {
        apply(l, columns(from, 0, l.weight.cols())[0], columns(to)[0], pool);
        watch.lap(part::linear);
    }

    /// Scratch memory that grows to the largest need and stays.
    ssmkit::workspace scratch(std::size_t bytes)
    {
        if (scratch_.size() < bytes) scratch_.resize(bytes);
        return scratch_;
    }

    ssmkit::threads& pool;
    stopwatch watch;
    state before, after;  // a sequence reads the one and writes the other; a step updates `before` in place

private:
    std::vector<std::byte> scratch_;
};

}  // namespace mamba_lm
