// The program as its users meet it: what it prints, where, and with which exit status.

#include "../../../tests/catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "../../../tests/safetensors_bytes.hpp"
#include "../../common/safetensors.hpp"

namespace {

namespace fs = std::filesystem;
using ssmkit::testing::safetensors_writer;

/// A folder that is there until the program ends.
const fs::path& scratch()
{
    struct folder {
        fs::path path = fs::temp_directory_path() / ("mamba_lm_tests_" + std::to_string(getpid()));
        folder() { fs::create_directories(path); }
        ~folder() { fs::remove_all(path); }
    };
    static const folder once;
    return once.path;
}

std::string read(const fs::path& path)
{
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

fs::path write(const std::string& name, const std::string& text)
{
    const fs::path path = scratch() / name;
    std::ofstream(path, std::ios::binary) << text;
    return path;
}

std::string quoted(const std::string& word)
{
    std::string text = "'";
    for (const char c : word) text += c == '\'' ? "'\\''" : std::string(1, c);
    return text + "'";
}

std::string environment(const char* name)
{
    const char* const value = std::getenv(name);
    return value ? value : "";
}

struct outcome {
    int status;
    std::string out, err;
};

/// Runs a shell command line, `%` standing for the program, with an empty standard input unless the line says otherwise.
outcome shell(std::string line, const fs::path& program = environment("MAMBA_LM"))
{
    REQUIRE(!program.empty());
    const fs::path out = scratch() / "out", err = scratch() / "err";
    line.replace(line.find('%'), 1, environment("MAMBA_LM_EMULATOR") + " " + quoted(program.string()));
    const std::string redirected = "{ " + line + " ; } < /dev/null > " + quoted(out.string()) + " 2> " + quoted(err.string());
    const int status = std::system(redirected.c_str());
    REQUIRE(WIFEXITED(status));
    return {WEXITSTATUS(status), read(out), read(err)};
}

outcome run(const std::vector<std::string>& arguments)
{
    std::string line = "%";
    for (const std::string& a : arguments) line += " " + quoted(a);
    return shell(line);
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Exit status 2, nothing on standard output and one line on standard error that has all the parts.
void check_refused(const outcome& o, const std::vector<std::string>& parts)
{
    CAPTURE(o.err);
    CHECK(o.status == 2);
    CHECK(o.out.empty());
    CHECK(o.err.find("mamba_lm: ") == 0);
    CHECK(std::count(o.err.begin(), o.err.end(), '\n') == 1);
    for (const std::string& part : parts) CHECK(contains(o.err, part));
}

const std::string models = SSMKIT_SOURCE_DIR "/examples/mamba_lm/models/";

/// The golden text of a trained model: 300 bytes of prompt, 200 of continuation.
std::string golden_text(const std::string& model = "mamba-bytes")
{
    std::string text;
    for (const int byte : safetensors::file::open(models + model + "/golden.safetensors").at("greedy_ids").to<int>()) {
        text += static_cast<char>(byte);
    }
    REQUIRE(text.size() == 500);
    return text;
}

// ---- A tiny checkpoint to do harm to ---------------------------------------------------------------------------------

struct described {
    std::string dtype = "F32";
    std::vector<std::int64_t> shape;
    std::vector<float> values;
};

struct tiny_model {
    nlohmann::json config = {{"model_type", "mamba"}, {"hidden_size", 4}, {"intermediate_size", 8}, {"state_size", 2},
                             {"conv_kernel", 3}, {"num_hidden_layers", 2}, {"time_step_rank", 1}, {"vocab_size", 10}};
    std::map<std::string, described> tensors;

    tiny_model()
    {
        add("backbone.embeddings.weight", {10, 4});
        for (const std::string layer : {"backbone.layers.0.", "backbone.layers.1."}) {
            add(layer + "norm.weight", {4});
            add(layer + "mixer.in_proj.weight", {16, 4});
            add(layer + "mixer.conv1d.weight", {8, 1, 3});
            add(layer + "mixer.conv1d.bias", {8});
            add(layer + "mixer.x_proj.weight", {5, 8});
            add(layer + "mixer.dt_proj.weight", {8, 1});
            add(layer + "mixer.dt_proj.bias", {8});
            add(layer + "mixer.A_log", {8, 2});
            add(layer + "mixer.D", {8});
            add(layer + "mixer.out_proj.weight", {4, 8});
        }
        add("backbone.norm_f.weight", {4});
    }

    /// The same of Mamba-2: 4 heads of 2 channels in 2 groups.
    static tiny_model mamba2()
    {
        tiny_model m;
        m.config = {{"model_type", "mamba2"}, {"hidden_size", 4}, {"expand", 2}, {"num_heads", 4}, {"head_dim", 2}, {"n_groups", 2},
                    {"state_size", 3}, {"conv_kernel", 3}, {"num_hidden_layers", 2}, {"vocab_size", 10},
                    {"tie_word_embeddings", true}, {"time_step_limit", {0.0, {{"__float__", "Infinity"}}}}};
        for (const std::string layer : {"backbone.layers.0.", "backbone.layers.1."}) {
            for (const char* none : {"x_proj.weight", "dt_proj.weight", "dt_proj.bias"}) m.tensors.erase(layer + "mixer." + none);
            m.add(layer + "mixer.in_proj.weight", {32, 4});
            m.add(layer + "mixer.conv1d.weight", {20, 1, 3});
            m.add(layer + "mixer.conv1d.bias", {20});
            m.add(layer + "mixer.dt_bias", {4});
            m.add(layer + "mixer.A_log", {4});
            m.add(layer + "mixer.D", {4});
            m.add(layer + "mixer.norm.weight", {8});
        }
        return m;
    }

    void add(const std::string& name, const std::vector<std::int64_t>& shape)
    {
        std::int64_t size = 1;
        for (const std::int64_t extent : shape) size *= extent;
        described d{.shape = shape, .values = {}};
        std::minstd_rand generator(static_cast<unsigned>(tensors.size() + 1));
        for (std::int64_t i = 0; i < size; ++i) d.values.push_back(static_cast<float>(generator() % 2001) / 1000 - 1);
        tensors[name] = d;
    }

    std::vector<std::byte> bytes() const
    {
        safetensors_writer w;
        for (const auto& [name, d] : tensors) {
            if (d.dtype == "F32") {
                w.add(name, "F32", d.shape, d.values);
            } else if (d.dtype == "F64") {
                w.add(name, "F64", d.shape, std::vector<double>(d.values.begin(), d.values.end()));
            } else {
                w.add(name, d.dtype.c_str(), d.shape, std::vector<std::int32_t>(d.values.size()));
            }
        }
        return w.bytes();
    }

    /// Writes the checkpoint, with other bytes for its tensors if they are given, and returns its folder.
    fs::path save(const std::vector<std::byte>& file) const
    {
        const fs::path path = scratch() / "tiny";
        fs::create_directories(path);
        write("tiny/config.json", config.dump());
        write("tiny/model.safetensors", {reinterpret_cast<const char*>(file.data()), file.size()});
        return path;
    }
    fs::path save() const { return save(bytes()); }
};

}  // namespace

// ---- What it prints --------------------------------------------------------------------------------------------------

TEST_CASE("mamba_lm: a prompt from a file, standard input or an argument is continued with the golden 200 bytes")
{
    const std::string text = golden_text(), prompt = text.substr(0, 300), continuation = text.substr(300);
    const std::string file = write("prompt", prompt).string();
    for (const outcome& o : {run({"--file", file}), run({prompt}), shell("% --tokens 200 < " + quoted(file)),
                             run({"--model", models + "mamba-bytes", "--file", file}), run({"--threads", "2", prompt}),
                             run({"--embedded", "mamba-bytes", prompt})}) {
        CHECK(o.status == 0);
        CHECK(o.out == continuation);
        CHECK(contains(o.err, "prefill: 300 tokens, "));
        CHECK(contains(o.err, "decode: 200 tokens, "));
        CHECK(contains(o.err, " tokens/s"));
    }
    CHECK(run({"--echo", "-n", "20", prompt}).out == text.substr(0, 320));
    CHECK(run({"-n", "0", prompt}).out.empty());
}

TEST_CASE("mamba_lm: the Mamba-2 model continues its prompt with the golden 200 bytes, embedded or from its folder")
{
    const std::string text = golden_text("mamba2-bytes"), prompt = text.substr(0, 300), continuation = text.substr(300);
    for (const outcome& o : {run({"--embedded", "mamba2-bytes", prompt}), run({"--model", models + "mamba2-bytes", prompt}),
                             run({"--embedded", "mamba2-bytes", "--threads", "2", prompt})}) {
        CHECK(o.status == 0);
        CHECK(o.out == continuation);
        CHECK(contains(o.err, "prefill: 300 tokens, "));
        CHECK(contains(o.err, "decode: 200 tokens, "));
    }
}

TEST_CASE("mamba_lm: the program works wherever it is copied to and called from")
{
    const fs::path copy = scratch() / "elsewhere";
    fs::copy_file(environment("MAMBA_LM"), copy, fs::copy_options::overwrite_existing);
    for (const std::string model : {"mamba-bytes", "mamba2-bytes"}) {
        const outcome o = shell("cd / && % -n 5 --embedded " + model + " 'And God said'", copy);
        CHECK(o.status == 0);
        CHECK(o.out == run({"-n", "5", "--embedded", model, "And God said"}).out);
        CHECK(o.out.size() == 5);
    }
}

TEST_CASE("mamba_lm: a seed repeats a text, and one candidate is the greedy text")
{
    const std::string prompt = "In the beginning";
    const std::string greedy = run({prompt, "-n", "60"}).out;
    CHECK(greedy.size() == 60);
    CHECK(run({prompt, "-n", "60", "--top-k", "1"}).out == greedy);
    CHECK(run({prompt, "-n", "60", "--temperature", "0", "--top-k", "9", "--seed", "4"}).out == greedy);
    const std::string drawn = run({prompt, "-n", "60", "--seed", "4"}).out;
    CHECK(run({prompt, "-n", "60", "--seed", "4", "--temperature", "1"}).out == drawn);
    CHECK(run({prompt, "-n", "60", "--seed", "5"}).out != drawn);
    CHECK(drawn != greedy);
}

TEST_CASE("mamba_lm: --score prints the bits per byte of a file")
{
    for (const std::string model : {"mamba-bytes", "mamba2-bytes"}) {
        const outcome o = run({"--embedded", model, "--score", write("text", golden_text(model).substr(0, 300)).string()});
        CHECK(o.status == 0);
        const auto golden = safetensors::file::open(models + model + "/golden.safetensors").metadata().at("mean_nll_nats");
        const double bits = std::stod(o.out);
        CHECK(std::abs(bits - std::stod(golden) / std::log(2.0)) < 1e-4);
        CHECK(contains(o.out, " bits per byte over 300 bytes\n"));
        CHECK(o.err.find('\r') == std::string::npos);  // no bar where nobody watches
    }
}

TEST_CASE("mamba_lm: another vocabulary than bytes is token numbers in and out")
{
    const std::string tiny = tiny_model().save().string();
    const outcome o = run({"--model", tiny, "-n", "5", "1, 2 9"});
    CHECK(o.status == 0);
    std::istringstream numbers(o.out);
    const std::vector<int> tokens{std::istream_iterator<int>(numbers), {}};
    CHECK(tokens.size() == 5);
    for (const int t : tokens) CHECK((t >= 0 && t < 10));
    CHECK(contains(run({"--model", tiny, "--score", write("tokens", "1 2 3").string()}).out, " bits per token over 3 tokens"));
    check_refused(run({"--model", tiny, "1 10"}), {"the prompt", "\"10\""});
    check_refused(run({"--model", tiny, "--file", write("tokens", "1 x").string()}), {"/tokens", "\"x\""});
}

TEST_CASE("mamba_lm: --help says how to use it")
{
    const outcome o = run({"--help"});
    CHECK(o.status == 0);
    for (const char* option : {"--model", "--embedded", "mamba2-bytes", "--file", "--tokens", "--temperature", "--top-k", "--top-p", "--seed", "--threads",
                               "--score", "--random"}) {
        CHECK(contains(o.out, option));
    }
}

// ---- What it refuses -------------------------------------------------------------------------------------------------

TEST_CASE("mamba_lm: options that make no sense are refused")
{
    check_refused(run({"--nonsense"}), {"--nonsense"});
    check_refused(run({"a", "b"}), {"b"});
    check_refused(run({"a", "--tokens", "-1"}), {"--tokens"});
    check_refused(run({"a", "--tokens", "many"}), {"--tokens"});
    check_refused(run({"a", "--temperature", "-0.1"}), {"--temperature"});
    check_refused(run({"a", "--temperature", "nan"}), {"--temperature"});
    check_refused(run({"a", "--top-p", "1.5"}), {"--top-p"});
    check_refused(run({"a", "--top-p", "nan"}), {"--top-p"});
    check_refused(run({"a", "--top-k", "-2"}), {"--top-k"});
    check_refused(run({"a", "--threads", "0"}), {"--threads"});
    check_refused(run({"a", "--file", "b"}), {"--file", "prompt"});
    check_refused(run({"a", "--score", "b"}), {"--score", "prompt"});
    check_refused(run({"--random", "131m"}), {"131m", "130m"});
    check_refused(run({"--random", "mamba2-131m"}), {"mamba2-131m", "mamba2-130m"});
    check_refused(run({"--embedded", "mamba3-bytes", "a"}), {"--embedded", "mamba3-bytes", "mamba-bytes, mamba2-bytes"});
    check_refused(run({"--embedded", "mamba2-bytes", "--model", "b", "a"}), {"--embedded", "--model"});
    check_refused(run({"--embedded", "mamba2-bytes", "--random", "130m"}), {"--embedded", "--random"});
}

TEST_CASE("mamba_lm: texts that are absent, unreadable or too short are refused by name")
{
    check_refused(run({""}), {"the prompt is empty"});
    check_refused(run({}), {"standard input", "empty"});
    check_refused(run({"--file", "no/such/file"}), {"no/such/file", "No such file"});
    check_refused(run({"--file", "/"}), {"/: cannot be read"});
    check_refused(run({"--file", write("empty", "").string()}), {"/empty", "empty"});
    check_refused(run({"--score", "no/such/file"}), {"no/such/file", "No such file"});
    check_refused(run({"--score", write("short", "a").string()}), {"/short", "fewer than two bytes"});
}

TEST_CASE("mamba_lm: an output that nobody can take is an error")
{
    const outcome o = shell("% -n 3 text > /dev/full");
    CHECK(o.status == 2);
    CHECK(contains(o.err, "standard output"));
}

TEST_CASE("mamba_lm: absent files of a checkpoint are named")
{
    check_refused(run({"--model", "no/such/folder", "1"}), {"no/such/folder/config.json", "No such file"});
    const fs::path tiny = tiny_model().save();
    fs::remove(tiny / "model.safetensors");
    check_refused(run({"--model", tiny.string(), "1"}), {(tiny / "model.safetensors").string(), "no such file"});
    fs::create_directories(tiny / "model.safetensors");
    check_refused(run({"--model", tiny.string(), "1"}), {(tiny / "model.safetensors").string(), "not a regular file"});
    fs::remove(tiny / "model.safetensors");
}

TEST_CASE("mamba_lm: a configuration that is not one is refused and the key named")
{
    const auto refused = [](const std::string& text, const std::vector<std::string>& parts) {
        const fs::path tiny = tiny_model().save();
        write("tiny/config.json", text);
        const outcome o = run({"--model", tiny.string(), "1"});
        check_refused(o, parts);
        check_refused(o, {(tiny / "config.json").string()});
    };
    refused("{\"hidden_size\": ", {"not valid JSON"});
    refused("[1]", {"not a JSON object"});
    refused("{}", {"hidden_size"});
    refused(R"({"model_type": "mamba3"})", {"model_type"});
    refused(R"({"hidden_size": 1e99})", {"hidden_size"});
    refused(R"({"hidden_size": 4, "num_hidden_layers": 0})", {"num_hidden_layers"});
}

TEST_CASE("mamba_lm: a tensor that is missing, misshapen, of the wrong type or not finite is named with its file")
{
    const std::string name = "backbone.layers.1.mixer.x_proj.weight";
    const auto refused = [&](const std::function<void(tiny_model&)>& harm, const std::string& complaint) {
        tiny_model m;
        harm(m);
        const fs::path tiny = m.save();
        check_refused(run({"--model", tiny.string(), "1"}),
                      {(tiny / "model.safetensors").string(), "tensor \"" + name + "\" ", complaint});
    };
    refused([&](tiny_model& m) { m.tensors.erase(name); }, "is missing");
    refused([&](tiny_model& m) { m.tensors[name].shape = {8, 5}; }, "has shape (8, 5), the configuration asks for (5, 8)");
    refused([&](tiny_model& m) { m.tensors[name].shape = {40}; }, "has shape (40)");
    refused([&](tiny_model& m) { m.config["state_size"] = 3; m.add("backbone.layers.0.mixer.x_proj.weight", {7, 8});
                                 m.add("backbone.layers.0.mixer.A_log", {8, 3}); }, "the configuration asks for (7, 8)");
    refused([&](tiny_model& m) { m.tensors[name].dtype = "I32"; }, "has dtype I32");
    refused([&](tiny_model& m) { m.tensors[name].dtype = "F64"; }, "has dtype F64");
    refused([&](tiny_model& m) { m.tensors[name].values[7] = std::numeric_limits<float>::quiet_NaN(); }, "a NaN at element 7");
    refused([&](tiny_model& m) { m.tensors[name].values[0] = -std::numeric_limits<float>::infinity(); }, "an infinity");
}

TEST_CASE("mamba_lm: a Mamba-2 tensor that is missing, misshapen, of the wrong type or not finite is named with its file")
{
    const tiny_model whole = tiny_model::mamba2();
    CHECK(run({"--model", whole.save().string(), "-n", "3", "1 2 3"}).status == 0);
    for (const std::string tensor : {"in_proj.weight", "conv1d.weight", "conv1d.bias", "dt_bias", "A_log", "D", "norm.weight",
                                     "out_proj.weight"}) {
        const std::string name = "backbone.layers.1.mixer." + tensor;
        CAPTURE(name);
        const auto refused = [&](const std::function<void(described&)>& harm, const std::string& complaint) {
            tiny_model m = whole;
            harm(m.tensors.at(name));
            const fs::path tiny = m.save();
            check_refused(run({"--model", tiny.string(), "1"}),
                          {(tiny / "model.safetensors").string(), "tensor \"" + name + "\" ", complaint});
        };
        refused([](described& d) { d.shape.push_back(1); }, "has shape (");
        refused([](described& d) { d.shape[0] *= 2, d.values.resize(2 * d.values.size()); }, "the configuration asks for (");
        refused([](described& d) { d.dtype = "I32"; }, "has dtype I32");
        refused([](described& d) { d.values.back() = std::numeric_limits<float>::quiet_NaN(); }, "a NaN at element ");
        refused([](described& d) { d.values[0] = std::numeric_limits<float>::infinity(); }, "an infinity at element 0");
        tiny_model m = whole;
        m.tensors.erase(name);
        check_refused(run({"--model", m.save().string(), "1"}), {"model.safetensors", "\"" + name + "\" is missing"});
    }
}

TEST_CASE("mamba_lm: a Mamba-2 configuration that contradicts itself or its tensors is refused")
{
    const auto refused = [](const char* key, const nlohmann::json& value, const std::vector<std::string>& parts) {
        CAPTURE(key);
        tiny_model m = tiny_model::mamba2();
        m.config[key] = value;
        check_refused(run({"--model", m.save().string(), "1"}), parts);
    };
    const std::string file = (scratch() / "tiny" / "config.json").string();
    refused("num_heads", 3, {file, "num_heads times head_dim is 6, but expand times hidden_size is 8"});
    refused("head_dim", 4, {file, "num_heads times head_dim is 16"});
    refused("expand", 3, {file, "expand times hidden_size is 12"});
    refused("n_groups", 3, {file, "n_groups does not divide num_heads"});
    refused("n_groups", 1, {"model.safetensors", "backbone.layers.0.mixer.in_proj.weight", "the configuration asks for (26, 4)"});
    refused("state_size", 4, {"model.safetensors", "backbone.layers.0.mixer.in_proj.weight", "the configuration asks for (36, 4)"});
    refused("num_heads", nullptr, {file, "num_heads times head_dim is 256"});
    refused("time_step_limit", {1, 0}, {file, "time_step_limit"});
    refused("model_type", "mamba", {"model.safetensors", "has shape (32, 4), the configuration asks for (16, 4)"});
}

TEST_CASE("mamba_lm: a limit written as Python's Infinity is read")
{
    const fs::path tiny = tiny_model::mamba2().save();
    const std::string text = run({"--model", tiny.string(), "-n", "20", "1 2 3"}).out;
    std::string config = tiny_model::mamba2().config.dump();
    const std::string object = R"({"__float__":"Infinity"})";
    const std::size_t at = config.find(object);
    REQUIRE(at != std::string::npos);
    write("tiny/config.json", config.replace(at, object.size(), "Infinity"));
    const outcome o = run({"--model", tiny.string(), "-n", "20", "1 2 3"});
    CHECK(o.status == 0);
    CHECK(o.out == text);
}

TEST_CASE("mamba_lm: a missing head, where the configuration has one of its own, is named")
{
    tiny_model m;
    m.config["tie_word_embeddings"] = false;
    check_refused(run({"--model", m.save().string(), "1"}), {"\"lm_head.weight\" is missing"});
    m.add("lm_head.weight", {10, 4});
    CHECK(run({"--model", m.save().string(), "-n", "1", "1"}).status == 0);
}

TEST_CASE("mamba_lm: a safetensors file that is cut short, too long or lies about itself is refused")
{
    const tiny_model m;
    const std::vector<std::byte> whole = m.bytes();
    std::uint64_t header_length;
    std::memcpy(&header_length, whole.data(), 8);
    const auto header = nlohmann::json::parse(reinterpret_cast<const char*>(whole.data()) + 8,
                                              reinterpret_cast<const char*>(whole.data()) + 8 + header_length);
    const std::size_t data_bytes = whole.size() - 8 - header_length;
    const auto refused = [&](const std::vector<std::byte>& file, std::vector<std::string> parts) {
        const fs::path tiny = m.save(file);
        parts.push_back((tiny / "model.safetensors").string());
        check_refused(run({"--model", tiny.string(), "1"}), parts);
    };
    const auto with_header = [&](const std::function<void(nlohmann::json&)>& harm) {
        nlohmann::json h = header;
        harm(h);
        return ssmkit::testing::safetensors_bytes(h.dump(), data_bytes);
    };
    const auto first = [&](std::size_t count) {
        return std::vector<std::byte>(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(count));
    };
    const std::string name = "backbone.norm_f.weight";

    refused({}, {"truncated"});
    refused(first(7), {"truncated"});
    refused(first(8), {"truncated"});
    refused(first(100), {"truncated"});
    refused(first(8 + header_length), {"truncated", "tensor "});
    refused(first(whole.size() - 1), {"truncated", "tensor "});
    std::vector<std::byte> longer = whole;
    longer.push_back({});
    refused(longer, {"oversized"});
    for (const std::uint64_t lie : {header_length - 1, header_length + 1, std::uint64_t(0), ~std::uint64_t(0)}) {
        std::vector<std::byte> file = whole;
        std::memcpy(file.data(), &lie, 8);
        refused(file, {});
    }
    refused(with_header([&](nlohmann::json& h) { h[name]["data_offsets"] = {0, 16}; }), {"overlaps"});
    refused(with_header([&](nlohmann::json& h) { h.erase(name); }), {"oversized"});
    refused(with_header([&](nlohmann::json& h) { h.erase("backbone.layers.0.mixer.D"); }), {"hole", "tensor "});
    refused(with_header([&](nlohmann::json& h) { h[name]["shape"] = {5}; }), {"\"" + name + "\"", "takes 20"});
    refused(with_header([&](nlohmann::json& h) { h[name]["shape"] = {-4}; }), {"\"" + name + "\"", "shape"});
    refused(with_header([&](nlohmann::json& h) { h[name]["dtype"] = "F7"; }), {"\"" + name + "\"", "F7"});
    refused(with_header([&](nlohmann::json& h) { h[name]["data_offsets"] = {data_bytes, data_bytes + 16}; }),
            {"\"" + name + "\"", "truncated"});
    refused(with_header([&](nlohmann::json& h) { h[name].erase("shape"); }), {"\"" + name + "\"", "has no shape"});
}
