#include <vector>

#include <ssmkit/args/companion_kernel.hpp>
#include <ssmkit/args/companion_rollout.hpp>
#include <ssmkit/spacetime_pre.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::problem;

const golden::handler companion_kernel("companion_kernel", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    p.descriptive("L");
    ssmkit::companion_kernel_args<real> forward{.a = p.input<real>("a", 0, 1),
                                                .b = p.input<real>("b", 0, 1),
                                                .c = p.input<real>("c", 0, 1),
                                                .norm_order = p.flag<int>("norm_order"),
                                                .K = p.output<real>("K", 0, 1)};
    p.run(forward);
    if (p.has("K_fast")) {  // the same kernel by another way of the reference's
        forward.K = p.output<real>("K_fast", 0, 1);
        p.run(forward);
    }
    if (!p.has("dout")) return;
    p.run(ssmkit::companion_kernel_backward_args<real>{.forward = forward,
                                                       .dK = p.input<real>("dout", 0, 1),
                                                       .da = p.output<real>("d_a", 0, 1),
                                                       .db = p.output<real>("d_b", 0, 1),
                                                       .dc = p.output<real>("d_c", 0, 1)});
});

const golden::handler companion_rollout("companion_rollout", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    p.descriptive("horizon");
    const ssmkit::companion_rollout_args<real> forward{.u = p.input<real>("u", 0, 1, 2),
                                                       .a = p.input<real>("a", 0, 1),
                                                       .b = p.input<real>("b", 0, 1),
                                                       .c = p.input<real>("c", 0, 1),
                                                       .k = p.input<real>("k", 0, 1),
                                                       .norm_order = p.flag<int>("norm_order"),
                                                       .y = p.output<real>("y", 0, 1, 2),
                                                       .u_next = p.output<real>("u_next", 0, 1, 2),
                                                       .y_open = p.output<real>("y_open", 0, 1, 2),
                                                       .u_next_open = p.output<real>("u_next_open", 0, 1, 2)};
    p.run(forward);
    if (!p.has("dout")) return;
    p.run(ssmkit::companion_rollout_backward_args<real>{.forward = forward,
                                                        .dy = p.input<real>("dout", 0, 1, 2),
                                                        .du = p.output<real>("d_u", 0, 1, 2),
                                                        .da = p.output<real>("d_a", 0, 1),
                                                        .db = p.output<real>("d_b", 0, 1),
                                                        .dc = p.output<real>("d_c", 0, 1),
                                                        .dk = p.output<real>("d_k", 0, 1)});
});

const golden::handler spacetime_pre("spacetime_pre", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    p.descriptive("order", "max_window");
    const auto windows = p.flag<std::vector<index>>("windows");
    ssmkit::difference_kernels(p.output<real>("diff_kernels", 0, 1));
    ssmkit::moving_average_residuals({windows, static_cast<index>(windows.size())}, p.output<real>("ma_kernels", 0, 1));
});

}  // namespace
