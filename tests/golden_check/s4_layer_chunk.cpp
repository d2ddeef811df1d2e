#include <complex>
#include <string>
#include <vector>

#include <ssmkit/args/s4_kernel.hpp>
#include <ssmkit/discretize.hpp>
#include <ssmkit/s4_setup.hpp>
#include <ssmkit/s4_step.hpp>

#include "dplr.hpp"
#include "methods.hpp"

namespace {

using golden::copy, golden::index, golden::owned, golden::problem, golden::view;

/// The layer y = conv(u, K) + K_state + D u of section 7.5, whose state goes on by steps. The diagonal model's kernel is that of
/// stepping; S4's is computed for the length of each piece.
template <class T>
struct layer {
    using complex = std::complex<T>;
    problem& p;
    golden::dplr_parameters parameters;
    view<const complex, 2> B;
    view<const complex, 3> P, C;
    view<const T, 2> D;
    owned<complex, 2> pole, gain;
    owned<complex, 3> U, V;
    bool diagonal;

    explicit layer(problem& given)
        : p(given), parameters(p), B(golden::only(p.input<complex>("B", 0, 1, 2))), P(p.input<complex>("P", 0, 1, 2)),
          C(p.input<complex>("C", 0, 1, 2)), D(p.input<T>("D", 0, 1)), pole({parameters.dim, parameters.state}),
          gain({parameters.dim, parameters.state}), U({P.extent(0), parameters.dim, parameters.state}),
          V({P.extent(0), parameters.dim, parameters.state})
    {
        const auto mode = p.flag<std::string>("mode");
        diagonal = mode == "diag";
        if (!diagonal && mode != "dplr") throw golden::unknown("the mode " + mode + " is unknown");
        const auto delta = parameters.delta_view();
        const auto A = parameters.A_view();
        const auto disc = p.flag<std::string>("disc", diagonal ? "zoh" : "bilinear");
        if (!diagonal) {
            if (disc != "bilinear") p.descriptive("disc");  // of the diagonal kernel: this one is always bilinear
            ssmkit::s4_step_setup(ssmkit::s4_step_setup_args<T>{
                .delta = delta, .A = A, .B = B, .P = P, .pole = pole.all, .gain = gain.all, .U = U.all, .V = V.all});
            return;
        }
        const auto method = golden::discretization_named(disc);
        for (index h = 0; h < parameters.dim; ++h) {
            for (index n = 0; n < parameters.state; ++n) {
                const auto d = ssmkit::discretize(A(h % parameters.copies, n), delta(h, n), method);
                const auto input = d.gain * std::complex<double>(B(h % parameters.copies, n));
                pole.all(h, n) = {static_cast<T>(d.pole.real()), static_cast<T>(d.pole.imag())};
                gain.all(h, n) = {static_cast<T>(input.real()), static_cast<T>(input.imag())};
            }
        }
    }

    /// Tokens of u into y, (batch, channels dim, length); the state before them becomes that after.
    void run(const view<const T, 3>& u, const view<complex, 3>& state, const view<T, 3>& y)
    {
        const index batch = u.extent(0), dim = u.extent(1), length = u.extent(2), channels = C.extent(0);
        owned<T, 4> out({batch, channels, dim, length});
        if (!diagonal) {  // maps and kernels in double: preparing for a short length loses what 1 - λ^length loses
            using wide = std::complex<double>;
            owned<wide, 3> prepared(C.extents()), before(state.extents());
            for (index b = 0; b < batch; ++b) {
                for (index h = 0; h < dim; ++h) {
                    for (index n = 0; n < state.extent(2); ++n) before.all(b, h, n) = wide(state(b, h, n));
                }
            }
            const auto P_wide = p.input<wide>("P", 0, 1, 2);
            ssmkit::s4_setup(ssmkit::s4_setup_args<double>{.delta = parameters.delta_view(),
                                                           .A = parameters.A_view(),
                                                           .P = P_wide,
                                                           .C = p.input<wide>("C", 0, 1, 2),
                                                           .length = length,
                                                           .out = prepared.all});
            owned<double, 3> K({channels, dim, length});
            owned<double, 4> K_state({batch, channels, dim, length});
            const ssmkit::s4_kernel_args<double> kernel{.delta = parameters.delta_view(),
                                                        .A = parameters.A_view(),
                                                        .B = golden::only(p.input<wide>("B", 0, 1, 2)),
                                                        .P = P_wide,
                                                        .C = prepared.all,
                                                        .initial_state = before.all,
                                                        .K = K.all,
                                                        .K_state = K_state.all};
            p.run(kernel);
            for (index b = 0; b < batch; ++b) {
                for (index c = 0; c < channels; ++c) {
                    for (index h = 0; h < dim; ++h) {
                        for (index t = 0; t < length; ++t) {
                            double sum = K_state.all(b, c, h, t);
                            for (index m = 0; m <= t; ++m) sum += K.all(c, h, m) * static_cast<double>(u(b, h, t - m));
                            out.all(b, c, h, t) = static_cast<T>(sum);
                        }
                    }
                }
            }
        }
        const ssmkit::s4_step_args<T> step{.pole = pole.all, .gain = gain.all, .U = U.all, .V = V.all, .C = C, .u = u, .h = state,
                                           .y = diagonal ? out.all : view<T, 4>{}};
        p.run(step);
        for (index b = 0; b < batch; ++b) {
            for (index c = 0; c < channels; ++c) {
                for (index h = 0; h < dim; ++h) {
                    for (index t = 0; t < length && y.data(); ++t)
                        y(b, c * dim + h, t) = out.all(b, c, h, t) + D(c, h) * u(b, h, t);
                }
            }
        }
    }
};

const golden::handler s4_layer_chunk("s4_layer_chunk", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    using complex = std::complex<real>;
    p.descriptive("rank", "channels", "init");
    layer<real> model(p);
    const auto u = p.input<real>("u", 0, 1, 2);
    const auto initial = p.input<complex>("state", 0, 1, 2);
    const auto chunks = p.flag<std::vector<index>>("chunks");
    const auto run = [&](const std::vector<index>& lengths, const char* y_name, const char* state_name) {
        owned<complex, 3> state(initial.extents());
        copy<complex, 3>(initial, state.all);
        const auto y = p.output<real>(y_name, 0, 1, 2);
        index first = 0;
        for (const index length : lengths) {
            model.run(u.slice(2, first, length), state.all, y.data() ? y.slice(2, first, length) : y);
            first += length;
        }
        if (first != u.extent(2)) throw std::runtime_error("the chunks do not make up the sequence");
        copy<complex, 3>(view<const complex, 3>(state.all), p.output<complex>(state_name, 0, 1, 2));
    };
    run({u.extent(2)}, "y", "next_state");
    run(chunks, "y_chunked", "next_state_chunked");
}, {.f64 = 1e-10, .f32 = 2e-5});

}  // namespace
