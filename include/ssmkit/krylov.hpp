#pragma once

#include <algorithm>
#include <vector>

#include <ssmkit/args/krylov.hpp>
#include <ssmkit/detail/dense_solve.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
/// Krylov sequences: shapes and equations at krylov_args. Throws shape_error before anything is written. state² operations a token,
/// one product after the other, and 2 state³ log₂(length) for AL. Work splits over dim.
template <class T, execution_resource Exec = in_place>
void krylov(const krylov_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index state = a.A.extent(1), length = a.length;
    run_tasks(exec, static_cast<std::size_t>(a.A.extent(0)), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const auto h = static_cast<index>(task);
        const auto A = widened_matrix<double>(a.A[h]);
        std::vector<double> x = widened_vector<double>(a.b[h]), next(x.size());
        for (index l = 0; l < length && (a.k.data() || a.AbL.data()); ++l) {
            double k = 0;
            for (index n = 0; n < state; ++n) {
                if (a.k.data()) k += static_cast<double>(a.c(h, n)) * x[static_cast<std::size_t>(n)];
                if (a.AbL.data()) a.AbL(h, n, l) = static_cast<T>(x[static_cast<std::size_t>(n)]);
            }
            if (a.k.data()) a.k(h, l) = static_cast<T>(k);
            A.times(x.data(), next.data());
            std::swap(x, next);
        }
        if (a.scan.data()) {
            std::fill(x.begin(), x.end(), 0.0);
            for (index l = length - 1; l >= 0; --l) {
                A.times(x.data(), next.data());
                for (index n = 0; n < state; ++n)
                    x[static_cast<std::size_t>(n)] = next[static_cast<std::size_t>(n)] + static_cast<double>(a.v(h, n, l));
            }
            for (index n = 0; n < state; ++n) a.scan(h, n) = static_cast<T>(x[static_cast<std::size_t>(n)]);
        }
        if (a.AL.data()) {
            small_matrix<double> power = A, result(state);
            for (index n = 0; n < state; ++n) result(n, n) = 1;
            for (index rest = length; rest > 0; rest /= 2) {
                if (rest % 2 == 1) result = result * power;
                if (rest > 1) power = power * power;
            }
            for (index i = 0; i < state; ++i) {
                for (index k = 0; k < state; ++k) a.AL(h, i, k) = static_cast<T>(result(i, k));
            }
        }
    });
}

/// The gradients of k: equations at krylov_backward_args. Throws shape_error before anything is written. Keeps state * length
/// doubles for each task that runs at once. Work splits over dim.
template <class T, execution_resource Exec = in_place>
void krylov_backward(const krylov_backward_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const krylov_args<T>& f = a.forward;
    const index state = f.A.extent(1), length = f.length;
    run_tasks(exec, static_cast<std::size_t>(f.A.extent(0)), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const auto h = static_cast<index>(task);
        const auto A = widened_matrix<double>(f.A[h]);
        const auto at = [&](index l) { return static_cast<std::size_t>(l * state); };
        std::vector<double> x = widened_vector<double>(f.b[h]), psi(at(1)), earlier(at(1)), dc(at(1));
        x.resize(at(std::max<index>(length, 1)));
        for (index l = 1; l < length; ++l) A.times(x.data() + at(l - 1), x.data() + at(l));
        small_matrix<double> dA(state);
        for (index l = length - 1; l >= 0; --l) {
            std::fill(earlier.begin(), earlier.end(), 0.0);
            A.add_adjoint_times(psi.data(), earlier.data());
            std::swap(psi, earlier);
            const auto g = static_cast<double>(a.dk(h, l));
            for (index n = 0; n < state; ++n) {
                psi[static_cast<std::size_t>(n)] += g * static_cast<double>(f.c(h, n));
                dc[static_cast<std::size_t>(n)] += g * x[at(l) + static_cast<std::size_t>(n)];
            }
            if (l > 0) dA.add_outer(psi.data(), x.data() + at(l - 1));
        }
        for (index n = 0; n < state; ++n) {
            if (a.db.data()) a.db(h, n) = static_cast<T>(psi[static_cast<std::size_t>(n)]);
            if (a.dc.data()) a.dc(h, n) = static_cast<T>(dc[static_cast<std::size_t>(n)]);
            for (index k = 0; k < state && a.dA.data(); ++k) a.dA(h, n, k) = static_cast<T>(dA(n, k));
        }
    });
}

}  // namespace ssmkit
