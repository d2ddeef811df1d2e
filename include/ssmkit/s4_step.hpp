#pragma once

#include <complex>
#include <cstddef>

#include <ssmkit/args/s4_step.hpp>
#include <ssmkit/detail/linear_scan_rows.hpp>
#include <ssmkit/detail/s4_transition.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/reference/s4_step.hpp>

namespace ssmkit {

/// What s4_step takes: equations at s4_step_setup_args. Throws shape_error before anything is written. Done once: double inside, with
/// memory of its own.
template <class T>
void s4_step_setup(const s4_step_setup_args<T>& a)
{
    check(a);
    const auto narrow = [](const std::complex<double>& x) { return std::complex<T>(static_cast<T>(x.real()), static_cast<T>(x.imag())); };
    for (index h = 0; h < a.delta.extent(0); ++h) {
        const detail::s4_transition t(a.delta, a.rate, a.A, a.B, a.P, h);
        for (index n = 0; n < t.state; ++n) {
            a.pole(h, n) = narrow(t.pole[static_cast<std::size_t>(n)]);
            a.gain(h, n) = narrow(t.gain[static_cast<std::size_t>(n)]);
            for (index r = 0; r < t.rank; ++r) {
                a.U(r, h, n) = narrow(t.U[static_cast<std::size_t>(r * t.state + n)]);
                a.V(r, h, n) = narrow(t.V[static_cast<std::size_t>(r * t.state + n)]);
            }
        }
    }
}

namespace detail {

/// 2 Re Σ a_n h_n of complex numbers as they lie in memory.
template <class Arch, class T>
[[gnu::always_inline]] inline T s4_product(const std::complex<T>* a, const std::complex<T>* h, index state)
{
    vec<T, Arch> total(T(0));
    const T *const x = reinterpret_cast<const T*>(a), *const y = reinterpret_cast<const T*>(h);
    for_each_lanes<T, Arch>(2 * state, [&](auto range) { total = multiply_add(range.load(x), range.load(y) * pair_signs<T, Arch>(), total); });
    return -2 * sum(total);  // the signs are those of i²
}

/// The tokens of one channel. The lanes run along the state, whose elements meet only in the products with V and C.
template <class Arch, class T>
[[gnu::flatten]] void s4_step_channel(const s4_step_args<T>& a, index b, index d)
{
    const index state = a.h.extent(2), rank = a.U.extent(0);
    std::complex<T>* const h = a.h.pointer(b, d);
    T products[s4_step_rank];
    const auto reals = [](const std::complex<T>* p) { return reinterpret_cast<const T*>(p); };
    const T *const pole = reals(a.pole.pointer(d)), *const gain = reals(a.gain.pointer(d));
    for (index t = 0; t < a.u.extent(2); ++t) {
        for (index r = 0; r < rank; ++r) products[r] = s4_product<Arch>(a.V.pointer(r, d), h, state);
        const vec<T, Arch> u(a.u(b, d, t));
        for_each_lanes<T, Arch>(2 * state, [&](auto range) {
            vec<T, Arch> input = range.load(gain) * u;
            for (index r = 0; r < rank; ++r) input = input - range.load(reals(a.U.pointer(r, d))) * vec<T, Arch>(products[r]);
            T* const to = reinterpret_cast<T*>(h);
            range.store(linear_scan_factor<T, Arch, 2, false>(range.load(pole)).times(range.load(static_cast<const T*>(to)), input), to);
        });
        for (index c = 0; c < a.y.extent(1); ++c) a.y(b, c, d, t) = s4_product<Arch>(a.C.pointer(c, d), h, state);
    }
}

}  // namespace detail

/// Steps of S4: shapes and equations at s4_step_args. Throws shape_error before anything is written; allocates nothing, takes no lock.
/// Work splits over batch and dim; the result depends neither on the split nor on how a sequence is cut into calls, bit for bit. A
/// state axis with a stride other than 1 takes the reference's plain loops. float outputs lie within 1e-5 of the largest of a
/// double computation over a thousand steps of a stable model.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s4_step(const s4_step_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const auto contiguous = [](const auto& v) { return v.empty() || v.extent(v.rank - 1) <= 1 || v.stride(v.rank - 1) == 1; };
    const index dim = a.h.extent(1);
    if (!(contiguous(a.h) && contiguous(a.pole) && contiguous(a.gain) && contiguous(a.U) && contiguous(a.V) && contiguous(a.C))) {
        const flush_denormals guard;
        return reference::s4_step(a);
    }
    run_tasks(exec, static_cast<std::size_t>(a.h.extent(0) * dim), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        s4_step_channel<Arch>(a, static_cast<index>(task) / dim, static_cast<index>(task) % dim);
    });
}

}  // namespace ssmkit
