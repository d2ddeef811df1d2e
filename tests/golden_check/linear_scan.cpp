#include <complex>

#include <ssmkit/args/linear_scan.hpp>
#include <ssmkit/args/linear_scan_backward.hpp>

#include "golden.hpp"

namespace {

using golden::new_axis, golden::problem;

template <class T>
void scan(const ssmkit::linear_scan_args<T>& a, problem& p)
{
    p.run(a);
}

template <class T>
void scan_backward(const ssmkit::linear_scan_backward_args<T>& a, problem& p)
{
    p.run(a);
}

// The files hold one sequence, (length, state). An initial state of (state) is the row of a batch of one.
const golden::handler diag_scan("diag_scan", []<class T>(golden::element<T>, problem& p) {
    using E = std::complex<ssmkit::compute_t<T>>;
    ssmkit::linear_scan_args<E> forward{
        .a = p.input<E>("a", new_axis, 0, 1),
        .b = p.input<E>("b", new_axis, 0, 1),
        .initial_state = p.input<E>("x0", new_axis, 0),
        .reverse = p.flag<bool>("reverse", false),
        .h = p.output<E>("x", new_axis, 0, 1),
    };
    scan(forward, p);
    if (!p.has("d_b")) return;
    scan_backward(ssmkit::linear_scan_backward_args<E>{
                      .forward = forward,
                      .dh = p.input<E>("dout", new_axis, 0, 1),
                      .da = p.output<E>("d_a", new_axis, 0, 1),
                      .db = p.output<E>("d_b", new_axis, 0, 1),
                      .dinitial_state = p.output<E>("d_x0", new_axis, 0),
                  },
                  p);
});

}  // namespace
