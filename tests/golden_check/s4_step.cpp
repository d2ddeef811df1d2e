#include <complex>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <ssmkit/args/s4.hpp>
#include <ssmkit/args/s4_kernel.hpp>
#include <ssmkit/s4_modes.hpp>
#include <ssmkit/s4_setup.hpp>
#include <ssmkit/s4_step.hpp>

#include "dplr.hpp"

namespace {

using golden::copy, golden::index, golden::owned, golden::problem, golden::view;

template <class T>
ssmkit::s4_setup_args<T> setup_args(problem& p, const golden::dplr_parameters& parameters, view<std::complex<T>, 3> out)
{
    return {.delta = parameters.delta_view(), .A = parameters.A_view(), .P = p.input<std::complex<T>>("P", 0, 1, 2),
            .C = p.input<std::complex<T>>("C", 0, 1, 2), .out = out};
}

const golden::handler s4_setup_C("s4_setup_C", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    using complex = std::complex<real>;
    p.descriptive("init", "rank");
    const golden::dplr_parameters parameters(p);
    p.input<complex>("B", 0, 1, 2);  // has no part in this
    owned<complex, 3> back(p.input<complex>("C", 0, 1, 2).extents());
    auto a = setup_args<real>(p, parameters, p.output<complex>("C_tilde", 0, 1, 2));
    a.length = p.flag<index>("L");
    p.run(a);
    a.C = a.out;
    a.map = ssmkit::s4_map::extend;
    a.out = p.output<complex>("C_tilde_doubled", 0, 1, 2);
    if (a.out.data()) p.run(a);
}, {.f64 = 1e-10, .f32 = 2e-6});

const golden::handler s4_length_growth("s4_length_growth", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    using complex = std::complex<real>;
    p.descriptive("init", "rank");
    const golden::dplr_parameters parameters(p);
    // The map is doubled in double, as a parameter that is kept would be.
    const auto given = p.input<std::complex<double>>("C", 0, 1, 2);
    owned<std::complex<double>, 3> C(given.extents());
    copy<std::complex<double>, 3>(given, C.all);
    owned<complex, 3> narrow(given.extents());
    ssmkit::s4_setup_args<double> setup{.delta = parameters.delta_view(), .A = parameters.A_view(),
                                        .P = p.input<std::complex<double>>("P", 0, 1, 2), .C = C.all, .out = C.all};
    ssmkit::s4_length_growth growth{.maximum = p.flag<index>("L_max", 0)};
    const auto lengths = p.flag<std::vector<index>>("Ls");
    const auto rate = p.flag<double>("rate", 1.0);
    for (std::size_t i = 0; i < lengths.size(); ++i) {
        const auto todo = growth.need(lengths[i], rate);
        if (todo.prepare > 0) {
            setup.map = ssmkit::s4_map::prepare;
            setup.length = todo.prepare;
            p.run(setup);
        }
        setup.map = ssmkit::s4_map::extend;
        setup.length = todo.from;
        for (int k = 0; k < todo.doublings; ++k, setup.length *= 2) p.run(setup);
        for (std::size_t k = 0; k < C.data.size(); ++k) {
            narrow.data[k] = {static_cast<real>(C.data[k].real()), static_cast<real>(C.data[k].imag())};
        }
        const std::string number = "." + std::to_string(i);
        p.run(ssmkit::s4_kernel_args<real>{
            .delta = parameters.delta_view(), .A = parameters.A_view(), .B = golden::only(p.input<complex>("B", 0, 1, 2)),
            .P = p.input<complex>("P", 0, 1, 2), .C = narrow.all, .prepared_length = growth.prepared, .rate = rate,
            .K = p.output<real>("K" + number, 0, 1, 2)});
        p.output<real>("l_kernel" + number, 0)[0] = static_cast<real>(growth.prepared);
    }
    copy<complex, 3>(narrow.all, p.output<complex>("C_tilde", 0, 1, 2));
}, {.f64 = 1e-10, .f32 = 2e-5});

/// Steps an explicit system from zero, or until the file's state; outputs (batch, channels, dim, length).
template <class T>
void run_explicit(const ssmkit::s4_explicit& s, index h, const view<const T, 3>& u, const view<T, 4>& y,
                  const view<std::complex<T>, 3>& last)
{
    for (index b = 0; b < u.extent(0); ++b) {
        Eigen::VectorXcd x = Eigen::VectorXcd::Zero(s.A.rows());
        for (index t = 0; t < u.extent(2); ++t) {
            x = s.A * x + s.B * static_cast<double>(u(b, h, t));
            const Eigen::VectorXd out = (s.C * x).real();
            for (index c = 0; c < y.extent(1) && y.data(); ++c) y(b, c, h, t) = static_cast<T>(out[c]);
        }
        for (index n = 0; n < last.extent(2) && last.data(); ++n) last(b, h, n) = std::complex<T>(std::complex<double>(x[n]));
    }
}

const golden::handler s4_step("s4_step", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    using complex = std::complex<real>;
    p.descriptive("init", "rank");
    const golden::dplr_parameters parameters(p);
    auto prepare = setup_args<real>(p, parameters, p.output<complex>("C_tilde", 0, 1, 2));
    prepare.length = p.flag<index>("l_kernel");
    if (prepare.out.data()) p.run(prepare);

    const index dim = parameters.dim, state = parameters.state, rank = prepare.P.extent(0);
    owned<complex, 2> pole({dim, state}), gain({dim, state});
    owned<complex, 3> U({rank, dim, state}), V({rank, dim, state});
    const ssmkit::s4_step_setup_args<real> setup{.delta = parameters.delta_view(),
                                                 .A = parameters.A_view(),
                                                 .B = golden::only(p.input<complex>("B", 0, 1, 2)),
                                                 .P = prepare.P,
                                                 .pole = pole.all,
                                                 .gain = gain.all,
                                                 .U = U.all,
                                                 .V = V.all};
    ssmkit::s4_step_setup(setup);
    const auto u = p.input<real>("u", 0, 1, 2);
    const auto step = [&](const view<complex, 3>& h, const view<real, 4>& y) {
        const ssmkit::s4_step_args<real> a{
            .pole = pole.all, .gain = gain.all, .U = U.all, .V = V.all, .C = prepare.C, .u = u, .h = h, .y = y};
        p.run(a);
    };
    for (const auto& mode : p.flag<std::vector<std::string>>("modes", {})) {
        const auto y = p.output<real>("y." + mode, 0, 1, 2, 3);
        if (mode == "linear") {
            owned<complex, 3> h({u.extent(0), dim, state});
            step(h.all, y);
            copy<complex, 3>(h.all, p.output<complex>("state.linear", 0, 1, 2));
        } else if (mode == "dense" || mode == "diagonal") {
            const auto last = mode == "dense" ? p.output<complex>("state.dense", 0, 1, 2) : view<complex, 3>{};
            for (index h = 0; h < dim; ++h) {
                const auto s = ssmkit::s4_dense(setup, prepare.C, h);
                run_explicit<real>(mode == "dense" ? s : ssmkit::s4_diagonal(s), h, u, y, last);
            }
        } else {
            throw golden::unknown("the mode " + mode + " is unknown");
        }
    }
    if (p.has("next_state")) {  // a chunk of tokens at a time: the layer, by states
        owned<real, 3> y({u.extent(0), u.extent(2), prepare.C.extent(0) * dim});
        p.run(ssmkit::s4_args<real>{.u = u.transposed(1, 2),
                                    .delta = setup.delta,
                                    .A = setup.A,
                                    .B = setup.B,
                                    .P = setup.P,
                                    .true_C = prepare.C,
                                    .initial_state = p.input<complex>("state", 0, 1, 2),
                                    .y = y.all,
                                    .final_state = p.output<complex>("next_state", 0, 1, 2)});
    }
    const auto dA = p.output<complex>("dA", 0, 1, 2), dC = p.output<complex>("dC", 0, 1, 2),
               R = p.output<complex>("linear.R", 0, 1, 2);
    const auto dB = p.output<complex>("dB", 0, 1), D = p.output<complex>("linear.D", 0, 1), E = p.output<complex>("linear.E", 0, 1);
    for (index h = 0; h < dim; ++h) {
        const auto s = ssmkit::s4_dense(setup, prepare.C, h);
        const ssmkit::detail::s4_transition t(setup.delta, 1, setup.A, setup.B, setup.P, h);
        const auto narrow = [](std::complex<double> x) {
            return complex(static_cast<real>(x.real()), static_cast<real>(x.imag()));
        };
        for (index n = 0; n < 2 * state; ++n) {
            for (index m = 0; m < dA.extent(2); ++m) dA(h, n, m) = narrow(s.A(n, m));
            if (dB.data()) dB(h, n) = narrow(s.B(n, 0));
            for (index c = 0; c < dC.extent(0); ++c) dC(c, h, n) = narrow(s.C(c, n));
        }
        for (index n = 0; n < state; ++n) {
            if (D.data()) D(h, n) = narrow(t.D[static_cast<std::size_t>(n)]);
            if (E.data()) E(h, n) = narrow(t.E[static_cast<std::size_t>(n)]);
            for (index r = 0; r < R.extent(0); ++r) R(r, h, n) = narrow(t.R[static_cast<std::size_t>(r * state + n)]);
        }
    }
}, {.f64 = 1e-8, .f32 = 1e-5});

}  // namespace
