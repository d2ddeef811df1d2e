#include <stdexcept>
#include <string>

#include <ssmkit/args/linear_attention.hpp>
#include <ssmkit/args/linear_attention_backward.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::problem;

/// The factor of q, a number or the authors' expression for what the library takes it to be by itself.
double scale(problem& p)
{
    const auto stored = p.flag<nlohmann::json>("scale");
    if (stored == "K**-0.5") return 0;
    if (!stored.is_number()) throw golden::unknown("the scale " + stored.dump() + " is unknown");
    if (stored == 0) throw golden::unknown("a scale of 0 stands for key^-1/2 in the library");
    return stored.get<double>();
}

using ssmkit::testing::attention_front;

/// A case of any member of the family: `front` is the one that the file names, and refuses what is not its own.
template <class T>
void run(problem& p, const std::string& key_gates, attention_front front)
{
    using real = ssmkit::compute_t<T>;
    p.descriptive("has_initial_state");
    const ssmkit::linear_attention_args<T> inputs{
        .q = p.input<T>("q", 0, 1, 2, 3),
        .k = p.input<T>("k", 0, 1, 2, 3),
        .v = p.input<T>("v", 0, 1, 2, 3),
        .g = key_gates == "g" ? ssmkit::view<const T, 3>{} : p.input<T>("g", 0, 1, 2),
        .gk = p.input<T>(key_gates, 0, 1, 2, 3),
        .beta = p.input<T>("beta", 0, 1, 2),
        .scale = static_cast<real>(scale(p)),
        .initial_state = p.input<real>("initial_state", 0, 1, 2, 3),
        .cu_seqlens = p.input<index>("cu_seqlens", 0),
    };
    ssmkit::linear_attention_args<T> forward = inputs;
    forward.y = p.output<T>("out", 0, 1, 2, 3);
    forward.final_state = p.output<real>("final_state", 0, 1, 2, 3);
    if (const auto& operations = p.operations(); operations.reference || operations.device_calls) {
        operations(forward);
    } else {
        ssmkit::testing::run_kernel(front, forward, operations.pool);
    }

    if (!p.has("dout")) return;
    const ssmkit::linear_attention_backward_args<T> backward{
        .forward = inputs,
        .dy = p.input<T>("dout", 0, 1, 2, 3),
        .dfinal_state = p.input<real>("dfinal_state", 0, 1, 2, 3),
        .dq = p.output<real>("dq", 0, 1, 2, 3),
        .dk = p.output<real>("dk", 0, 1, 2, 3),
        .dv = p.output<T>("dv", 0, 1, 2, 3),
        .dg = key_gates == "g" ? ssmkit::view<real, 3>{} : p.output<real>("dg", 0, 1, 2),
        .dgk = p.output<real>("d" + key_gates, 0, 1, 2, 3),
        .dbeta = p.output<real>("dbeta", 0, 1, 2),
        .dinitial_state = p.output<real>("dinitial_state", 0, 1, 2, 3),
    };
    p.run(backward);
}

const golden::handler simple_gla("simple_gla", []<class T>(golden::element<T>, problem& p) {
    run<T>(p, "gk", attention_front::simple_gla);
});

// The authors call GLA's gates gk in one place and g in another.
const golden::handler gla("gla", []<class T>(golden::element<T>, problem& p) {
    run<T>(p, p.has("gk") ? "gk" : "g", attention_front::gla);
});

const golden::handler gated_delta_rule("gated_delta_rule", []<class T>(golden::element<T>, problem& p) {
    run<T>(p, "gk", attention_front::gated_delta_rule);
});

}  // namespace
