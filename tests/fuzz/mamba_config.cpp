// Fuzzes the reader of config.json: whatever the text, it gives sizes that fit each other and whose products fit
// into 64 bits, or throws its error.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <string_view>
#include <variant>

#include "../../examples/mamba_lm/config.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    try {
        const mamba_lm::config c = mamba_lm::parse_config({reinterpret_cast<const char*>(data), size}, "fuzz");
        constexpr mamba_lm::index most = mamba_lm::index(1) << 31;
        const auto check = [](std::initializer_list<mamba_lm::index> sizes) {
            for (const mamba_lm::index n : sizes) {
                if (n < 1 || n > most) std::abort();
            }
        };
        check({c.vocab, c.vocab_padded, c.layers, c.hidden, c.dim, c.state, c.width, c.channels()});
        if (const auto* const mamba1 = std::get_if<mamba_lm::mamba1_sizes>(&c.mixer)) check({mamba1->rank});
        if (const auto* const mamba2 = std::get_if<mamba_lm::mamba2_sizes>(&c.mixer)) {
            check({mamba2->nheads, mamba2->headdim, mamba2->ngroups});
            if (mamba2->nheads * mamba2->headdim != c.dim || mamba2->nheads % mamba2->ngroups != 0) std::abort();
            if (!(mamba2->delta_min <= mamba2->delta_max)) std::abort();
        }
    } catch (const mamba_lm::error&) {
    }
    return 0;
}
