#include <ssmkit/add_norm.hpp>
#include <ssmkit/reference/add_norm.hpp>

#include "norm_problem.hpp"

namespace plain {  // plain/add_norm.cpp

void add_norm(std::size_t tokens, std::size_t dim, const float* x, const float* residual, const float* weight,
              float eps, float* y, float* residual_out);

}  // namespace plain

namespace bench {
namespace {

/// RMSNorm of x + residual, the sum kept in float.
template <class T>
struct problem {
    using real = ssmkit::compute_t<T>;
    norm_shape shape;
    norm_tensor<T> x{shape, -2, 2, 1}, y{shape};
    norm_tensor<real> residual{shape, -2, 2, 2}, residual_out{shape};
    array<real> weight = fill<real>(static_cast<std::size_t>(shape.dim), 0.5, 1.5, 3);

    explicit problem(const norm_shape& s) : shape(s) {}

    ssmkit::add_norm_args<T> args()
    {
        return {.x = x.view(),
                .residual = residual.view(),
                .weight = {weight.data(), shape.dim},
                .y = y.view(),
                .residual_out = residual_out.view()};
    }

    void run(std::size_t threads)
    {
        threads == 1 ? ssmkit::add_norm(args()) : ssmkit::add_norm(args(), pool(threads));
    }
    void reference() { ssmkit::reference::add_norm(args()); }
    void plain()
        requires(std::is_same_v<T, float>)
    {
        ::plain::add_norm(shape.tokens(), static_cast<std::size_t>(shape.dim), x.data.data(), residual.data.data(),
                          weight.data(), 1e-5f, y.data.data(), residual_out.data.data());
    }
    std::string mismatch(problem& expected)
    {
        std::string text = bench::mismatch("y", y.view(), expected.y.view());
        if (text.empty()) text = bench::mismatch("residual_out", residual_out.view(), expected.residual_out.view());
        return text;
    }

    /// x, y; residual and residual_out; sum, square, two products.
    work needs() const { return norm_work(shape, 2 * sizeof(T) + 2 * sizeof(real), 4); }
};

const registration here{[](std::vector<row>& rows) { add_norm_rows<problem>(rows, "add_norm"); }};

}  // namespace
}  // namespace bench
