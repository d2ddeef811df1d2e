#pragma once

// The kernel of a companion state space model. double inside.

#include <type_traits>
#include <vector>

#include <ssmkit/check.hpp>
#include <ssmkit/detail/companion.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

///     K_l = c·A^l b                                   Zhang et al., "Effectively Modeling Time Series with Simple Discrete State
///     A = shift down + a e_lastᵀ                      Spaces" (SpaceTime), arXiv:2303.09489, section 3.1
///
/// with a divided by its norm of order 1 or 2; the division is left out for all kernels where their mean norm is at most 1e-4.
template <class T>
struct companion_kernel_args {
    view<const T, 2> a{};  ///< (kernels, state)
    view<const T, 2> b{};  ///< (kernels, state)
    view<const T, 2> c{};  ///< (kernels, state)
    int norm_order = 1;    ///<                   0: a as it is
    view<T, 2> K{};        ///< (kernels, length) output
};

/// The gradients of companion_kernel: ψ_l = Aᵀψ_{l+1} + dK_l c, db = ψ_0, dc = Σ dK_l A^l b, da = Σ_{l≥1} ψ_l (A^{l-1} b)_last, and that of
/// the norm. A gradient whose view is left empty is not written.
template <class T>
struct companion_kernel_backward_args {
    companion_kernel_args<T> forward{};  ///<                   K may be empty
    view<const T, 2> dK{};               ///< (kernels, length)
    view<T, 2> da{}, db{}, dc{};         ///< (kernels, state)  outputs, each optional
};

namespace detail {

template <class T>
void check_companion_inputs(const char* op, const companion_kernel_args<T>& a)
{
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    const axis kernels{"kernels", a.a.extent(0)}, state{"state", a.a.extent(1)};
    require_shape(op, "a", a.a, {{"kernels"}, {"state"}});
    require_shape(op, "b", a.b, {kernels, state});
    require_shape(op, "c", a.c, {kernels, state});
    require(a.norm_order >= 0 && a.norm_order <= 2, op, "norm_order", "is not 0, 1 or 2");
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const companion_kernel_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "companion_kernel";
    check_companion_inputs(op, a);
    require_shape(op, "K", a.K, {{"kernels", a.a.extent(0)}, {"length"}});
    require_distinct_elements(op, "K", a.K);
    const named_footprint outputs[] = {named("K", a.K)};
    const named_footprint inputs[] = {named("a", a.a), named("b", a.b), named("c", a.c)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const companion_kernel_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "companion_kernel_backward";
    const companion_kernel_args<T>& f = a.forward;
    check_companion_inputs(op, f);
    const axis kernels{"kernels", f.a.extent(0)}, state{"state", f.a.extent(1)};
    require_shape(op, "dK", a.dK, {kernels, {"length"}});
    require_shape_if_given(op, "da", a.da, {kernels, state});
    require_shape_if_given(op, "db", a.db, {kernels, state});
    require_shape_if_given(op, "dc", a.dc, {kernels, state});
    require_distinct_elements(op, "da", a.da);
    require_distinct_elements(op, "db", a.db);
    require_distinct_elements(op, "dc", a.dc);
    const named_footprint outputs[] = {named("da", a.da), named("db", a.db), named("dc", a.dc)};
    const named_footprint inputs[] = {named("a", f.a), named("b", f.b), named("c", f.c), named("dK", a.dK)};
    require_disjoint(op, outputs, inputs);
}

/// Kernels of companion models: shapes and equations at companion_kernel_args. Throws shape_error before anything is written. 2 state
/// operations a token. Work splits over kernels.
template <class T, execution_resource Exec = in_place>
void companion_kernel(const companion_kernel_args<T>& args, Exec&& exec = {})
{
    using namespace detail;
    check(args);
    const companion_rows a(args.a, args.norm_order), b(args.b, 0), c(args.c, 0);
    run_tasks(exec, a.rows.size(), [&](std::size_t i, std::size_t) {
        std::vector<double> x = b.rows[i];
        for (index l = 0; l < args.K.extent(1); ++l) {
            args.K(static_cast<index>(i), l) = static_cast<T>(dot(c.rows[i], x));
            companion_advance(a.rows[i], x);
        }
    });
}

/// The gradients of companion_kernel: equations at companion_kernel_backward_args. Throws shape_error before anything is written. Keeps
/// `length` doubles for each task that runs at once. Work splits over kernels.
template <class T, execution_resource Exec = in_place>
void companion_kernel_backward(const companion_kernel_backward_args<T>& args, Exec&& exec = {})
{
    using namespace detail;
    check(args);
    const companion_kernel_args<T>& f = args.forward;
    const companion_rows a(f.a, f.norm_order), b(f.b, 0), c(f.c, 0);
    run_tasks(exec, a.rows.size(), [&](std::size_t i, std::size_t) {
        const auto row = static_cast<index>(i);
        const index length = args.dK.extent(1);
        std::vector<double> x = b.rows[i], last, da(x.size()), dc(x.size()), psi(x.size());
        for (index l = 0; l < length && !x.empty(); ++l) {
            const auto g = static_cast<double>(args.dK(row, l));
            for (std::size_t n = 0; n < x.size(); ++n) dc[n] += g * x[n];
            last.push_back(x.back());
            companion_advance(a.rows[i], x);
        }
        for (index l = length - 1; l >= 0 && !x.empty(); --l) {
            companion_retreat(a.rows[i], psi);
            for (std::size_t n = 0; n < x.size(); ++n) {
                psi[n] += static_cast<double>(args.dK(row, l)) * c.rows[i][n];
                if (l > 0) da[n] += psi[n] * last[static_cast<std::size_t>(l - 1)];
            }
        }
        a.backward(i, da);
        for (std::size_t n = 0; n < x.size(); ++n) {
            const auto k = static_cast<index>(n);
            if (args.da.data()) args.da(row, k) = static_cast<T>(da[n]);
            if (args.db.data()) args.db(row, k) = static_cast<T>(psi[n]);
            if (args.dc.data()) args.dc(row, k) = static_cast<T>(dc[n]);
        }
    });
}

}  // namespace ssmkit
