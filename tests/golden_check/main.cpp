// golden_check: runs the library on cases computed by other people's reference code and compares every result with
// theirs.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <pthread.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "golden.hpp"

namespace {

namespace fs = std::filesystem;

struct options {
    std::string dtype = "f64", backend = "cpu";
    std::size_t threads = 1;
    bool reference = false, list = false, known_only = false;
    std::vector<std::string> paths;
};

enum class verdict { passed, failed, skipped };

/// The worst of the tensors compared so far, by the ratio of error to bound.
struct comparison {
    std::string tensor = "nothing";
    double error = 0, bound = 0;

    bool holds() const { return error <= bound; }  // false if the error is NaN
    double ratio() const { return holds() ? (bound > 0 ? error / bound : 0) : std::numeric_limits<double>::infinity(); }
};

/// max |computed - expected| / max |expected|, over the finite expected values; the others must be met exactly. Without
/// any magnitude to relate to, every difference is infinite.
double relative_error(const std::vector<double>& computed, const std::vector<double>& expected)
{
    constexpr double infinity = std::numeric_limits<double>::infinity();
    if (computed.size() != expected.size()) return infinity;
    double difference = 0, magnitude = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double want = expected[i], have = computed[i];
        if (!std::isfinite(want)) {
            if (std::isnan(want) ? !std::isnan(have) : have != want) return infinity;
            continue;
        }
        if (!std::isfinite(have)) return infinity;
        difference = std::max(difference, std::abs(have - want));
        magnitude = std::max(magnitude, std::abs(want));
    }
    return difference == 0 ? 0 : difference / magnitude;
}

/// What a case says about itself in __metadata__.
struct description {
    std::string op;
    nlohmann::json flags, f32_reference_error, naive_rel_err;
};

description describe(const safetensors::file& file)
{
    const auto object = [&](const char* key) {
        const auto entry = file.metadata().find(key);
        const nlohmann::json parsed =
            entry == file.metadata().end() ? nlohmann::json::object() : nlohmann::json::parse(entry->second);
        if (!parsed.is_object()) throw std::runtime_error(std::string("the metadata ") + key + " is not an object");
        return parsed;
    };
    const auto op = file.metadata().find("op");
    if (op == file.metadata().end()) throw std::runtime_error("the metadata does not name an op");
    return {op->second, object("flags"), object("f32_reference_error"), object("naive_rel_err")};
}

double bound_for(const std::string& tensor, const description& about, const golden::tolerance& granted,
                 const std::string& dtype)
{
    if (dtype == "bf16") return 2e-2;
    if (dtype == "f32") {
        const nlohmann::json& known = about.f32_reference_error;
        return std::max(2e-6, known.contains(tensor) ? 4 * known.at(tensor).get<double>() : granted.f32);
    }
    // The cases of the S4 family ask for ten times what two evaluations in double differ by.
    const nlohmann::json& naive = about.naive_rel_err;
    return std::max({1e-10, granted.f64, naive.contains(tensor) ? 10 * naive.at(tensor).get<double>() : 0.0});
}

/// Runs f where a device can read locals and Eigen's matrices: on a stack from operator new, see cuda/memory.cpp.
void on_readable_memory(const std::function<void()>& f)
{
    struct call {
        const std::function<void()>& f;
        std::exception_ptr error;
    } c{f, nullptr};
    constexpr std::size_t size = std::size_t{16} << 20, page = 4096;
    const auto memory = std::make_unique<std::byte[]>(size + page);
    void* stack = memory.get();
    std::size_t space = size + page;
    stack = std::align(page, size, stack, space);
    pthread_attr_t attributes;
    pthread_t thread;
    const auto body = [](void* p) -> void* {
        call& of = *static_cast<call*>(p);
        ssmkit::testing::heap_for_device() = true;
        try {
            of.f();
        } catch (...) {
            of.error = std::current_exception();
        }
        ssmkit::testing::heap_for_device() = false;
        return nullptr;
    };
    if (pthread_attr_init(&attributes) || pthread_attr_setstack(&attributes, stack, size) ||
        pthread_create(&thread, &attributes, body, &c)) {
        throw std::runtime_error("no thread with a stack of its own");
    }
    pthread_join(thread, nullptr);
    pthread_attr_destroy(&attributes);
    if (c.error) std::rethrow_exception(c.error);
}

/// Runs a case with one order of its elements in memory. Throws whatever stops it.
comparison run(const safetensors::file& file, const description& about, const golden::handler& handler,
               golden::layout order, const options& wanted, ssmkit::threads& pool)
{
    const bool device = wanted.backend == "cuda";
    std::size_t calls = 0;
    golden::problem problem(file, about.flags, order, {wanted.reference, pool, device ? &calls : nullptr});
    problem.descriptive("grads", "inputs_exact_in");
    const auto& run = wanted.dtype == "f64" ? handler.run_f64 : wanted.dtype == "f32" ? handler.run_f32 : handler.run_bf16;
    if (device) {
        on_readable_memory([&] { run(problem); });
    } else {
        run(problem);
    }
    if (device && calls == 0) throw ssmkit::testing::no_device_operation("the operation does not run on a device");
    for (const auto& flag : about.flags.items()) {
        if (!problem.flags_used().contains(flag.key())) throw std::runtime_error("the flag " + flag.key() + " is unknown");
    }
    for (const auto& [name, tensor] : file.tensors()) {
        if (!problem.tensors_used().contains(name)) {
            throw std::runtime_error("the tensor " + name + " is neither read nor compared");
        }
    }
    for (const auto& input : problem.inputs()) {
        if (input.changed()) throw std::runtime_error("the operation wrote to its input " + input.name);
    }
    comparison worst;
    for (const golden::result& result : problem.results()) {
        const double error = relative_error(result.values(), file.at(result.name).to<double>());
        const comparison next{result.name, error, bound_for(result.name, about, handler.granted, wanted.dtype)};
        if (worst.bound == 0 || next.ratio() > worst.ratio()) worst = next;
    }
    if (problem.results().empty()) throw std::runtime_error("nothing was compared");
    return worst;
}

verdict check(const fs::path& path, const options& wanted, ssmkit::threads& pool)
{
    const auto say = [&](const char* word, const std::string& text) {
        std::printf("%-5s %-40s %s\n", word, path.stem().c_str(), text.c_str());
    };
    const auto unknown = [&](const std::string& text) {
        say(wanted.known_only ? "skip" : "FAIL", text);
        return wanted.known_only ? verdict::skipped : verdict::failed;
    };
    try {
        const safetensors::file file = safetensors::file::open(path);
        const description about = describe(file);
        const auto handler = golden::handler::registered().find(about.op);
        if (handler == golden::handler::registered().end()) return unknown("the op " + about.op + " is unknown");
        if (wanted.dtype == "bf16" && about.flags.value("inputs_exact_in", "") != "bf16") {
            say("skip", "the inputs are not exact in bf16");
            return verdict::skipped;
        }
        comparison worst;
        for (const golden::layout order : {golden::layout::of_file, golden::layout::of_view}) {
            const comparison next = run(file, about, handler->second, order, wanted, pool);
            if (worst.bound == 0 || next.ratio() > worst.ratio()) worst = next;
        }
        char text[200];
        std::snprintf(text, sizeof text, "error %.1e, bound %.1e (%s)", worst.error, worst.bound, worst.tensor.c_str());
        say(worst.holds() ? "ok" : "FAIL", text);
        return worst.holds() ? verdict::passed : verdict::failed;
    } catch (const golden::unknown& e) {
        return unknown(e.what());
    } catch (const ssmkit::testing::no_device_operation& e) {
        return unknown(e.what());
    } catch (const std::exception& e) {
        say("FAIL", e.what());
        return verdict::failed;
    }
}

/// The cases that the paths stand for, in a fixed order. A path that is no case and no folder is left in: opening it
/// fails.
std::vector<fs::path> cases(const std::vector<std::string>& paths)
{
    std::vector<fs::path> found;
    for (const fs::path path : paths) {
        if (!fs::is_directory(path)) {
            found.push_back(path);
            continue;
        }
        const std::size_t before = found.size();
        for (const auto& entry : fs::recursive_directory_iterator(path)) {
            if (entry.path().extension() == ".safetensors") found.push_back(entry.path());
        }
        std::sort(found.begin() + static_cast<std::ptrdiff_t>(before), found.end());
    }
    return found;
}

}  // namespace

int main(int argc, char** argv)
{
    options wanted;
    CLI::App app("Runs the library on golden cases and compares every stored output and gradient.");
    app.add_option("--dtype", wanted.dtype, "how inputs and outputs are stored")
        ->check(CLI::IsMember({"f64", "f32", "bf16"}))
        ->capture_default_str();
    app.add_option("--threads", wanted.threads, "threads that a kernel may use")
        ->check(CLI::Range(1, 1024))
        ->capture_default_str();
    app.add_option("--backend", wanted.backend, "where the kernels run")
        ->check(CLI::IsMember({"cpu", "cuda"}))
        ->capture_default_str();
    app.add_flag("--reference", wanted.reference, "run the plain loops of ssmkit::reference");
    app.add_flag("--list", wanted.list, "print the operations that are known and stop");
    app.add_flag("--known-only", wanted.known_only, "skip cases of unknown operations or variants; without it they fail");
    app.add_option("PATH", wanted.paths, "cases, or folders that are searched for cases");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? 0 : 2;
    }

    if (wanted.list) {
        for (const auto& [op, handler] : golden::handler::registered()) std::printf("%s\n", op.c_str());
        return 0;
    }
    if (wanted.backend == "cuda" && ssmkit::testing::device_operations().empty()) {
        std::fprintf(stderr, "golden_check: this build has no CUDA backend\n");
        return 2;
    }
    const std::vector<fs::path> files = cases(wanted.paths);
    if (files.empty()) {
        std::fprintf(stderr, "golden_check: no cases given\n");
        return 2;
    }
    ssmkit::threads pool(wanted.threads);
    std::map<verdict, int> count;
    for (const fs::path& file : files) ++count[check(file, wanted, pool)];
    std::printf("%d passed, %d failed, %d skipped\n", count[verdict::passed], count[verdict::failed],
                count[verdict::skipped]);
    return count[verdict::failed] == 0 ? 0 : 1;
}
