
#include <ssmkit/args/gated_norm.hpp>
#include <ssmkit/args/gated_norm_backward.hpp>

#include "golden.hpp"
#include "tokens.hpp"

namespace {

using golden::tokens_for;
using golden::tokens_of;

const golden::handler gated_norm("gated_norm", []<class T>(golden::element<T>, golden::problem& p) {
    using real = ssmkit::compute_t<T>;
    p.descriptive("has_z", "has_bias");
    const ssmkit::gated_norm_args<T> forward{
        .x = tokens_of<T>(p, "x"),
        .z = tokens_of<T>(p, "z"),
        .weight = p.input<real>("weight", 0),
        .bias = p.input<real>("bias", 0),
        .eps = static_cast<real>(p.flag<double>("eps")),
        .group_size = p.flag<ssmkit::index>("group_size", 0),
        .layer = !p.flag<bool>("is_rms_norm"),
        .norm_before_gate = p.flag<bool>("norm_before_gate", false),
        .y = tokens_for<T>(p, "out"),
    };
    p.run(forward);
    if (!p.has("dout")) return;
    const ssmkit::gated_norm_backward_args<T> backward{
        .forward = forward,
        .dy = tokens_of<T>(p, "dout"),
        .dx = tokens_for<T>(p, "dx"),
        .dz = tokens_for<T>(p, "dz"),
        .dweight = p.output<real>("dweight", 0),
        .dbias = p.output<real>("dbias", 0),
    };
    p.run(backward);
});

}  // namespace
