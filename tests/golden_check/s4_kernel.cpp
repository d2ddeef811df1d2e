#include <complex>
#include <limits>
#include <vector>

#include <nlohmann/json.hpp>

#include <ssmkit/args/s4_kernel.hpp>
#include <ssmkit/args/s4_kernel_backward.hpp>

#include "dplr.hpp"

namespace {

using golden::index, golden::problem;

const golden::handler s4_kernel("s4_kernel", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    using complex = std::complex<real>;
    p.descriptive("init", "L", "rank");
    const golden::dplr_parameters parameters(p);
    const auto limit = p.flag<nlohmann::json>("bandlimit", nullptr);
    const ssmkit::s4_kernel_args<real> forward{
        .delta = parameters.delta_view(),
        .A = parameters.A_view(),
        .B = golden::only(p.input<complex>("B", 0, 1, 2)),
        .P = p.input<complex>("P", 0, 1, 2),
        .C = p.input<complex>("C_tilde", 0, 1, 2),
        .prepared_length = p.flag<index>("l_kernel", p.shape("K").at(2)),
        .rate = p.flag<double>("rate", 1.0),
        .bandlimit = limit.is_null() ? std::numeric_limits<double>::infinity() : limit.get<double>(),
        .initial_state = p.input<complex>("state", 0, 1, 2),
        .K = p.output<real>("K", 0, 1, 2),
        .K_state = p.output<real>("K_state", 0, 1, 2, 3),
    };
    p.run(forward);
    if (!p.has("dout")) return;
    std::vector<double> ddelta(parameters.delta.size());
    std::vector<std::complex<double>> dA(parameters.A.size());
    const auto delta = parameters.delta_view();
    const ssmkit::s4_kernel_backward_args<real> backward{
        .forward = forward,
        .dK = p.input<real>("dout", 0, 1, 2),
        .ddelta = {ddelta.data(), delta.extents(), delta.strides()},
        .dA = {dA.data(), parameters.copies, parameters.state},
        .dB = golden::only(p.output<complex>("d_B", 0, 1, 2)),
        .dP = p.output<complex>("d_P", 0, 1, 2),
        .dC = p.output<complex>("d_C_tilde", 0, 1, 2),
        .dinitial_state = p.output<complex>("d_state", 0, 1, 2),
    };
    p.run(backward);
    parameters.hand_in<real>(p, backward.ddelta, backward.dA);
}, {.f64 = 1e-10, .f32 = 1e-4});

}  // namespace
