#include "embedded.hpp"

// The assembler copies the files as they are, in a moment; as an array in C++ they would be 20 MB of source each. It does so for
// any processor and under either compiler. SSMKIT_SOURCE_DIR is a string literal from the build.
asm(R"(
    .macro mamba_lm_embed symbol, model
    .global \symbol\()_config_begin, \symbol\()_config_end, \symbol\()_weights_begin, \symbol\()_weights_end
    .hidden \symbol\()_config_begin, \symbol\()_config_end, \symbol\()_weights_begin, \symbol\()_weights_end
    .balign 64
\symbol\()_weights_begin:
    .incbin ")" SSMKIT_SOURCE_DIR R"(/examples/mamba_lm/models/\model/model.safetensors"
\symbol\()_weights_end:
\symbol\()_config_begin:
    .incbin ")" SSMKIT_SOURCE_DIR R"(/examples/mamba_lm/models/\model/config.json"
\symbol\()_config_end:
    .endm

    .pushsection .rodata
    mamba_lm_embed mamba_bytes, mamba-bytes
    mamba_lm_embed mamba2_bytes, mamba2-bytes
    .popsection
)");

extern "C" {
[[gnu::visibility("hidden")]] extern const std::byte mamba_bytes_config_begin[], mamba_bytes_config_end[];
[[gnu::visibility("hidden")]] extern const std::byte mamba_bytes_weights_begin[], mamba_bytes_weights_end[];
[[gnu::visibility("hidden")]] extern const std::byte mamba2_bytes_config_begin[], mamba2_bytes_config_end[];
[[gnu::visibility("hidden")]] extern const std::byte mamba2_bytes_weights_begin[], mamba2_bytes_weights_end[];
}

namespace mamba_lm {

std::span<const embedded_checkpoint> embedded_checkpoints()
{
    static const embedded_checkpoint all[] = {
        {.name = "mamba-bytes",
         .config = {mamba_bytes_config_begin, mamba_bytes_config_end},
         .weights = {mamba_bytes_weights_begin, mamba_bytes_weights_end}},
        {.name = "mamba2-bytes",
         .config = {mamba2_bytes_config_begin, mamba2_bytes_config_end},
         .weights = {mamba2_bytes_weights_begin, mamba2_bytes_weights_end}},
    };
    return all;
}

}  // namespace mamba_lm
