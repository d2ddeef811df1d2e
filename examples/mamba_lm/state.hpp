#pragma once

#include <cstddef>
#include <vector>

#include "config.hpp"

namespace mamba_lm {

using ssmkit::view;

/// What the model remembers of a text: for every layer the last width - 1 inputs of the convolution and the state of the
/// scan. Its size does not grow with the text. Plain memory: a copy is a point to come back to.
class state {
public:
    explicit state(const config& c)
        : channels_(c.channels()), taps_(c.width - 1), dim_(c.dim), state_(c.state),
          values_(static_cast<std::size_t>(c.layers * layer_size()))
    {
    }

    /// (1, channels of the convolution, width - 1), oldest input first
    view<float, 3> conv(index layer) { return {values_.data() + layer * layer_size(), 1, channels_, taps_}; }

    /// (1, dim, state), where Mamba-2's heads are headdim channels each
    view<float, 3> scan(index layer) { return {values_.data() + layer * layer_size() + channels_ * taps_, 1, dim_, state_}; }

private:
    index layer_size() const { return channels_ * taps_ + dim_ * state_; }

    index channels_, taps_, dim_, state_;
    std::vector<float> values_;
};

}  // namespace mamba_lm
