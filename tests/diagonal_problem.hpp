#pragma once

// What the tests of kernels of diagonal models share.

#include <array>
#include <complex>
#include <cstddef>
#include <string>
#include <vector>

#include <ssmkit/workspace.hpp>

#include "complaint.hpp"
#include "random_problem.hpp"

namespace ssmkit::testing {

using complex_double = std::complex<double>;

struct diagonal_setup {
    index channels = 2, dim = 3, state = 5, length = 40, copies = 3, batch = 2;
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;
    std::uint64_t seed = 1;

    std::string text() const
    {
        std::string s = "channels " + std::to_string(channels) + " dim " + std::to_string(dim) + " state " + std::to_string(state);
        s += " length " + std::to_string(length) + " copies " + std::to_string(copies) + " batch " + std::to_string(batch);
        return s + " layouts " + std::to_string(static_cast<int>(inputs)) + " " + std::to_string(static_cast<int>(outputs));
    }

    /// Random content in the layout of the inputs.
    template <class E, std::size_t Rank>
    tensor<E, Rank> input(random& numbers, const std::array<index, Rank>& extents, range r) const
    {
        tensor<E, Rank> t(extents, inputs, edge);
        t.fill(numbers, r);
        return t;
    }

    template <class E, std::size_t Rank>
    tensor<E, Rank> output(const std::array<index, Rank>& extents) const
    {
        return {extents, outputs, edge};
    }
};

/// Lengths around the borders of rows, segments and registers, and numbers of poles around those of registers.
inline constexpr index kernel_lengths[] = {0,  1,  2,   3,   15,  16,  17,   31,   33,   48,  63,
                                           64, 65, 127, 128, 129, 500, 1023, 1024, 1025, 2111};
inline constexpr index kernel_states[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65};

/// What a kernel and the exact computation may differ by, relative to the largest value.
template <class T>
constexpr double kernel_budget = std::is_same_v<T, double> ? 2e-13 : 1e-6;

/// The same for sums over a sequence and over channels, in which more cancels.
template <class T>
constexpr double gradient_budget = std::is_same_v<T, double> ? 1e-12 : 4e-6;

/// And for steps, of float states that are rounded once a token.
template <class T>
constexpr double step_budget = std::is_same_v<T, double> ? 1e-13 : 4e-6;

/// Memory of exactly so many bytes, full of a pattern, before a page without access.
class poisoned_workspace {
public:
    poisoned_workspace(std::size_t bytes, int pattern) : memory_(bytes, guard::above), bytes_(bytes)
    {
        std::memset(memory_.data(), pattern, bytes);
    }
    operator workspace() const { return {memory_.data(), bytes_}; }

private:
    raw_memory memory_;
    std::size_t bytes_;
};

}  // namespace ssmkit::testing
