#pragma once

// The recurrence of one channel of a diagonal system, x_t = λ x_{t-1} + B̄ u_t, y_t = C x_t, in blocks of tokens for which the
// state stays in registers: what s4d_step and ema_step run.

#include <algorithm>
#include <complex>
#include <cstddef>

#include <ssmkit/detail/linear_scan_rows.hpp>
#include <ssmkit/discretize.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit::detail {

/// Tokens that a state stays in registers for, and registers that it takes at most. The sums of a block are of so many tokens.
inline constexpr index diagonal_step_tokens = 16, diagonal_step_registers = 4;

/// Elements of a row in a register: pairs (re, im) if complex.
template <class E, class Arch>
inline constexpr index elements_in_register = lanes<real_t<E>, Arch> / linear_scan_unit<E>;

/// Elements first ... of a row as registers, zeros behind the last.
template <class Arch, index Registers, class E>
[[gnu::always_inline]] inline void load_elements(const view<const E, 1>& from, index first, vec<real_t<E>, Arch> (&to)[Registers])
{
    using R = real_t<E>;
    constexpr index n = lanes<R, Arch>, each = elements_in_register<E, Arch>;
    const index count = std::min(from.extent(0) - first, Registers * each);
    if (count == Registers * each && from.stride(0) == 1) {
        const R* const p = reinterpret_cast<const R*>(from.data() + first);
        unrolled<Registers>([&](auto k) __attribute__((always_inline)) { to[k] = load<R, Arch>(p + k * n); });
        return;
    }
    alignas(64) E buffer[static_cast<std::size_t>(Registers * each)] = {};
    for (index i = 0; i < count; ++i) buffer[i] = from[first + i];
    unrolled<Registers>([&](auto k) __attribute__((always_inline)) { to[k] = vec<R, Arch>::load_aligned(reinterpret_cast<const R*>(buffer) + k * n); });
}

template <class Arch, index Registers, class E>
[[gnu::always_inline]] inline void store_elements(const vec<real_t<E>, Arch> (&from)[Registers], index first, const view<E, 1>& to)
{
    using R = real_t<E>;
    constexpr index n = lanes<R, Arch>, each = elements_in_register<E, Arch>;
    const index count = std::min(to.extent(0) - first, Registers * each);
    if (count == Registers * each && to.stride(0) == 1) {
        R* const p = reinterpret_cast<R*>(to.data() + first);
        unrolled<Registers>([&](auto k) __attribute__((always_inline)) { store(from[k], p + k * n); });
        return;
    }
    alignas(64) E buffer[static_cast<std::size_t>(Registers * each)];
    unrolled<Registers>([&](auto k) __attribute__((always_inline)) { from[k].store_aligned(reinterpret_cast<R*>(buffer) + k * n); });
    for (index i = 0; i < count; ++i) to[first + i] = buffer[i];
}

/// One channel of one sequence: elements E are real or complex. y is (length, channels), `factor` times the real part of C x.
template <class E>
struct diagonal_step_channel {
    using R = real_t<E>;
    view<E, 1> h;
    view<const E, 1> pole, input;
    view<const E, 2> C;
    view<const R, 1> u;
    view<R, 2> y;
    R factor;
};

/// `Registers` registers of the state from pole `first`, tokens [t0, t0 + count), count at most diagonal_step_tokens. y is added to
/// but for the first pole. The lanes run along the state, whose elements are independent.
template <class Arch, index Registers, class E>
[[gnu::noinline, gnu::flatten]] void diagonal_step_block(const diagonal_step_channel<E>& channel, index first, index t0, index count)
{
    using R = real_t<E>;
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    constexpr bool complex = is_complex<E>;
    const diagonal_step_channel<E> m = channel;
    const index channels = m.C.extent(0);
    v h[Registers], real[Registers], imaginary[Registers], input[Registers], C[Registers];
    load_elements<Arch, Registers, E>(m.pole, first, real);
    load_elements<Arch, Registers, E>(m.input, first, input);
    load_elements<Arch, Registers, E>(view<const E, 1>(m.h), first, h);
    const auto load_output = [&](index c) __attribute__((always_inline)) {  // Re(C x) is a sum of products with conj(C)
        const v signs = complex ? pair_signs<R, Arch>() * v(-m.factor) : v(m.factor);
        load_elements<Arch, Registers, E>(m.C[c], first, C);
        unrolled<Registers>([&](auto k) __attribute__((always_inline)) { C[k] = C[k] * signs; });
    };
    unrolled<Registers>([&](auto k) __attribute__((always_inline)) {
        imaginary[k] = pick<pair_lanes::second>(real[k]) * pair_signs<R, Arch>();
        if constexpr (complex) real[k] = pick<pair_lanes::first>(real[k]);
    });
    if (channels > 0) load_output(0);
    alignas(64) R sums[static_cast<std::size_t>(diagonal_step_tokens * n)], states[static_cast<std::size_t>(diagonal_step_tokens * Registers * n)];
    for (index t = 0; t < count; ++t) {
        const v u(m.u[t0 + t]);
        v sum(R(0));
        unrolled<Registers>([&](auto k) __attribute__((always_inline)) {
            v added = input[k] * u;
            if constexpr (complex) added = multiply_add(imaginary[k], pick<pair_lanes::exchanged>(h[k]), added);
            h[k] = multiply_add(real[k], h[k], added);
            sum = multiply_add(C[k], h[k], sum);
        });
        sum.store_aligned(sums + t * n);
        if (channels > 1) {
            unrolled<Registers>([&](auto k) __attribute__((always_inline)) { h[k].store_aligned(states + (t * Registers + k) * n); });
        }
    }
    store_elements<Arch, Registers, E>(h, first, m.h);
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
        R total[static_cast<std::size_t>(diagonal_step_tokens)];
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

template <class Arch, class E>
void diagonal_step_state(const diagonal_step_channel<E>& m, index t0, index count)
{
    constexpr index each = elements_in_register<E, Arch>;
    const index state = m.h.extent(0);
    index first = 0;
    do {  // once also where there is no state: y is written then
        const index registers = (state - first + each - 1) / each;
        if (registers > 2) {
            diagonal_step_block<Arch, diagonal_step_registers, E>(m, first, t0, count);
            first += diagonal_step_registers * each;
        } else if (registers == 2) {
            diagonal_step_block<Arch, 2, E>(m, first, t0, count);
            first += 2 * each;
        } else {
            diagonal_step_block<Arch, 1, E>(m, first, t0, count);
            first += each;
        }
    } while (first < state);
}

/// All tokens of a channel.
template <class Arch, class E>
void diagonal_steps(const diagonal_step_channel<E>& m)
{
    const index length = m.u.extent(0);
    for (index t = 0; t < length; t += diagonal_step_tokens) {
        diagonal_step_state<Arch, E>(m, t, std::min(diagonal_step_tokens, length - t));
    }
}

/// Channels of a task: enough for a call of some 2 microseconds.
inline constexpr index diagonal_step_task_channels = 32;

/// Calls f(b, h) for every channel of every sequence, a task a block of channels.
template <class Exec, class F>
void for_each_channel(Exec& exec, index batch, index dim, F&& f)
{
    const index parts = (dim + diagonal_step_task_channels - 1) / diagonal_step_task_channels;
    run_tasks(exec, static_cast<std::size_t>(batch * parts), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const index first = static_cast<index>(task) % parts * diagonal_step_task_channels;
        for (index h = first; h < std::min(dim, first + diagonal_step_task_channels); ++h) f(static_cast<index>(task) / parts, h);
    });
}

}  // namespace ssmkit::detail
