// Compiled once per instruction set, under another name (PART) each time.

#include "part.hpp"

#include <ssmkit/ssmkit.hpp>

namespace {

template <class... Types>
std::vector<std::size_t> sizes_of()
{
    std::vector<std::size_t> sizes;
    (sizes.insert(sizes.end(), {sizeof(Types), alignof(Types)}), ...);
    return sizes;
}

}  // namespace

part_result PART()
{
    constexpr ssmkit::index batch = 2, length = 19, dim = 37, state = 5;
    const auto filled = [](std::size_t n, float scale, float shift) {
        std::vector<float> values(n);
        for (std::size_t i = 0; i < n; ++i) values[i] = shift + scale * static_cast<float>(i * 7919 % 101) / 101;
        return values;
    };
    const auto u = filled(batch * length * dim, 2, -1), delta = filled(batch * length * dim, 1, -1);
    const auto z = filled(batch * length * dim, 3, -2), A = filled(dim * state, -1, -0.1f);
    const auto B = filled(batch * length * state, 2, -1), C = filled(batch * length * state, 1, -0.5f);
    part_result result;
    result.scan.resize(batch * length * dim + batch * dim * state);
    ssmkit::selective_scan_args<float> a;
    a.u = {u, batch, length, dim};
    a.delta = {delta, batch, length, dim};
    a.A = {A, dim, state};
    a.B = {B, batch, length, 1, state};
    a.C = {C, batch, length, 1, state};
    a.z = {z, batch, length, dim};
    a.delta_softplus = true;
    a.y = {result.scan.data(), batch, length, dim};
    a.final_state = {result.scan.data() + batch * length * dim, batch, dim, state};
    ssmkit::selective_scan(a);

    using ssmkit::view, ssmkit::bfloat16;
    result.sizes = sizes_of<bfloat16, ssmkit::float16, view<float, 1>, view<double, 4>, ssmkit::shape_error, ssmkit::threads,
                            ssmkit::workspace, ssmkit::selective_scan_args<float>, ssmkit::selective_scan_args<bfloat16>,
                            ssmkit::selective_scan_backward_args<double>, ssmkit::selective_state_update_args<float>,
                            ssmkit::causal_conv1d_args<float>, ssmkit::gated_norm_args<float>, ssmkit::add_norm_args<float>>();
    result.lanes = static_cast<std::size_t>(ssmkit::detail::lanes<float, xsimd::default_arch>);
    return result;
}
