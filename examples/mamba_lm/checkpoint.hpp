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

/// A model that comes with the program; without a name, the first.
inline checkpoint load_embedded_checkpoint(const std::string& name)
{
    std::string known;
    for (const embedded_checkpoint& e : embedded_checkpoints()) {
        known += (known.empty() ? "" : ", ") + std::string(e.name);
        if (!name.empty() && name != e.name) continue;
        const std::string prefix = std::string("embedded ") + e.name + "/";
        const config c = parse_config({reinterpret_cast<const char*>(e.config.data()), e.config.size()}, prefix + "config.json");
        const auto file = safetensors::file::from_bytes({e.weights.begin(), e.weights.end()}, prefix + "model.safetensors");
        return {c, load_weights(file, c)};
    }
    throw error("--embedded: \"" + name + "\" is none of " + known);
}

}  // namespace mamba_lm
