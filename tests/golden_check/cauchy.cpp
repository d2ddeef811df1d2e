#include <complex>

#include <ssmkit/args/cauchy.hpp>
#include <ssmkit/args/cauchy_backward.hpp>

#include "golden.hpp"

namespace {

using golden::problem;

const golden::handler cauchy("cauchy", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    using complex = std::complex<real>;
    p.descriptive("z");  // how the nodes were made
    const ssmkit::cauchy_args<real> forward{
        .v = p.input<complex>("v", 0, 1, 2),
        .z = p.input<complex>("z", 0),
        .w = p.input<complex>("w", 0, 1),
        .conjugate_pairs = p.flag<bool>("conj", false),
        .out = p.output<complex>("out", 0, 1, 2),
    };
    p.run(forward);
    if (!p.has("dout")) return;
    const ssmkit::cauchy_backward_args<real> backward{
        .forward = forward,
        .dout = p.input<complex>("dout", 0, 1, 2),
        .dv = p.output<complex>("d_v", 0, 1, 2),
        .dz = p.output<complex>("d_z", 0),
        .dw = p.output<complex>("d_w", 0, 1),
    };
    p.run(backward);
});

}  // namespace
