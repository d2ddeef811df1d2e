#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "../common/safetensors.hpp"
#include "config.hpp"
#include "linear.hpp"

namespace mamba_lm {

struct block_weights {
    std::vector<float> norm;       ///< (hidden)
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

struct weights {
    linear embedding;  ///< weight (vocab_padded, hidden)
    linear head;       ///< the same; empty if it is the embedding
    std::vector<block_weights> blocks;
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
        const std::string layer = "backbone.layers." + std::to_string(i) + ".", mixer = layer + "mixer.";
        block_weights b;
        b.norm = read.vector(layer + "norm.weight", {c.hidden});
        b.in_proj = read.layer(mixer + "in_proj", 2 * c.dim, c.hidden, c.bias);
        b.conv = read.vector(mixer + "conv1d.weight", {c.dim, 1, c.width});
        b.conv_bias = read.vector_if(c.conv_bias, mixer + "conv1d.bias", c.dim);
        b.x_proj = read.layer(mixer + "x_proj", c.rank + 2 * c.state, c.dim);
        b.delta_proj = read.layer(mixer + "dt_proj", c.dim, c.rank);
        b.delta_bias = read.vector(mixer + "dt_proj.bias", {c.dim});
        b.A = read.vector(mixer + "A_log", {c.dim, c.state});
        for (float& a : b.A) a = -std::exp(a);
        b.D = read.vector(mixer + "D", {c.dim});
        b.out_proj = read.layer(mixer + "out_proj", c.hidden, c.dim, c.bias);
        w.blocks.push_back(std::move(b));
    }
    w.norm = read.vector("backbone.norm_f.weight", {c.hidden});
    if (!c.tied) w.head = read.layer("lm_head", c.vocab_padded, c.hidden);
    return w;
}

}  // namespace mamba_lm
