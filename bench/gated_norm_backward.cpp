#include <ssmkit/gated_norm_backward.hpp>
#include <ssmkit/reference/gated_norm_backward.hpp>

#include "norm_problem.hpp"

namespace plain {  // plain/gated_norm_backward.cpp

void gated_norm_backward(std::size_t tokens, std::size_t dim, const float* x, const float* z, const float* weight,
                         float eps, const float* dy, float* dx, float* dz, float* dweight, float* scratch);

}  // namespace plain

namespace bench {
namespace {

/// All gradients of RMSNorm of x silu(z).
template <class T>
struct problem {
    using real = ssmkit::compute_t<T>;
    norm_shape shape;
    norm_tensor<T> x{shape, -2, 2, 1}, z{shape, -4, 4, 2}, dy{shape, -1, 1, 4}, dx{shape}, dz{shape};
    array<real> weight = fill<real>(static_cast<std::size_t>(shape.dim), 0.5, 1.5, 3);
    array<real> dweight = array<real>(weight.size()), scratch = array<real>(4 * weight.size());

    explicit problem(const norm_shape& s) : shape(s) {}

    ssmkit::gated_norm_backward_args<T> args()
    {
        return {.forward = {.x = x.view(), .z = z.view(), .weight = {weight.data(), shape.dim}},
                .dy = dy.view(),
                .dx = dx.view(),
                .dz = dz.view(),
                .dweight = {dweight.data(), shape.dim}};
    }

    void run(std::size_t threads)
    {
        threads == 1 ? ssmkit::gated_norm_backward(args()) : ssmkit::gated_norm_backward(args(), pool(threads));
    }
    void reference() { ssmkit::reference::gated_norm_backward(args()); }
    void plain()
        requires(std::is_same_v<T, float>)
    {
        ::plain::gated_norm_backward(shape.tokens(), static_cast<std::size_t>(shape.dim), x.data.data(), z.data.data(),
                                     weight.data(), 1e-5f, dy.data.data(), dx.data.data(), dz.data.data(),
                                     dweight.data(), scratch.data());
    }
    std::string mismatch(problem& expected)
    {
        std::string text = bench::mismatch("dx", dx.view(), expected.dx.view());
        if (text.empty()) text = bench::mismatch("dz", dz.view(), expected.dz.view());
        if (text.empty()) text = bench::mismatch("dweight", args().dweight, expected.args().dweight);
        return text;
    }

    /// x, z, dy, dx, dz; sigmoid and derivative (18), square, two sums, norm, gradients.
    work needs() const { return norm_work(shape, 5 * sizeof(T), 28); }
};

const registration here{[](std::vector<row>& rows) { add_norm_rows<problem>(rows, "gated_norm_backward"); }};

}  // namespace
}  // namespace bench
