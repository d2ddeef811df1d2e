#pragma once

#include <algorithm>

#include <ssmkit/args/selective_state_update.hpp>
#include <ssmkit/detail/math.hpp>
#include <ssmkit/detail/shuffle.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// What neighbouring channels of one head and one group take into a step; pointers are to the first of them.
template <class T>
struct state_update_block {
    using R = compute_t<T>;
    R* h;
    index h_channel, h_state;
    const R* A;
    index A_channel, A_state;
    const T *B, *C;
    index B_state, C_state;
    index state;
    const R* rate;  // [channels] delta log2(e), or the decay itself where it is the same for all states
    const R* x;     // [channels] delta u
};

/// One register's worth of states of one channel: decays, takes x B in, writes them back and adds C h to the sum.
template <class Arch, bool Tied, class R>
[[gnu::always_inline]] inline vec<R, Arch> update_state(const vec<R, Arch>& h, const vec<R, Arch>& A, const vec<R, Arch>& rate,
                                                        const vec<R, Arch>& input)
{
    return multiply_add(Tied ? rate : fast_exp2(rate * A), h, input);
}

/// Advances `channels` channels and leaves their sums C·h in y: the lanes run along the state, as it lies in memory by default.
/// A register's worth of channels is summed together, which needs a third of the shuffles of one at a time.
template <class Arch, bool Tied, bool Contiguous, class T>
[[gnu::noinline, gnu::flatten]] void update_along_states(const state_update_block<T>& block, index channels, compute_t<T>* y)
{
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    const state_update_block<T> m = block;  // a copy: the compiler cannot know that stores to h leave the block alone
    for_each_lanes<R, Arch>(channels, [&](auto range) __attribute__((always_inline)) {
        v sums[static_cast<std::size_t>(n)];
        if constexpr (!range.full) std::fill_n(sums, n, v(R(0)));
        for (index i = 0; i < range.count; ++i) {
            const index c = range.first + i;
            R* const h = m.h + c * m.h_channel;
            const R* const A = m.A + c * m.A_channel;
            const v rate(m.rate[c]), x(m.x[c]);
            v sum(R(0));
            for_each_lanes<R, Arch>(m.state, [&](auto states) __attribute__((always_inline)) {
                const auto load = [&](const auto* p, index stride) __attribute__((always_inline)) {
                    return Contiguous ? states.load(p) : states.load(p, stride);
                };
                const v next = update_state<Arch, Tied, R>(load(h, m.h_state), Tied ? v(R(0)) : load(A, m.A_state), rate,
                                                           x * load(m.B, m.B_state));
                Contiguous ? states.store(next, h) : states.store(next, h, m.h_state);
                sum = multiply_add(states.keep(next), load(m.C, m.C_state), sum);
            });
            sums[i] = sum;
        }
        range.store(sum_each<R, Arch>(sums), y);
    });
}

/// The same for a contiguous state of exactly one register (Mamba-1's 16 floats with AVX-512), with B and C in registers: 6 %
/// less. Two channels side by side: 3 %; 4: the same, 8: 20 % more.
template <class Arch, class T>
[[gnu::noinline, gnu::flatten]] void update_one_register(const state_update_block<T>& block, index channels, compute_t<T>* y)
{
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>, side = 2;
    const state_update_block<T> m = block;
    const lane_range<R, Arch, true> states{};
    const v B = states.load(m.B), C = states.load(m.C);
    for_each_lanes<R, Arch>(channels, [&](auto range) __attribute__((always_inline)) {
        v sums[static_cast<std::size_t>(n)];
        if constexpr (!range.full) std::fill_n(sums, n, v(R(0)));
        const auto advance = [&](index first, auto count) __attribute__((always_inline)) {
            v decay[count];
            unrolled<count>([&](auto j) __attribute__((always_inline)) {
                const index c = range.first + first + j;
                decay[j] = v(m.rate[c]) * states.load(m.A + c * m.A_channel);
            });
            unrolled<count>([&](auto j) __attribute__((always_inline)) { decay[j] = fast_exp2(decay[j]); });
            unrolled<count>([&](auto j) __attribute__((always_inline)) {
                const index c = range.first + first + j;
                R* const h = m.h + c * m.h_channel;
                const v next = multiply_add(decay[j], states.load(h), v(m.x[c]) * B);
                states.store(next, h);
                sums[first + j] = next * C;
            });
        };
        index i = 0;
        for (; i + side <= range.count; i += side) advance(i, std::integral_constant<index, side>{});
        for (; i < range.count; ++i) advance(i, std::integral_constant<index, 1>{});
        range.store(sum_each<R, Arch>(sums), y);
    });
}

/// The same for channels with one decay, as Mamba-2's heads have it, whose states are contiguous and fill `Registers` exactly:
/// B and C stay in registers, and the state is touched in the order in which it lies (four channels side by side share loads of
/// B and C as well, but took twice as long on states beyond the caches).
template <class Arch, index Registers, class T>
[[gnu::noinline, gnu::flatten]] void update_with_one_decay(const state_update_block<T>& block, index channels, compute_t<T>* y)
{
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>, chains = Registers % 4 == 0 ? 4 : Registers % 2 == 0 ? 2 : 1;
    const state_update_block<T> m = block;
    const v decay(m.rate[0]);
    v B[Registers], C[Registers];
    unrolled<Registers>([&](auto k) __attribute__((always_inline)) {
        const lane_range<R, Arch, true> states{k * n};
        B[k] = states.load(m.B);
        C[k] = states.load(m.C);
    });
    for_each_lanes<R, Arch>(channels, [&](auto range) __attribute__((always_inline)) {
        v sums[static_cast<std::size_t>(n)];
        if constexpr (!range.full) std::fill_n(sums, n, v(R(0)));
        for (index i = 0; i < range.count; ++i) {
            R* const h = m.h + (range.first + i) * m.h_channel;
            const v x(m.x[range.first + i]);
            v sum[chains];
            unrolled<Registers>([&](auto k) __attribute__((always_inline)) {
                const v next = multiply_add(decay, load<R, Arch>(h + k * n), x * B[k]);
                store(next, h + k * n);
                sum[k % chains] = k < chains ? next * C[k] : multiply_add(next, C[k], sum[k % chains]);
            });
            if constexpr (chains == 4) sum[0] = (sum[0] + sum[2]) + (sum[1] + sum[3]);
            if constexpr (chains == 2) sum[0] += sum[1];
            sums[i] = sum[0];
        }
        range.store(sum_each<R, Arch>(sums), y);
    });
}

/// States of 16, 32, 64 or 128 floats with AVX-512; otherwise the general loop.
template <class Arch, class T>
void update_with_one_decay(const state_update_block<T>& m, index channels, compute_t<T>* y)
{
    constexpr index n = lanes<compute_t<T>, Arch>;
    if constexpr (many_registers<Arch>) {
        switch (m.state % n == 0 ? m.state / n : 0) {
            case 1: return update_with_one_decay<Arch, 1, T>(m, channels, y);
            case 2: return update_with_one_decay<Arch, 2, T>(m, channels, y);
            case 4: return update_with_one_decay<Arch, 4, T>(m, channels, y);
            case 8: return update_with_one_decay<Arch, 8, T>(m, channels, y);
            default: break;
        }
    }
    update_along_states<Arch, true, true, T>(m, channels, y);
}

/// The same for a state whose channels are neighbours in memory: the lanes run along the channels, and nothing is summed across
/// them.
template <class Arch, bool Tied, class T>
[[gnu::noinline, gnu::flatten]] void update_along_channels(const state_update_block<T>& block, index channels, compute_t<T>* y)
{
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    const state_update_block<T> m = block;
    for_each_lanes<R, Arch>(channels, [&](auto range) __attribute__((always_inline)) {
        const v rate = range.load(m.rate), x = range.load(m.x);
        v sum(R(0));
        for (index i = 0; i < m.state; ++i) {
            R* const h = m.h + i * m.h_state;
            const v A = Tied ? v(R(0)) : range.load(m.A + i * m.A_state);
            const v next = update_state<Arch, Tied, R>(range.load(h), A, rate, x * v(static_cast<R>(m.B[i * m.B_state])));
            range.store(next, h);
            sum = multiply_add(next, v(static_cast<R>(m.C[i * m.C_state])), sum);
        }
        range.store(sum, y);
    });
}

template <class Arch, bool Tied, class T>
void update_states(const state_update_block<T>& m, index channels, compute_t<T>* y)
{
    if (m.h_channel == 1 && m.h_state != 1 && (Tied || m.A_channel == 1)) {
        return update_along_channels<Arch, Tied, T>(m, channels, y);
    }
    const bool contiguous = m.h_state == 1 && m.B_state == 1 && m.C_state == 1 && (Tied || m.A_state == 1);
    if (!contiguous) return update_along_states<Arch, Tied, false, T>(m, channels, y);
    if constexpr (Tied) {
        update_with_one_decay<Arch, T>(m, channels, y);
    } else if (m.state == lanes<compute_t<T>, Arch>) {
        update_one_register<Arch, T>(m, channels, y);
    } else {
        update_along_states<Arch, false, true, T>(m, channels, y);
    }
}

/// The most channels handled at once: preparing and finishing them in one go hides the latency of softplus and silu.
inline constexpr index update_chunk = 256;

/// A row of an array as the kernel computes with it: where it lies, or a copy in `memory`.
template <class Arch, class R, class E>
const R* compute_row(const E* p, index stride, index count, R* memory)
{
    if constexpr (std::is_same_v<E, R>) {
        if (stride == 1) return p;
    }
    for_each_lanes<R, Arch>(count, [&](auto range) { range.store(range.load(p, stride), memory); });
    return memory;
}

/// rate <- softplus(delta + bias) log2(e), or without either, and x <- that step u.
template <class Arch, bool Softplus, bool Biased, class R>
[[gnu::noinline, gnu::flatten]] void prepare_step(const R* delta, const R* u, const R* bias, index count, R* rate, R* x)
{
    for_each_lanes<R, Arch>(count, [&](auto range) __attribute__((always_inline)) {
        const auto raw = Biased ? range.load(delta) + range.load(bias) : range.load(delta);
        const auto step = Softplus ? softplus(raw) : raw;
        range.store(step * vec<R, Arch>(R(log2_e)), rate);
        range.store(step * range.load(u), x);
    });
}

/// Heads whose step sizes and decays are prepared at once: one by one, each would wait for the latency of softplus and exp2.
inline constexpr index update_heads = 64;

/// Heads with one step size and one rate each.
template <class Arch, class T>
struct tied_steps {
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    alignas(64) R step[update_heads], decay[update_heads];

    /// Heads first ... first + count - 1 of row b.
    [[gnu::noinline, gnu::flatten]] void prepare(const selective_state_update_args<T>& a, index b, index first, index count)
    {
        const bool states = a.A.extent(2) > 0;
        for (index i = 0; i < count; ++i) {
            step[i] = static_cast<R>(a.delta(b, first + i, 0)) + (a.delta_bias.data() ? a.delta_bias(first + i, 0) : R(0));
            decay[i] = states ? *a.A.pointer(first + i) : R(0);
        }
        for_each_lanes<R, Arch>(count, [&](auto range) __attribute__((always_inline)) {
            const v raw = range.load(step), size = a.delta_softplus ? softplus(raw) : raw;
            range.store(size, step);
            range.store(fast_exp2(size * v(R(log2_e)) * range.load(decay)), decay);
        });
    }
};

/// Every channel's decay, and x <- step u.
template <class Arch, class R>
[[gnu::noinline, gnu::flatten]] void spread_step(R decay, R step, const R* u, index count, R* rate, R* x)
{
    for_each_lanes<R, Arch>(count, [&](auto range) __attribute__((always_inline)) {
        range.store(vec<R, Arch>(decay), rate);
        range.store(vec<R, Arch>(step) * range.load(u), x);
    });
}

/// out <- (y + D u) silu(z), or without either.
template <class Arch, bool Skip, bool Gated, class R>
[[gnu::noinline, gnu::flatten]] void finish_step(const R* y, const R* D, const R* u, const R* z, index count, R* out)
{
    for_each_lanes<R, Arch>(count, [&](auto range) __attribute__((always_inline)) {
        auto value = range.load(y);
        if constexpr (Skip) value = multiply_add(range.load(D), range.load(u), value);
        if constexpr (Gated) value *= silu(range.load(z));
        range.store(value, out);
    });
}

/// One step of channels c0 ... c0 + count - 1 of a head, all of one group; `tied` is its entry in the heads' steps, if it has one.
template <class Arch, class T>
void update_chunk_of_head(const selective_state_update_args<T>& a, index b, index entry, index head, index group, index c0,
                          index count, const tied_steps<Arch, T>* tied, index in_steps)
{
    using R = compute_t<T>;
    alignas(64) R rate[update_chunk], x[update_chunk], y[update_chunk], copy[3][update_chunk];
    const auto row = [&](const auto* p, index stride, R* memory) {
        return p ? compute_row<Arch>(p, stride, count, memory) : nullptr;
    };
    const auto channels_of = [&](const view<const R, 2>& values) { return values.data() ? values.pointer(head, c0) : nullptr; };
    const R* const u = row(a.u.pointer(b, head, c0), a.u.stride(2), copy[0]);
    if (tied) {
        spread_step<Arch>(tied->decay[in_steps], tied->step[in_steps], u, count, rate, x);
    } else {
        const R* const bias = row(channels_of(a.delta_bias), a.delta_bias.stride(1), copy[1]);
        with_constants(a.delta_softplus, bias != nullptr, [&](auto softplus, auto biased) {
            prepare_step<Arch, softplus, biased>(row(a.delta.pointer(b, head, c0), a.delta.stride(2), copy[2]), u, bias, count,
                                                 rate, x);
        });
    }

    const state_update_block<T> block{.h = a.h.pointer(entry, head, c0),
                                      .h_channel = a.h.stride(2),
                                      .h_state = a.h.stride(3),
                                      .A = a.A.pointer(head, c0),
                                      .A_channel = a.A.stride(1),
                                      .A_state = a.A.stride(2),
                                      .B = a.B.pointer(b, group),
                                      .C = a.C.pointer(b, group),
                                      .B_state = a.B.stride(2),
                                      .C_state = a.C.stride(2),
                                      .state = a.h.extent(3),
                                      .rate = rate,
                                      .x = x};
    tied ? update_states<Arch, true>(block, count, y) : update_states<Arch, false>(block, count, y);

    const R* const D = row(channels_of(a.D), a.D.stride(1), copy[1]);
    const R* const z = row(a.z.data() ? a.z.pointer(b, head, c0) : nullptr, a.z.stride(2), copy[2]);
    T* const out = a.y.pointer(b, head, c0);
    const bool in_place = std::is_same_v<T, R> && a.y.stride(2) == 1;
    with_constants(D != nullptr, z != nullptr, [&](auto skip, auto gated) {
        finish_step<Arch, skip, gated>(y, D, u, z, count, in_place ? reinterpret_cast<R*>(out) : y);
    });
    if (!in_place) for_each_lanes<R, Arch>(count, [&](auto range) { range.store(range.load(y), out, a.y.stride(2)); });
}

}  // namespace detail

/// One decoding step: shapes, equations and options at selective_state_update_args. Throws shape_error before anything is
/// written. Allocates nothing and takes no lock; work splits over batch, heads and blocks of 256 channels.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void selective_state_update(const selective_state_update_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index batch = a.u.extent(0), nheads = a.u.extent(1), headdim = a.u.extent(2);
    const index group_heads = std::max(index{1}, nheads / std::max(index{1}, a.B.extent(1)));
    const index group_channels = std::max(index{1}, headdim / std::max(index{1}, a.B.extent(1)));
    // Mamba-2: one rate a head and one step size a head make one decay.
    const bool tied = a.A.stride(1) == 0 && a.A.stride(2) == 0 && a.delta.stride(2) == 0 &&
                      (a.delta_bias.data() == nullptr || a.delta_bias.stride(1) == 0);
    // An item is a head, or a part of one if its channels have steps of their own.
    const auto update = [&](index b, index head, index begin, index end, const tied_steps<Arch, T>* steps, index in_steps) {
        const index entry = a.state_batch_indices.data() ? index{a.state_batch_indices[b]} : b;
        if (entry < 0) {
            for (index i = begin; i < end; ++i) a.y(b, head, i) = T(compute_t<T>(0));
            return;
        }
        for (index c = begin; c < end;) {
            // A group is of whole heads, but a single head may be cut into groups.
            const index group = nheads == 1 ? c / group_channels : head / group_heads;
            const index rest = nheads == 1 ? std::min(end, (group + 1) * group_channels) - c : end - c;
            const index count = std::min(rest, update_chunk);
            update_chunk_of_head<Arch>(a, b, entry, head, group, c, count, steps, in_steps);
            c += count;
        }
    };
    const index parts = tied ? 1 : (headdim + update_chunk - 1) / update_chunk;
    const index items = batch * nheads * parts, slots = static_cast<index>(concurrency(exec));
    // Few tasks of many items: to set the processor's mode ends what it does ahead of time, the next item's loads among them.
    const index tasks = std::min(items, slots > 1 ? 4 * slots : 1);
    run_tasks(exec, static_cast<std::size_t>(tasks), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const index first = items * static_cast<index>(task) / tasks, last = items * static_cast<index>(task + 1) / tasks;
        if (!tied) {
            for (index item = first; item < last; ++item) {
                const index c = item % parts * update_chunk, row = item / parts;
                update(row / nheads, row % nheads, c, std::min(headdim, c + update_chunk), nullptr, 0);
            }
            return;
        }
        tied_steps<Arch, T> steps;
        for (index item = first; item < last;) {
            const index b = item / nheads, head = item % nheads;
            const index count = std::min({last - item, nheads - head, update_heads});
            steps.prepare(a, b, head, count);
            for (index i = 0; i < count; ++i) update(b, head + i, 0, headdim, &steps, i);
            item += count;
        }
    });
}

}  // namespace ssmkit
