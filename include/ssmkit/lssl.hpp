#pragma once

// The linear state space layer: one real dense system, discretised with a step of its own for every channel. double inside.

#include <algorithm>
#include <type_traits>
#include <vector>

#include <ssmkit/check.hpp>
#include <ssmkit/detail/dense_solve.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

///     x_l = Ā_h x_{l-1} + B̄_h u_l,   y_lm = Σ_n C_hmn x_ln + D_hm u_l,   k_hl = Ā_h^l B̄_h      Gu et al., arXiv:2110.13985, section 3
///
/// with the generalised bilinear transform of weight alpha over the step delta_h. The state is that after the last token; LSSL's
/// own code carries Ā x instead.
template <class T>
struct lssl_args {
    view<const T, 2> A{};              ///< (state, state)
    view<const T, 1> B{};              ///< (state)
    view<const double, 1> delta{};     ///< (dim)                           step sizes
    double alpha = 0.5;                ///<                                 0 forward Euler, 1/2 bilinear, 1 backward Euler
    view<const T, 3> u{};              ///< (length, batch, dim)            input
    view<const T, 3> C{};              ///< (dim, channels, state)
    view<const T, 2> D{};              ///< (dim, channels)                 optional
    view<const T, 3> initial_state{};  ///< (batch, dim, state)             optional: zero
    view<T, 4> y{};                    ///< (length, batch, dim, channels)  output; optional
    view<T, 3> k{};                    ///< (dim, state, length)            output; optional
    view<T, 3> final_state{};          ///< (batch, dim, state)             output; optional
};

/// The gradients of y and final_state: s_l = Σ_m dy_lm C_m + Āᵀ s_{l+1}; du_l = B̄·s_l + Σ_m dy_lm D_m; of Ā Σ s_l x_{l-1}ᵀ, of B̄
/// Σ s_l u_l, and from these to delta, A and B (both summed over dim). A gradient whose view is left empty is not written.
template <class T>
struct lssl_backward_args {
    lssl_args<T> forward{};             ///<                                 its outputs may be empty
    view<const T, 4> dy{};              ///< (length, batch, dim, channels)
    view<const T, 3> dfinal_state{};    ///< (batch, dim, state)             optional: zero
    view<T, 2> dA{};                    ///< (state, state)                  outputs, here and below: each optional
    view<T, 1> dB{};                    ///< (state)
    view<double, 1> ddelta{};           ///< (dim)
    view<T, 3> du{};                    ///< (length, batch, dim)
    view<T, 3> dC{};                    ///< (dim, channels, state)
    view<T, 2> dD{};                    ///< (dim, channels)
    view<T, 3> dinitial_state{};        ///< (batch, dim, state)
};

namespace detail {

template <class T>
void check_lssl_inputs(const char* op, const lssl_args<T>& a)
{
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    const axis dim{"dim", a.delta.extent(0)}, state{"state", a.B.extent(0)}, batch{"batch", a.u.extent(1)};
    require_shape(op, "A", a.A, {state, state});
    require_shape(op, "u", a.u, {{"length"}, {"batch"}, dim});
    require_shape(op, "C", a.C, {dim, {"channels"}, state});
    require_shape_if_given(op, "D", a.D, {dim, {"channels", a.C.extent(1)}});
    require_shape_if_given(op, "initial_state", a.initial_state, {batch, dim, state});
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const lssl_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "lssl";
    check_lssl_inputs(op, a);
    const axis length{"length", a.u.extent(0)}, batch{"batch", a.u.extent(1)}, dim{"dim", a.u.extent(2)}, state{"state", a.B.extent(0)};
    require_shape_if_given(op, "y", a.y, {length, batch, dim, {"channels", a.C.extent(1)}});
    require_shape_if_given(op, "k", a.k, {dim, state, length});
    require_shape_if_given(op, "final_state", a.final_state, {batch, dim, state});
    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "k", a.k);
    require_distinct_elements(op, "final_state", a.final_state);
    const named_footprint outputs[] = {named("y", a.y), named("k", a.k), named("final_state", a.final_state)};
    const named_footprint inputs[] = {named("A", a.A), named("B", a.B), named("delta", a.delta), named("u", a.u), named("C", a.C),
                                      named("D", a.D), named("initial_state", a.initial_state)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const lssl_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "lssl_backward";
    const lssl_args<T>& f = a.forward;
    check_lssl_inputs(op, f);
    const axis length{"length", f.u.extent(0)}, batch{"batch", f.u.extent(1)}, dim{"dim", f.u.extent(2)}, state{"state", f.B.extent(0)};
    const axis channels{"channels", f.C.extent(1)};
    require_shape(op, "dy", a.dy, {length, batch, dim, channels});
    require_shape_if_given(op, "dfinal_state", a.dfinal_state, {batch, dim, state});
    require_shape_if_given(op, "dA", a.dA, {state, state});
    require_shape_if_given(op, "dB", a.dB, {state});
    require_shape_if_given(op, "ddelta", a.ddelta, {dim});
    require_shape_if_given(op, "du", a.du, {length, batch, dim});
    require_shape_if_given(op, "dC", a.dC, {dim, channels, state});
    require_shape_if_given(op, "dD", a.dD, {dim, channels});
    require_shape_if_given(op, "dinitial_state", a.dinitial_state, {batch, dim, state});
    require_distinct_elements(op, "dA", a.dA);
    require_distinct_elements(op, "dB", a.dB);
    require_distinct_elements(op, "ddelta", a.ddelta);
    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "dC", a.dC);
    require_distinct_elements(op, "dD", a.dD);
    require_distinct_elements(op, "dinitial_state", a.dinitial_state);
    const named_footprint outputs[] = {named("dA", a.dA), named("dB", a.dB), named("ddelta", a.ddelta), named("du", a.du), named("dC", a.dC),
                                       named("dD", a.dD), named("dinitial_state", a.dinitial_state)};
    const named_footprint inputs[] = {named("A", f.A), named("B", f.B), named("delta", f.delta), named("u", f.u), named("C", f.C),
                                      named("D", f.D), named("initial_state", f.initial_state), named("dy", a.dy),
                                      named("dfinal_state", a.dfinal_state)};
    require_disjoint(op, outputs, inputs);
}

namespace detail {

template <class T>
bilinear_system<double> lssl_system(const lssl_args<T>& a, index h)
{
    return {widened_matrix<double>(a.A), widened_vector<double>(a.B), a.delta[h], a.alpha};
}

/// x ← Ā x + B̄ u, through `next`.
inline void lssl_advance(const bilinear_system<double>& system, std::vector<double>& x, std::vector<double>& next, double u)
{
    system.A_bar.times(x.data(), next.data());
    for (std::size_t n = 0; n < x.size(); ++n) next[n] += system.B_bar[n] * u;
    std::swap(x, next);
}

}  // namespace detail

/// The linear state space layer: shapes and equations at lssl_args. Throws shape_error before anything is written. state² operations a
/// token and channel. Work splits over dim.
template <class T, execution_resource Exec = in_place>
void lssl(const lssl_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index length = a.u.extent(0), state = a.B.extent(0), channels = a.C.extent(1);
    run_tasks(exec, static_cast<std::size_t>(a.u.extent(2)), [&](std::size_t task, std::size_t) {
        const auto h = static_cast<index>(task);
        const auto system = lssl_system(a, h);
        std::vector<double> x = system.B_bar, next(x.size());
        for (index l = 0; l < length && a.k.data(); ++l) {
            for (index n = 0; n < state; ++n) a.k(h, n, l) = static_cast<T>(x[static_cast<std::size_t>(n)]);
            lssl_advance(system, x, next, 0);
        }
        for (index b = 0; b < a.u.extent(1) && (a.y.data() || a.final_state.data()); ++b) {
            std::fill(x.begin(), x.end(), 0.0);
            if (a.initial_state.data()) x = widened_vector<double>(a.initial_state[b][h]);
            for (index l = 0; l < length; ++l) {
                lssl_advance(system, x, next, static_cast<double>(a.u(l, b, h)));
                for (index m = 0; m < channels && a.y.data(); ++m) {
                    double sum = a.D.data() ? static_cast<double>(a.D(h, m)) * static_cast<double>(a.u(l, b, h)) : 0;
                    for (index n = 0; n < state; ++n) sum += static_cast<double>(a.C(h, m, n)) * x[static_cast<std::size_t>(n)];
                    a.y(l, b, h, m) = static_cast<T>(sum);
                }
            }
            for (index n = 0; n < state && a.final_state.data(); ++n) a.final_state(b, h, n) = static_cast<T>(x[static_cast<std::size_t>(n)]);
        }
    });
}

/// The gradients of lssl: equations at lssl_backward_args. Throws shape_error before anything is written. Keeps state * length doubles
/// for each task that runs at once, and state² for each channel of dim where dA is asked for. Work splits over dim; the result does
/// not depend on the split, bit for bit.
template <class T, execution_resource Exec = in_place>
void lssl_backward(const lssl_backward_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const lssl_args<T>& f = a.forward;
    const index length = f.u.extent(0), dim = f.u.extent(2), state = f.B.extent(0), channels = f.C.extent(1);
    std::vector<std::vector<double>> dA(static_cast<std::size_t>(dim)), dB(static_cast<std::size_t>(dim));
    run_tasks(exec, static_cast<std::size_t>(dim), [&](std::size_t task, std::size_t) {
        const auto h = static_cast<index>(task);
        const auto at = [&](index l) { return static_cast<std::size_t>(l * state); };
        const auto system = lssl_system(f, h);
        small_matrix<double> dA_bar(state);
        std::vector<double> dB_bar(at(1)), states(at(length + 1)), s(at(1)), earlier(at(1)), dC(at(channels)), dD(static_cast<std::size_t>(channels));
        for (index b = 0; b < f.u.extent(1); ++b) {
            std::fill_n(states.begin(), at(1), 0.0);
            if (f.initial_state.data()) std::ranges::copy(widened_vector<double>(f.initial_state[b][h]), states.begin());
            for (index l = 0; l < length; ++l) {
                system.A_bar.times(&states[at(l)], &states[at(l + 1)]);
                for (std::size_t n = 0; n < at(1); ++n) states[at(l + 1) + n] += system.B_bar[n] * static_cast<double>(f.u(l, b, h));
            }
            std::fill(earlier.begin(), earlier.end(), 0.0);
            if (a.dfinal_state.data()) earlier = widened_vector<double>(a.dfinal_state[b][h]);
            for (index l = length - 1; l >= 0; --l) {
                std::swap(s, earlier);
                double du = 0;
                for (index m = 0; m < channels; ++m) {
                    const auto g = static_cast<double>(a.dy(l, b, h, m));
                    for (std::size_t n = 0; n < at(1); ++n) {
                        s[n] += g * static_cast<double>(f.C(h, m, static_cast<index>(n)));
                        dC[at(m) + n] += g * states[at(l + 1) + n];
                    }
                    if (f.D.data()) du += g * static_cast<double>(f.D(h, m));
                    dD[static_cast<std::size_t>(m)] += g * static_cast<double>(f.u(l, b, h));
                }
                for (std::size_t n = 0; n < at(1); ++n) {
                    du += system.B_bar[n] * s[n];
                    dB_bar[n] += s[n] * static_cast<double>(f.u(l, b, h));
                }
                dA_bar.add_outer(s.data(), &states[at(l)]);
                if (a.du.data()) a.du(l, b, h) = static_cast<T>(du);
                std::fill(earlier.begin(), earlier.end(), 0.0);
                system.A_bar.add_adjoint_times(s.data(), earlier.data());
            }
            for (index n = 0; n < state && a.dinitial_state.data(); ++n) a.dinitial_state(b, h, n) = static_cast<T>(earlier[static_cast<std::size_t>(n)]);
        }
        auto g = system.backward(dA_bar, dB_bar);
        if (a.ddelta.data()) a.ddelta[h] = g.delta;
        for (index m = 0; m < channels; ++m) {
            for (index n = 0; n < state && a.dC.data(); ++n) a.dC(h, m, n) = static_cast<T>(dC[at(m) + static_cast<std::size_t>(n)]);
            if (a.dD.data()) a.dD(h, m) = static_cast<T>(dD[static_cast<std::size_t>(m)]);
        }
        if (a.dA.data()) dA[task] = std::move(g.A.data);
        if (a.dB.data()) dB[task] = std::move(g.B);
    });
    for (index n = 0; n < state; ++n) {
        const auto of_all = [&](const auto& each, index i) {
            double sum = 0;
            for (const auto& one : each) sum += one[static_cast<std::size_t>(i)];
            return static_cast<T>(sum);
        };
        if (a.dB.data()) a.dB[n] = of_all(dB, n);
        for (index k = 0; k < state && a.dA.data(); ++k) a.dA(n, k) = of_all(dA, n * state + k);
    }
}

}  // namespace ssmkit
