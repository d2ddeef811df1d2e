#pragma once

#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include <ssmkit/view.hpp>

namespace mamba_lm {

using ssmkit::index;

/// A mistake in what the user handed in; the message is one line that names the file or the option.
struct error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// The sizes of a Mamba-1 language model, in the words of the library.
struct config {
    index vocab = 0;        ///< tokens
    index vocab_padded = 0; ///< rows of the embedding; the logits from vocab on mean nothing
    index layers = 0;
    index hidden = 0;  ///< channels between the blocks
    index dim = 0;     ///< channels inside a block
    index state = 0;   ///< of the scan, for each channel
    index width = 0;   ///< of the convolution
    index rank = 0;    ///< of the projection that makes delta
    float epsilon = 1e-5f;
    bool bias = false;      ///< in_proj and out_proj have one
    bool conv_bias = true;
    bool tied = true;  ///< the head is the embedding
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

    /// For what this program knows only one value of.
    void expect(const char* key, const nlohmann::json& only) const
    {
        if (has(key) && object_.at(key) != only) {
            fail(std::string(key) + " is not " + only.dump() + ", which is all that this program knows");
        }
    }

private:
    const nlohmann::json& object_;
    std::string name_;
};

}  // namespace detail

/// Reads a config.json, as Hugging Face's transformers writes it for Mamba (hidden_size ...) or as the authors' release has
/// it (d_model ...). `name` stands for the file in messages. Keys about training are ignored; so is residual_in_fp32, since
/// all arithmetic here is float32.
inline config parse_config(std::string_view text, const std::string& name)
{
    if (text.find('\0') != text.npos) throw error(name + ": not valid JSON: it holds a zero byte");  // not seen by parse
    nlohmann::json json;
    try {
        json = nlohmann::json::parse(text);
    } catch (const nlohmann::json::parse_error& e) {
        throw error(name + ": not valid JSON at byte " + std::to_string(e.byte));
    } catch (const nlohmann::json::out_of_range&) {  // found by fuzzing: 6e666
        throw error(name + ": not valid JSON: it holds a number beyond double");
    }
    const detail::config_reader file(json, name);
    config c;
    file.expect("model_type", "mamba");
    if (file.has("hidden_size")) {
        file.expect("hidden_act", "silu");
        c.hidden = file.count("hidden_size");
        c.dim = file.count_or("intermediate_size", c.hidden * file.count_or("expand", 2));
        c.state = file.count_or("state_size", 16);
        c.width = file.count_or("conv_kernel", 4);
        c.rank = file.count_or_auto("time_step_rank", (c.hidden + 15) / 16);
        c.layers = file.count("num_hidden_layers");
        c.vocab = c.vocab_padded = file.count("vocab_size");
        c.epsilon = static_cast<float>(file.number_or("layer_norm_epsilon", 1e-5));
        c.bias = file.flag_or("use_bias", false);
        c.conv_bias = file.flag_or("use_conv_bias", true);
        c.tied = file.flag_or("tie_word_embeddings", true);
    } else if (file.has("d_model")) {
        const detail::config_reader block = file.object("ssm_cfg");
        block.expect("layer", "Mamba1");
        file.expect("rms_norm", true);
        file.expect("d_intermediate", 0);
        file.expect("attn_layer_idx", nlohmann::json::array());
        c.hidden = file.count("d_model");
        c.dim = c.hidden * block.count_or("expand", 2);
        c.state = block.count_or("d_state", 16);
        c.width = block.count_or("d_conv", 4);
        c.rank = block.count_or_auto("dt_rank", (c.hidden + 15) / 16);
        c.layers = file.count("n_layer");
        c.vocab = file.count("vocab_size");
        const index multiple = file.count_or("pad_vocab_size_multiple", 8);
        c.vocab_padded = (c.vocab + multiple - 1) / multiple * multiple;
        c.bias = block.flag_or("bias", false);
        c.conv_bias = block.flag_or("conv_bias", true);
        c.tied = file.flag_or("tie_embeddings", true);
    } else {
        file.fail("hidden_size is missing");
    }
    if (c.dim > (index(1) << 30)) file.fail("expand times hidden_size is above 2^30");
    if (!(c.epsilon > 0) || !std::isfinite(c.epsilon)) file.fail("layer_norm_epsilon is not above 0");
    return c;
}

}  // namespace mamba_lm
