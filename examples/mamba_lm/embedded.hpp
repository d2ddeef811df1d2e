#pragma once

#include <cstddef>
#include <span>

namespace mamba_lm {

/// The files of models/mamba-bytes, part of the program: it runs wherever it is copied to.
std::span<const std::byte> embedded_config();
std::span<const std::byte> embedded_weights();

}  // namespace mamba_lm
