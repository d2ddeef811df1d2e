#include <ssmkit/add_norm_backward.hpp>
#include <ssmkit/reference/add_norm_backward.hpp>

#include "norm_problem.hpp"

namespace plain {  // plain/add_norm_backward.cpp

void add_norm_backward(std::size_t tokens, std::size_t dim, const float* sum, const float* weight, float eps,
                       const float* dy, const float* dresidual_out, float* dresidual, float* dweight);

}  // namespace plain

namespace bench {
namespace {

/// The gradients of RMSNorm of a sum, with what comes down the residual.
template <class T>
struct problem {
    using real = ssmkit::compute_t<T>;
    norm_shape shape;
    norm_tensor<T> dy{shape, -1, 1, 1};
    norm_tensor<real> sum{shape, -2, 2, 2}, dresidual_out{shape, -1, 1, 4}, dresidual{shape};
    array<real> weight = fill<real>(static_cast<std::size_t>(shape.dim), 0.5, 1.5, 3);
    array<real> dweight = array<real>(weight.size());

    explicit problem(const norm_shape& s) : shape(s) {}

    ssmkit::add_norm_backward_args<T> args()
    {
        return {.residual_out = sum.view(),
                .weight = {weight.data(), shape.dim},
                .dy = dy.view(),
                .dresidual_out = dresidual_out.view(),
                .dresidual = dresidual.view(),
                .dweight = {dweight.data(), shape.dim}};
    }

    void run(std::size_t threads)
    {
        threads == 1 ? ssmkit::add_norm_backward(args()) : ssmkit::add_norm_backward(args(), pool(threads));
    }
    void reference() { ssmkit::reference::add_norm_backward(args()); }
    void plain()
        requires(std::is_same_v<T, float>)
    {
        ::plain::add_norm_backward(shape.tokens(), static_cast<std::size_t>(shape.dim), sum.data.data(), weight.data(),
                                   1e-5f, dy.data.data(), dresidual_out.data.data(), dresidual.data.data(),
                                   dweight.data());
    }
    std::string mismatch(problem& expected)
    {
        std::string text = bench::mismatch("dresidual", dresidual.view(), expected.dresidual.view());
        if (text.empty()) text = bench::mismatch("dweight", args().dweight, expected.args().dweight);
        return text;
    }

    /// dy; sum, dresidual_out and dresidual; square, two sums, norm, gradients.
    work needs() const { return norm_work(shape, sizeof(T) + 3 * sizeof(real), 9); }
};

const registration here{[](std::vector<row>& rows) { add_norm_rows<problem>(rows, "add_norm_backward"); }};

}  // namespace
}  // namespace bench
