#include "allocation_count.hpp"
#include "catch.hpp"
#include "operations/operations.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include <ssmkit/element.hpp>
#include <ssmkit/execution.hpp>

#include "../examples/common/mamba2_block.hpp"
#include "../examples/common/safetensors.hpp"
#include "../examples/mamba_lm/checkpoint.hpp"
#include "../examples/mamba_lm/model.hpp"
#include "../examples/mamba_lm/random_weights.hpp"
#include "../examples/mamba_lm/sampler.hpp"
#include "../examples/mamba_lm/score.hpp"
#include "../examples/mamba_lm/text.hpp"
#include "safetensors_bytes.hpp"

namespace mamba_lm {
namespace {

std::string folder(const std::string& name) { return SSMKIT_SOURCE_DIR "/examples/mamba_lm/models/" + name; }

/// A trained model, and what the authors of transformers compute with it in float64.
struct trained {
    explicit trained(const std::string& name) : name(name) {}

    std::string name;
    checkpoint files = load_checkpoint(folder(name));
    safetensors::file golden = safetensors::file::open(folder(name) + "/golden.safetensors");
    std::vector<index> text = golden.at("input_ids").to<index>();
    std::vector<double> logits = golden.at("logits").to<double>();  // (text, vocab)
    ssmkit::threads pool{1};

    model start() { return {files.sizes, files.parameters, pool}; }

    /// Largest difference to the golden logits after `token`.
    double error(std::size_t token, std::span<const float> computed) const
    {
        double worst = 0;
        for (std::size_t i = 0; i < computed.size(); ++i) {
            const double difference = std::abs(computed[i] - logits.at(token * computed.size() + i));
            worst = difference <= worst ? worst : difference;  // a NaN stays
        }
        return worst;
    }
};

trained& lm_of(const std::string& name)
{
    static std::map<std::string, trained> once;
    return once.try_emplace(name, name).first->second;
}

/// One model after the other: the test case that calls this runs once for each.
trained& each_lm() { return lm_of(GENERATE(as<std::string>(), "mamba-bytes", "mamba2-bytes")); }

constexpr double tolerance = 2e-4;

std::span<const float> row(const ssmkit::view<const float, 2>& logits, index i)
{
    return {logits.pointer(i), static_cast<std::size_t>(logits.extent(1))};
}

/// What the error says that f() throws.
template <class F>
std::string message_of(F&& f)
{
    try {
        f();
    } catch (const std::exception& e) {
        return e.what();
    }
    FAIL("nothing was refused");
    return {};
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

// ---- The model -------------------------------------------------------------------------------------------------------

TEST_CASE("mamba_lm: a prefill gives the golden logits after every token")
{
    trained& lm = each_lm();
    CAPTURE(lm.name);
    model m = lm.start();
    const auto logits = m.logits(m.read(lm.text));
    REQUIRE(logits.extent(0) == static_cast<index>(lm.text.size()));
    REQUIRE(logits.extent(1) == 256);
    for (std::size_t t = 0; t < lm.text.size(); ++t) {
        CAPTURE(t);
        REQUIRE(lm.error(t, row(logits, static_cast<index>(t))) < tolerance);
    }
}

TEST_CASE("mamba_lm: reading token by token gives the golden logits after every token")
{
    trained& lm = each_lm();
    CAPTURE(lm.name);
    model m = lm.start();
    for (std::size_t t = 0; t < lm.text.size(); ++t) {
        CAPTURE(t);
        REQUIRE(lm.error(t, m.next({&lm.text[t], 1})) < tolerance);
    }
}

TEST_CASE("mamba_lm: the greedy continuation is the golden one, byte for byte")
{
    trained& lm = each_lm();
    CAPTURE(lm.name);
    const auto expected = lm.golden.at("greedy_ids").to<index>();
    REQUIRE(expected.size() == lm.text.size() + 200);
    model m = lm.start();
    sampler choose({}, 256);
    std::vector<index> text = lm.text;
    std::span<const float> logits = m.next(text);
    for (int i = 0; i < 200; ++i) {
        text.push_back(choose(logits));
        logits = m.next({&text.back(), 1});
    }
    CHECK(text == expected);
}

TEST_CASE("mamba_lm: cutting the prompt anywhere and reading on changes nothing")
{
    trained& lm = each_lm();
    CAPTURE(lm.name);
    const std::span<const index> text = lm.text;
    const std::size_t last = text.size() - 1;
    for (const std::size_t cut : {1, 2, 3, 4, 5, 31, 63, 64, 65, 128, 255, 298, 299}) {
        CAPTURE(cut);
        model m = lm.start();
        CHECK(lm.error(cut - 1, m.next(text.first(cut))) < tolerance);
        CHECK(lm.error(last, m.next(text.subspan(cut))) < tolerance);
    }
    model m = lm.start();  // pieces and single tokens in turn
    for (std::size_t first = 0, length = 1; first < text.size(); first += length, length = length == 1 ? 7 : 1) {
        length = std::min(length, text.size() - first);
        CAPTURE(first);
        REQUIRE(lm.error(first + length - 1, m.next(text.subspan(first, length))) < tolerance);
    }
}

TEST_CASE("mamba_lm: a copy of the state is a point to come back to")
{
    trained& lm = each_lm();
    CAPTURE(lm.name);
    const std::span<const index> text = lm.text;
    model m = lm.start();
    m.next(text.first(100));
    const state after_100 = m.memory();
    const auto read_on = [&] {
        const std::span<const float> logits = m.next(text.subspan(100, 50));
        return std::vector<float>(logits.begin(), logits.end());
    };
    const std::vector<float> once = read_on();
    m.next(text.first(20));
    m.restore(after_100);
    CHECK(read_on() == once);
}

TEST_CASE("mamba_lm: the number of threads does not change a bit")
{
    trained& lm = each_lm();
    CAPTURE(lm.name);
    const auto run = [&](std::size_t count) {
        ssmkit::threads pool(count);
        model m(lm.files.sizes, lm.files.parameters, pool);
        const auto logits = m.logits(m.read(std::span(lm.text).first(150)));
        std::vector<float> all(logits.pointer(0), logits.pointer(0) + 150 * 256);
        for (std::size_t t = 150; t < 160; ++t) {
            const std::span<const float> next = m.next({&lm.text[t], 1});
            all.insert(all.end(), next.begin(), next.end());
        }
        return all;
    };
    const std::vector<float> one = run(1);
    CHECK(run(2) == one);
    CHECK(run(3) == one);
}

TEST_CASE("mamba_lm: decoding takes nothing from the heap after its first token")
{
    trained& lm = each_lm();
    CAPTURE(lm.name);
    model m = lm.start();
    sampler choose({.temperature = 0.8, .top_k = 40, .top_p = 0.95, .seed = 1}, 256);
    std::span<const float> logits = m.next(std::span(lm.text).first(20));
    index token = choose(logits);
    logits = m.next({&token, 1});  // the buffers shrink from a prompt to a token
    const std::size_t blocks = ssmkit::testing::allocations_during([&] {
        for (int i = 0; i < 10; ++i) {
            token = choose(logits);
            logits = m.next({&token, 1});
        }
    });
    CHECK(blocks == 0);
}

TEST_CASE("mamba_lm: the bits per byte of a known text are the golden ones")
{
    trained& lm = each_lm();
    CAPTURE(lm.name);
    model m = lm.start();
    std::size_t done = 0;
    const double bits = bits_per_token(m, lm.text, [&](std::size_t n) { done = n; });
    const double golden = std::stod(lm.golden.metadata().at("mean_nll_nats")) / std::log(2.0);
    CHECK(std::abs(bits - golden) < 1e-5);
    CHECK(done == lm.text.size() - 1);
}

TEST_CASE("mamba_lm: a text scored in pieces costs what it costs byte by byte")
{
    trained& lm = each_lm();
    CAPTURE(lm.name);
    constexpr std::size_t least = SSMKIT_SAMPLED_TESTS ? 1100 : 2500;  // a piece, or two, and a bit
    std::vector<index> text;
    while (text.size() < least) text.insert(text.end(), lm.text.begin(), lm.text.end());
    model pieces = lm.start(), steps = lm.start();
    double bits = 0;
    for (std::size_t t = 0; t + 1 < text.size(); ++t) {
        const std::span<const float> logits = steps.next({&text[t], 1});
        bits += surprise({logits.data(), 256}, text[t + 1]);
    }
    const double whole = bits_per_token(pieces, text, [](std::size_t) {});
    CHECK(std::abs(whole - bits / static_cast<double>(text.size() - 1)) < 1e-5);
}

TEST_CASE("mamba_lm: a checkpoint in the authors' own format, with a padded vocabulary, gives its golden logits")
{
    const std::string name = GENERATE(as<std::string>(), "lm_mamba1", "lm_mamba2");
    CAPTURE(name);
    const safetensors::file file = safetensors::file::open(SSMKIT_SOURCE_DIR "/tests/golden/mamba/" + name + ".safetensors");
    const auto flags = nlohmann::json::parse(file.metadata().at("flags"));
    const config c = parse_config(flags.at("config").get<std::string>(), name);
    REQUIRE(c.vocab == 29);
    REQUIRE(c.vocab_padded == 32);
    const weights w = load_weights(file, c);
    const auto tokens = file.at("input_ids").to<index>();     // (batch, length)
    const auto expected = file.at("logits").to<double>();     // (batch, length, vocab_padded)
    const std::size_t length = static_cast<std::size_t>(file.at("input_ids").shape.at(1));
    const std::size_t prefill = flags.at("prefill").get<std::size_t>();
    ssmkit::threads pool(1);
    const auto largest = std::abs(*std::max_element(expected.begin(), expected.end(),
                                                    [](double a, double b) { return std::abs(a) < std::abs(b); }));
    for (std::size_t b = 0; b < tokens.size() / length; ++b) {
        model m(c, w, pool);
        const auto check = [&](std::size_t t, std::span<const float> logits) {
            REQUIRE(logits.size() == 29);
            for (std::size_t i = 0; i < logits.size(); ++i) {
                REQUIRE(std::abs(logits[i] - expected.at((b * length + t) * 32 + i)) < 2e-6 * largest);
            }
        };
        const std::span<const index> text = std::span(tokens).subspan(b * length, length);
        const auto logits = m.logits(m.read(text.first(prefill)));
        for (std::size_t t = 0; t < prefill; ++t) check(t, row(logits, static_cast<index>(t)));
        for (std::size_t t = prefill; t < length; ++t) check(t, m.next(text.subspan(t, 1)));
    }
}

namespace {

/// Awkward sizes, biases where there can be some, and a head of its own.
struct untrained {
    config c{.vocab = 7, .vocab_padded = 7, .layers = 2, .hidden = 5, .dim = 12, .state = 3, .width = 1, .mixer = {},
             .bias = true, .tied = false};
    weights w;

    untrained(index width, const std::variant<mamba1_sizes, mamba2_sizes>& mixer)
    {
        c.width = width;
        c.mixer = mixer;
        w = random_weights(c);
        w.head = w.embedding;
        w.head.weight *= -2;
        float value = 0.1f;
        for (layer_weights& layer : w.layers) {
            std::visit([&](auto& m) {
                m.in_proj.bias.assign(static_cast<std::size_t>(m.in_proj.weight.rows()), 0.3f);
                m.out_proj.bias = {1, 2, 3, 4, 5};
                m.conv_bias.clear();
                for (float& d : m.D) d = value += 0.07f;  // a value for each head or channel
            }, layer.mixer);
        }
        for (layer_weights& layer : w.layers) {
            if (auto* const m = std::get_if<mamba2_weights>(&layer.mixer)) {
                for (float& n : m->norm) n = value -= 0.05f;
            }
        }
    }
};

const std::vector<index> some_text{1, 6, 0, 3, 3, 2};

const std::vector<std::variant<mamba1_sizes, mamba2_sizes>> mixers{
    mamba1_sizes{.rank = 2},
    mamba2_sizes{.nheads = 3, .headdim = 4},
    mamba2_sizes{.nheads = 6, .headdim = 2, .ngroups = 3},
    mamba2_sizes{.nheads = 2, .headdim = 6, .ngroups = 2, .norm_before_gate = true},
    mamba2_sizes{.nheads = 4, .headdim = 3, .ngroups = 2, .norm = false},
    mamba2_sizes{.nheads = 1, .headdim = 12, .D_per_channel = true},
    mamba2_sizes{.nheads = 12, .headdim = 1, .delta_min = 0.3f, .delta_max = 0.4f},
    mamba2_sizes{.nheads = 3, .headdim = 4, .delta_max = 0.01f},
};

}  // namespace

TEST_CASE("mamba_lm: biases, a separate head, any width and awkward sizes: prefill and steps agree")
{
    ssmkit::threads pool(1);
    for (std::size_t i = 0; i < mixers.size(); ++i) {
        for (index width = 1; width <= 5; ++width) {
            CAPTURE(i, width);
            const untrained lm(width, mixers[i]);
            model whole(lm.c, lm.w, pool), steps(lm.c, lm.w, pool);
            const auto logits = whole.logits(whole.read(some_text));
            double largest = 0;
            for (std::size_t t = 0; t < some_text.size(); ++t) {
                const std::span<const float> step = steps.next({&some_text[t], 1});
                for (std::size_t k = 0; k < step.size(); ++k) {
                    CHECK(std::abs(step[k] - row(logits, static_cast<index>(t))[k]) < 1e-5);
                    largest = std::max(largest, std::abs(static_cast<double>(step[k])));
                }
            }
            CHECK(largest > 0.1);
        }
    }
}

TEST_CASE("mamba_lm: a Mamba-2 model computes what the block of examples/common computes, whatever its options")
{
    ssmkit::threads pool(1);
    const auto row_of = [](const std::vector<float>& values) -> mamba::row<double> {
        return Eigen::Map<const Eigen::RowVectorXf>(values.data(), static_cast<index>(values.size())).cast<double>();
    };
    const auto normed = [](const mamba::matrix<double>& x) -> mamba::matrix<double> {
        return x.array().colwise() / (x.array().square().rowwise().mean() + 1e-5).sqrt();
    };
    for (std::size_t i = 0; i < mixers.size(); ++i) {
        const auto* const sizes = std::get_if<mamba2_sizes>(&mixers[i]);
        if (!sizes) continue;
        CAPTURE(i);
        const untrained lm(4, mixers[i]);
        mamba::matrix<double> residual(static_cast<index>(some_text.size()), lm.c.hidden);
        for (std::size_t t = 0; t < some_text.size(); ++t) {
            residual.row(static_cast<index>(t)) = lm.w.embedding.weight.row(some_text[t]).cast<double>();
        }
        for (const layer_weights& layer : lm.w.layers) {
            const auto& m = std::get<mamba2_weights>(layer.mixer);
            mamba::mamba2_block_weights<double> block{
                .in_proj_weight = m.in_proj.weight.cast<double>(),
                .in_proj_bias = row_of(m.in_proj.bias),
                .inner = {.conv1d_weight = Eigen::Map<const matrix>(m.conv.data(), lm.c.channels(), 4).cast<double>(),
                          .A = row_of(m.A),
                          .D = row_of(m.D),
                          .delta_bias = row_of(m.delta_bias),
                          .norm_weight = row_of(m.norm),
                          .out_proj_weight = m.out_proj.weight.cast<double>(),
                          .out_proj_bias = row_of(m.out_proj.bias),
                          .headdim = sizes->headdim,
                          .ngroups = sizes->ngroups,
                          .delta_min = static_cast<double>(sizes->delta_min),
                          .delta_max = static_cast<double>(sizes->delta_max),
                          .norm_before_gate = sizes->norm_before_gate}};
            mamba::mamba2_block_activations<double> kept;
            residual += mamba_block(block, normed(residual), 1, ssmkit::testing::operations{.reference = true, .pool = pool}, kept);
        }
        const mamba::matrix<double> expected = normed(residual) * lm.w.head.weight.cast<double>().transpose();
        model m(lm.c, lm.w, pool);
        const auto logits = m.logits(m.read(some_text));
        for (index t = 0; t < logits.extent(0); ++t) {
            for (index k = 0; k < logits.extent(1); ++k) CHECK(std::abs(logits(t, k) - expected(t, k)) < 1e-5);
        }
    }
}

// ---- The checkpoint --------------------------------------------------------------------------------------------------

namespace {

/// The trained model's file with its tensors stored as 16 bits.
template <class Half>
safetensors::file halved(const trained& lm, const char* dtype)
{
    ssmkit::testing::safetensors_writer w;
    const safetensors::file whole = safetensors::file::open(folder(lm.name) + "/model.safetensors");
    for (const auto& [name, t] : whole.tensors()) w.add(name, dtype, t.shape, t.template to<Half>());
    return safetensors::file::from_bytes(w.bytes(), "halved");
}

template <class Half>
void check_halved(trained& lm, const char* dtype)
{
    const config& c = lm.files.sizes;
    const weights w = load_weights(halved<Half>(lm, dtype), c);
    const matrix& exact = lm.files.parameters.embedding.weight;
    for (index i = 0; i < exact.size(); ++i) {
        REQUIRE(w.embedding.weight.data()[i] == static_cast<float>(static_cast<Half>(exact.data()[i])));
    }
    model m(c, w, lm.pool);
    const double bits = bits_per_token(m, lm.text, [](std::size_t) {});
    const double golden = std::stod(lm.golden.metadata().at("mean_nll_nats")) / std::log(2.0);
    CHECK(std::abs(bits - golden) < 0.02);  // what rounding the weights may cost
    CHECK(bits != golden);
}

std::string complaint_about_config(const std::string& text)
{
    return message_of([&] { parse_config(text, "config.json"); });
}

}  // namespace

TEST_CASE("mamba_lm: weights in bfloat16 and float16 are taken at their rounded values")
{
    trained& lm = each_lm();
    CAPTURE(lm.name);
    check_halved<ssmkit::bfloat16>(lm, "BF16");
    check_halved<ssmkit::float16>(lm, "F16");
}

TEST_CASE("mamba_lm: a configuration's defaults are those of the model family")
{
    const config hf =
        parse_config(R"({"hidden_size": 40, "num_hidden_layers": 3, "vocab_size": 50280,
                                   "time_step_rank": "auto", "layer_norm_epsilon": 1e-6})", "config.json");
    CHECK(hf.dim == 80);
    CHECK(std::get<mamba1_sizes>(hf.mixer).rank == 3);
    CHECK(hf.state == 16);
    CHECK(hf.width == 4);
    CHECK(hf.vocab_padded == 50280);
    CHECK(hf.epsilon == 1e-6f);
    CHECK((hf.tied && hf.conv_bias && !hf.bias));
    const config released = parse_config(
        R"({"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {"dt_rank": 7, "expand": 3}})", "config.json");
    CHECK(released.dim == 2304);
    CHECK(std::get<mamba1_sizes>(released.mixer).rank == 7);
    CHECK(released.vocab == 50277);
    CHECK(released.vocab_padded == 50280);
}

TEST_CASE("mamba_lm: a Mamba-2 configuration's defaults are those of the model family")
{
    const config hf = parse_config(R"({"model_type": "mamba2", "hidden_size": 4096, "num_hidden_layers": 3, "vocab_size": 256,
                                       "rms_norm": false, "norm_before_gate": true})", "config.json");
    const auto& sizes = std::get<mamba2_sizes>(hf.mixer);
    CHECK(hf.dim == 8192);
    CHECK((sizes.nheads == 128 && sizes.headdim == 64 && sizes.ngroups == 8));
    CHECK((hf.state == 128 && hf.width == 4));
    CHECK(hf.channels() == 8192 + 2 * 8 * 128);
    CHECK((sizes.delta_min == 0 && sizes.delta_max == INFINITY));
    CHECK((sizes.norm && !sizes.norm_before_gate && !sizes.D_per_channel));  // as transformers has it
    CHECK((!hf.tied && hf.conv_bias && !hf.bias));
    const config released = parse_config(R"({"d_model": 768, "n_layer": 24, "vocab_size": 50277, "pad_vocab_size_multiple": 16,
                                             "ssm_cfg": {"layer": "Mamba2"}})", "config.json");
    const auto& own = std::get<mamba2_sizes>(released.mixer);
    CHECK((released.dim == 1536 && released.state == 128 && released.vocab_padded == 50288));
    CHECK((own.nheads == 24 && own.headdim == 64 && own.ngroups == 1));
    CHECK((own.norm && !own.norm_before_gate && !own.D_per_channel && released.tied));
    const config special = parse_config(R"({"d_model": 6, "n_layer": 1, "vocab_size": 8, "ssm_cfg": {"layer": "Mamba2",
        "headdim": 2, "ngroups": 3, "d_state": 5, "d_conv": 3, "d_ssm": 12, "rmsnorm": false, "norm_before_gate": true,
        "D_has_hdim": true, "dt_limit": [0.5, 2]}})", "config.json");
    const auto& s = std::get<mamba2_sizes>(special.mixer);
    CHECK((s.nheads == 6 && s.headdim == 2 && s.ngroups == 3 && special.state == 5 && special.width == 3));
    CHECK((!s.norm && s.norm_before_gate && s.D_per_channel && s.delta_min == 0.5f && s.delta_max == 2));
}

TEST_CASE("mamba_lm: the released Mamba-2 sizes are those of their configuration")
{
    const config expected = parse_config(R"({"d_model": 2560, "n_layer": 64, "vocab_size": 50277, "pad_vocab_size_multiple": 16,
                                             "ssm_cfg": {"layer": "Mamba2"}})", "config.json");
    const config c = released_sizes("mamba2-2.7b");
    const auto &sizes = std::get<mamba2_sizes>(c.mixer), &own = std::get<mamba2_sizes>(expected.mixer);
    CHECK((c.layers == expected.layers && c.hidden == expected.hidden && c.dim == expected.dim && c.width == expected.width));
    CHECK((c.vocab_padded == expected.vocab_padded && c.state == expected.state && c.channels() == expected.channels()));
    CHECK((sizes.nheads == own.nheads && sizes.headdim == own.headdim && sizes.ngroups == own.ngroups && sizes.norm));
    CHECK(contains(message_of([] { released_sizes("mamba2-2.8b"); }), "none of 130m, mamba2-130m, "));
}

TEST_CASE("mamba_lm: a limit may be infinite, as either version of transformers writes it")
{
    const auto with_limit = [](const std::string& limit) {
        return R"({"note \\\" Infinity": "Infinity", "model_type": "mamba2", "hidden_size": 4, "num_hidden_layers": 1,
                   "vocab_size": 256, "num_heads": 2, "head_dim": 4, "n_groups": 1, "time_step_limit": )" + limit + "}";
    };
    const auto limits = [&](const std::string& limit) {
        const auto sizes = std::get<mamba2_sizes>(parse_config(with_limit(limit), "config.json").mixer);
        return std::pair(sizes.delta_min, sizes.delta_max);
    };
    const std::pair expected(0.25f, INFINITY);
    CHECK(limits(R"([0.25, {"__float__": "Infinity"}])") == expected);
    CHECK(limits("[0.25, Infinity]") == expected);
    CHECK(limits("[0, 1]") == std::pair(0.0f, 1.0f));
    CHECK(limits("null") == std::pair(0.0f, INFINITY));
    for (const char* wrong : {"1", "[1]", "[0, 1, 2]", "[1, 0]", R"([0, "many"])", R"([0, {"__float__": "NaN"}])",
                              "[Infinity, Infinity]", "[0, null]"}) {
        CAPTURE(wrong);
        CHECK(contains(complaint_about_config(with_limit(wrong)), "config.json: time_step_limit "));
    }
    CHECK(complaint_about_config("[Infinity, }") == "config.json: not valid JSON at byte 12");  // where it is in the file
    CHECK(contains(complaint_about_config("[0, -Infinity]"), "not valid JSON at byte 6"));
}

TEST_CASE("mamba_lm: a Mamba-2 configuration that contradicts itself is refused")
{
    const auto base = nlohmann::json::parse(R"({"model_type": "mamba2", "hidden_size": 192, "num_hidden_layers": 1,
        "vocab_size": 256, "num_heads": 12, "head_dim": 32, "n_groups": 1, "state_size": 64})");
    CHECK(std::get<mamba2_sizes>(parse_config(base.dump(), "config.json").mixer).nheads == 12);
    const auto complaint = [&](const char* key, const nlohmann::json& value) {
        auto json = base;
        json[key] = value;
        return complaint_about_config(json.dump());
    };
    const std::string sizes = "config.json: num_heads times head_dim is ";
    CHECK(complaint("num_heads", 13) == sizes + "416, but expand times hidden_size is 384");
    CHECK(contains(complaint("head_dim", 31), sizes));
    CHECK(contains(complaint("expand", 3), sizes));
    CHECK(contains(complaint("hidden_size", 191), sizes));
    CHECK(complaint("n_groups", 5) == "config.json: n_groups does not divide num_heads");
    CHECK(contains(complaint("n_groups", 13), "n_groups does not divide"));
    CHECK(contains(complaint("state_size", 0), "config.json: state_size"));
    CHECK(contains(complaint("state_size", 1 << 30), "config.json: the convolution's channels"));
    CHECK(contains(complaint("num_heads", 1 << 30), "above 2^30"));
    CHECK(contains(complaint("hidden_act", "relu"), "hidden_act"));
    const auto released = [](const std::string& block) {
        return complaint_about_config(R"({"d_model": 12, "n_layer": 1, "vocab_size": 8, "ssm_cfg": {"layer": "Mamba2", )" +
                                      block + "}}");
    };
    CHECK(released(R"("headdim": 5)") == "config.json: ssm_cfg: headdim does not divide expand times d_model, 24");
    CHECK(released(R"("headdim": 6, "ngroups": 3)") == "config.json: ssm_cfg: ngroups does not divide the number of heads, 4");
    CHECK(contains(released(R"("headdim": 6, "d_ssm": 12)"), "ssm_cfg: d_ssm is not 24"));
    CHECK(contains(released(R"("headdim": 6, "dt_limit": [1, 0])"), "ssm_cfg: dt_limit"));
}

TEST_CASE("mamba_lm: a configuration that is wrong or of another model is refused by key")
{
    CHECK(complaint_about_config("{") == "config.json: not valid JSON at byte 2");
    CHECK(contains(complaint_about_config(std::string("{}\0", 3)), "zero byte"));
    CHECK(complaint_about_config(R"({"d_model": 6e666})") == "config.json: not valid JSON: it holds a number beyond double");
    CHECK(complaint_about_config("[]") == "config.json: is not a JSON object");
    CHECK(complaint_about_config("{}") == "config.json: hidden_size is missing");
    CHECK(complaint_about_config(R"({"model_type": "mamba2"})") == "config.json: hidden_size is missing");
    CHECK(complaint_about_config(R"({"model_type": "mamba3"})") ==
          "config.json: model_type is neither \"mamba\" nor \"mamba2\", which is all that this program knows");
    const std::map<std::string, std::string> wrong{
        {"hidden_size", "0"}, {"hidden_size", "-1"}, {"num_hidden_layers", "1.5"}, {"vocab_size", "\"256\""},
        {"state_size", "1e30"}, {"conv_kernel", "0"}, {"time_step_rank", "\"none\""}, {"intermediate_size", "4294967296"},
        {"use_bias", "1"}, {"layer_norm_epsilon", "0"}, {"hidden_act", "\"relu\""}, {"tie_word_embeddings", "\"yes\""},
    };
    for (const auto& [key, value] : wrong) {
        CAPTURE(key, value);
        auto json = nlohmann::json::parse(R"({"hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 256})");
        json[key] = nlohmann::json::parse(value);
        const std::string text = complaint_about_config(json.dump());
        CHECK(contains(text, "config.json: " + key));
    }
    for (const char* text : {R"({"d_model": 8, "n_layer": 1, "vocab_size": 256, "ssm_cfg": {"layer": "Mamba3"}})",
                             R"({"d_model": 8, "n_layer": 1, "vocab_size": 256, "d_intermediate": 8})",
                             R"({"d_model": 8, "n_layer": 1, "vocab_size": 256, "attn_layer_idx": [1]})"}) {
        CHECK(contains(complaint_about_config(text), "all that this program knows"));
    }
    CHECK(contains(complaint_about_config(R"({"d_model": 1073741824, "n_layer": 1, "vocab_size": 256})"), "above 2^30"));
}

// ---- The sampler -----------------------------------------------------------------------------------------------------

namespace {

const std::vector<float> some_logits{0.5f, 3, -1, 2.5f, 3, 0};

/// How often each token is drawn.
std::vector<int> draws(const sampling& how, const std::vector<float>& logits, int n)
{
    sampler choose(how, static_cast<index>(logits.size()));
    std::vector<int> count(logits.size());
    for (int i = 0; i < n; ++i) ++count.at(static_cast<std::size_t>(choose(logits)));
    return count;
}

}  // namespace

TEST_CASE("mamba_lm: without temperature the likeliest token is taken, the lowest of equals")
{
    CHECK(draws({}, some_logits, 5)[1] == 5);
    CHECK(draws({.top_k = 3, .top_p = 0.5, .seed = 9}, some_logits, 5)[1] == 5);
}

TEST_CASE("mamba_lm: one candidate is the greedy choice, by top-k, by top-p or by a temperature near zero")
{
    CHECK(draws({.temperature = 1, .top_k = 1}, some_logits, 50)[1] == 50);
    CHECK(draws({.temperature = 1, .top_p = 0}, some_logits, 50)[1] == 50);
    CHECK(draws({.temperature = 1, .top_p = 1e-9}, some_logits, 50)[1] == 50);
    CHECK(draws({.temperature = 1e-300}, {0, 1, 0.999999f}, 50)[1] == 50);
}

TEST_CASE("mamba_lm: tokens are drawn as often as their probabilities say")
{
    const int n = 100000;
    for (const double temperature : {0.7, 1.0, 2.0}) {
        const std::vector<int> count = draws({.temperature = temperature, .seed = 3}, some_logits, n);
        double total = 0;
        for (const float l : some_logits) total += std::exp(l / temperature);
        for (std::size_t i = 0; i < some_logits.size(); ++i) {
            const double p = std::exp(some_logits[i] / temperature) / total;
            CHECK(std::abs(count[i] - n * p) < 5 * std::sqrt(n * p * (1 - p)));  // 5 standard deviations
        }
    }
}

TEST_CASE("mamba_lm: top-k and top-p leave exactly the candidates they promise")
{
    const auto candidates = [](const sampling& how) {
        std::vector<std::size_t> drawn;
        const std::vector<int> count = draws(how, some_logits, 20000);
        for (std::size_t i = 0; i < count.size(); ++i) {
            if (count[i] > 0) drawn.push_back(i);
        }
        return drawn;
    };
    using tokens = std::vector<std::size_t>;
    CHECK(candidates({.temperature = 1}) == tokens{0, 1, 2, 3, 4, 5});
    CHECK(candidates({.temperature = 1, .top_k = 2}) == tokens{1, 4});
    CHECK(candidates({.temperature = 1, .top_k = 3}) == tokens{1, 3, 4});
    CHECK(candidates({.temperature = 1, .top_k = 100}) == tokens{0, 1, 2, 3, 4, 5});
    CHECK(candidates({.temperature = 1, .top_p = 1}) == tokens{0, 1, 2, 3, 4, 5});
    // 1 and 4 have 0.361 each, 3 has 0.219, 0 has 0.030, 5 has 0.018, 2 has 0.0066
    CHECK(candidates({.temperature = 1, .top_p = 0.36}) == tokens{1});
    CHECK(candidates({.temperature = 1, .top_p = 0.37}) == tokens{1, 4});
    CHECK(candidates({.temperature = 1, .top_p = 0.75}) == tokens{1, 3, 4});
    // of the two that top-k leaves, one has the half that top-p asks for
    CHECK(candidates({.temperature = 1, .top_k = 2, .top_p = 0.5}) == tokens{1});
}

TEST_CASE("mamba_lm: a seed repeats its draws, another gives others, and no machine has its own")
{
    const auto sequence = [](std::uint64_t seed) {
        sampler choose({.temperature = 1, .seed = seed}, 6);
        std::vector<index> tokens;
        for (int i = 0; i < 40; ++i) tokens.push_back(choose(some_logits));
        return tokens;
    };
    CHECK(sequence(1) == sequence(1));
    CHECK(sequence(1) != sequence(2));
    // mt19937_64 seeded with 5489 gives 14514284786278117030 first (the standard's default engine): 0.787 of the whole
    CHECK(sequence(5489).front() == 3);
}

TEST_CASE("mamba_lm: logits that are not finite are refused")
{
    for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
        sampler greedy({}, 2), drawing({.temperature = 1}, 2);
        const std::vector<float> logits{1, bad};
        CHECK(contains(message_of([&] { greedy(logits); }), "not finite"));
        CHECK(contains(message_of([&] { drawing(logits); }), "not finite"));
    }
}

// ---- The text --------------------------------------------------------------------------------------------------------

TEST_CASE("mamba_lm: a vocabulary of 256 is bytes, any other is numbers")
{
    const text_format bytes(256), numbers(1000);
    CHECK(bytes.parse("A\n\xff", "prompt") == std::vector<index>{65, 10, 255});
    CHECK(bytes.parse("", "prompt").empty());
    CHECK(numbers.parse(" 7, 999\n0\t", "prompt") == std::vector<index>{7, 999, 0});
    CHECK(numbers.parse("  ", "prompt").empty());
    for (const char* wrong : {"7 x", "1000", "-1", "3.5", "99999999999999999999", "7;8"}) {
        CAPTURE(wrong);
        CHECK(contains(message_of([&] { numbers.parse(wrong, "prompt"); }), "is not a token, a number from 0 to 999"));
    }
}

}  // namespace mamba_lm
