#include "block.hpp"
#include "mamba1_weights.hpp"

namespace {

const golden::handler mamba1_block("mamba1_block", []<class T>(golden::element<T>, golden::problem& p) {
    using R = ssmkit::compute_t<T>;  // the composition computes in float and double
    p.descriptive("d_model", "d_state", "d_conv");
    golden::run_block<golden::mamba1<R>, R>(p, golden::mamba1_weights<R>(p, ""));
});

}  // namespace
