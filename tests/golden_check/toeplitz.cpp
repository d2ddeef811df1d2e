#include <ssmkit/args/toeplitz.hpp>

#include "golden.hpp"

namespace {

const golden::handler toeplitz("toeplitz", []<class T>(golden::element<T>, golden::problem& p) {
    using R = ssmkit::compute_t<T>;
    const auto u = p.input<R>("u", 0, 1), v = p.input<R>("v", 0, 1);
    const ssmkit::toeplitz_args<R> product{.u = u, .v = v, .y = p.output<R>("y", 0, 1)};
    const ssmkit::toeplitz_inverse_args<R> inverse{.g = p.input<R>("g", 0, 1), .h = p.output<R>("inv", 0, 1)};
    p.run(product);
    if (inverse.g.data()) p.run(inverse);
    if (!p.has("dout")) return;
    const ssmkit::toeplitz_backward_args<R> backward{
        .u = u, .v = v, .dy = p.input<R>("dout", 0, 1), .du = p.output<R>("d_u", 0, 1), .dv = p.output<R>("d_v", 0, 1)};
    p.run(backward);
});

}  // namespace
