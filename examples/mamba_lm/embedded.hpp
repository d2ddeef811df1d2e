#pragma once

#include <cstddef>
#include <span>

namespace mamba_lm {

/// The files of a folder of models/, part of the program: it runs wherever it is copied to.
struct embedded_checkpoint {
    const char* name;
    std::span<const std::byte> config, weights;
};

/// All that the program has; the first one is what it takes if it is told nothing.
std::span<const embedded_checkpoint> embedded_checkpoints();

}  // namespace mamba_lm
