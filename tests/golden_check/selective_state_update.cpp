#include <cstdint>
#include <string>

#include <ssmkit/args/selective_state_update.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::new_axis, golden::problem, golden::view;

/// D or dt_bias: (dim) in Mamba-1's form, (nheads, headdim), or tied over each head: (nheads).
template <class E>
view<const E, 2> parameter(problem& p, const std::string& name, bool headed, index headdim)
{
    if (!p.has(name)) return {};
    if (!headed) return p.input<E>(name, new_axis, 0);
    return p.shape(name).size() == 1 ? ssmkit::tied_over_head(p.input<E>(name, 0), headdim) : p.input<E>(name, 0, 1);
}

template <class T>
void run(problem& p)
{
    using compute = ssmkit::compute_t<T>;
    p.descriptive("nheads", "ngroups", "dim", "dstate", "tied", "has_D", "has_z", "has_dt_bias", "has_indices",
                  "padded_rows");
    const bool headed = p.shape("x").size() == 3;
    const index headdim = p.shape("x").back(), state = p.shape("state").back();
    const auto token = [&](const std::string& name) {
        return headed ? p.input<T>(name, 0, 1, 2) : p.input<T>(name, 0, new_axis, 1);
    };

    ssmkit::selective_state_update_args<T> a;
    a.u = token("x");
    a.z = p.has("z") ? token("z") : view<const T, 3>{};
    a.delta = headed && p.shape("dt").size() == 2 ? ssmkit::tied_over_head(p.input<T>("dt", 0, 1), headdim) : token("dt");
    a.D = parameter<compute>(p, "D", headed, headdim);
    a.delta_bias = parameter<compute>(p, "dt_bias", headed, headdim);
    a.delta_softplus = p.flag<bool>("dt_softplus");
    a.state_batch_indices = p.input<std::int32_t>("state_batch_indices", 0);
    if (headed) {
        a.h = p.updated<compute>("state", "state_out", 0, 1, 2, 3);
        a.A = p.shape("A").size() == 1 ? ssmkit::tied_over_head(p.input<compute>("A", 0), headdim, state)
                                       : p.input<compute>("A", 0, 1, 2);
        a.B = p.input<T>("B", 0, 1, 2);
        a.C = p.input<T>("C", 0, 1, 2);
        a.y = p.output<T>("out", 0, 1, 2);
    } else {
        a.h = p.updated<compute>("state", "state_out", 0, new_axis, 1, 2);
        a.A = p.input<compute>("A", new_axis, 0, 1);
        a.B = p.input<T>("B", 0, new_axis, 1);
        a.C = p.input<T>("C", 0, new_axis, 1);
        a.y = p.output<T>("out", 0, new_axis, 1);
    }
    p.run(a);
}

const golden::handler selective_state_update(
    "selective_state_update", []<class T>(golden::element<T>, problem& p) { run<T>(p); }, {.f32 = 3e-4});

}  // namespace
