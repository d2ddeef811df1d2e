#include <complex>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <ssmkit/args/s5.hpp>
#include <ssmkit/args/s5_backward.hpp>

#include "golden.hpp"
#include "methods.hpp"

namespace {

using golden::index, golden::new_axis, golden::problem, golden::view;

// The files hold one sequence, (length, dim). Single precision: the specification's tolerance of scans at |pole| = 0.99 and of
// gradients.
constexpr golden::tolerance granted{1e-10, 1e-5};

template <class T>
void run(const ssmkit::s5_args<T>& a, problem& p)
{
    p.run(a);
}

template <class T>
void run_backward(const ssmkit::s5_backward_args<T>& a, problem& p)
{
    p.run(a);
}

/// The gradients that all cases store; the others are added to what this returns.
template <class T>
ssmkit::s5_backward_args<T> backward_args(const ssmkit::s5_args<T>& forward, problem& p)
{
    using complex = typename ssmkit::s5_args<T>::complex;
    using real = typename ssmkit::s5_args<T>::real;
    return {
        .forward = forward,
        .dy = p.input<T>("dout", new_axis, 0, 1),
        .dC = p.output<complex>("d_C", 0, 1),
        .dD = p.output<real>("d_D", 0),
        .du = p.output<T>("d_u", new_axis, 0, 1),
    };
}

/// From continuous parameters, that of time as log_step; `spaced` for a case of events with an interval before each.
template <class T>
void continuous(problem& p, bool spaced)
{
    using real = typename ssmkit::s5_args<T>::real;
    using complex = typename ssmkit::s5_args<T>::complex;
    const auto re = p.input<real>("Lambda_re", 0), im = p.input<real>("Lambda_im", 0), log_step = p.input<real>("log_step", 0);
    const index state = re.extent(0);
    const double rescale = p.flag<double>("step_rescale", 1.0);
    std::vector<complex> A, dA(static_cast<std::size_t>(state));
    std::vector<real> delta, ddelta(static_cast<std::size_t>(state));
    for (index n = 0; n < state; ++n) {
        A.emplace_back(re[n], im[n]);
        delta.push_back(static_cast<real>(rescale * std::exp(static_cast<double>(log_step[n]))));
    }
    const ssmkit::s5_args<T> forward{
        .A = {A, state},
        .delta = {delta, state},
        .interval = spaced ? p.input<real>("delta", new_axis, 0) : view<const real, 2>{},
        .B = p.input<complex>("B", 0, 1),
        .C = p.input<complex>("C", 0, 1),
        .D = p.input<real>("D", 0),
        .u = p.input<T>("u", new_axis, 0, 1),
        .method = golden::discretization_named(p.flag<std::string>("disc", "zoh")),
        .conjugate_pairs = p.flag<bool>("conj_sym", true),
        .clip_eigs = p.flag<bool>("clip_eigs", false),
        .bidirectional = p.flag<bool>("bidirectional", false),
        .y = p.output<T>("y", new_axis, 0, 1),
    };
    run(forward, p);
    if (const auto A_bar = p.output<complex>("Lambda_bar", 0); !A_bar.empty()) {  // what the layer shows of its parameters
        std::vector<complex> clipped = A;
        for (index n = 0; n < state; ++n) clipped[static_cast<std::size_t>(n)] = complex(ssmkit::detail::s5_rate(forward, n));
        ssmkit::discretize(ssmkit::discretize_args<complex>{.A = {clipped, state}, .B = forward.B, .delta = forward.delta,
                                                            .method = forward.method, .A_bar = A_bar,
                                                            .B_bar = p.output<complex>("B_bar", 0, 1)});
    }
    if (!p.has("dout")) return;
    auto backward = backward_args(forward, p);
    backward.dA = {dA, state};
    backward.ddelta = {ddelta, state};
    backward.dB = p.output<complex>("d_B", 0, 1);
    if (spaced) backward.dinterval = p.output<real>("d_delta", new_axis, 0);
    run_backward(backward, p);
    const auto d_re = p.output<real>("d_Lambda_re", 0), d_im = p.output<real>("d_Lambda_im", 0),
               d_log = p.output<real>("d_log_step", 0);
    for (index n = 0; n < state; ++n) {
        const auto i = static_cast<std::size_t>(n);
        if (!d_re.empty()) d_re[n] = dA[i].real();
        if (!d_im.empty()) d_im[n] = dA[i].imag();
        if (!d_log.empty()) d_log[n] = delta[i] * ddelta[i];
    }
}

const golden::handler s5_ssm("s5_ssm", []<class T>(golden::element<T>, problem& p) { continuous<T>(p, false); }, granted);
const golden::handler event_s5("event_s5", []<class T>(golden::element<T>, problem& p) { continuous<T>(p, true); }, granted);

/// From discrete parameters; the names are those of the state that goes in, its gradient and the state that comes out.
template <class T>
void discrete(problem& p, ssmkit::s5_args<T> forward, const view<typename ssmkit::s5_args<T>::complex, 2>& d_state)
{
    using complex = typename ssmkit::s5_args<T>::complex;
    forward.A = p.input<complex>("Lambda_bar", 0);
    forward.B = p.input<complex>("B_bar", 0, 1);
    forward.C = p.input<complex>("C", 0, 1);
    forward.u = p.input<T>("u", new_axis, 0, 1);
    forward.y = p.output<T>("y", new_axis, 0, 1);
    run(forward, p);
    if (!p.has("dout")) return;
    auto backward = backward_args(forward, p);
    backward.dA = p.output<complex>("d_Lambda_bar", 0);
    backward.dB = p.output<complex>("d_B_bar", 0, 1);
    backward.dinitial_state = d_state;
    run_backward(backward, p);
}

/// Episodes.
const golden::handler s5_reset(
    "s5_reset",
    []<class T>(golden::element<T>, problem& p) {
        using complex = typename ssmkit::s5_args<T>::complex;
        std::vector<std::uint8_t> reset;
        const auto flags = p.input<typename ssmkit::s5_args<T>::real>("resets", new_axis, 0);
        for (index t = 0; t < flags.extent(1); ++t) reset.push_back(flags(0, t) != 0);
        discrete<T>(p,
                    {.initial_state = p.input<complex>("hidden", 0, 1),
                     .reset = {reset, 1, flags.extent(1)},
                     .conjugate_pairs = p.flag<bool>("conj_sym", true),
                     .final_state = p.output<complex>("hidden_out", 0, 1)},
                    p.output<complex>("d_hidden", 0, 1));
    },
    granted);

/// The exact liquid recurrence; without the factor 2.
const golden::handler liquid_s5(
    "liquid_s5",
    []<class T>(golden::element<T>, problem& p) {
        using complex = typename ssmkit::s5_args<T>::complex;
        discrete<T>(p,
                    {.D = p.input<typename ssmkit::s5_args<T>::real>("D", 0),
                     .initial_state = p.input<complex>("state", new_axis, 0),
                     .conjugate_pairs = false,
                     .liquid = true,
                     .final_state = p.output<complex>("x_L", new_axis, 0)},
                    p.output<complex>("d_state", new_axis, 0));
    },
    granted);

}  // namespace
