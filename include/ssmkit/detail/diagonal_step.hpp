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

/// Elements first ... of a row as registers, zeros behind the last. `Whole`: the caller knows that they are contiguous and
/// enough.
template <class Arch, index Registers, class E, bool Whole = false>
[[gnu::always_inline]] inline void load_elements(const view<const E, 1>& from, index first, vec<real_t<E>, Arch> (&to)[Registers])
{
    using R = real_t<E>;
    constexpr index n = lanes<R, Arch>, each = elements_in_register<E, Arch>;
    const index count = std::min(from.extent(0) - first, Registers * each);
    if (Whole || (count == Registers * each && from.stride(0) == 1)) {
        const R* const p = reinterpret_cast<const R*>(from.data() + first);
        unrolled<Registers>([&](auto k) __attribute__((always_inline)) { to[k] = load<R, Arch>(p + k * n); });
        return;
    }
    alignas(64) E buffer[static_cast<std::size_t>(Registers * each)] = {};
    for (index i = 0; i < count; ++i) buffer[i] = from[first + i];
    unrolled<Registers>([&](auto k) __attribute__((always_inline)) {
        to[k] = vec<R, Arch>::load_aligned(reinterpret_cast<const R*>(buffer) + k * n);
    });
}

template <class Arch, index Registers, class E, bool Whole = false>
[[gnu::always_inline]] inline void store_elements(const vec<real_t<E>, Arch> (&from)[Registers], index first, const view<E, 1>& to)
{
    using R = real_t<E>;
    constexpr index n = lanes<R, Arch>, each = elements_in_register<E, Arch>;
    const index count = std::min(to.extent(0) - first, Registers * each);
    if (Whole || (count == Registers * each && to.stride(0) == 1)) {
        R* const p = reinterpret_cast<R*>(to.data() + first);
        unrolled<Registers>([&](auto k) __attribute__((always_inline)) { store(from[k], p + k * n); });
        return;
    }
    alignas(64) E buffer[static_cast<std::size_t>(Registers * each)];
    unrolled<Registers>([&](auto k) __attribute__((always_inline)) {
        from[k].store_aligned(reinterpret_cast<R*>(buffer) + k * n);
    });
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
[[gnu::noinline, gnu::flatten]] void diagonal_step_block(const diagonal_step_channel<E>& channel, index first, index t0,
                                                         index count)
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
    alignas(64) R sums[static_cast<std::size_t>(diagonal_step_tokens * n)],
        states[static_cast<std::size_t>(diagonal_step_tokens * Registers * n)];
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
            unrolled<Registers>([&](auto k) __attribute__((always_inline)) {
                h[k].store_aligned(states + (t * Registers + k) * n);
            });
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

/// Shapes as in s4d_step_args.
template <class E>
struct diagonal_step_problem {
    using R = real_t<E>;
    view<E, 3> h;
    view<const E, 2> pole, input;
    view<const E, 3> C;
    view<const R, 3> u;
    view<R, 4> y;
    R factor;

    diagonal_step_channel<E> channel(index b, index c) const
    {
        return {.h = h[b][c],
                .pole = pole[c],
                .input = input[c],
                .C = {C.pointer(0, c), {C.extent(0), C.extent(2)}, {C.stride(0), C.stride(2)}},
                .u = {u.pointer(b, 0, c), {u.extent(1)}, {u.stride(1)}},
                .y = {y.pointer(b, 0, 0, c), {y.extent(1), y.extent(2)}, {y.stride(1), y.stride(2)}},
                .factor = factor};
    }
};

/// One token of at most a register of channels, c0 ..., of sequence b: outputs are summed across lanes for all of them at once,
/// which halves the time of a call. `Registers` of the state from pole `first`; all operations are those of diagonal_step_block.
template <class Arch, index Registers, bool Whole, class E>
[[gnu::noinline, gnu::flatten]] void diagonal_step_token(const diagonal_step_problem<E>& problem, index b, index c0, index count,
                                                         index first)
{
    using R = real_t<E>;
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    constexpr bool complex = is_complex<E>;
    const diagonal_step_problem<E> m = problem;
    const index state = m.h.extent(2), channels = m.C.extent(0);
    const v signs = complex ? pair_signs<R, Arch>() * v(-m.factor) : v(m.factor), turn = pair_signs<R, Arch>();
    // Signs and a factor of 2 are exact wherever they are applied: to C in diagonal_step_block, to the sums here.
    const auto row = [&](auto* data, index stride) { return view<const E, 1>(data, {state}, {stride}); };
    v sums[static_cast<std::size_t>(n)];
    std::fill_n(sums, n, v(R(0)));
    const auto finish = [&](index channel) __attribute__((always_inline)) {
        const v total = sum_each<R, Arch>(sums);
        R* const y = m.y.pointer(b, 0, channel, c0);
        const lane_range<R, Arch, false> range{0, count};
        range.store(first > 0 ? range.load(static_cast<const R*>(y), m.y.stride(3)) + total : total, y, m.y.stride(3));
    };
    for (index i = 0; i < count; ++i) {
        const index c = c0 + i;
        v h[Registers], pole[Registers], input[Registers], C[Registers];
        load_elements<Arch, Registers, E, Whole>(row(m.h.pointer(b, c), m.h.stride(2)), first, h);
        load_elements<Arch, Registers, E, Whole>(row(m.pole.pointer(c), m.pole.stride(1)), first, pole);
        load_elements<Arch, Registers, E, Whole>(row(m.input.pointer(c), m.input.stride(1)), first, input);
        if (channels > 0) load_elements<Arch, Registers, E, Whole>(row(m.C.pointer(0, c), m.C.stride(2)), first, C);
        const v u(m.u(b, 0, c));
        v sum(R(0));
        unrolled<Registers>([&](auto k) __attribute__((always_inline)) {
            v added = input[k] * u, real = pole[k];
            if constexpr (complex) {
                real = pick<pair_lanes::first>(pole[k]);
                added = multiply_add(pick<pair_lanes::second>(pole[k]) * turn, pick<pair_lanes::exchanged>(h[k]), added);
            }
            h[k] = multiply_add(real, h[k], added);
            if (channels > 0) sum = multiply_add(C[k], h[k], sum);
        });
        store_elements<Arch, Registers, E, Whole>(h, first, view<E, 1>(m.h.pointer(b, c), {state}, {m.h.stride(2)}));
        sums[i] = sum * signs;
    }
    if (channels > 0) finish(0);
    for (index channel = 1; channel < channels; ++channel) {
        std::fill_n(sums, n, v(R(0)));
        for (index i = 0; i < count; ++i) {
            v h[Registers], C[Registers], sum(R(0));
            load_elements<Arch, Registers, E, Whole>(row(m.h.pointer(b, c0 + i), m.h.stride(2)), first, h);
            load_elements<Arch, Registers, E, Whole>(row(m.C.pointer(channel, c0 + i), m.C.stride(2)), first, C);
            unrolled<Registers>([&](auto k) __attribute__((always_inline)) { sum = multiply_add(C[k], h[k], sum); });
            sums[i] = sum * signs;
        }
        finish(channel);
    }
}

/// Calls f(first, Registers) for groups of registers that cover the state, Registers a constant; once if there is none.
template <class Arch, class E, class F>
void for_each_step_group(index state, F&& f)
{
    constexpr index each = elements_in_register<E, Arch>;
    index first = 0;
    do {
        const index registers = (state - first + each - 1) / each;
        const auto take = [&](auto count) {
            f(first, count);
            first += count * each;
        };
        if (registers > 2) take(std::integral_constant<index, diagonal_step_registers>{});
        else if (registers == 2) take(std::integral_constant<index, 2>{});
        else take(std::integral_constant<index, 1>{});
    } while (first < state);
}

/// Channels of a task: enough for a call of some microseconds.
inline constexpr index diagonal_step_task_channels = 32;

/// All tokens of all channels of a sequence; a task is a block of channels.
template <class Arch, class E, class Exec>
void run_diagonal_steps(const diagonal_step_problem<E>& p, Exec& exec)
{
    constexpr index n = lanes<real_t<E>, Arch>;
    const index batch = p.u.extent(0), length = p.u.extent(1), dim = p.u.extent(2), state = p.h.extent(2);
    const index parts = (dim + diagonal_step_task_channels - 1) / diagonal_step_task_channels;
    const bool contiguous = p.h.stride(2) == 1 && p.pole.stride(1) == 1 && p.input.stride(1) == 1 && p.C.stride(2) == 1;
    run_tasks(exec, static_cast<std::size_t>(batch * parts), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const index b = static_cast<index>(task) / parts, begin = static_cast<index>(task) % parts * diagonal_step_task_channels;
        const index end = std::min(dim, begin + diagonal_step_task_channels);
        for (index c = begin; length == 1 && c < end; c += n) {
            for_each_step_group<Arch, E>(state, [&](index first, auto registers) {
                const bool whole = contiguous && first + registers * elements_in_register<E, Arch> <= state;
                const auto token =
                    whole ? diagonal_step_token<Arch, registers, true, E> : diagonal_step_token<Arch, registers, false, E>;
                token(p, b, c, std::min(n, end - c), first);
            });
        }
        for (index c = begin; length != 1 && c < end; ++c) {
            const diagonal_step_channel<E> m = p.channel(b, c);
            for (index t = 0; t < length; t += diagonal_step_tokens) {
                for_each_step_group<Arch, E>(state, [&](index first, auto registers) {
                    diagonal_step_block<Arch, registers, E>(m, first, t, std::min(diagonal_step_tokens, length - t));
                });
            }
        }
    });
}

}  // namespace ssmkit::detail
