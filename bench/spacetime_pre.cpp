#include <ssmkit/spacetime_pre.hpp>

#include <memory>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

/// Either set of kernels, and windows of 1 to `rows` taps for the second.
struct pre_data {
    index rows, taps;
    std::vector<index> windows;
    array<double> kernels;

    pre_data(index count_of_rows, index count_of_taps) : rows(count_of_rows), taps(count_of_taps), kernels(count(rows, taps))
    {
        for (index i = 1; i <= rows; ++i) windows.push_back(i);
    }

    view<double, 2> out() { return {kernels.data(), rows, taps}; }
    work needs() const
    {
        const double n = static_cast<double>(kernels.size());
        return {.updates = n, .fmas = n, .bytes = sizeof(double) * n};
    }
};

/// Every difference is that of the row before and its delayed self.
task differences()
{
    const auto d = std::make_shared<pre_data>(32, 720);
    return checked(
        d, d->needs(), [d] { ssmkit::difference_kernels(d->out()); },
        [](pre_data& e) {
            const auto k = e.out();
            for (index t = 0; t < e.taps; ++t) k(0, t) = t == 0 ? 1 : 0;
            for (index j = 1; j < e.rows; ++j) {
                for (index t = 0; t < e.taps; ++t) k(j, t) = k(j - 1, t) - (t > 0 ? k(j - 1, t - 1) : 0);
            }
        },
        [](const pre_data& got, const pre_data& expected) { return mismatch("kernels", got.kernels, expected.kernels); });
}

/// A unit impulse less the mean of a window.
task residuals()
{
    const auto d = std::make_shared<pre_data>(32, 720);
    return checked(
        d, d->needs(), [d] { ssmkit::moving_average_residuals(view<const index, 1>(d->windows.data(), d->rows), d->out()); },
        [](pre_data& e) {
            const auto k = e.out();
            for (index i = 0; i < e.rows; ++i) {
                for (index t = 0; t < e.taps; ++t) k(i, t) = t == 0 ? 1 : 0;
                for (index t = 0; t < e.windows[static_cast<std::size_t>(i)]; ++t)
                    k(i, t) -= 1 / static_cast<double>(e.windows[static_cast<std::size_t>(i)]);
            }
        },
        [](const pre_data& got, const pre_data& expected) { return mismatch("kernels", got.kernels, expected.kernels); });
}

const registration here{[](std::vector<row>& rows) {
    rows.push_back({"difference_kernels", "ssmkit", by({32, 720}), "f64", 1, differences});
    rows.push_back({"moving_average_residuals", "ssmkit", by({32, 720}), "f64", 1, residuals});
}};

}  // namespace
}  // namespace bench
