#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "../common/safetensors.hpp"
#include "config.hpp"
#include "embedded.hpp"
#include "text.hpp"
#include "weights.hpp"

namespace mamba_lm {

struct checkpoint {
    config sizes;
    weights parameters;
};

/// The model in a folder: config.json and model.safetensors. Throws error or safetensors::error.
inline checkpoint load_checkpoint(const std::filesystem::path& folder)
{
    const std::string name = (folder / "config.json").string();
    const config c = parse_config(read_file(name), name);
    return {c, load_weights(safetensors::file::open(folder / "model.safetensors"), c)};
}

/// The model that comes with the program.
inline checkpoint load_embedded_checkpoint()
{
    const std::span<const std::byte> text = embedded_config(), tensors = embedded_weights();
    const config c = parse_config({reinterpret_cast<const char*>(text.data()), text.size()}, "embedded config.json");
    return {c, load_weights(safetensors::file::from_bytes({tensors.begin(), tensors.end()}, "embedded model.safetensors"), c)};
}

}  // namespace mamba_lm
