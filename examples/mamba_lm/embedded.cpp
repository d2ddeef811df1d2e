#include "embedded.hpp"

// The assembler copies the files as they are, in a moment; as an array in C++ they would be 20 MB of source. It does so for
// any processor and under either compiler. SSMKIT_SOURCE_DIR is a string literal from the build.
asm(R"(
    .pushsection .rodata
    .balign 64
    .global mamba_lm_config_begin, mamba_lm_config_end, mamba_lm_weights_begin, mamba_lm_weights_end
    .hidden mamba_lm_config_begin, mamba_lm_config_end, mamba_lm_weights_begin, mamba_lm_weights_end
mamba_lm_weights_begin:
    .incbin ")" SSMKIT_SOURCE_DIR R"(/examples/mamba_lm/models/mamba-bytes/model.safetensors"
mamba_lm_weights_end:
mamba_lm_config_begin:
    .incbin ")" SSMKIT_SOURCE_DIR R"(/examples/mamba_lm/models/mamba-bytes/config.json"
mamba_lm_config_end:
    .popsection
)");

extern "C" {
[[gnu::visibility("hidden")]] extern const std::byte mamba_lm_config_begin[], mamba_lm_config_end[];
[[gnu::visibility("hidden")]] extern const std::byte mamba_lm_weights_begin[], mamba_lm_weights_end[];
}

namespace mamba_lm {

std::span<const std::byte> embedded_config() { return {mamba_lm_config_begin, mamba_lm_config_end}; }
std::span<const std::byte> embedded_weights() { return {mamba_lm_weights_begin, mamba_lm_weights_end}; }

}  // namespace mamba_lm
