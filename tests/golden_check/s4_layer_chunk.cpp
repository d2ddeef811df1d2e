#include <complex>
#include <stdexcept>
#include <string>
#include <vector>

#include <ssmkit/args/s4.hpp>
#include <ssmkit/args/s4d.hpp>

#include "dplr.hpp"

namespace {

using golden::copy, golden::index, golden::owned, golden::problem, golden::view;

/// The layer of section 7.5 over a sequence at once and in pieces that hand on their state: S4 with its true output map in mode
/// dplr, S4D in mode diag.
template <class R>
struct layer {
    using complex = std::complex<R>;
    problem& p;
    golden::dplr_parameters parameters;
    view<const complex, 2> B;
    view<const complex, 3> P, C;
    view<const R, 2> D;
    ssmkit::s4d_discretization method;
    bool diagonal;

    explicit layer(problem& given)
        : p(given), parameters(p), B(golden::only(p.input<complex>("B", 0, 1, 2))), P(p.input<complex>("P", 0, 1, 2)),
          C(p.input<complex>("C", 0, 1, 2)), D(p.input<R>("D", 0, 1)),
          // In mode dplr a flag `disc` is of the diagonal kernel, which has no part in it: S4's is always bilinear.
          method(golden::s4d_discretization_named(p.flag<std::string>("disc", "zoh")))
    {
        const auto mode = p.flag<std::string>("mode");
        diagonal = mode == "diag";
        if (!diagonal && mode != "dplr") throw golden::unknown("the mode " + mode + " is unknown");
        if (!diagonal && !P.data()) throw std::runtime_error("P is missing");
    }

    /// Tokens of u into y, (batch, channels · dim, length); the state before them becomes that after.
    void run(const view<const R, 3>& u, const view<complex, 3>& state, const view<R, 3>& y)
    {
        const auto arguments = [&]<class Args>(Args a) {
            a.u = u.transposed(1, 2);
            a.delta = parameters.delta_view();
            a.A = parameters.A_view();
            a.B = B;
            a.D = D;
            a.initial_state = state;
            a.y = y.transposed(1, 2);
            a.final_state = state;
            p.run(a);
        };
        if (diagonal) return arguments(ssmkit::s4d_args<R>{.C = C, .method = method});
        arguments(ssmkit::s4_args<R>{.P = P, .true_C = C});
    }
};

const golden::handler s4_layer_chunk("s4_layer_chunk", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    using complex = std::complex<real>;
    p.descriptive("rank", "channels", "init");
    layer<real> model(p);
    const auto u = p.input<real>("u", 0, 1, 2);
    const auto initial = p.input<complex>("state", 0, 1, 2);
    const auto run = [&](const std::vector<index>& lengths, const char* y_name, const char* state_name) {
        owned<complex, 3> state(initial.extents());
        copy<complex, 3>(initial, state.all);
        const auto y = p.output<real>(y_name, 0, 1, 2);
        index first = 0;
        for (const index length : lengths) {
            if (length < 0 || first + length > u.extent(2)) break;
            model.run(u.slice(2, first, length), state.all, y.slice(2, first, length));
            first += length;
        }
        if (first != u.extent(2)) throw std::runtime_error("the chunks do not make up the sequence");
        copy<complex, 3>(view<const complex, 3>(state.all), p.output<complex>(state_name, 0, 1, 2));
    };
    run({u.extent(2)}, "y", "next_state");
    run(p.flag<std::vector<index>>("chunks"), "y_chunked", "next_state_chunked");
}, {.f64 = 1e-10, .f32 = 2e-5});

}  // namespace
