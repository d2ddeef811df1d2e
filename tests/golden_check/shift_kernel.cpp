#include <ssmkit/args/shift_kernel.hpp>

#include "memory.hpp"

namespace {

using golden::index, golden::view;

/// y_step, state_step: steps from `state` over all of u; next_state: the same as a chunk.
const golden::handler shift_kernel("shift_kernel", []<class T>(golden::element<T>, golden::problem& p) {
    using R = ssmkit::compute_t<T>;
    p.descriptive("L");
    const auto B = p.input<R>("B", 0, 1);
    const auto C = p.input<R>("C", 0, 1, 2), state = p.input<R>("state", 0, 1, 2), u = p.input<R>("u", 0, 1, 2);
    const ssmkit::shift_kernel_args<R> kernel{
        .B = B, .C = C, .state = state, .K = p.output<R>("K", 0, 1, 2), .K_state = p.output<R>("K_state", 0, 1, 2, 3)};
    p.run(kernel);
    if (u.data()) {
        const auto x = p.output<R>("state_step", 0, 1, 2);  // from zero if the file has no state
        golden::owned<R, 3> zero(x.extents());
        golden::copy<R, 3>(state.data() ? state : view<const R, 3>(zero.all), x);
        const auto y = p.output<R>("y_step", 0, 1, 2, 3);
        for (index t = 0; t < u.extent(2); ++t) {
            const ssmkit::shift_update_args<R> step{
                .B = B, .C = C, .u = {u.pointer(0, 0, t), {u.extent(0), u.extent(1)}, {u.stride(0), u.stride(1)}}, .state = x,
                .y = {y.pointer(0, 0, 0, t), {y.extent(0), y.extent(1), y.extent(2)}, {y.stride(0), y.stride(1), y.stride(2)}}};
            p.run(step);
        }
        const ssmkit::shift_chunk_args<R> chunk{
            .B = B, .u = u, .initial_state = state, .final_state = p.output<R>("next_state", 0, 1, 2)};
        p.run(chunk);
    }
    if (!p.has("dout")) return;
    const ssmkit::shift_kernel_backward_args<R> backward{
        .B = B, .C = C, .dK = p.input<R>("dout", 0, 1, 2), .dB = p.output<R>("d_B", 0, 1), .dC = p.output<R>("d_C", 0, 1, 2)};
    p.run(backward);
});

}  // namespace
