#include <cmath>
#include <complex>
#include <vector>

#include <ssmkit/args/dense_kernel.hpp>
#include <ssmkit/args/krylov.hpp>
#include <ssmkit/args/lssl.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::problem, golden::view;

/// Step sizes in double from their logarithms, and back for gradients.
struct steps {
    std::vector<double> delta, gradient;

    explicit steps(const view<const double, 1>& logarithms)
    {
        for (index h = 0; h < logarithms.extent(0); ++h) delta.push_back(std::exp(logarithms[h]));
        gradient.resize(delta.size());
    }

    view<const double, 1> get() const { return {delta.data(), static_cast<index>(delta.size())}; }
    view<double, 1> slots() { return {gradient.data(), static_cast<index>(gradient.size())}; }

    template <class E>
    void hand_in(const view<E, 1>& out) const
    {
        for (index h = 0; h < out.extent(0); ++h)
            out[h] = static_cast<E>(delta[static_cast<std::size_t>(h)] * gradient[static_cast<std::size_t>(h)]);
    }
};

template <class E>
view<E, 1> column(const view<E, 2>& v)
{
    return v.data() ? v.transposed(0, 1)[0] : view<E, 1>{};
}

const golden::handler krylov("krylov", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    const ssmkit::krylov_args<real> forward{.A = p.input<real>("A", 0, 1, 2),
                                            .b = p.input<real>("b", 0, 1),
                                            .c = p.input<real>("c", 0, 1),
                                            .v = p.input<real>("v", 0, 1, 2),
                                            .length = p.flag<index>("L", p.shape("v").at(2)),
                                            .k = p.output<real>("k", 0, 1),
                                            .AbL = p.output<real>("AbL", 0, 1, 2),
                                            .AL = p.output<real>("AL", 0, 1, 2),
                                            .scan = p.output<real>("scan", 0, 1)};
    p.run(forward);
    if (!p.has("dout")) return;
    p.run(ssmkit::krylov_backward_args<real>{.forward = forward,
                                             .dk = p.input<real>("dout", 0, 1),
                                             .dA = p.output<real>("d_A", 0, 1, 2),
                                             .db = p.output<real>("d_b", 0, 1),
                                             .dc = p.output<real>("d_c", 0, 1)});
});

const golden::handler dense_kernel("dense_kernel", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    using complex = std::complex<real>;
    p.descriptive("L");
    steps delta(column(p.input<double>("inv_dt", 0, 1)));
    const ssmkit::dense_kernel_args<real> forward{.delta = delta.get(),
                                                  .A = p.input<complex>("A", 0, 1, 2),
                                                  .B = p.input<complex>("B", 0, 1),
                                                  .C = p.input<complex>("C", 0, 1, 2),
                                                  .initial_state = p.input<complex>("state", 0, 1, 2),
                                                  .K = p.output<real>("K", 0, 1, 2),
                                                  .K_state = p.output<real>("K_state", 0, 1, 2, 3)};
    p.run(forward);
    if (!p.has("dout")) return;
    p.run(ssmkit::dense_kernel_backward_args<real>{.forward = forward,
                                                   .dK = p.input<real>("dout", 0, 1, 2),
                                                   .ddelta = delta.slots(),
                                                   .dA = p.output<complex>("d_A", 0, 1, 2),
                                                   .dB = p.output<complex>("d_B", 0, 1),
                                                   .dC = p.output<complex>("d_C", 0, 1, 2)});
    delta.hand_in(column(p.output<real>("d_inv_dt", 0, 1)));
});

const golden::handler lssl("lssl", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    p.descriptive("measure");
    steps delta(p.input<double>("log_dt", 0));
    const ssmkit::lssl_args<real> forward{.A = p.input<real>("A", 0, 1),
                                          .B = p.input<real>("B", 0),
                                          .delta = delta.get(),
                                          .u = p.input<real>("u", 0, 1, 2),
                                          .C = p.input<real>("C", 0, 1, 2),
                                          .D = p.input<real>("D", 0, 1),
                                          .y = p.output<real>("y", 0, 1, 2, 3),
                                          .k = p.output<real>("k", 0, 1, 2)};
    p.run(forward);
    if (!p.has("dout")) return;
    p.run(ssmkit::lssl_backward_args<real>{.forward = forward,
                                           .dy = p.input<real>("dout", 0, 1, 2, 3),
                                           .dA = p.output<real>("d_A", 0, 1),
                                           .dB = p.output<real>("d_B", 0),
                                           .ddelta = delta.slots(),
                                           .du = p.output<real>("d_u", 0, 1, 2),
                                           .dC = p.output<real>("d_C", 0, 1, 2),
                                           .dD = p.output<real>("d_D", 0, 1)});
    delta.hand_in(p.output<real>("d_log_dt", 0));
});

}  // namespace
