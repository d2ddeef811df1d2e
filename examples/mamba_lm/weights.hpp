#pragma once

#include <cmath>
#include <string>
#include <variant>
#include <vector>

#include "../common/safetensors.hpp"
#include "config.hpp"
#include "linear.hpp"

namespace mamba_lm {

struct mamba1_weights {
    linear in_proj;                ///< hidden to 2 dim: x, then the gate z
    std::vector<float> conv;       ///< (dim, width)
    std::vector<float> conv_bias;  ///< (dim), or empty
    linear x_proj;                 ///< dim to rank + 2 state: delta's input, B, C
    linear delta_proj;             ///< rank to dim; its bias is delta_bias, which the scan adds
    std::vector<float> delta_bias; ///< (dim)
    std::vector<float> A;          ///< (dim, state), < 0
    std::vector<float> D;          ///< (dim)
    linear out_proj;               ///< dim to hidden
};

struct mamba2_weights {
    linear in_proj;                ///< hidden to 2 dim + 2 ngroups state + nheads: the gate z, then x, B, C, then delta
    std::vector<float> conv;       ///< (dim + 2 ngroups state, width)
    std::vector<float> conv_bias;  ///< (dim + 2 ngroups state), or empty
    std::vector<float> delta_bias; ///< (nheads)
    std::vector<float> A;          ///< (nheads), < 0
    std::vector<float> D;          ///< (nheads) or (dim)
    std::vector<float> norm;       ///< (dim), or empty
    linear out_proj;               ///< dim to hidden
};

struct layer_weights {
    std::vector<float> norm;  ///< (hidden)
    std::variant<mamba1_weights, mamba2_weights> mixer;
};

struct weights {
    linear embedding;  ///< weight (vocab_padded, hidden)
    linear head;       ///< the same; empty if it is the embedding
    std::vector<layer_weights> layers;
    std::vector<float> norm;  ///< (hidden)

    const linear& output() const { return head.weight.size() ? head : embedding; }
};

namespace detail {

/// Takes tensors out of a checkpoint, in float32 whatever they are stored in.
class weight_reader {
public:
    explicit weight_reader(const safetensors::file& file) : file_(file) {}

    std::vector<float> vector(const std::string& name, const std::vector<std::int64_t>& shape) const
    {
        using safetensors::dtype;
        const safetensors::tensor& t = file_.at(name);
        if (t.shape != shape) {
            file_.fail(name, "has shape " + safetensors::text_of(t.shape) + ", the configuration asks for " +
                                 safetensors::text_of(shape));
        }
        if (t.type != dtype::f32 && t.type != dtype::bf16 && t.type != dtype::f16) {
            file_.fail(name, std::string("has dtype ") + safetensors::name_of(t.type) + ", expected F32, BF16 or F16");
        }
        std::vector<float> values = t.to<float>();
        for (std::size_t i = 0; i < values.size(); ++i) {
            if (!std::isfinite(values[i])) {
                file_.fail(name, std::string("holds ") + (std::isnan(values[i]) ? "a NaN" : "an infinity") +
                                     " at element " + std::to_string(i));
            }
        }
        return values;
    }

    std::vector<float> vector_if(bool wanted, const std::string& name, index size) const
    {
        return wanted ? vector(name, {size}) : std::vector<float>{};
    }

    linear layer(const std::string& name, index out, index in, bool bias = false) const
    {
        const std::vector<float> values = vector(name + ".weight", {out, in});
        linear l;
        l.weight = Eigen::Map<const matrix>(values.data(), out, in);
        l.bias = vector_if(bias, name + ".bias", out);
        return l;
    }

private:
    const safetensors::file& file_;
};

/// A = -exp(A_log).
inline std::vector<float> rates(std::vector<float> A_log)
{
    for (float& a : A_log) a = -std::exp(a);
    return A_log;
}

inline mamba1_weights load_mixer(const weight_reader& read, const std::string& name, const config& c, const mamba1_sizes& sizes)
{
    return {.in_proj = read.layer(name + "in_proj", 2 * c.dim, c.hidden, c.bias),
            .conv = read.vector(name + "conv1d.weight", {c.dim, 1, c.width}),
            .conv_bias = read.vector_if(c.conv_bias, name + "conv1d.bias", c.dim),
            .x_proj = read.layer(name + "x_proj", sizes.rank + 2 * c.state, c.dim),
            .delta_proj = read.layer(name + "dt_proj", c.dim, sizes.rank),
            .delta_bias = read.vector(name + "dt_proj.bias", {c.dim}),
            .A = rates(read.vector(name + "A_log", {c.dim, c.state})),
            .D = read.vector(name + "D", {c.dim}),
            .out_proj = read.layer(name + "out_proj", c.hidden, c.dim, c.bias)};
}

inline mamba2_weights load_mixer(const weight_reader& read, const std::string& name, const config& c, const mamba2_sizes& sizes)
{
    return {.in_proj = read.layer(name + "in_proj", c.dim + c.channels() + sizes.nheads, c.hidden, c.bias),
            .conv = read.vector(name + "conv1d.weight", {c.channels(), 1, c.width}),
            .conv_bias = read.vector_if(c.conv_bias, name + "conv1d.bias", c.channels()),
            .delta_bias = read.vector(name + "dt_bias", {sizes.nheads}),
            .A = rates(read.vector(name + "A_log", {sizes.nheads})),
            .D = read.vector(name + "D", {sizes.D_per_channel ? c.dim : sizes.nheads}),
            .norm = read.vector_if(sizes.norm, name + "norm.weight", c.dim),
            .out_proj = read.layer(name + "out_proj", c.hidden, c.dim, c.bias)};
}

}  // namespace detail

/// Takes the model's tensors out of a checkpoint: float32, bfloat16 or float16, named as by Hugging Face or by the authors'
/// release, which differ in the embedding only. Throws safetensors::error, naming file and tensor, if one is missing, does
/// not fit the configuration or holds a NaN or an infinity.
inline weights load_weights(const safetensors::file& file, const config& c)
{
    const detail::weight_reader read(file);
    weights w;
    const bool released = file.find("backbone.embedding.weight") != nullptr;
    w.embedding = read.layer(released ? "backbone.embedding" : "backbone.embeddings", c.vocab_padded, c.hidden);
    for (index i = 0; i < c.layers; ++i) {
        const std::string name = "backbone.layers." + std::to_string(i) + ".";
        layer_weights& layer = w.layers.emplace_back();
        layer.norm = read.vector(name + "norm.weight", {c.hidden});
        std::visit([&](const auto& sizes) { layer.mixer = detail::load_mixer(read, name + "mixer.", c, sizes); }, c.mixer);
    }
    w.norm = read.vector("backbone.norm_f.weight", {c.hidden});
    if (!c.tied) w.head = read.layer("lm_head", c.vocab_padded, c.hidden);
    return w;
}

}  // namespace mamba_lm
