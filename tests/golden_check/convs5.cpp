#include <complex>

#include <ssmkit/args/convs5.hpp>
#include <ssmkit/args/convs5_backward.hpp>

#include "golden.hpp"

namespace {

// The files have the tokens first, then the batch.
const golden::handler convs5(
    "convs5",
    []<class T>(golden::element<T>, golden::problem& p) {
        using complex = typename ssmkit::convs5_args<T>::complex;
        const ssmkit::convs5_args<T> forward{
            .A = p.input<complex>("A", 0),
            .B = p.input<complex>("B", 0, 1, 2, 3),
            .C = p.input<complex>("C", 0, 1, 2, 3),
            .u = p.input<T>("us", 1, 0, 2, 3, 4),
            .initial_state = p.input<complex>("x0", 0, 1, 2, 3),
            .y = p.output<T>("ys", 1, 0, 2, 3, 4),
            .final_state = p.output<complex>("x_L", 0, 1, 2, 3),
        };
        p.run(forward);
        if (!p.has("dout")) return;
        const ssmkit::convs5_backward_args<T> backward{
            .forward = forward,
            .dy = p.input<T>("dout", 1, 0, 2, 3, 4),
            .dA = p.output<complex>("d_A", 0),
            .dB = p.output<complex>("d_B", 0, 1, 2, 3),
            .dC = p.output<complex>("d_C", 0, 1, 2, 3),
            .du = p.output<T>("d_us", 1, 0, 2, 3, 4),
            .dinitial_state = p.output<complex>("d_x0", 0, 1, 2, 3),
        };
        p.run(backward);
    },
    {1e-10, 1e-5});  // in single precision what the specification grants gradients

}  // namespace
