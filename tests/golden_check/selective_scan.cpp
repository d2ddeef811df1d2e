#include <complex>
#include <string>
#include <vector>

#include <ssmkit/args/selective_scan.hpp>
#include <ssmkit/args/selective_scan_backward.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::new_axis, golden::problem, golden::view;

/// B or C: (dim, state) where it is constant, (batch, state, length) or (batch, ngroups, state, length) where it varies.
template <class E>
view<const E, 4> parameter(problem& p, const std::string& name, bool varies, index batch, index length)
{
    if (!varies) return ssmkit::constant_over_time(p.input<E>(name, 0, 1), batch, length);
    return p.shape(name).size() == 3 ? p.input<E>(name, 0, 2, new_axis, 1) : p.input<E>(name, 0, 3, 1, 2);
}

/// The gradient of that parameter, of the same shape.
template <class E>
view<E, 4> gradient(problem& p, const std::string& name, bool varies, index batch, index length)
{
    if (!varies) return ssmkit::summed_over_time(p.output<E>("d" + name, 0, 1), batch, length);
    return p.shape(name).size() == 3 ? p.output<E>("d" + name, 0, 2, new_axis, 1) : p.output<E>("d" + name, 0, 3, 1, 2);
}

template <class T, class Param>
void run(problem& p)
{
    using compute = ssmkit::compute_t<T>;
    using args = ssmkit::selective_scan_args<T, Param>;
    p.descriptive("ngroups", "dstate", "has_D", "has_z", "has_delta_bias", "has_dlast_state");
    const auto scan = p.operations();
    const index batch = p.shape("u").at(0), length = p.shape("u").at(2);
    const bool B_varies = p.flag<bool>("variable_B"), C_varies = p.flag<bool>("variable_C");

    args inputs;
    inputs.u = p.input<T>("u", 0, 2, 1);
    inputs.delta = p.input<T>("delta", 0, 2, 1);
    inputs.A = p.input<Param>("A", 0, 1);
    inputs.B = parameter<typename args::element>(p, "B", B_varies, batch, length);
    inputs.C = parameter<typename args::element>(p, "C", C_varies, batch, length);
    inputs.D = p.input<compute>("D", 0);
    inputs.z = p.input<T>("z", 0, 2, 1);
    inputs.delta_bias = p.input<compute>("delta_bias", 0);
    inputs.delta_softplus = p.flag<bool>("delta_softplus");

    const index split = p.flag<index>("split", 0);
    const std::vector<index> split_of_each(static_cast<std::size_t>(batch), split);
    args whole = inputs;
    whole.y = p.output<T>("out", 0, 2, 1);
    whole.final_state = p.output<Param>("last_state", 0, 1, 2);
    if (p.has("state_at_split")) {
        whole.snapshot_after = {split_of_each, batch, 1};
        whole.snapshots = p.output<Param>("state_at_split", 0, new_axis, 1, 2);
    }
    scan(whole);

    if (p.has("state_at_split")) {  // once more, in two parts
        const view<T, 3> y = p.output<T>("out", 0, 2, 1);
        const auto part = [&](index first, index count) {
            args a = inputs;
            a.u = inputs.u.slice(1, first, count);
            a.delta = inputs.delta.slice(1, first, count);
            a.B = inputs.B.slice(1, first, count);
            a.C = inputs.C.slice(1, first, count);
            if (p.has("z")) a.z = inputs.z.slice(1, first, count);
            a.y = y.slice(1, first, count);
            return a;
        };
        args before = part(0, split), after = part(split, length - split);
        before.final_state = p.output<Param>("state_at_split", 0, 1, 2);
        after.initial_state = before.final_state;
        after.final_state = p.output<Param>("last_state", 0, 1, 2);
        scan(before);
        scan(after);
    }

    if (p.has("dout")) {
        ssmkit::selective_scan_backward_args<T, Param> backward;
        backward.forward = inputs;
        backward.dy = p.input<T>("dout", 0, 2, 1);
        backward.dfinal_state = p.input<Param>("dlast_state", 0, 1, 2);
        backward.du = p.output<T>("du", 0, 2, 1);
        backward.ddelta = p.output<T>("ddelta", 0, 2, 1);
        backward.dz = p.output<T>("dz", 0, 2, 1);
        backward.dA = p.output<Param>("dA", 0, 1);
        backward.dB = gradient<Param>(p, "B", B_varies, batch, length);
        backward.dC = gradient<Param>(p, "C", C_varies, batch, length);
        backward.dD = p.output<compute>("dD", 0);
        backward.ddelta_bias = p.output<compute>("ddelta_bias", 0);
        scan(backward);
    }
}

const golden::handler selective_scan("selective_scan", []<class T>(golden::element<T>, problem& p) {
    using compute = ssmkit::compute_t<T>;
    p.flag<bool>("complex_A") ? run<T, std::complex<compute>>(p) : run<T, compute>(p);
}, {.f32 = 6e-4});

}  // namespace
