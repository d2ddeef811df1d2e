#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include <nlohmann/json.hpp>

#include <ssmkit/view.hpp>

namespace mamba_lm {

using ssmkit::index;

/// A mistake in what the user handed in; the message is one line that names the file or the option.
struct error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// What only a Mamba-1 mixer has.
struct mamba1_sizes {
    index rank = 0;  ///< of the projection that makes delta
};

/// What only a Mamba-2 mixer has; nheads * headdim is dim.
struct mamba2_sizes {
    index nheads = 0, headdim = 0;
    index ngroups = 1;  ///< that B and C are shared by, and channels normalised in
    float delta_min = 0, delta_max = std::numeric_limits<float>::infinity();
    bool norm = true;               ///< between the scan and out_proj; without it the scan is gated
    bool norm_before_gate = false;
    bool D_per_channel = false;     ///< else one value a head
};

/// The sizes of a Mamba language model, in the words of the library.
struct config {
    index vocab = 0;        ///< tokens
    index vocab_padded = 0; ///< rows of the embedding; the logits from vocab on mean nothing
    index layers = 0;
    index hidden = 0;  ///< channels between the blocks
    index dim = 0;     ///< channels inside a block
    index state = 0;   ///< of the scan, for each channel
    index width = 0;   ///< of the convolution
    std::variant<mamba1_sizes, mamba2_sizes> mixer;
    float epsilon = 1e-5f;
    bool bias = false;      ///< in_proj and out_proj have one
    bool conv_bias = true;
    bool tied = true;  ///< the head is the embedding

    /// Channels of the convolution: Mamba-2's passes B and C, too.
    index channels() const
    {
        const auto* const mamba2 = std::get_if<mamba2_sizes>(&mixer);
        return mamba2 ? dim + 2 * mamba2->ngroups * state : dim;
    }
};

namespace detail {

/// One JSON object of a configuration file.
class config_reader {
public:
    config_reader(const nlohmann::json& object, std::string name) : object_(object), name_(std::move(name))
    {
        if (!object_.is_object()) fail("is not a JSON object");
    }

    [[noreturn]] void fail(const std::string& complaint) const { throw error(name_ + ": " + complaint); }

    bool has(const char* key) const { return object_.contains(key) && !object_.at(key).is_null(); }

    config_reader object(const char* key) const
    {
        static const nlohmann::json none = nlohmann::json::object();
        return {has(key) ? object_.at(key) : none, name_ + ": " + key};
    }

    /// A count of something. The bound keeps products of two of them within 64 bits.
    index count(const char* key) const
    {
        constexpr std::uint64_t most = 1u << 30;
        if (!has(key)) fail(std::string(key) + " is missing");
        const nlohmann::json& value = object_.at(key);
        if (!value.is_number_unsigned() || value.get<std::uint64_t>() < 1 || value.get<std::uint64_t>() > most) {
            fail(std::string(key) + " is not an integer from 1 to 2^30");
        }
        return value.get<index>();
    }

    index count_or(const char* key, index otherwise) const { return has(key) ? count(key) : otherwise; }

    /// A count, or "auto" for the one given.
    index count_or_auto(const char* key, index automatic) const
    {
        return has(key) && object_.at(key) == "auto" ? automatic : count_or(key, automatic);
    }

    bool flag_or(const char* key, bool otherwise) const
    {
        if (!has(key)) return otherwise;
        if (!object_.at(key).is_boolean()) fail(std::string(key) + " is neither true nor false");
        return object_.at(key).get<bool>();
    }

    double number_or(const char* key, double otherwise) const
    {
        if (!has(key)) return otherwise;
        if (!object_.at(key).is_number()) fail(std::string(key) + " is not a number");
        return object_.at(key).get<double>();
    }

    /// A pair of limits, the upper one perhaps infinite: Infinity, or {"__float__": "Infinity"} as transformers has it.
    std::pair<float, float> limits_or(const char* key, std::pair<float, float> otherwise) const
    {
        if (!has(key)) return otherwise;
        static const nlohmann::json infinity = {{"__float__", "Infinity"}}, word = "\u221e";  // see without_bare_infinities
        const nlohmann::json& pair = object_.at(key);
        const auto limit = [&](std::size_t i) {
            if (pair[i] == infinity || pair[i] == word) return std::numeric_limits<float>::infinity();
            if (!pair[i].is_number()) fail(std::string(key) + " is not a pair of numbers");
            return static_cast<float>(pair[i].get<double>());
        };
        if (!pair.is_array() || pair.size() != 2) fail(std::string(key) + " is not a pair of numbers");
        const std::pair limits(limit(0), limit(1));
        if (!(limits.first <= limits.second) || !std::isfinite(limits.first)) {
            fail(std::string(key) + " does not ascend from a finite number");
        }
        return limits;
    }

    /// For what this program knows only one value of.
    void expect(const char* key, const nlohmann::json& only) const
    {
        if (has(key) && object_.at(key) != only) {
            fail(std::string(key) + " is not " + only.dump() + ", which is all that this program knows");
        }
    }

    bool is(const char* key, const char* word) const { return has(key) && object_.at(key) == word; }

    void expect_one_of(const char* key, std::pair<const char*, const char*> words) const
    {
        if (has(key) && !is(key, words.first) && !is(key, words.second)) {
            fail(std::string(key) + " is neither \"" + words.first + "\" nor \"" + words.second +
                 "\", which is all that this program knows");
        }
    }

private:
    const nlohmann::json& object_;
    std::string name_;
};

/// Python writes an infinite number as a bare word, which JSON does not know: a string in its place, as long as the word, so
/// that positions stay what they are.
inline std::string without_bare_infinities(std::string text)
{
    constexpr std::string_view word = "Infinity", escape = R"("\u221e")";
    static_assert(word.size() == escape.size());
    bool quoted = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '"') quoted = !quoted;
        if (quoted && text[i] == '\\') ++i;
        if (!quoted && std::string_view(text).substr(i, word.size()) == word) {
            text.replace(i, word.size(), escape);
            i += word.size() - 1;
        }
    }
    return text;
}

inline index product(const config_reader& file, const char* what, index a, index b)
{
    if (a * b > (index(1) << 30)) file.fail(std::string(what) + " is above 2^30");
    return a * b;
}

/// As transformers writes it.
inline void read_huggingface(const config_reader& file, config& c)
{
    file.expect("hidden_act", "silu");
    c.hidden = file.count("hidden_size");
    c.width = file.count_or("conv_kernel", 4);
    c.layers = file.count("num_hidden_layers");
    c.vocab = c.vocab_padded = file.count("vocab_size");
    c.epsilon = static_cast<float>(file.number_or("layer_norm_epsilon", 1e-5));
    c.bias = file.flag_or("use_bias", false);
    c.conv_bias = file.flag_or("use_conv_bias", true);
    const index expanded = product(file, "expand times hidden_size", c.hidden, file.count_or("expand", 2));
    if (!file.is("model_type", "mamba2")) {
        c.dim = file.count_or("intermediate_size", expanded);
        c.state = file.count_or("state_size", 16);
        c.mixer = mamba1_sizes{.rank = file.count_or_auto("time_step_rank", (c.hidden + 15) / 16)};
        c.tied = file.flag_or("tie_word_embeddings", true);
        return;
    }
    // transformers heeds neither rms_norm nor norm_before_gate, which some files have: the norm is there, after the gate. Where
    // n_groups > 1, its code without kernels normalises over all channels at once (huggingface/transformers #40861); here it is
    // over each group, as the models were trained with the authors' kernels.
    const auto [least, most] = file.limits_or("time_step_limit", {0, std::numeric_limits<float>::infinity()});
    const mamba2_sizes sizes{.nheads = file.count_or("num_heads", 128),
                             .headdim = file.count_or("head_dim", 64),
                             .ngroups = file.count_or("n_groups", 8),
                             .delta_min = least,
                             .delta_max = most};
    c.dim = expanded;
    c.state = file.count_or("state_size", 128);
    c.mixer = sizes;
    c.tied = file.flag_or("tie_word_embeddings", false);
    if (product(file, "num_heads times head_dim", sizes.nheads, sizes.headdim) != expanded) {
        file.fail("num_heads times head_dim is " + std::to_string(sizes.nheads * sizes.headdim) +
                  ", but expand times hidden_size is " + std::to_string(expanded));
    }
    if (sizes.nheads % sizes.ngroups != 0) file.fail("n_groups does not divide num_heads");
}

/// As the authors' release has it.
inline void read_released(const config_reader& file, config& c)
{
    const config_reader block = file.object("ssm_cfg");
    file.expect("rms_norm", true);
    file.expect("d_intermediate", 0);
    file.expect("attn_layer_idx", nlohmann::json::array());
    c.hidden = file.count("d_model");
    c.dim = product(file, "expand times d_model", c.hidden, block.count_or("expand", 2));
    c.width = block.count_or("d_conv", 4);
    c.layers = file.count("n_layer");
    c.vocab = file.count("vocab_size");
    const index multiple = file.count_or("pad_vocab_size_multiple", 8);
    c.vocab_padded = (c.vocab + multiple - 1) / multiple * multiple;
    c.bias = block.flag_or("bias", false);
    c.conv_bias = block.flag_or("conv_bias", true);
    c.tied = file.flag_or("tie_embeddings", true);
    if (!block.is("layer", "Mamba2")) {
        block.expect_one_of("layer", {"Mamba1", "Mamba2"});
        c.state = block.count_or("d_state", 16);
        c.mixer = mamba1_sizes{.rank = block.count_or_auto("dt_rank", (c.hidden + 15) / 16)};
        return;
    }
    block.expect("d_ssm", c.dim);
    const index headdim = block.count_or("headdim", 64), ngroups = block.count_or("ngroups", 1);
    if (c.dim % headdim != 0) block.fail("headdim does not divide expand times d_model, " + std::to_string(c.dim));
    const index nheads = c.dim / headdim;
    if (nheads % ngroups != 0) block.fail("ngroups does not divide the number of heads, " + std::to_string(nheads));
    const auto [least, most] = block.limits_or("dt_limit", {0, std::numeric_limits<float>::infinity()});
    c.state = block.count_or("d_state", 128);
    c.mixer = mamba2_sizes{.nheads = nheads,
                           .headdim = headdim,
                           .ngroups = ngroups,
                           .delta_min = least,
                           .delta_max = most,
                           .norm = block.flag_or("rmsnorm", true),
                           .norm_before_gate = block.flag_or("norm_before_gate", false),
                           .D_per_channel = block.flag_or("D_has_hdim", false)};
}

}  // namespace detail

/// Reads a config.json, as Hugging Face's transformers writes it for Mamba and Mamba-2 (hidden_size ...) or as the authors'
/// release has it (d_model ...). `name` stands for the file in messages. Keys about training are ignored; so are
/// residual_in_fp32, since all arithmetic here is float32, and chunk_size, which changes rounding only.
inline config parse_config(std::string_view text, const std::string& name)
{
    if (text.find('\0') != text.npos) throw error(name + ": not valid JSON: it holds a zero byte");  // not seen by parse
    nlohmann::json json;
    try {
        json = nlohmann::json::parse(detail::without_bare_infinities(std::string(text)));
    } catch (const nlohmann::json::parse_error& e) {
        throw error(name + ": not valid JSON at byte " + std::to_string(e.byte));
    } catch (const nlohmann::json::out_of_range&) {  // found by fuzzing: 6e666
        throw error(name + ": not valid JSON: it holds a number beyond double");
    }
    const detail::config_reader file(json, name);
    config c;
    file.expect_one_of("model_type", {"mamba", "mamba2"});
    if (file.has("hidden_size")) {
        detail::read_huggingface(file, c);
    } else if (file.has("d_model")) {
        detail::read_released(file, c);
    } else {
        file.fail("hidden_size is missing");
    }
    if (c.channels() > (index(1) << 31)) file.fail("the convolution's channels, those of B and C among them, are above 2^31");
    if (!(c.epsilon > 0) || !std::isfinite(c.epsilon)) file.fail("layer_norm_epsilon is not above 0");
    return c;
}

}  // namespace mamba_lm
