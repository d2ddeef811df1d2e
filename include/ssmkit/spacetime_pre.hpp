#pragma once

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// Kernels that take differences (SpaceTime, arXiv:2303.09489, appendix C): tap k of row j is (-1)^k binom(j, k), zero beyond k
/// = j. (order, taps). Throws shape_error if out has a stride of 0.
template <class T>
void difference_kernels(const view<T, 2>& out)
{
    detail::require_distinct_elements("difference_kernels", "out", out);
    for (index j = 0; j < out.extent(0); ++j) {
        double value = 1;
        for (index k = 0; k < out.extent(1); ++k) {
            out(j, k) = static_cast<T>(value);
            value = k < j ? -value * static_cast<double>(j - k) / static_cast<double>(k + 1) : 0;
        }
    }
}

/// Kernels that leave what a moving average misses: row i is 1 at tap 0, less 1 / windows_i on the first windows_i taps.
/// (windows, taps). Throws shape_error unless there is a window of 1 to `taps` for every row, or if out overlaps windows or itself.
template <class T>
void moving_average_residuals(const view<const index, 1>& windows, const view<T, 2>& out)
{
    constexpr const char* op = "moving_average_residuals";
    detail::require_shape(op, "windows", windows, {{"windows", out.extent(0)}});
    for (index i = 0; i < out.extent(0); ++i)
        detail::require(windows[i] >= 1 && windows[i] <= out.extent(1), op, "windows", "is not from 1 to taps");
    detail::require_distinct_elements(op, "out", out);
    const detail::named_footprint outputs[] = {detail::named("out", out)}, inputs[] = {detail::named("windows", windows)};
    detail::require_disjoint(op, outputs, inputs);
    for (index i = 0; i < out.extent(0); ++i) {
        for (index k = 0; k < out.extent(1); ++k) {
            const double average = k < windows[i] ? 1 / static_cast<double>(windows[i]) : 0;
            out(i, k) = static_cast<T>((k == 0 ? 1 : 0) - average);
        }
    }
}

}  // namespace ssmkit
