#pragma once

#include <algorithm>
#include <complex>
#include <cstddef>

#include <ssmkit/args/s4_step.hpp>
#include <ssmkit/detail/linear_scan_rows.hpp>
#include <ssmkit/detail/s4_transition.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/reference/s4_step.hpp>

namespace ssmkit {

/// What s4_step takes: equations at s4_step_setup_args. Throws shape_error before anything is written. Done once: double
/// inside, with memory of its own.
template <class T>
void s4_step_setup(const s4_step_setup_args<T>& a)
{
    check(a);
    const auto narrow = [](const std::complex<double>& x) {
        return std::complex<T>(static_cast<T>(x.real()), static_cast<T>(x.imag()));
    };
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

/// Adds the products of a register of a with one of h, whose sum over the lanes is -Re Σ a_n h_n: the signs are those of i².
template <class Arch, class T>
[[gnu::always_inline]] inline vec<T, Arch> s4_multiply(const vec<T, Arch>& a, const vec<T, Arch>& h, const vec<T, Arch>& total)
{
    return multiply_add(a, h * pair_signs<T, Arch>(), total);
}

/// 2 Re Σ a_n h_n of `count` real and imaginary parts as they lie in memory.
template <class Arch, class T>
[[gnu::always_inline]] inline T s4_product(const T* a, const T* h, index count)
{
    vec<T, Arch> total(T(0));
    for_each_lanes<T, Arch>(count, [&](auto range) { total = s4_multiply<Arch, T>(range.load(a), range.load(h), total); });
    return -2 * sum(total);
}

/// The tokens of one channel. The lanes run along the state, whose elements meet only in the products with V and C. Up to Rank
/// = 2 the products with V that the next token needs, and that with the first row of C, are taken while the state is in
/// registers; Rank = -1 is any rank.
template <class Arch, index Rank, class T>
[[gnu::noinline, gnu::flatten]] void s4_step_channel(const s4_step_args<T>& a, index b, index d)
{
    using V = vec<T, Arch>;
    constexpr index fused = Rank < 0 ? 0 : Rank;
    const index count = 2 * a.h.extent(2), rank = Rank < 0 ? a.U.extent(0) : Rank, length = a.u.extent(2), channels = a.y.extent(1);
    const auto reals = [](const std::complex<T>* p) { return reinterpret_cast<const T*>(p); };
    T* const h = reinterpret_cast<T*>(a.h.pointer(b, d));
    const T *const pole = reals(a.pole.pointer(d)), *const gain = reals(a.gain.pointer(d));
    const T *const C = channels > 0 ? reals(a.C.pointer(0, d)) : gain, *const u = a.u.pointer(b, d);  // without y, any row does
    const T *left[static_cast<std::size_t>(fused + 1)], *right[static_cast<std::size_t>(fused + 1)];
    for (index r = 0; r < fused; ++r) left[r] = reals(a.U.pointer(r, d)), right[r] = reals(a.V.pointer(r, d));
    T products[static_cast<std::size_t>(Rank < 0 ? s4_step_rank : Rank + 1)];
    const auto multiply = [&] {
        for (index r = 0; r < rank; ++r) products[r] = s4_product<Arch>(reals(a.V.pointer(r, d)), static_cast<const T*>(h), count);
    };
    if (length > 0) multiply();
    for (index t = 0; t < length; ++t) {
        const V input(u[t * a.u.stride(2)]);
        V out(T(0)), next[static_cast<std::size_t>(fused + 1)];
        unrolled<fused>([&](auto r) { next[r] = V(T(0)); });
        for_each_lanes<T, Arch>(count, [&](auto range) __attribute__((always_inline)) {
            V x = range.load(gain) * input;
            if constexpr (Rank < 0) {
                for (index r = 0; r < rank; ++r) x = x - range.load(reals(a.U.pointer(r, d))) * V(products[r]);
            } else {
                unrolled<fused>([&](auto r) __attribute__((always_inline)) {
                    x = multiply_add(range.load(left[r]), V(-products[r]), x);
                });
            }
            x = linear_scan_factor<T, Arch, 2, false>(range.load(pole)).times(range.load(static_cast<const T*>(h)), x);
            range.store(x, h);
            out = s4_multiply<Arch, T>(range.load(C), x, out);
            unrolled<fused>([&](auto r) __attribute__((always_inline)) {
                next[r] = s4_multiply<Arch, T>(range.load(right[r]), x, next[r]);
            });
        });
        unrolled<fused>([&](auto r) { products[r] = -2 * sum(next[r]); });
        if constexpr (Rank < 0) multiply();
        if (channels > 0) a.y(b, 0, d, t) = -2 * sum(out);
        for (index c = 1; c < channels; ++c)
            a.y(b, c, d, t) = s4_product<Arch>(reals(a.C.pointer(c, d)), static_cast<const T*>(h), count);
    }
}

}  // namespace detail

/// Steps of S4: shapes and equations at s4_step_args. Throws shape_error before anything is written; allocates nothing, takes
/// no lock. Work splits over batch and dim; the result depends neither on the split nor on how a sequence is cut into calls,
/// bit for bit. A state axis with a stride other than 1 takes the reference's plain loops. float outputs lie within 1e-5 of the
/// largest of a double computation over a thousand steps of a stable model.
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
    constexpr index block = 32;  // channels of a task
    const index blocks = (dim + block - 1) / block;
    const auto way = a.U.extent(0) == 0   ? s4_step_channel<Arch, 0, T>
                     : a.U.extent(0) == 1 ? s4_step_channel<Arch, 1, T>
                     : a.U.extent(0) == 2 ? s4_step_channel<Arch, 2, T>
                                          : s4_step_channel<Arch, -1, T>;
    run_tasks(exec, static_cast<std::size_t>(a.h.extent(0) * blocks), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const index b = static_cast<index>(task) / blocks, first = static_cast<index>(task) % blocks * block;
        for (index d = first; d < std::min(first + block, dim); ++d) way(a, b, d);
    });
}

}  // namespace ssmkit
