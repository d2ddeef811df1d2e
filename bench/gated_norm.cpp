#include <ssmkit/gated_norm.hpp>
#include <ssmkit/reference/gated_norm.hpp>

#include "norm_problem.hpp"

namespace plain {  // plain/gated_norm.cpp

void gated_norm(std::size_t tokens, std::size_t dim, const float* x, const float* z, const float* weight, float eps,
                float* y);

}  // namespace plain

namespace bench {
namespace {

/// RMSNorm of x silu(z) over all channels, as in Mamba-2.
template <class T>
struct problem {
    using real = ssmkit::compute_t<T>;
    norm_shape shape;
    norm_tensor<T> x{shape, -2, 2, 1}, z{shape, -4, 4, 2}, y{shape};
    array<real> weight = fill<real>(static_cast<std::size_t>(shape.dim), 0.5, 1.5, 3);

    explicit problem(const norm_shape& s) : shape(s) {}

    ssmkit::gated_norm_args<T> args()
    {
        return {.x = x.view(), .z = z.view(), .weight = {weight.data(), shape.dim}, .y = y.view()};
    }

    void run(std::size_t threads)
    {
        threads == 1 ? ssmkit::gated_norm(args()) : ssmkit::gated_norm(args(), pool(threads));
    }
    void reference() { ssmkit::reference::gated_norm(args()); }
    void plain()
        requires(std::is_same_v<T, float>)
    {
        ::plain::gated_norm(shape.tokens(), static_cast<std::size_t>(shape.dim), x.data.data(), z.data.data(),
                            weight.data(), 1e-5f, y.data.data());
    }
    std::string mismatch(problem& expected) { return bench::mismatch("y", y.view(), expected.y.view()); }

    /// x, z, y; silu (16 with its division), the square, two products.
    work needs() const { return norm_work(shape, 3 * sizeof(T), 19); }
};

const registration here{[](std::vector<row>& rows) { add_norm_rows<problem>(rows, "gated_norm"); }};

}  // namespace
}  // namespace bench
