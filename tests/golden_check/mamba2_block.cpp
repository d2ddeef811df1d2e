#include "block.hpp"
#include "mamba2_weights.hpp"

namespace {

const golden::handler mamba2_block("mamba2_block", []<class T>(golden::element<T>, golden::problem& p) {
    using R = ssmkit::compute_t<T>;  // the composition computes in float and double
    // What a chunk is changes rounding only; shapes tell the rest.
    p.descriptive("d_model", "d_state", "d_conv", "d_ssm", "expand", "chunk_size", "rmsnorm", "D_has_hdim");
    const auto weights = golden::mamba2_weights<R>(
        p, "", {.headdim = p.flag<golden::index>("headdim", 64),
                .ngroups = p.flag<golden::index>("ngroups", 1),
                .dt_limit = golden::limits(p.flag<nlohmann::json>("dt_limit", {0.0, "inf"})),
                .norm_before_gate = p.flag<bool>("norm_before_gate", false)});
    golden::run_block<golden::mamba2<R>, R>(p, weights);
});

}  // namespace
