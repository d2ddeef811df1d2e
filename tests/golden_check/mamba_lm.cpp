#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "mamba1_weights.hpp"
#include "mamba2_weights.hpp"
#include "matrices.hpp"

namespace {

using golden::hand_in, golden::index, golden::matrix_of, golden::problem, golden::row_of, golden::view;
using mamba::as_view, mamba::matrix, mamba::row;

/// What the configuration says that the tensors do not. Throws for anything that is no language model of Mamba-1 or
/// Mamba-2 blocks.
struct config {
    index layers = 0;
    bool rms_norm = true, mlp = false, tied = true;
    bool mamba2 = false;
    golden::mamba2_options options;

    explicit config(problem& p)
    {
        const auto stored = p.flag<nlohmann::json>("config");
        const nlohmann::json c = stored.is_string() ? nlohmann::json::parse(stored.get<std::string>()) : stored;
        const nlohmann::json ssm = c.value("ssm_cfg", nlohmann::json::object());
        const auto layer = ssm.value("layer", std::string("Mamba1"));
        mamba2 = layer == "Mamba2";
        if (layer != "Mamba1" && !mamba2) throw golden::unknown("the layer " + layer + " is unknown");
        if (!c.value("attn_layer_idx", nlohmann::json::array()).empty()) {
            throw golden::unknown("attention layers are unknown");
        }
        require_known(c, {"d_model", "d_intermediate", "n_layer", "vocab_size", "ssm_cfg", "attn_layer_idx", "attn_cfg",
                          "rms_norm", "residual_in_fp32", "fused_add_norm", "pad_vocab_size_multiple",
                          "tie_embeddings"});
        if (mamba2) {
            require_known(ssm, {"layer", "d_state", "d_conv", "conv_init", "expand", "headdim", "d_ssm", "ngroups",
                                "A_init_range", "D_has_hdim", "rmsnorm", "norm_before_gate", "dt_min", "dt_max",
                                "dt_init_floor", "dt_limit", "bias", "conv_bias", "chunk_size", "use_mem_eff_path"});
            options = {.headdim = ssm.value("headdim", index(64)),
                       .ngroups = ssm.value("ngroups", index(1)),
                       .dt_limit = golden::limits(ssm.value("dt_limit", nlohmann::json{0.0, "inf"})),
                       .norm_before_gate = ssm.value("norm_before_gate", false)};
        } else {
            require_known(ssm, {"layer", "d_state", "d_conv", "expand", "dt_rank", "dt_min", "dt_max", "dt_init",
                                "dt_scale", "dt_init_floor", "conv_bias", "bias", "use_fast_path"});
        }
        layers = c.at("n_layer").get<index>();
        rms_norm = c.value("rms_norm", true);
        mlp = c.value("d_intermediate", 0) > 0;
        tied = c.value("tie_embeddings", true);
    }

private:
    static void require_known(const nlohmann::json& object, const std::set<std::string>& keys)
    {
        for (const auto& entry : object.items()) {
            if (!keys.contains(entry.key())) throw golden::unknown("the configuration " + entry.key() + " is unknown");
        }
    }
};

template <class R>
struct norm_weights {
    row<R> weight, bias;

    norm_weights() = default;
    norm_weights(problem& p, const std::string& name)
        : weight(row_of<R>(p, name + ".weight")), bias(row_of<R>(p, name + ".bias"))
    {
    }

    void hand_in_as(problem& p, const std::string& name) const
    {
        hand_in(p.output<R>("d" + name + ".weight", 0), weight);
        hand_in(p.output<R>("d" + name + ".bias", 0), bias);
    }
};

/// y = fc2 (first half of fc1 x * silu(second half))
template <class R>
struct mlp_weights {
    matrix<R> fc1, fc2;
};

template <class R, class Block>
struct layer_weights {
    norm_weights<R> norm, norm2;
    typename Block::weights mixer;
    mlp_weights<R> mlp;
};

/// What a layer leaves for its backward pass.
template <class R, class Block>
struct layer_activations {
    matrix<R> residual, normed, residual2, normed2, inner;  // inner: of the MLP
    typename Block::activations mixer;
};

template <class R>
auto silu(const matrix<R>& x)
{
    return (x.array() / (R(1) + (-x.array()).exp())).eval();
}

/// Whole model of blocks mamba1<R> or mamba2<R>, forward and backward; the mixer is handed in, so that sequences and steps
/// share the rest. read(prefix) gives a block's weights.
template <class R, class Block, class Run>
class language_model {
public:
    template <class Read>
    language_model(problem& p, const config& c, Read&& read, const Run& run)
        : config_(c), run_(run), eps_(static_cast<R>(p.flag<double>("norm_eps", 1e-5))),
          embedding_(matrix_of<R>(p, "backbone.embedding.weight", 0, 1)), norm_f_(p, "backbone.norm_f"),
          head_(p.has("lm_head.weight") ? matrix_of<R>(p, "lm_head.weight", 0, 1) : embedding_)
    {
        for (index i = 0; i < c.layers; ++i) {
            const std::string name = prefix(i);
            layer_weights<R, Block> layer{.norm = {p, name + "norm"},
                                   .norm2 = {},
                                   .mixer = read(name + "mixer."),
                                   .mlp = {}};
            if (c.mlp) {
                layer.norm2 = {p, name + "norm2"};
                layer.mlp.fc1 = matrix_of<R>(p, name + "mlp.fc1.weight", 0, 1);
                layer.mlp.fc2 = matrix_of<R>(p, name + "mlp.fc2.weight", 0, 1);
            }
            layers_.push_back(layer);
        }
    }

    /// Logits (tokens, vocab); mix(i, x) is what block i makes of x.
    template <class Mix>
    matrix<R> forward(const std::vector<index>& ids, Mix&& mix)
    {
        ids_ = ids;
        kept_.assign(layers_.size(), {});
        matrix<R> hidden(static_cast<index>(ids.size()), embedding_.cols()), residual;
        for (std::size_t t = 0; t < ids.size(); ++t) hidden.row(static_cast<index>(t)) = embedding_.row(ids[t]);
        for (std::size_t i = 0; i < layers_.size(); ++i) {
            const layer_weights<R, Block>& layer = layers_[i];
            layer_activations<R, Block>& kept = kept_[i];
            kept.normed = add_norm(layer.norm, hidden, residual);
            kept.residual = residual;
            hidden = mix(i, kept.normed);
            if (!config_.mlp) continue;
            kept.normed2 = add_norm(layer.norm2, hidden, residual);
            kept.residual2 = residual;
            kept.inner = kept.normed2 * layer.mlp.fc1.transpose();
            hidden = gated(kept.inner) * layer.mlp.fc2.transpose();
        }
        normed_f_ = add_norm(norm_f_, hidden, residual);
        residual_f_ = residual;
        return normed_f_ * head_.transpose();
    }

    matrix<R> forward(const std::vector<index>& ids, index batch)
    {
        return forward(ids, [&](std::size_t i, const matrix<R>& x) {
            return mamba_block(layers_[i].mixer, x, batch, run_, kept_[i].mixer);
        });
    }

    std::vector<typename Block::state> states(index batch) const
    {
        std::vector<typename Block::state> all;
        for (std::size_t i = 0; i < layers_.size(); ++i) {
            all.push_back(state_after(layers_[i].mixer, kept_[i].mixer, batch));
        }
        return all;
    }

    matrix<R> step(const std::vector<index>& ids, std::vector<typename Block::state>& states)
    {
        return forward(ids, [&](std::size_t i, const matrix<R>& x) {
            return mamba_block_step(layers_[i].mixer, x, states[i], run_);
        });
    }

    /// After forward over whole sequences: every gradient that the file holds.
    void backward(problem& p, index batch, const matrix<R>& dlogits)
    {
        const matrix<R> dhead = dlogits.transpose() * normed_f_;
        matrix<R> g = add_norm_backward(p, "backbone.norm_f", norm_f_, residual_f_, dlogits * head_, {});
        for (std::size_t i = layers_.size(); i-- > 0;) {
            const std::string name = prefix(static_cast<index>(i));
            const layer_weights<R, Block>& layer = layers_[i];
            layer_activations<R, Block>& kept = kept_[i];
            if (config_.mlp) {
                hand_in(p.output<R>("d" + name + "mlp.fc2.weight", 0, 1), matrix<R>(g.transpose() * gated(kept.inner)));
                const matrix<R> dinner = gated_backward(kept.inner, g * layer.mlp.fc2);
                hand_in(p.output<R>("d" + name + "mlp.fc1.weight", 0, 1), matrix<R>(dinner.transpose() * kept.normed2));
                g = add_norm_backward(p, name + "norm2", layer.norm2, kept.residual2, dinner * layer.mlp.fc1, g);
            }
            const auto d = mamba_block_backward(layer.mixer, kept.normed, batch, g, run_, kept.mixer);
            golden::hand_in_block_gradients(p, name + "mixer.", d.weights);
            g = add_norm_backward(p, name + "norm", layer.norm, kept.residual, d.hidden, g);
        }
        matrix<R> dembedding = matrix<R>::Zero(embedding_.rows(), embedding_.cols());
        for (std::size_t t = 0; t < ids_.size(); ++t) dembedding.row(ids_[t]) += g.row(static_cast<index>(t));
        if (config_.tied) dembedding += dhead;  // one tensor under two names
        hand_in(p.output<R>("dbackbone.embedding.weight", 0, 1), dembedding);
        hand_in(p.output<R>("dlm_head.weight", 0, 1), config_.tied ? dembedding : dhead);
    }

private:
    static std::string prefix(index layer) { return "backbone.layers." + std::to_string(layer) + "."; }

    /// norm(hidden + residual); residual becomes the sum, of nothing before the first norm.
    matrix<R> add_norm(const norm_weights<R>& weights, const matrix<R>& hidden, matrix<R>& residual) const
    {
        const bool first = residual.size() == 0;
        if (first) residual.resize(hidden.rows(), hidden.cols());
        matrix<R> y(hidden.rows(), hidden.cols());
        run_(ssmkit::add_norm_args<R>{
            .x = as_view(hidden, 1),
            .residual = first ? view<const R, 3>{} : as_view(std::as_const(residual), 1),
            .weight = as_view(weights.weight),
            .bias = mamba::detail::given(weights.bias),
            .eps = eps_,
            .layer = !config_.rms_norm,
            .y = as_view(y, 1),
            .residual_out = as_view(residual, 1),
        });
        return y;
    }

    matrix<R> add_norm_backward(problem& p, const std::string& name, const norm_weights<R>& weights,
                                const matrix<R>& residual, const matrix<R>& dy, const matrix<R>& dresidual_out) const
    {
        matrix<R> g(dy.rows(), dy.cols());
        norm_weights<R> d = weights;  // for the shapes
        run_(ssmkit::add_norm_backward_args<R>{
            .residual_out = as_view(residual, 1),
            .weight = as_view(weights.weight),
            .eps = eps_,
            .layer = !config_.rms_norm,
            .dy = as_view(dy, 1),
            .dresidual_out = dresidual_out.size() ? as_view(dresidual_out, 1) : view<const R, 3>{},
            .dresidual = as_view(g, 1),
            .dweight = as_view(d.weight),
            .dbias = d.bias.size() ? as_view(d.bias) : view<R, 1>{},
        });
        d.hand_in_as(p, name);
        return g;
    }

    static matrix<R> gated(const matrix<R>& inner)
    {
        const index half = inner.cols() / 2;
        return inner.leftCols(half).array() * silu<R>(inner.rightCols(half));
    }

    static matrix<R> gated_backward(const matrix<R>& inner, const matrix<R>& dout)
    {
        const index half = inner.cols() / 2;
        const auto z = inner.rightCols(half).array();
        const auto s = (R(1) / (R(1) + (-z).exp())).eval();
        matrix<R> d(inner.rows(), inner.cols());
        d.leftCols(half) = dout.array() * z * s;
        d.rightCols(half) = dout.array() * inner.leftCols(half).array() * s * (R(1) + z * (R(1) - s));
        return d;
    }

    config config_;
    Run run_;
    R eps_;
    matrix<R> embedding_;
    norm_weights<R> norm_f_;
    matrix<R> head_;
    std::vector<layer_weights<R, Block>> layers_;
    std::vector<layer_activations<R, Block>> kept_;
    std::vector<index> ids_;
    matrix<R> normed_f_, residual_f_;
};

template <class R, class Block, class Read>
void run_model(problem& p, const config& c, Read&& read)
{
    const auto input_ids = p.input<std::int32_t>("input_ids", 0, 1);
    const index batch = input_ids.extent(0), length = input_ids.extent(1);
    const index vocab = p.shape("backbone.embedding.weight").at(0);
    const index prefill = p.flag<index>("prefill", length), steps = p.flag<index>("steps", 0);
    if (prefill < 1 || prefill + steps != length) throw std::runtime_error("prefill + steps is not the length");
    const auto ids = [&](index first, index count) {
        std::vector<index> tokens;
        for (index b = 0; b < batch; ++b) {
            for (index t = first; t < first + count; ++t) {
                const index id = input_ids(b, t);
                if (id < 0 || id >= vocab) throw std::runtime_error("input_ids holds a token beyond the vocabulary");
                tokens.push_back(id);
            }
        }
        return tokens;
    };
    const auto operations = p.operations();
    language_model<R, Block, std::remove_cvref_t<decltype(operations)>> model(p, c, read, operations);
    const auto pieces = p.output<R>("logits", 0, 1, 2);
    hand_in(pieces.slice(1, 0, prefill), model.forward(ids(0, prefill), batch));
    auto states = model.states(batch);
    for (index t = prefill; t < length; ++t) hand_in(pieces.slice(1, t, 1), model.step(ids(t, 1), states));

    hand_in(p.output<R>("logits", 0, 1, 2), model.forward(ids(0, length), batch));
    if (p.has("dlogits")) model.backward(p, batch, golden::tokens_of(p.input<R>("dlogits", 0, 1, 2)));
}

const golden::handler mamba_lm("mamba_lm", []<class T>(golden::element<T>, problem& p) {
    using R = ssmkit::compute_t<T>;  // the composition computes in float and double
    const config c(p);
    if (c.mamba2) {
        const auto read = [&](const std::string& name) { return golden::mamba2_weights<R>(p, name, c.options); };
        run_model<R, golden::mamba2<R>>(p, c, read);
    } else {
        const auto read = [&](const std::string& name) { return golden::mamba1_weights<R>(p, name); };
        run_model<R, golden::mamba1<R>>(p, c, read);
    }
});

}  // namespace
