// A Mamba or Mamba-2 language model that continues a text: the whole of it made of the library's operations and Eigen's products.

#include <chrono>
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <unistd.h>

#include <ssmkit/execution.hpp>

#include "checkpoint.hpp"
#include "model.hpp"
#include "options.hpp"
#include "progress.hpp"
#include "random_weights.hpp"
#include "sampler.hpp"
#include "score.hpp"
#include "text.hpp"

namespace mamba_lm {
namespace {

class timer {
public:
    double seconds() const { return std::chrono::duration<double>(clock::now() - start_).count(); }

private:
    using clock = std::chrono::steady_clock;
    clock::time_point start_ = clock::now();
};

std::vector<index> read_prompt(const options& o, const text_format& format)
{
    const std::string name = o.has_prompt ? "the prompt" : o.file.empty() ? "standard input" : o.file;
    std::string text = o.prompt;
    if (!o.has_prompt && !o.file.empty()) {
        text = read_file(o.file);
    } else if (!o.has_prompt) {
        if (isatty(STDIN_FILENO)) std::fprintf(stderr, "Type a prompt; Ctrl-D on a line of its own ends it.\n");
        text = read_all(std::cin, name);
    }
    std::vector<index> prompt = format.parse(text, name);
    if (prompt.empty()) throw error(name + " is empty: there is nothing to continue");
    return prompt;
}

/// Prefill, then one token at a time.
void generate(const checkpoint& c, const options& o, ssmkit::threads& pool)
{
    const text_format format(c.sizes.vocab);
    const std::vector<index> prompt = read_prompt(o, format);
    if (o.echo) {
        for (const index token : prompt) format.write(token, stdout);
    }
    model m(c.sizes, c.parameters, pool);
    sampler choose(o.how, c.sizes.vocab);

    const timer prefill;
    std::span<const float> logits = m.next(prompt);
    const double prefill_seconds = prefill.seconds();

    const timer decode;
    for (index i = 0; i < o.tokens; ++i) {
        const index token = choose(logits);
        format.write(token, stdout);
        logits = m.next({&token, 1});
    }
    const double decode_seconds = decode.seconds();
    std::fprintf(stderr, "\nprefill: %zu tokens, %.0f tokens/s; decode: %lld tokens, %.0f tokens/s\n", prompt.size(),
                 static_cast<double>(prompt.size()) / prefill_seconds, static_cast<long long>(o.tokens),
                 o.tokens ? static_cast<double>(o.tokens) / decode_seconds : 0.0);
}

void score(const checkpoint& c, const options& o, ssmkit::threads& pool)
{
    const text_format format(c.sizes.vocab);
    const std::vector<index> text = format.parse(read_file(o.score), o.score);
    if (text.size() < 2) throw error(o.score + ": has fewer than two " + format.unit() + "s, there is nothing to predict");
    model m(c.sizes, c.parameters, pool);
    const timer reading;
    double bits;
    {
        progress_bar bar(text.size());
        bits = bits_per_token(m, text, std::ref(bar));
    }
    std::printf("%.4f bits per %s over %zu %ss\n", bits, format.unit(), text.size(), format.unit());
    std::fprintf(stderr, "%.0f tokens/s\n", static_cast<double>(text.size()) / reading.seconds());
}

/// Where the time of one phase goes.
void print_times(const char* phase, index tokens, const stopwatch& watch)
{
    const double total = watch.total();
    std::printf("%s: %lld tokens, %.1f tokens/s, %.3f ms a token\n", phase, static_cast<long long>(tokens),
                static_cast<double>(tokens) / total, 1e3 * total / static_cast<double>(tokens));
    for (std::size_t i = 0; i < watch.names.size(); ++i) {
        std::printf("    %-8s %10.3f ms  %5.1f %%\n", watch.names[i], 1e3 * watch.seconds()[i], 100 * watch.seconds()[i] / total);
    }
}

void time_random(const options& o, ssmkit::threads& pool)
{
    constexpr index prompt_length = 2048;
    const config c = released_sizes(o.random);
    const weights w = random_weights(c);
    const char* const family = std::holds_alternative<mamba1_sizes>(c.mixer) ? "mamba-" : "";  // the other names have it
    std::printf("%s%s: %lld layers, hidden %lld, random weights in float32, %lld thread%s\n", family, o.random.c_str(),
                static_cast<long long>(c.layers), static_cast<long long>(c.hidden), static_cast<long long>(o.threads), o.threads == 1 ? "" : "s");
    std::fflush(stdout);
    model m(c, w, pool);
    sampler choose({}, c.vocab);
    std::vector<index> prompt;
    for (index i = 0; i < prompt_length; ++i) prompt.push_back(i * 7919 % c.vocab);
    std::span<const float> logits = m.next(prompt);
    print_times("prefill", prompt_length, m.watch());
    m.watch() = {};
    for (index i = 0; i < o.tokens; ++i) {
        const index token = choose(logits);
        logits = m.next({&token, 1});
    }
    if (o.tokens) print_times("decode", o.tokens, m.watch());
}

void run(const options& o)
{
    ssmkit::threads pool(static_cast<std::size_t>(o.threads));
    if (!o.random.empty()) return time_random(o, pool);
    const checkpoint c = o.model.empty() ? load_embedded_checkpoint(o.embedded) : load_checkpoint(o.model);
    if (!o.score.empty()) return score(c, o, pool);
    generate(c, o, pool);
}

}  // namespace
}  // namespace mamba_lm

int main(int argc, char** argv)
{
    CLI::App app;
    mamba_lm::options options;
    mamba_lm::declare_options(app, options);
    try {
        app.parse(argc, argv);
        mamba_lm::check_options(app, options);
        mamba_lm::run(options);
        return 0;
    } catch (const CLI::Success& help) {
        return app.exit(help);
    } catch (const std::bad_alloc&) {
        std::fprintf(stderr, "mamba_lm: out of memory\n");
    } catch (const std::exception& e) {
        std::fprintf(stderr, "mamba_lm: %s\n", e.what());
    }
    return 2;
}
