#include <cmath>
#include <complex>
#include <vector>

#include <ssmkit/args/liquid_polyb.hpp>

#include "memory.hpp"

namespace {

using golden::index, golden::problem;

const golden::handler liquid_polyb("liquid_polyb", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    using complex = std::complex<real>;
    const auto log_dt = p.input<double>("log_dt", 0);
    const auto re = p.input<double>("w_re", 0, 1), im = p.input<double>("w_im", 0, 1);
    const index dim = re.extent(0), state = re.extent(1);
    std::vector<double> delta, ddelta(static_cast<std::size_t>(dim));
    std::vector<std::complex<double>> w, dw(static_cast<std::size_t>(dim * state));
    for (index h = 0; h < dim; ++h) {
        delta.push_back(std::exp(log_dt[h]));
        for (index n = 0; n < state; ++n) w.emplace_back(re(h, n), im(h, n));
    }
    const ssmkit::liquid_polyb_args<real> forward{.u = p.input<real>("u", 0, 1, 2),
                                                  .k = p.input<real>("k", 0, 1, 2),
                                                  .D = golden::only_row(p.input<real>("D", 0, 1)),
                                                  .delta = {delta.data(), dim},
                                                  .w = {w.data(), dim, state},
                                                  .B = p.input<complex>("B", 0, 1),
                                                  .C = p.input<complex>("C", 0, 1, 2),
                                                  .degree = p.flag<int>("degree"),
                                                  .all_combinations = p.flag<bool>("allcombs"),
                                                  .bidirectional = p.flag<bool>("bidirectional", false),
                                                  .y = p.output<real>("y", 0, 1, 2)};
    p.run(forward);
    if (!p.has("dout")) return;
    p.run(ssmkit::liquid_polyb_backward_args<real>{.forward = forward,
                                                   .dy = p.input<real>("dout", 0, 1, 2),
                                                   .du = p.output<real>("d_u", 0, 1, 2),
                                                   .dk = p.output<real>("d_k", 0, 1, 2),
                                                   .dD = golden::only_row(p.output<real>("d_D", 0, 1)),
                                                   .ddelta = {ddelta.data(), dim},
                                                   .dw = {dw.data(), dim, state},
                                                   .dB = p.output<complex>("d_B", 0, 1),
                                                   .dC = p.output<complex>("d_C", 0, 1, 2)});
    const auto d_log_dt = p.output<real>("d_log_dt", 0);
    const auto d_re = p.output<real>("d_w_re", 0, 1), d_im = p.output<real>("d_w_im", 0, 1);
    for (index h = 0; h < dim; ++h) {
        if (d_log_dt.data())
            d_log_dt[h] = static_cast<real>(delta[static_cast<std::size_t>(h)] * ddelta[static_cast<std::size_t>(h)]);
        for (index n = 0; n < state; ++n) {
            const std::complex<double> g = dw[static_cast<std::size_t>(h * state + n)];
            if (d_re.data()) d_re(h, n) = static_cast<real>(g.real());
            if (d_im.data()) d_im(h, n) = static_cast<real>(g.imag());
        }
    }
});

}  // namespace
