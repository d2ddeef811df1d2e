#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include <CLI/CLI.hpp>

#include "config.hpp"
#include "sampler.hpp"

namespace mamba_lm {

struct options {
    std::string model;     ///< folder; empty: an embedded checkpoint
    std::string embedded;  ///< which one; empty: the first
    std::string prompt;    ///< meaningful if has_prompt
    std::string file;
    std::string score;
    std::string random;
    index tokens = 200;
    index threads = 1;
    sampling how;
    bool has_prompt = false;
    bool echo = false;
};

/// Declares the command line; `o` is filled by app.parse and completed by check_options.
inline void declare_options(CLI::App& app, options& o)
{
    app.description("Continues a text with a Mamba or Mamba-2 language model.\n\n"
                    "The prompt comes from the argument, from --file or from standard input; the continuation goes to standard\n"
                    "output, figures and complaints to standard error. Exit status: 0, or 2 if something is wrong.");
    app.add_option("prompt", o.prompt, "Text to continue; token numbers if the vocabulary is not 256 bytes");
    app.add_option("-m,--model", o.model, "Folder with config.json and model.safetensors [an embedded model]");
    app.add_option("--embedded", o.embedded, "Which embedded model: mamba-bytes or mamba2-bytes [mamba-bytes]")
        ->excludes("--model");
    app.add_option("-f,--file", o.file, "Read the prompt from a file")->excludes("prompt");
    app.add_option("-n,--tokens", o.tokens, "How many tokens to add")->capture_default_str();
    app.add_option("-t,--temperature", o.how.temperature, "0 takes the likeliest token, 1 draws as the model has it")
        ->capture_default_str();
    app.add_option("--top-k", o.how.top_k, "Draw among the k likeliest tokens, 0: all; implies --temperature 1");
    app.add_option("--top-p", o.how.top_p, "Draw among the fewest tokens with this probability; implies --temperature 1");
    app.add_option("--seed", o.how.seed, "Of the draws; implies --temperature 1");
    app.add_option("--threads", o.threads, "For the prompt and for the linear layers")->capture_default_str();
    app.add_flag("--echo", o.echo, "Print the prompt before its continuation");
    app.add_option("--score", o.score, "Print the bits per byte that a file costs the model, and nothing else")
        ->excludes("prompt")
        ->excludes("--file");
    app.add_option("--random", o.random, "Time random weights of a released size: 130m, 370m, 790m, 1.4b, 2.8b, or "
                                          "mamba2-130m, mamba2-370m, mamba2-780m, mamba2-1.3b, mamba2-2.7b")
        ->excludes("prompt")
        ->excludes("--file")
        ->excludes("--score")
        ->excludes("--embedded")
        ->excludes("--model");
}

/// What the command line's own checks cannot say. Throws error.
inline void check_options(const CLI::App& app, options& o)
{
    o.has_prompt = app.count("prompt") > 0;
    const bool draws = app.count("--top-k") + app.count("--top-p") + app.count("--seed") > 0;
    if (draws && app.count("--temperature") == 0) o.how.temperature = 1;
    if (!(o.how.temperature >= 0) || !std::isfinite(o.how.temperature)) throw error("--temperature: expected 0 or more");
    if (!(o.how.top_p >= 0 && o.how.top_p <= 1)) throw error("--top-p: expected a number from 0 to 1");
    if (o.tokens < 0) throw error("--tokens: expected 0 or more");
    if (o.how.top_k < 0) throw error("--top-k: expected 0 or more");
    if (o.threads < 1 || o.threads > 1024) throw error("--threads: expected 1 to 1024");
}

}  // namespace mamba_lm
