#include <vector>

#include <ssmkit/args/add_norm.hpp>
#include <ssmkit/args/add_norm_backward.hpp>

#include "golden.hpp"
#include "tokens.hpp"

namespace {

using golden::tokens_for;
using golden::tokens_of;

const golden::handler add_norm("add_norm", []<class T>(golden::element<T>, golden::problem& p) {
    using real = ssmkit::compute_t<T>;
    p.descriptive("has_residual", "has_bias", "prenorm");
    ssmkit::add_norm_args<T> forward{
        .x = tokens_of<T>(p, "x"),
        .residual = tokens_of<real>(p, "residual"),
        .weight = p.input<real>("weight", 0),
        .bias = p.input<real>("bias", 0),
        .eps = static_cast<real>(p.flag<double>("eps")),
        .layer = !p.flag<bool>("is_rms_norm"),
        .y = tokens_for<T>(p, "out"),
        .residual_out = tokens_for<real>(p, "residual_out"),
    };
    // The backward pass needs it, also where the file does not hold it (prenorm false).
    std::vector<real> residual_out(static_cast<std::size_t>(forward.x.size()));
    if (forward.residual_out.data() == nullptr) {
        forward.residual_out = {residual_out.data(), forward.x.extents(), forward.x.strides()};
    }
    p.run(forward);
    if (!p.has("dout")) return;
    const ssmkit::add_norm_backward_args<T> backward{
        .residual_out = forward.residual_out,
        .weight = forward.weight,
        .eps = forward.eps,
        .layer = forward.layer,
        .dy = tokens_of<T>(p, "dout"),
        .dresidual_out = tokens_of<real>(p, "dresidual_out"),
        .dx = tokens_for<T>(p, "dx"),
        .dresidual = tokens_for<real>(p, "dresidual"),
        .dweight = p.output<real>("dweight", 0),
        .dbias = p.output<real>("dbias", 0),
    };
    p.run(backward);
});

}  // namespace
