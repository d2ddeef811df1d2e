#pragma once

#include <ssmkit/args/convs5.hpp>

namespace ssmkit {

/// The gradients of convs5; complex ones are ∂/∂Re + i ∂/∂Im. As those of s5 with the adjoints of the convolutions:
///
///     s_t = f C^H * dy_t + conj(Ā) s_{t+1}             dfinal_state for the last image
///     dĀ = Σ s_t conj(h_{t-1}),   dB̄(r, c) = Σ s_t u_t^T and dC(r, c) = f Σ dy_t h_t^H over pixels that meet at (r, c)
///     du_t = Re(B̄^H * s_t)
///
/// Zeros outside are multiplied like pixels: a NaN reaches gradients of a kernel's element also by way of those.
///
/// The forward pass need not have run: states are computed again from one image of them every 16. A gradient whose view is left
/// empty is neither computed nor written; one that is given is overwritten, not added to.
template <class T>
struct convs5_backward_args {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    convs5_args<T> forward{};               ///<                                     its inputs; y, final_state may be left empty
    view<const T, 5> dy{};                  ///< (batch, length, height, width, out) gradient of y
    view<const complex, 4> dfinal_state{};  ///< (batch, height, width, state)       of final_state; optional: zero
    view<complex, 1> dA{};                  ///< (state)                             outputs, here and below: each optional
    view<complex, 4> dB{};                  ///< (rows, columns, dim, state)
    view<complex, 4> dC{};                  ///< (rows, columns, state, out)
    view<T, 5> du{};                        ///< (batch, length, height, width, dim)
    view<complex, 4> dinitial_state{};      ///< (batch, height, width, state)
};

/// Throws shape_error, naming the argument, unless the shapes fit and no gradient overlaps an input or another one. Values are
/// trusted.
template <class T>
void check(const convs5_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "convs5_backward";
    const convs5_args<T>& f = a.forward;
    check_convs5(op, f);
    const axis batch{"batch", f.u.extent(0)}, length{"length", f.u.extent(1)}, height{"height", f.u.extent(2)},
        width{"width", f.u.extent(3)};
    const axis dim{"dim", f.u.extent(4)}, state{"state", f.A.extent(0)}, out{"out", f.C.extent(3)};
    require_shape(op, "dy", a.dy, {batch, length, height, width, out});
    require_shape_if_given(op, "dfinal_state", a.dfinal_state, {batch, height, width, state});
    require_shape_if_given(op, "dA", a.dA, {state});
    require_shape_if_given(op, "dB", a.dB, {{"rows", f.B.extent(0)}, {"columns", f.B.extent(1)}, dim, state});
    require_shape_if_given(op, "dC", a.dC, {{"rows", f.C.extent(0)}, {"columns", f.C.extent(1)}, state, out});
    require_shape_if_given(op, "du", a.du, {batch, length, height, width, dim});
    require_shape_if_given(op, "dinitial_state", a.dinitial_state, {batch, height, width, state});
    require_distinct_elements(op, "dA", a.dA);
    require_distinct_elements(op, "dB", a.dB);
    require_distinct_elements(op, "dC", a.dC);
    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "dinitial_state", a.dinitial_state);
    const named_footprint outputs[] = {named("dA", a.dA), named("dB", a.dB), named("dC", a.dC), named("du", a.du),
                                       named("dinitial_state", a.dinitial_state)};
    const named_footprint inputs[] = {named("A", f.A),
                                      named("B", f.B),
                                      named("C", f.C),
                                      named("u", f.u),
                                      named("initial_state", f.initial_state),
                                      named("dy", a.dy),
                                      named("dfinal_state", a.dfinal_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
