#include <ssmkit/spacetime_pre.hpp>

#include <vector>

#include "catch.hpp"
#include "finite_differences.hpp"

namespace ssmkit::testing {

TEST_CASE("difference_kernels: rows of Pascal's triangle with alternating signs, cut or padded")
{
    const tensor<double, 2> wide({4, 6}), narrow({4, 2});
    difference_kernels(wide.view());
    difference_kernels(narrow.view());
    const double expected[4][6] = {{1}, {1, -1}, {1, -2, 1}, {1, -3, 3, -1}};
    for_each_index(wide.view(), [&](index j, index k) { CHECK(wide(j, k) == expected[j][k]); });
    for_each_index(narrow.view(), [&](index j, index k) { CHECK(narrow(j, k) == expected[j][k]); });
}

TEST_CASE("moving_average_residuals: sums are zero, a window of one leaves nothing")
{
    const std::vector<index> windows{1, 2, 4};
    const tensor<double, 2> out({3, 4});
    moving_average_residuals({windows, 3}, out.view());
    const double expected[3][4] = {{0}, {0.5, -0.5}, {0.75, -0.25, -0.25, -0.25}};
    for_each_index(out.view(), [&](index i, index k) { CHECK(out(i, k) == expected[i][k]); });
    const std::vector<index> wrong{1, 2, 5};
    CHECK(complaint_of([&] {
              moving_average_residuals({wrong, 3}, out.view());
          }).find("moving_average_residuals: windows is not") == 0);
    const view<double, 2> shared(out.view().data(), {3, 4}, {0, 1});
    CHECK(complaint_of([&] { moving_average_residuals({windows, 3}, shared); }).find("moving_average_residuals: out") == 0);
    CHECK(complaint_of([&] { difference_kernels(shared); }).find("difference_kernels: out") == 0);
}

}  // namespace ssmkit::testing
