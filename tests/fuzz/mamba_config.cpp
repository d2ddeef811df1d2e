// Fuzzes the reader of config.json: whatever the text, it gives sizes whose products fit into 64 bits, or throws its error.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "../../examples/mamba_lm/config.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    try {
        const mamba_lm::config c = mamba_lm::parse_config({reinterpret_cast<const char*>(data), size}, "fuzz");
        constexpr mamba_lm::index most = mamba_lm::index(1) << 31;
        for (const mamba_lm::index n : {c.vocab, c.vocab_padded, c.layers, c.hidden, c.dim, c.state, c.width, c.rank}) {
            if (n < 1 || n > most) std::abort();
        }
    } catch (const mamba_lm::error&) {
    }
    return 0;
}
