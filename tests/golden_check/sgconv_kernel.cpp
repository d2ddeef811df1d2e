#include <sstream>
#include <string>
#include <vector>

#include <ssmkit/args/sgconv_kernel.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::view;

/// The words of a mode, joined by "_": how the sub-kernels are joined and stretched; how they were initialised does not matter.
struct mode_words {
    bool sum = false, nearest = false, learnable = false;

    explicit mode_words(const std::string& mode)
    {
        std::istringstream words(mode);
        bool join = false;
        for (std::string word; std::getline(words, word, '_');) {
            if (word == "sum" || word == "cat") {
                join = true;
                sum = word == "sum";
            } else if (word == "nearest" || word == "linear") {
                nearest = word == "nearest";
            } else if (word == "learnable") {
                learnable = true;
            } else if (word != "randn" && word != "cos" && word != "fixed") {
                throw golden::unknown("the mode " + mode + " is unknown");
            }
        }
        if (!join) throw golden::unknown("the mode " + mode + " is unknown");
    }
};

/// w0, w1 ...: one tensor for each scale. The multipliers are spread evenly from decay_min to decay_max, but 1 with a learnable
/// decay.
const golden::handler sgconv_kernel("sgconv_kernel", []<class T>(golden::element<T>, golden::problem& p) {
    using R = ssmkit::compute_t<T>;
    const mode_words mode(p.flag<std::string>("mode"));
    const double low = p.flag<double>("decay_min", 2.0), high = p.flag<double>("decay_max", 2.0);
    p.descriptive("L", "kernel_dim", "n_scales");
    index scales = 0;
    while (p.has("w" + std::to_string(scales))) ++scales;
    const auto first = p.input<R>("w0", 0, 1, 2);
    const index channels = first.extent(0), dim = first.extent(1), taps = first.extent(2);
    std::vector<R> w(static_cast<std::size_t>(scales * channels * dim * taps)), dw(w.size()),
        multipliers(static_cast<std::size_t>(dim));
    const view<R, 4> all(w, scales, channels, dim, taps), gradients(dw, scales, channels, dim, taps);
    const auto copy = [&](const auto& from, const auto& to) {
        for (index c = 0; c < channels; ++c) {
            for (index h = 0; h < dim; ++h) {
                for (index i = 0; i < taps; ++i) to(c, h, i) = from(c, h, i);
            }
        }
    };
    for (index i = 0; i < scales; ++i) copy(p.input<R>("w" + std::to_string(i), 0, 1, 2), all[i]);
    for (index h = 0; h < dim; ++h) {
        const double step = dim > 1 ? (high - low) / static_cast<double>(dim - 1) : 0;
        multipliers[static_cast<std::size_t>(h)] = static_cast<R>(mode.learnable ? 1 : low + step * static_cast<double>(h));
    }
    const ssmkit::sgconv_kernel_args<R> forward{
        .w = all,
        .multiplier = {multipliers, dim},
        .decay = mode.learnable ? p.input<R>("decay", 0) : view<const R, 1>{},
        .join = mode.sum ? ssmkit::sgconv_join::sum : ssmkit::sgconv_join::concatenate,
        .nearest = mode.nearest,
        .init_scale = p.flag<index>("init_scale", 0),
        .K = p.output<R>("K", 0, 1, 2),
        .new_norm = {p.output<R>("kernel_norm", 0, 1, 2).data(), channels, dim},
    };
    p.run(forward);
    if (!p.has("dout")) return;
    const ssmkit::sgconv_kernel_backward_args<R> backward{
        .forward = forward, .dK = p.input<R>("dout", 0, 1, 2), .dw = gradients, .ddecay = p.output<R>("d_decay", 0)};
    p.run(backward);
    for (index i = 0; i < scales; ++i) copy(gradients[i], p.output<R>("d_w" + std::to_string(i), 0, 1, 2));
});

}  // namespace
