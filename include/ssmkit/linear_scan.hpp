#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <ssmkit/args/linear_scan.hpp>
#include <ssmkit/detail/linear_scan_rows.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// An output of this size or more goes around the caches.
inline constexpr index linear_scan_streaming_bytes = index{4} << 20;

/// Rows of a run of tokens, numbers throughout; `a` has step 0 if it does not change with the token.
template <class R>
struct linear_scan_run_rows {
    linear_scan_rows<const R> a, b;
    linear_scan_rows<R> h;

    void advance(index tokens)
    {
        a.data += tokens * a.step;
        b.data += tokens * b.step;
        h.data += tokens * h.step;
    }
};

/// What a block of tokens does to a register of channels.
enum class linear_scan_step { constant, varying, reset };

template <class Arch, index Unit, linear_scan_step Step, index Tokens, class R, class Range>
[[gnu::always_inline]] inline void linear_scan_channels(const linear_scan_run_rows<R>& rows, R* state, bool streaming, Range range)
{
    using factor = linear_scan_factor<R, Arch, Unit, false>;
    constexpr index ahead = 8;  // tokens
    auto h = range.load(static_cast<const R*>(state));
    const factor constant(Step == linear_scan_step::constant ? range.load(rows.a.data) : h);
    unrolled<Tokens>([&](auto i) {
        prefetch(rows.b.data + range.first + (ahead + i) * rows.b.step);
        const auto b = range.load(rows.b.data + i * rows.b.step);
        if constexpr (Step == linear_scan_step::constant) {
            h = constant.times(h, b);
        } else if constexpr (Step == linear_scan_step::varying) {
            prefetch(rows.a.data + range.first + (ahead + i) * rows.a.step);
            h = factor(range.load(rows.a.data + i * rows.a.step)).times(h, b);
        } else {
            h = b;
        }
        R* const out = rows.h.data + i * rows.h.step;
        if constexpr (Range::full) {
            if (streaming) return store_streaming(h, out + range.first);
        }
        range.store(h, out);
    });
    range.store(h, state);
}

/// All channels of a few tokens; `lead` numbers come before the first aligned address of h. The lanes run along the channels,
/// which are independent.
template <class Arch, index Unit, linear_scan_step Step, index Tokens, class R>
[[gnu::noinline, gnu::flatten]] void linear_scan_block(const linear_scan_run_rows<R>& where, R* state, index lead, index count,
                                                       bool streaming)
{
    constexpr index n = lanes<R, Arch>;
    const linear_scan_run_rows<R> rows = where;
    const index full = lead + (count - lead) / n * n;
    for (index c = lead; c < full; c += n) {
        linear_scan_channels<Arch, Unit, Step, Tokens>(rows, state, streaming, lane_range<R, Arch, true>{c});
    }
    for (const auto edge : {lane_range<R, Arch, false>{0, lead}, lane_range<R, Arch, false>{full, count - full}}) {
        if (edge.count > 0) linear_scan_channels<Arch, Unit, Step, Tokens>(rows, state, false, edge);
    }
}

/// A run of tokens, a few at a time: the state is loaded and stored once for them. One at a time costs 1.4 times as much in the
/// caches; beyond them, ordinary stores to one row after the other cost 0.7 (real) to 0.85 (complex) times as much as to four.
template <class Arch, index Unit, linear_scan_step Step, class R>
void linear_scan_run(linear_scan_run_rows<R> rows, index tokens, R* state, index lead, index count, bool streaming, bool large)
{
    const auto advance = [&](auto step) {
        for (; tokens >= step; tokens -= step) {
            linear_scan_block<Arch, Unit, Step, step()>(rows, state, lead, count, streaming);
            rows.advance(step);
        }
    };
    if constexpr (Step != linear_scan_step::reset) {
        if (streaming || !large) advance(std::integral_constant<index, 4>{});
    }
    advance(std::integral_constant<index, 1>{});
}

/// As many tokens as a register has elements, of up to as many channels whose tokens are neighbours in memory: turned, scanned and
/// turned back without leaving the registers. Pointers are those of the
/// token with the lowest address; `factors` has a row for every token, or one for all where its step is 0.
template <class Arch, index Unit, bool Ascending, class R, class E>
[[gnu::noinline, gnu::flatten]] void linear_scan_square(const E* b, index b_stride, E* out, index out_stride,
                                                        linear_scan_rows<const R> factors, R* state, index channels, bool streaming)
{
    using v = vec<R, Arch>;
    using factor = linear_scan_factor<R, Arch, Unit, false>;
    constexpr index k = lanes<R, Arch> / Unit, ahead = 8 * k * Unit;
    v r[static_cast<std::size_t>(k)];
    for (index i = 0; i < k; ++i) {
        if (channels == k) prefetch(b + i * b_stride + (Ascending ? ahead : -ahead));
        r[i] = i < channels ? load<R, Arch>(b + i * b_stride) : v(R(0));
    }
    transpose_units<Unit, R, Arch>(r);
    v h = load<R, Arch>(state);
    const auto row = [&](index i) __attribute__((always_inline)) {
        const R* const p = factors.data + i * factors.step;
        return channels == k ? load<R, Arch>(p) : lane_range<R, Arch, false>{0, channels * Unit}.load(p);
    };
    const factor constant(row(0));
    const bool varying = factors.step != 0;
    unrolled<k>([&](auto i) {
        v& token = r[Ascending ? i : k - 1 - i];
        h = token = varying ? factor(row(i)).times(h, token) : constant.times(h, token);
    });
    h.store_unaligned(state);
    transpose_units<Unit, R, Arch>(r);
    for (index i = 0; i < channels; ++i) {
        if constexpr (std::is_same_v<R, E>) {
            if (streaming) {
                store_streaming(r[i], out + i * out_stride);
                continue;
            }
        }
        store(r[i], out + i * out_stride);
    }
}

/// Squares of all tokens that fill some, of the channels that b and out have, if the tokens of both are neighbours in memory;
/// returns how many tokens that were. A register of channels has `burst` tokens in a row, a whole number of squares, before it
/// is the next one's turn. With 512, all takes 0.75 times as long as by way of rows in L1, 64 tokens at a time; with 16, memory
/// sees single lines of many streams and it takes 1.1 to 1.6 times as long.
template <class Arch, class T, class Factors>
index linear_scan_squares(const view<const T, 2>& b, const view<T, 2>& out, const Factors& factors, linear_scan_real<T>* state,
                          index burst, bool around)
{
    using R = linear_scan_real<T>;
    using E = linear_scan_number<T>;
    constexpr index unit = linear_scan_unit<T>, n = lanes<R, Arch>, k = n / unit;
    const index length = b.extent(0), channels = b.extent(1), step = b.stride(0);
    if (step != out.stride(0) || (step != 1 && step != -1) || channels < 2 || b.stride(1) == 1 || out.stride(1) == 1) return 0;
    const bool aligned = reinterpret_cast<std::uintptr_t>(out.data()) % static_cast<std::uintptr_t>(n * index{sizeof(E)}) ==
                             (step == 1 ? 0 : static_cast<std::uintptr_t>((n - unit) * index{sizeof(E)})) &&
                         out.stride(1) * unit % n == 0;
    const auto square = step == 1 ? linear_scan_square<Arch, unit, true, R, E> : linear_scan_square<Arch, unit, false, R, E>;
    const index end = length / k * k;
    for (index t = 0; t < end; t += burst) {
        const index steps = std::min(burst, end - t);
        const linear_scan_rows<const R> rows = factors(t, steps);
        for (index c = 0; c < channels; c += k) {
            for (index s = t; s < t + steps; s += k) {
                const index lowest = step == 1 ? s : s + k - 1;
                square(reinterpret_cast<const E*>(b.pointer(lowest, c)), b.stride(1) * unit,
                       reinterpret_cast<E*>(out.pointer(lowest, c)), out.stride(1) * unit,
                       {rows.data + (s - t) * rows.step + c * unit, rows.step}, state + c * unit, std::min(k, channels - c),
                       around && aligned);
            }
        }
    }
    return end;
}

/// Channels [c0, c0 + count) of batch row b.
template <class Arch, class T>
void linear_scan_task(const linear_scan_args<T>& args, index b, index c0, index count)
{
    using R = linear_scan_real<T>;
    using state_type = linear_scan_state_t<T>;
    constexpr index unit = linear_scan_unit<T>, n = lanes<R, Arch>;
    const auto visited = [&](const auto& v) { return (args.reverse ? v.reversed(1) : v)[b]; };
    alignas(64) R a_buffer[static_cast<std::size_t>(linear_scan_buffer<R>)];
    alignas(64) R buffer[static_cast<std::size_t>(linear_scan_buffer<R>)];
    alignas(64) R state[static_cast<std::size_t>(linear_scan_buffer<R> / 2)];
    const linear_scan_operand<Arch, const state_type> a(visited(args.a), c0, count, a_buffer);
    const linear_scan_operand<Arch, const T> input(visited(args.b), c0, count, buffer);
    const linear_scan_operand<Arch, T> h(visited(args.h), c0, count, buffer);
    const auto reset = args.reset.data() ? visited(args.reset) : view<const std::uint8_t, 1>{};
    const index length = args.b.extent(1), numbers = count * unit;
    const index pitch = (numbers + n - 1) / n * n;

    std::fill_n(state, pitch, R(0));
    const auto states = [&](const auto& v) {
        using E = std::conditional_t<std::is_const_v<typename std::remove_cvref_t<decltype(v)>::element_type>, const R, R>;
        return linear_scan_rectangle<E>{reinterpret_cast<E*>(v.pointer(b, c0)), 0, count > 1 ? v.stride(1) * unit : unit, 1, count};
    };
    if (args.initial_state.data()) load_rows<Arch, unit, R, R>(states(args.initial_state), state, pitch);

    const bool whole = input.in_place() && h.in_place() && (a.in_place() || a.constant());
    // Around the caches only with aligned rows, and not where b was just read from the same lines. Rows that begin anywhere are
    // stored as usual: up to the boundary of each row's own, streaming took twice the time.
    const bool large = args.h.size() * static_cast<index>(sizeof(T)) >= linear_scan_streaming_bytes;
    const bool around = large && static_cast<const void*>(args.h.data()) != static_cast<const void*>(args.b.data());
    index lead = 0;
    bool streaming = false;
    if (h.in_place()) {
        const linear_scan_rows<R> out = h.write(0);
        const auto address = reinterpret_cast<std::uintptr_t>(out.data);
        const auto before = static_cast<index>(address / sizeof(R) % static_cast<std::uintptr_t>(n));
        streaming = around && address % (sizeof(R) * unit) == 0 && out.step % n == 0;
        if (streaming) lead = std::min(numbers, (n - before) % n);
    }

    const index block = whole ? length : linear_scan_buffer<R> / pitch;
    linear_scan_rows<const R> factors;
    index done = 0;
    if (reset.data() == nullptr && length > 0) {
        if (a.constant()) factors = a.read(0, 1);
        const auto part = [&](const auto& v) { return visited(v).slice(1, c0, count); };
        const auto rows_of = [&](index t, index steps) { return a.constant() ? factors : a.read(t, steps); };
        done = linear_scan_squares<Arch, T>(part(args.b), part(args.h), rows_of, state,
                                            a.constant() ? 512 : linear_scan_buffer<R> / pitch, around);
    }
    for (index t = done; t < length; t += block) {
        const index steps = std::min(block, length - t);
        if (factors.data == nullptr || !a.constant()) factors = a.read(t, steps);
        const linear_scan_run_rows<R> rows{factors, input.read(t, steps), h.write(t)};
        for_each_scan_run(reset, t, t + steps, [&](index first, index last, bool begins) {
            linear_scan_run_rows<R> run = rows;
            run.advance(first - t);
            const auto way = begins          ? linear_scan_run<Arch, unit, linear_scan_step::reset, R>
                             : a.constant() ? linear_scan_run<Arch, unit, linear_scan_step::constant, R>
                                             : linear_scan_run<Arch, unit, linear_scan_step::varying, R>;
            way(run, last - first, state, lead, numbers, streaming, large && h.in_place());
        });
        h.written(t, steps, around);
    }
    if (around) streaming_fence();
    if (args.final_state.data()) store_rows<Arch, unit, R, R>(state, pitch, states(args.final_state));
}

}  // namespace detail

/// The first-order linear recurrence: shapes, equations and options at linear_scan_args. Throws shape_error before anything is
/// written. Work splits over batch and channels; the result does not depend on the split, bit for bit, and no memory is
/// allocated. With |a| <= 1, float states lie within 2e-6 of the largest one of a double computation as long as their memory
/// is short, 1 / (1 - |a|) up to some hundred tokens, on every instruction set.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void linear_scan(const linear_scan_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const bool turned = tokens_are_neighbours(a.b) || tokens_are_neighbours(a.h) || tokens_are_neighbours(a.a);
    const linear_scan_partition<Arch, T> p(a.b.extent(0), a.b.extent(2), turned, concurrency(exec));
    run_tasks(exec, p.tasks(), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const index b = static_cast<index>(task) / p.chunks, c0 = static_cast<index>(task) % p.chunks * p.channels;
        linear_scan_task<Arch>(a, b, c0, std::min(p.channels, a.b.extent(2) - c0));
    });
}

}  // namespace ssmkit
