#pragma once

#include <array>
#include <complex>

#include <ssmkit/args/s5_step.hpp>
#include <ssmkit/detail/linear_scan_rows.hpp>
#include <ssmkit/detail/tile_product.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/reference/s5_step.hpp>

namespace ssmkit {
namespace detail {

/// Each of the lower (Half 0) or upper half of the lanes twice, side by side.
template <index Half, class R, class Arch>
[[gnu::always_inline]] inline vec<R, Arch> twice(const vec<R, Arch>& x)
{
    using reg = typename vec<R, Arch>::register_type;
    return [&]<index... L>(std::integer_sequence<index, L...>) __attribute__((always_inline)) {
        const reg r = x;
        return vec<R, Arch>(reg(__builtin_shufflevector(r, r, static_cast<int>(Half * lanes<R, Arch> / 2 + L / 2)...)));
    }(std::make_integer_sequence<index, lanes<R, Arch>>{});
}

/// x plus x with lanes L and L ^ Distance exchanged.
template <index Distance, class R, class Arch>
[[gnu::always_inline]] inline vec<R, Arch> folded(const vec<R, Arch>& x)
{
    using reg = typename vec<R, Arch>::register_type;
    return [&]<index... L>(std::integer_sequence<index, L...>) __attribute__((always_inline)) {
        const reg r = x;
        return x + vec<R, Arch>(reg(__builtin_shufflevector(r, r, static_cast<int>(L ^ Distance)...)));
    }(std::make_integer_sequence<index, lanes<R, Arch>>{});
}

/// Sums of the even and of the odd lanes: of real and of imaginary parts.
template <index Distance = 0, class R, class Arch>
[[gnu::always_inline]] inline std::complex<R> sum_pairs(const vec<R, Arch>& x)
{
    constexpr index distance = Distance == 0 ? lanes<R, Arch> / 2 : Distance;
    if constexpr (distance >= 2) {
        return sum_pairs<(distance > 2 ? distance / 2 : 1)>(folded<distance, R, Arch>(x));
    } else {
        alignas(64) R pairs[static_cast<std::size_t>(lanes<R, Arch>)];
        x.store_aligned(pairs);
        return {pairs[0], pairs[1]};
    }
}

/// Rows of B times u: out[r] = Σ_c B(r, c) u_c, lanes along the pairs of a row, rows `row` numbers apart.
template <class Arch, index Rows, class R, class E>
[[gnu::always_inline]] inline void s5_step_inputs(const R* B, index row, const E* u, index dim, std::complex<R>* out)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    v sums[static_cast<std::size_t>(Rows)];
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) { sums[r] = v(R(0)); });
    for_each_lanes<R, Arch>(dim, [&](auto range) __attribute__((always_inline)) {
        const v x = range.load(u), low = twice<0, R, Arch>(x), high = twice<1, R, Arch>(x);
        const R* const p = B + 2 * range.first;
        const auto add = [&](auto first, auto second) __attribute__((always_inline)) {
            unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                sums[r] = multiply_add(high, second.load(p + r * row), multiply_add(low, first.load(p + r * row), sums[r]));
            });
        };
        using full = lane_range<R, Arch, true>;
        using part = lane_range<R, Arch, false>;
        if constexpr (decltype(range)::full) {
            add(full{0}, full{n});
        } else if (2 * range.count < n) {
            unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                sums[r] = multiply_add(low, part{0, 2 * range.count}.load(p + r * row), sums[r]);
            });
        } else {
            add(full{0}, part{n, 2 * range.count - n});
        }
    });
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) { out[r] = sum_pairs(sums[r]); });
}

/// Rows of C times h: out[r] = Re Σ_p C(r, p) h_p.
template <class Arch, index Rows, class R>
[[gnu::always_inline]] inline void s5_step_outputs(const R* C, index row, const R* h, index numbers, R* out)
{
    using v = vec<R, Arch>;
    v sums[static_cast<std::size_t>(Rows)];
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) { sums[r] = v(R(0)); });
    for_each_lanes<R, Arch>(numbers, [&](auto range) __attribute__((always_inline)) {
        const v x = range.load(h);
        unrolled<Rows>([&](auto r) __attribute__((always_inline)) { sums[r] = multiply_add(x, range.load(C + r * row), sums[r]); });
    });
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) { out[r] = -sum(sums[r] * pair_signs<R, Arch>()); });
}

/// A h + x, or (A + x) h + x. Written out: the standard library's product looks at every result for NaN.
template <class R>
std::complex<R> s5_next(std::complex<R> A, std::complex<R> x, std::complex<R> h, bool liquid)
{
    const R re = A.real() + (liquid ? x.real() : R(0)), im = A.imag() + (liquid ? x.imag() : R(0));
    return {re * h.real() - im * h.imag() + x.real(), re * h.imag() + im * h.real() + x.imag()};
}

/// One sequence; everything contiguous along its last axis. Four rows at a time share what is loaded of u and h.
template <class Arch, class T>
[[gnu::noinline, gnu::flatten]] void s5_step_sequence(const s5_step_args<T>& a, index b)
{
    using R = compute_t<T>;
    using complex = std::complex<R>;
    const auto numbers = [](const complex* p) { return reinterpret_cast<const R*>(p); };
    const index dim = a.u.extent(1), state = a.A.extent(0), out = a.C.extent(0);
    complex* const h = a.h.pointer(b);
    for_each_row_group<Arch, 4>(state, [&](index first, auto rows) {
        std::array<std::complex<R>, 4> inputs;
        s5_step_inputs<Arch, rows()>(numbers(a.B.pointer(first)), 2 * a.B.stride(0), a.u.pointer(b), dim, inputs.data());
        for (index r = 0; r < rows; ++r) {
            h[first + r] = s5_next(a.A[first + r], inputs[static_cast<std::size_t>(r)], h[first + r], a.liquid);
        }
    });
    const R f = a.conjugate_pairs ? R(2) : R(1);
    for_each_row_group<Arch, 4>(out, [&](index first, auto rows) {
        std::array<R, 4> sums;
        s5_step_outputs<Arch, rows()>(numbers(a.C.pointer(first)), 2 * a.C.stride(0), numbers(h), 2 * state, sums.data());
        for (index r = 0; r < rows; ++r) {
            const auto i = static_cast<std::size_t>(r);
            const R skip = a.D.data() ? a.D[first + r] * static_cast<R>(a.u(b, first + r)) : R(0);
            a.y(b, first + r) = static_cast<T>(f * sums[i] + skip);
        }
    });
}

}  // namespace detail

/// One token of S5: shapes and equations at s5_step_args. Throws shape_error before anything is written. Work splits over the
/// batch; a memory-bound pass over B and C, which stay in the caches if they fit there. float results lie within 2e-6 of the
/// largest output of a double computation of the same step.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s5_step(const s5_step_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const auto contiguous = [](const auto& v) { return v.extent(1) <= 1 || v.stride(1) == 1; };
    if (!(contiguous(a.B) && contiguous(a.C) && contiguous(a.h) && contiguous(a.u))) {
        const flush_denormals guard;
        return reference::s5_step(a);
    }
    run_tasks(exec, static_cast<std::size_t>(a.u.extent(0)), [&](std::size_t b, std::size_t) {
        const flush_denormals guard;
        s5_step_sequence<Arch>(a, static_cast<index>(b));
    });
}

}  // namespace ssmkit
