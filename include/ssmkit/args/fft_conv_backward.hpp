#pragma once

#include <ssmkit/args/fft_conv.hpp>

namespace ssmkit {

/// The gradients of fft_conv. With dp = output_gate ∘ dy,
///
///     dv_t = Σ_c (D dp_t + Σ_m k_m dp_{t+m} + Σ_m k_reverse_m dp_{t-m-s}),   du = input_gate ∘ dv,   dinput_gate = u ∘ dv
///     dk_m = Σ_b Σ_t dp_t v_{t-m},   dk_reverse_m = Σ_b Σ_t dp_t v_{t+m+s},  dD = Σ_b Σ_t dp_t v_t
///     doutput_gate = Σ_c dy ∘ p                                              p, v, s: see fft_conv_args
///
/// The forward pass's output is not needed; forward.y may be left empty. A gradient whose view is left empty is neither computed
/// nor written; one that is given is overwritten, not added to.
template <class T>
struct fft_conv_backward_args {
    fft_conv_args<T> forward{};
    view<const T, 4> dy{};                 ///< (batch, channels, dim, length)  gradient of y
    view<T, 3> du{};                       ///< (batch, dim, length)            outputs, here and below: each optional
    view<compute_t<T>, 3> dk{};            ///< (channels, dim, width)
    view<compute_t<T>, 3> dk_reverse{};    ///< (channels, dim, reverse width)
    view<compute_t<T>, 2> dD{};            ///< (channels, dim)
    view<T, 3> dinput_gate{};              ///< (batch, dim, length)
    view<T, 3> doutput_gate{};             ///< (batch, dim, length)
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output. Values are
/// trusted.
template <class T>
void check(const fft_conv_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "fft_conv_backward";
    const fft_conv_args<T>& f = a.forward;
    check_fft_conv_inputs(op, f);
    const axis batch{"batch", f.u.extent(0)}, dim{"dim", f.u.extent(1)}, length{"length", f.u.extent(2)};
    const axis channels{"channels", f.k.extent(0)};
    require_shape(op, "dy", a.dy, {batch, channels, dim, length});
    require_shape_if_given(op, "du", a.du, {batch, dim, length});
    require_shape_if_given(op, "dk", a.dk, {channels, dim, {"width", f.k.extent(2)}});
    require_shape_if_given(op, "dk_reverse", a.dk_reverse, {channels, dim, {"width", f.k_reverse.extent(2)}});
    require_shape_if_given(op, "dD", a.dD, {channels, dim});
    require_shape_if_given(op, "dinput_gate", a.dinput_gate, {batch, dim, length});
    require_shape_if_given(op, "doutput_gate", a.doutput_gate, {batch, dim, length});
    require(a.dk_reverse.data() == nullptr || f.k_reverse.data() != nullptr, op, "dk_reverse", "is asked for without k_reverse");
    require(a.dinput_gate.data() == nullptr || f.input_gate.data() != nullptr, op, "dinput_gate",
            "is asked for without input_gate");
    require(a.doutput_gate.data() == nullptr || f.output_gate.data() != nullptr, op, "doutput_gate",
            "is asked for without output_gate");
    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "dk", a.dk);
    require_distinct_elements(op, "dk_reverse", a.dk_reverse);
    require_distinct_elements(op, "dD", a.dD);
    require_distinct_elements(op, "dinput_gate", a.dinput_gate);
    require_distinct_elements(op, "doutput_gate", a.doutput_gate);
    const named_footprint outputs[] = {named("du", a.du), named("dk", a.dk), named("dk_reverse", a.dk_reverse), named("dD", a.dD),
                                       named("dinput_gate", a.dinput_gate), named("doutput_gate", a.doutput_gate)};
    const named_footprint inputs[] = {named("u", f.u), named("k", f.k), named("k_reverse", f.k_reverse), named("D", f.D),
                                      named("input_gate", f.input_gate), named("output_gate", f.output_gate), named("dy", a.dy)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
