#pragma once

#include <algorithm>
#include <complex>
#include <cstddef>

#include <ssmkit/args/s4d_step.hpp>
#include <ssmkit/detail/linear_scan_rows.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// Tokens that a state stays in registers for, and registers that it takes at most. The sums of a block are of so many tokens.
inline constexpr index s4d_step_tokens = 16, s4d_step_registers = 4;

/// Elements first ... of a row of complex numbers as registers of (re, im) pairs, zeros behind the last.
template <class Arch, index Registers, class R>
[[gnu::always_inline]] inline void load_pairs(const view<const std::complex<R>, 1>& from, index first, vec<R, Arch> (&to)[Registers])
{
    constexpr index n = lanes<R, Arch>, half = n / 2;
    const index count = std::min(from.extent(0) - first, Registers * half);
    if (count == Registers * half && from.stride(0) == 1) {
        const R* const p = reinterpret_cast<const R*>(from.data() + first);
        unrolled<Registers>([&](auto k) __attribute__((always_inline)) { to[k] = load<R, Arch>(p + k * n); });
        return;
    }
    alignas(64) R buffer[static_cast<std::size_t>(Registers * n)] = {};
    for (index i = 0; i < count; ++i) {
        buffer[2 * i] = from[first + i].real();
        buffer[2 * i + 1] = from[first + i].imag();
    }
    unrolled<Registers>([&](auto k) __attribute__((always_inline)) { to[k] = vec<R, Arch>::load_aligned(buffer + k * n); });
}

template <class Arch, index Registers, class R>
[[gnu::always_inline]] inline void store_pairs(const vec<R, Arch> (&from)[Registers], index first, const view<std::complex<R>, 1>& to)
{
    constexpr index n = lanes<R, Arch>, half = n / 2;
    const index count = std::min(to.extent(0) - first, Registers * half);
    if (count == Registers * half && to.stride(0) == 1) {
        R* const p = reinterpret_cast<R*>(to.data() + first);
        unrolled<Registers>([&](auto k) __attribute__((always_inline)) { store(from[k], p + k * n); });
        return;
    }
    alignas(64) R buffer[static_cast<std::size_t>(Registers * n)];
    unrolled<Registers>([&](auto k) __attribute__((always_inline)) { from[k].store_aligned(buffer + k * n); });
    for (index i = 0; i < count; ++i) to[first + i] = {buffer[2 * i], buffer[2 * i + 1]};
}

/// One channel of one sequence. y is (length, channels).
template <class R>
struct s4d_step_channel {
    view<std::complex<R>, 1> h;
    view<const std::complex<R>, 1> pole, input;
    view<const std::complex<R>, 2> C;
    view<const R, 1> u;
    view<R, 2> y;
    R factor;
};

/// `Registers` registers of the state from pole `first`, tokens [t0, t0 + count), count at most s4d_step_tokens. y is added to
/// but for the first pole. The lanes run along the state, whose elements are independent.
template <class Arch, index Registers, class R>
[[gnu::noinline, gnu::flatten]] void s4d_step_block(const s4d_step_channel<R>& channel, index first, index t0, index count)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    const s4d_step_channel<R> m = channel;
    const index channels = m.C.extent(0);
    v h[Registers], real[Registers], imaginary[Registers], input[Registers], C[Registers];
    load_pairs<Arch, Registers, R>(m.pole, first, real);
    load_pairs<Arch, Registers, R>(m.input, first, input);
    load_pairs<Arch, Registers, R>(view<const std::complex<R>, 1>(m.h), first, h);
    const auto load_output = [&](index c) __attribute__((always_inline)) {  // Re(C x) is a sum of products with conj(C)
        const v signs = pair_signs<R, Arch>() * v(-m.factor);
        load_pairs<Arch, Registers, R>(m.C[c], first, C);
        unrolled<Registers>([&](auto k) __attribute__((always_inline)) { C[k] = C[k] * signs; });
    };
    unrolled<Registers>([&](auto k) __attribute__((always_inline)) {
        imaginary[k] = pick<pair_lanes::second>(real[k]) * pair_signs<R, Arch>();
        real[k] = pick<pair_lanes::first>(real[k]);
    });
    if (channels > 0) load_output(0);
    alignas(64) R sums[static_cast<std::size_t>(s4d_step_tokens * n)], states[static_cast<std::size_t>(s4d_step_tokens * Registers * n)];
    for (index t = 0; t < count; ++t) {
        const v u(m.u[t0 + t]);
        v sum(R(0));
        unrolled<Registers>([&](auto k) __attribute__((always_inline)) {
            const v turned = multiply_add(imaginary[k], pick<pair_lanes::exchanged>(h[k]), input[k] * u);
            h[k] = multiply_add(real[k], h[k], turned);
            sum = multiply_add(C[k], h[k], sum);
        });
        sum.store_aligned(sums + t * n);
        if (channels > 1) {
            unrolled<Registers>([&](auto k) __attribute__((always_inline)) { h[k].store_aligned(states + (t * Registers + k) * n); });
        }
    }
    store_pairs<Arch, Registers, R>(h, first, m.h);
    for (index c = 0; c < channels; ++c) {
        if (c > 0) {
            load_output(c);
            for (index t = 0; t < count; ++t) {
                v sum(R(0));
                unrolled<Registers>([&](auto k) __attribute__((always_inline)) {
                    sum = multiply_add(C[k], v::load_aligned(states + (t * Registers + k) * n), sum);
                });
                sum.store_aligned(sums + t * n);
            }
        }
        R total[static_cast<std::size_t>(s4d_step_tokens)];
        if (count == 1) {
            total[0] = sum_in_order(v::load_aligned(sums));
        } else {
            sum_rows<Arch>(static_cast<const R*>(sums), count, total, false);
        }
        for (index t = 0; t < count; ++t) {
            R& y = m.y(t0 + t, c);
            y = first > 0 ? y + total[t] : total[t];
        }
    }
}

template <class Arch, class R>
void s4d_step_state(const s4d_step_channel<R>& m, index t0, index count)
{
    constexpr index half = lanes<R, Arch> / 2;
    const index state = m.h.extent(0);
    index first = 0;
    do {  // once also where there is no state: y is written then
        const index registers = (state - first + half - 1) / half;
        if (registers > 2) {
            s4d_step_block<Arch, s4d_step_registers, R>(m, first, t0, count);
            first += s4d_step_registers * half;
        } else if (registers == 2) {
            s4d_step_block<Arch, 2, R>(m, first, t0, count);
            first += 2 * half;
        } else {
            s4d_step_block<Arch, 1, R>(m, first, t0, count);
            first += half;
        }
    } while (first < state);
}

/// Channels of a task: enough for a call of some 2 microseconds.
inline constexpr index s4d_step_task_channels = 32;

}  // namespace detail

/// The diagonal recurrence on a block of tokens: shapes and equations at s4d_step_args. Throws shape_error before anything is
/// written; allocates nothing and takes no lock. Work splits over batch and blocks of 32 channels; the result does not depend on
/// the split, nor on how the tokens are cut into calls, bit for bit.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s4d_step(const s4d_step_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index batch = a.u.extent(0), length = a.u.extent(1), dim = a.u.extent(2);
    const index parts = (dim + s4d_step_task_channels - 1) / s4d_step_task_channels;
    run_tasks(exec, static_cast<std::size_t>(batch * parts), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const index b = static_cast<index>(task) / parts, first = static_cast<index>(task) % parts * s4d_step_task_channels;
        for (index h = first; h < std::min(dim, first + s4d_step_task_channels); ++h) {
            const s4d_step_channel<T> m{.h = a.h[b][h],
                                        .pole = a.pole[h],
                                        .input = a.input[h],
                                        .C = a.C.transposed(0, 1)[h],
                                        .u = a.u[b].transposed(0, 1)[h],
                                        .y = {a.y.pointer(b, 0, 0, h), {length, a.C.extent(0)}, {a.y.stride(1), a.y.stride(2)}},
                                        .factor = a.conjugate_pairs ? T(2) : T(1)};
            for (index t = 0; t < length; t += s4d_step_tokens) s4d_step_state<Arch, T>(m, t, std::min(s4d_step_tokens, length - t));
            for (index c = 0; a.D.data() && c < a.C.extent(0); ++c) {
                for (index t = 0; t < length; ++t) m.y(t, c) += a.D(c, h) * m.u[t];
            }
        }
    });
}

}  // namespace ssmkit
