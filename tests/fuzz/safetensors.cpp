// Fuzzes the reader of checkpoints: whatever the bytes, it either reads them or throws its error.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "../../examples/common/safetensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    const auto* const bytes = reinterpret_cast<const std::byte*>(data);
    try {
        const safetensors::file file = safetensors::file::from_bytes({bytes, bytes + size}, "fuzz");
        std::size_t total = 0;
        for (const auto& [name, tensor] : file.tensors()) {
            total += tensor.data.size();
            if (tensor.to<double>().size() != tensor.size()) std::abort();
        }
        if (total > size) std::abort();  // every byte belongs to one tensor at most
    } catch (const safetensors::error&) {
    }
    return 0;
}
