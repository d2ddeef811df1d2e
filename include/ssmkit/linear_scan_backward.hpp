#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <ssmkit/args/linear_scan_backward.hpp>
#include <ssmkit/detail/linear_scan_rows.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// Rows of a run of tokens, the last first; what is not wanted is null. `h` holds the states before the tokens.
template <class R>
struct linear_scan_adjoint_rows {
    linear_scan_rows<const R> a, h, dh;
    linear_scan_rows<R> da, db;

    void advance(index tokens)
    {
        const auto move = [&](auto& rows) {
            if (rows.data) rows.data += tokens * rows.step;
        };
        move(a), move(h), move(dh), move(da), move(db);
    }
};

/// What is done with da: nothing, one value a token, or a sum over the tokens.
enum class linear_scan_da { none, each, summed };

/// One register of channels, `tokens` tokens from the last to the first. `later` holds what reaches h from the tokens after.
template <class Arch, index Unit, linear_scan_da Da, class R, class Range>
[[gnu::always_inline]] inline void linear_scan_adjoint_channels(const linear_scan_adjoint_rows<R>& rows, index tokens, bool reset,
                                                                bool add, R* later, R* sums, Range range)
{
    using v = vec<R, Arch>;
    using factor = linear_scan_factor<R, Arch, Unit, true>;
    v g = range.load(static_cast<const R*>(later)), sum = g;
    if constexpr (Da == linear_scan_da::summed) sum = range.load(static_cast<const R*>(sums));
    for (index i = tokens - 1; i >= 0; --i) {
        const v s = range.load(rows.dh.data + i * rows.dh.step) + g;
        if constexpr (Da != linear_scan_da::none) {
            v product(R(0));  // s conj(h)
            if (!reset) product = factor(range.load(rows.h.data + i * rows.h.step)).times(s, product);
            if constexpr (Da == linear_scan_da::summed) {
                sum = sum + product;
            } else {
                R* const out = rows.da.data + i * rows.da.step;
                range.store(add ? range.load(static_cast<const R*>(out)) + product : product, out);
            }
        }
        if (rows.db.data) range.store(s, rows.db.data + i * rows.db.step);
        g = reset ? v(R(0)) : factor(range.load(rows.a.data + i * rows.a.step)).times(s, v(R(0)));
    }
    range.store(g, later);
    if constexpr (Da == linear_scan_da::summed) range.store(sum, sums);
}

/// All channels of a run of tokens, all of which reset or none. `add`: to what da holds. The lanes run along the channels.
template <class Arch, index Unit, linear_scan_da Da, class R>
[[gnu::noinline, gnu::flatten]] void linear_scan_adjoint_block(const linear_scan_adjoint_rows<R>& where, index tokens, bool reset,
                                                               bool add, R* later, R* sums, index count)
{
    const linear_scan_adjoint_rows<R> rows = where;
    for_each_lanes<R, Arch>(count, [&](auto range) {
        linear_scan_adjoint_channels<Arch, Unit, Da>(rows, tokens, reset, add, later, sums, range);
    });
}

/// Scratch memory of a task.
template <class R>
struct linear_scan_adjoint_buffers {
    alignas(64) R a[static_cast<std::size_t>(linear_scan_buffer<R>)], h[static_cast<std::size_t>(linear_scan_buffer<R>)],
        dh[static_cast<std::size_t>(linear_scan_buffer<R>)], da[static_cast<std::size_t>(linear_scan_buffer<R>)];
    static constexpr auto half = static_cast<std::size_t>(linear_scan_buffer<R> / 2);
    alignas(64) R initial[half], later[half], sums[half];
    double total[static_cast<std::size_t>(linear_scan_buffer<R> / 2)];  // of equal terms, a float would lose 2e-5 in 200 000 tokens
};

/// Tokens whose da are summed before they join the others: the order of additions is that of these spans, however a call is cut
/// into blocks and tasks, and rounding errors stay those of short sums.
inline constexpr index linear_scan_sum_tokens = 64;

/// Channels [c0, c0 + count) of batch row b. da is written, or added to if `add`; its sum over the tokens is added to m.total.
template <class Arch, class T>
void linear_scan_adjoint_row(const linear_scan_backward_args<T>& args, index b, index c0, index count, linear_scan_da kind,
                             bool add, linear_scan_adjoint_buffers<linear_scan_real<T>>& m)
{
    using R = linear_scan_real<T>;
    using state_type = linear_scan_state_t<T>;
    constexpr index unit = linear_scan_unit<T>, n = lanes<R, Arch>;
    const linear_scan_args<T>& f = args.forward;
    const auto visited = [&](const auto& v) { return (f.reverse ? v.reversed(1) : v)[b]; };
    const linear_scan_operand<Arch, const state_type> a(visited(f.a), c0, count, m.a);
    const linear_scan_operand<Arch, const T> dh(visited(args.dh), c0, count, m.dh);
    linear_scan_operand<Arch, const T> h;
    linear_scan_operand<Arch, state_type> da;
    linear_scan_operand<Arch, T> db;
    if (kind != linear_scan_da::none) h = {visited(view<const T, 3>(f.h)), c0, count, m.h};
    if (kind == linear_scan_da::each) da = {visited(args.da), c0, count, m.da};
    if (args.db.data()) db = {visited(args.db), c0, count, m.dh};
    const auto reset = f.reset.data() ? visited(f.reset) : view<const std::uint8_t, 1>{};
    const index length = args.dh.extent(1), numbers = count * unit, pitch = (numbers + n - 1) / n * n;

    const auto states = [&](const auto& v) {
        using E = std::conditional_t<std::is_const_v<typename std::remove_cvref_t<decltype(v)>::element_type>, const R, R>;
        return linear_scan_rectangle<E>{reinterpret_cast<E*>(v.pointer(b, c0)), 0, count > 1 ? v.stride(1) * unit : unit, 1, count};
    };
    const auto load_state = [&](const view<const state_type, 2>& v, R* row) {
        if (!v.data()) return static_cast<void>(std::fill_n(row, pitch, R(0)));
        load_rows<Arch, unit, R, R>(states(v), row, pitch);
    };
    load_state(f.initial_state, m.initial);
    load_state(args.dfinal_state, m.later);
    std::fill_n(m.sums, pitch, R(0));

    // Short blocks also where everything lies in place: all their rows are in L1 until the next begins.
    const auto fitting =
        static_cast<index>(std::bit_floor(static_cast<std::uint64_t>(linear_scan_buffer<R> / std::max<index>(pitch, 1))));
    const index block = std::min(fitting, linear_scan_sum_tokens);
    const auto run = [&](linear_scan_adjoint_rows<R> rows, index first, index tokens, bool begins) {
        rows.advance(first);
        const auto way = kind == linear_scan_da::none   ? linear_scan_adjoint_block<Arch, unit, linear_scan_da::none, R>
                         : kind == linear_scan_da::each ? linear_scan_adjoint_block<Arch, unit, linear_scan_da::each, R>
                                                 : linear_scan_adjoint_block<Arch, unit, linear_scan_da::summed, R>;
        way(rows, tokens, begins, add, m.later, m.sums, numbers);
    };
    linear_scan_rows<const R> factors;
    for (index t = length > 0 ? (length - 1) / block * block : -1; t >= 0; t -= block) {
        const index steps = std::min(block, length - t);
        if (factors.data == nullptr || !a.constant()) factors = a.read(t, steps);
        linear_scan_adjoint_rows<R> rows{factors, {}, dh.read(t, steps), {}, {}};
        linear_scan_rows<const R> before;  // h of tokens t - 1 ..., where t = 0 has initial_state
        if (h.given() && t > 0) before = h.read(t - 1, steps);
        if (h.given() && t == 0 && steps > 1) before = h.read(0, steps - 1);
        if (da.given()) {
            if (add && !da.in_place()) da.read(t, steps);
            rows.da = da.write(t);
        }
        if (db.given()) rows.db = db.write(t);
        // Runs in the order of time, taken from the last to the first.
        index end = steps;
        while (end > 0) {
            index first = end - 1;
            const bool begins = reset.data() && reset[t + first] != 0;
            const index lowest = t == 0 && end > 1 ? 1 : 0;  // token 0 by itself: its h before is another row
            while (!begins && first > lowest && !(reset.data() && reset[t + first - 1] != 0)) --first;
            rows.h = t > 0 ? before : linear_scan_rows<const R>{before.data ? before.data - before.step : nullptr, before.step};
            if (t + first == 0) rows.h = {m.initial, 0};
            run(rows, first, end - first, begins);
            end = first;
        }
        if (da.given()) da.written(t, steps);
        if (db.given()) db.written(t, steps);
        if (kind == linear_scan_da::summed && t % linear_scan_sum_tokens == 0) {
            for (index i = 0; i < pitch; ++i) m.total[i] += m.sums[i];
            std::fill_n(m.sums, pitch, R(0));
        }
    }
    if (args.dinitial_state.data()) store_rows<Arch, unit, R, R>(m.later, pitch, states(args.dinitial_state));
}

/// Channels [c0, c0 + count) of one batch row or, where da is a sum over them, of all, one after the other.
template <class Arch, class T>
void linear_scan_adjoint_task(const linear_scan_backward_args<T>& args, index first, index last, index c0, index count)
{
    using R = linear_scan_real<T>;
    constexpr index unit = linear_scan_unit<T>, n = lanes<R, Arch>;
    linear_scan_adjoint_buffers<R> m;
    const index length = args.dh.extent(1), pitch = (count * unit + n - 1) / n * n;
    const bool wanted = args.da.data() != nullptr, over_time = length > 1 && args.da.stride(1) == 0;
    const linear_scan_da kind = !wanted ? linear_scan_da::none : over_time ? linear_scan_da::summed : linear_scan_da::each;
    std::fill_n(m.total, pitch, 0.0);
    for (index b = first; b < last; ++b) {
        linear_scan_adjoint_row<Arch>(args, b, c0, count, kind, b > first, m);
        if (kind != linear_scan_da::summed || b + 1 < last) continue;
        const index stride = count > 1 ? args.da.stride(2) * unit : unit;
        for (index i = 0; i < pitch; ++i) m.sums[i] = static_cast<R>(m.total[i]);
        store_rows<Arch, unit, R, R>(m.sums, pitch, {reinterpret_cast<R*>(args.da.pointer(b, 0, c0)), 0, stride, 1, count});
    }
}

}  // namespace detail

/// The gradients of the linear scan: equations at linear_scan_backward_args. Throws shape_error before anything is written.
/// Work splits over channels, and over the batch unless da is a sum over it; the result does not depend on the split, bit for
/// bit, and no memory is allocated. float gradients lie within 4e-6 of the largest one of a double computation for the same
/// states, as those of linear_scan do; 16-bit states add their rounding to da.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void linear_scan_backward(const linear_scan_backward_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index batch = a.dh.extent(0), state = a.dh.extent(2);
    const bool turned = tokens_are_neighbours(a.dh) || tokens_are_neighbours(a.db) || tokens_are_neighbours(a.forward.a) ||
                        tokens_are_neighbours(a.forward.h) || tokens_are_neighbours(a.da);
    const bool over_batch = a.da.data() && batch > 1 && a.da.stride(0) == 0;
    const linear_scan_partition<Arch, T> p(over_batch ? 1 : batch, state, turned, concurrency(exec));
    run_tasks(exec, p.tasks(), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const index b = static_cast<index>(task) / p.chunks, c0 = static_cast<index>(task) % p.chunks * p.channels;
        linear_scan_adjoint_task<Arch>(a, b, over_batch ? batch : b + 1, c0, std::min(p.channels, state - c0));
    });
}

}  // namespace ssmkit
