#pragma once

#include <vector>

#include <ssmkit/args/companion_kernel.hpp>
#include <ssmkit/detail/companion.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
/// Kernels of companion models: shapes and equations at companion_kernel_args. Throws shape_error before anything is written. 2
/// state operations a token. Work splits over kernels.
template <class T, execution_resource Exec = in_place>
void companion_kernel(const companion_kernel_args<T>& args, Exec&& exec = {})
{
    using namespace detail;
    check(args);
    const companion_rows a(args.a, args.norm_order), b(args.b, 0), c(args.c, 0);
    run_tasks(exec, a.rows.size(), [&](std::size_t i, std::size_t) {
        const flush_denormals guard;
        std::vector<double> x = b.rows[i];
        for (index l = 0; l < args.K.extent(1); ++l) {
            args.K(static_cast<index>(i), l) = static_cast<T>(dot(c.rows[i], x));
            companion_advance(a.rows[i], x);
        }
    });
}

/// The gradients of companion_kernel: equations at companion_kernel_backward_args. Throws shape_error before anything is
/// written. Keeps `length` doubles for each task that runs at once. Work splits over kernels.
template <class T, execution_resource Exec = in_place>
void companion_kernel_backward(const companion_kernel_backward_args<T>& args, Exec&& exec = {})
{
    using namespace detail;
    check(args);
    const companion_kernel_args<T>& f = args.forward;
    const companion_rows a(f.a, f.norm_order), b(f.b, 0), c(f.c, 0);
    run_tasks(exec, a.rows.size(), [&](std::size_t i, std::size_t) {
        const flush_denormals guard;
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
