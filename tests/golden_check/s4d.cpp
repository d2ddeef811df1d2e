#include <complex>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <ssmkit/args/s4d_discretize.hpp>
#include <ssmkit/args/s4d_kernel.hpp>
#include <ssmkit/args/s4d_kernel_backward.hpp>
#include <ssmkit/args/s4d_step.hpp>
#include <ssmkit/args/vandermonde_transpose.hpp>
#include <ssmkit/discretize.hpp>

#include "diagonal_parameters.hpp"
#include "dplr.hpp"
#include "golden.hpp"
#include "methods.hpp"

namespace {

using golden::index, golden::new_axis, golden::problem, golden::view;
using ssmkit::positive_transform;

/// What the models of the family have in common: stored parameters, kernels and gradients.
template <class R>
struct tensors {
    using E = std::complex<R>;

    positive_transform delta_transform = positive_transform::exp, real_transform = positive_transform::exp,
                       imag_transform = positive_transform::none;
    double imag_sign = -1;                        // A = -T(A_real) + imag_sign i T(A_imag)
    view<const double, 2> delta, A_real, A_imag;  // A_imag may be missing
    view<const E, 2> B;                           // ones if missing
    view<const E, 3> C, state;
    ssmkit::s4d_discretization method{};
    double rate = 1, bandlimit = std::numeric_limits<double>::infinity();
    view<R, 3> K;
    view<R, 4> K_state;

    view<const R, 3> dK;  // without it, no gradients
    view<double, 2> d_delta, d_A_real, d_A_imag;
    view<E, 2> dB;
    view<E, 3> dC;
};

template <class R>
void run(problem& p, const tensors<R>& t)
{
    using E = std::complex<R>;
    const index copies = t.A_real.extent(0), state = t.A_real.extent(1), dim = t.delta.extent(0);
    const bool tied = t.delta.extent(1) == 1;
    const std::vector<double> delta = golden::transformed(t.delta, t.delta_transform, 1);
    const std::vector<double> re = golden::transformed(t.A_real, t.real_transform, -1);
    const std::vector<double> im = golden::transformed(t.A_imag, t.imag_transform, t.imag_sign);
    std::vector<std::complex<double>> A;
    for (std::size_t i = 0; i < re.size(); ++i) A.emplace_back(re[i], im.empty() ? 0.0 : im[i]);
    const std::vector<E> ones(t.B.data() ? 0 : A.size(), E(1));
    const auto over_state = [&]<class D>(D* values) { return view<D, 2>(values, {dim, state}, {t.delta.extent(1), tied ? 0 : 1}); };
    const ssmkit::s4d_kernel_args<R> forward{.delta = over_state(delta.data()),
                                             .A = {A, copies, state},
                                             .B = t.B.data() ? t.B : view<const E, 2>(ones, copies, state),
                                             .C = t.C,
                                             .method = t.method,
                                             .rate = t.rate,
                                             .bandlimit = t.bandlimit,
                                             .initial_state = t.state,
                                             .K = t.K,
                                             .K_state = t.K_state};
    p.run(forward);
    if (!t.dK.data()) return;
    std::vector<double> ddelta(delta.size());
    std::vector<std::complex<double>> dA(A.size());
    const ssmkit::s4d_kernel_backward_args<R> backward{.forward = forward,
                                                       .dK = t.dK,
                                                       .ddelta = over_state(ddelta.data()),
                                                       .dA = {dA, copies, state},
                                                       .dB = t.dB,
                                                       .dC = t.dC};
    p.run(backward);
    const auto at = [](const view<const double, 2>& stored, index i, index k) {
        return static_cast<std::size_t>(i * stored.extent(1) + k);
    };
    golden::store_transformed(t.d_delta, t.delta, t.delta_transform, 1,
                              [&](index i, index k) { return ddelta[at(t.delta, i, k)]; });
    golden::store_transformed(t.d_A_real, t.A_real, t.real_transform, -1,
                              [&](index i, index k) { return dA[at(t.A_real, i, k)].real(); });
    golden::store_transformed(t.d_A_imag, t.A_imag, t.imag_transform, t.imag_sign,
                              [&](index i, index k) { return dA[at(t.A_imag, i, k)].imag(); });
}

// Tolerances: section 19 of the specification.
constexpr golden::tolerance kernel_tolerance{.f64 = 1e-10, .f32 = 1e-5};

const golden::handler s4d_kernel(
    "s4d_kernel",
    []<class T>(golden::element<T>, problem& p) {
        using R = ssmkit::compute_t<T>;
        using E = std::complex<R>;
        tensors<R> t;
        p.descriptive("L", "dt_tie", "n_ssm");
        t.delta_transform = golden::transform_named(p.flag<std::string>("dt_transform", "exp"));
        t.real_transform = golden::transform_named(p.flag<std::string>("real_transform", "exp"));
        t.imag_transform = golden::transform_named(p.flag<std::string>("imag_transform", "none"));
        t.method = golden::s4d_discretization_named(p.flag<std::string>("disc", "zoh"));
        t.rate = p.flag<double>("rate", 1.0);
        const auto bandlimit = p.flag<nlohmann::json>("bandlimit", nullptr);
        if (!bandlimit.is_null()) t.bandlimit = bandlimit.get<double>();
        const bool real = p.flag<bool>("is_real", !p.has("A_imag"));
        golden::complex_tensor<E, 3> B, C, state, dB, dC;
        t.delta = p.input<double>("inv_dt", 0, 1);
        t.A_real = p.input<double>("A_real", 0, 1);
        t.A_imag = p.input<double>("A_imag", 0, 1);
        t.B = B.input(p, "B", real, 0, 1, 2)[0];
        t.C = C.input(p, "C", real, 0, 1, 2);
        t.state = state.input(p, "state", real, 0, 1, 2);
        t.K = p.output<R>("K", 0, 1, 2);
        t.K_state = p.output<R>("K_state", 0, 1, 2, 3);
        if (p.has("dout")) {
            // Of dss, what an automatic differentiation that leaves out the shift returns: for information.
            for (const char* name : {"dref_inv_dt", "dref_A_real", "dref_A_imag", "dref_B", "dref_C"}) p.ignored(name);
            t.dK = p.input<R>("dout", 0, 1, 2);
            t.d_delta = p.output<double>("d_inv_dt", 0, 1);
            t.d_A_real = p.output<double>("d_A_real", 0, 1);
            t.d_A_imag = p.output<double>("d_A_imag", 0, 1);
            t.dB = dB.output(p, "d_B", real, 0, 1, 2)[0];
            t.dC = dC.output(p, "d_C", real, 0, 1, 2);
        }
        run(p, t);
        dB.store();
        dC.store();
    },
    kernel_tolerance);

/// A = -e^log_A_real + i A_imag, no B.
const golden::handler s4d_min_kernel(
    "s4d_min_kernel",
    []<class T>(golden::element<T>, problem& p) {
        using R = ssmkit::compute_t<T>;
        using E = std::complex<R>;
        p.descriptive("L");
        tensors<R> t;
        t.imag_sign = 1;
        t.delta = p.input<double>("log_dt", 0, new_axis);
        t.A_real = p.input<double>("log_A_real", 0, 1);
        t.A_imag = p.input<double>("A_imag", 0, 1);
        t.C = p.input<E>("C", new_axis, 0, 1);
        t.K = p.output<R>("K", new_axis, 0, 1);
        if (p.has("dout")) {
            t.dK = p.input<R>("dout", new_axis, 0, 1);
            t.d_delta = p.output<double>("d_log_dt", 0, new_axis);
            t.d_A_real = p.output<double>("d_log_A_real", 0, 1);
            t.d_A_imag = p.output<double>("d_A_imag", 0, 1);
            t.dC = p.output<E>("d_C", new_axis, 0, 1);
        }
        run(p, t);
    },
    kernel_tolerance);

/// The same with B, for H3.
const golden::handler h3_diag_kernel(
    "h3_diag_kernel",
    []<class T>(golden::element<T>, problem& p) {
        using R = ssmkit::compute_t<T>;
        using E = std::complex<R>;
        p.descriptive("L");
        tensors<R> t;
        t.imag_sign = 1;
        t.method = golden::s4d_discretization_named(p.flag<std::string>("disc", "bilinear"));
        t.delta = p.input<double>("log_dt", 0, new_axis);
        t.A_real = p.input<double>("inv_A_real", 0, 1);
        t.A_imag = p.input<double>("A_imag", 0, 1);
        t.B = p.input<E>("B", 0, 1);
        t.C = p.input<E>("C", 0, 1, 2);
        t.state = p.input<E>("state", 0, 1, 2);
        t.K = p.output<R>("K", 0, 1, 2);
        t.K_state = p.output<R>("K_state", 0, 1, 2, 3);
        if (p.has("dout")) {
            t.dK = p.input<R>("dout", 0, 1, 2);
            t.d_delta = p.output<double>("d_log_dt", 0, new_axis);
            t.d_A_real = p.output<double>("d_inv_A_real", 0, 1);
            t.d_A_imag = p.output<double>("d_A_imag", 0, 1);
            t.dB = p.output<E>("d_B", 0, 1);
            t.dC = p.output<E>("d_C", 0, 1, 2);
        }
        run(p, t);
    },
    kernel_tolerance);

/// The recurrence, and the state after a block at once: λ^L x + B̄ Σ_l λ^{L-1-l} u_l, by the transpose on the reversed input.
const golden::handler s4d_step(
    "s4d_step",
    []<class T>(golden::element<T>, problem& p) {
        using R = ssmkit::compute_t<T>;
        using E = std::complex<R>;
        p.descriptive("L");
        if (p.flag<bool>("is_real", false)) throw golden::unknown("steps of a real system are unknown");
        const golden::dplr_parameters parameters(p);
        const index dim = parameters.dim, state = parameters.state;
        std::vector<double> delta = parameters.delta;
        for (double& step : delta) step *= p.flag<double>("rate", 1.0);
        const auto pole = p.output<E>("dA", 0, 1), input = p.output<E>("dB", 0, 1);
        const ssmkit::s4d_discretize_args<R> system{
            .delta = {delta.data(), parameters.delta_view().extents(), parameters.delta_view().strides()},
            .A = parameters.A_view(),
            .B = p.input<E>("B", 0, 1, 2)[0],
            .method = golden::s4d_discretization_named(p.flag<std::string>("disc", "zoh")),
            .pole = pole,
            .input = input};
        p.run(system);
        const auto y = p.output<R>("y", 0, 1, 2, 3);
        const auto u = p.input<R>("u", 0, 1, 2);
        const auto next = p.output<E>("next_state", 0, 1, 2);  // from zero if the file has no state
        const auto before = p.input<E>("state", 0, 1, 2);
        const golden::owned<E, 3> zero({u.extent(0), dim, state});
        golden::copy<E, 3>(before.data() ? before : view<const E, 3>(zero.all), next);
        const ssmkit::s4d_step_args<R> a{.h = next,
                                         .pole = pole,
                                         .input = input,
                                         .C = p.input<E>("C", 0, 1, 2),
                                         .u = u.transposed(1, 2),
                                         .y = y.transposed(1, 3).transposed(2, 3)};
        p.run(a);

        const index batch = u.extent(0), length = u.extent(2);
        const auto after = p.output<E>("next_state_fast", 0, 1, 2);
        std::vector<std::complex<double>> log_pole;
        for (index h = 0; h < dim; ++h) {
            for (index n = 0; n < state; ++n) {
                const std::complex<double> rate = system.A(h % parameters.copies, n);
                const auto method = system.method == ssmkit::s4d_discretization::zoh ? ssmkit::discretization::zoh
                                                                                     : ssmkit::discretization::bilinear;
                log_pole.push_back(std::log(ssmkit::discretize(rate, system.delta(h, n), method).pole));
            }
        }
        std::vector<E> sums(static_cast<std::size_t>(batch * dim * state));
        const ssmkit::vandermonde_transpose_args<R> chunk{
            .log_pole = {log_pole, dim, state}, .u = u.reversed(2), .sum = {sums, batch, dim, state}};
        p.run(chunk);
        for (index b = 0; b < after.extent(0); ++b) {
            for (index h = 0; h < dim; ++h) {
                for (index n = 0; n < state; ++n) {
                    const E decay(std::exp(static_cast<double>(length) * chunk.log_pole(h, n)));
                    after(b, h, n) = (before.data() ? decay * before(b, h, n) : E(0)) + input(h, n) * chunk.sum(b, h, n);
                }
            }
        }
    },
    kernel_tolerance);

}  // namespace
