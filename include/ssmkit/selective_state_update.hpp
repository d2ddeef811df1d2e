#pragma once

#include <algorithm>

#include <ssmkit/args/selective_state_update.hpp>
#include <ssmkit/detail/math.hpp>
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

/// Advances the states of a few channels and gives the lanes of their sums C·h. Lanes run along the state, whose elements are
/// independent; the channels' chains of operations overlap, and B, C and the sums stay in registers.
template <class Arch, bool Tied, bool Contiguous, class T, std::size_t... I>
[[gnu::noinline, gnu::flatten]] void update_channels(const state_update_block<T>& block, index c0,
                                                     vec<compute_t<T>, Arch>* sums, std::index_sequence<I...>)
{
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    // Copied one by one: the compiler cannot know that stores to h leave the block alone.
    R* const h0 = block.h + c0 * block.h_channel;
    const R* const A0 = block.A + c0 * block.A_channel;
    const index h_channel = block.h_channel, h_state = block.h_state, A_channel = block.A_channel, A_state = block.A_state;
    const T *const B0 = block.B, *const C0 = block.C;
    const index B_state = block.B_state, C_state = block.C_state;
    const v rate[] = {v(block.rate[c0 + static_cast<index>(I)])...}, x[] = {v(block.x[c0 + static_cast<index>(I)])...};
    v total[] = {v(R(0 * I))...};
    for_each_lanes<R, Arch>(block.state, [&](auto range) __attribute__((always_inline)) {
        const auto load = [&](const auto* p, index stride) { return Contiguous ? range.load(p) : range.load(p, stride); };
        const v B = load(B0, B_state), C = load(C0, C_state);
        const auto advance = [&](auto i) __attribute__((always_inline)) {
            R* const h = h0 + i * h_channel;
            const v decay = Tied ? rate[i] : fast_exp2(rate[i] * load(A0 + i * A_channel, A_state));
            const v next = xsimd::fma(decay, load(h, h_state), x[i] * B);
            Contiguous ? range.store(next, h) : range.store(next, h, h_state);
            total[i] = xsimd::fma(range.keep(next), C, total[i]);
        };
        (advance(std::integral_constant<index, static_cast<index>(I)>{}), ...);
    });
    ((sums[I] = total[I]), ...);
}

/// Advances `channels` channels and leaves their sums C·h in y. A register's worth of channels is summed together, which
/// needs a third of the shuffles of one at a time.
template <class Arch, bool Tied, bool Contiguous, class T>
void update_states(const state_update_block<T>& block, index channels, compute_t<T>* y)
{
    using R = compute_t<T>;
    constexpr index n = lanes<R, Arch>;
    for_each_lanes<R, Arch>(channels, [&](auto range) {
        vec<R, Arch> sums[static_cast<std::size_t>(n)];
        for (auto& s : sums) s = vec<R, Arch>(R(0));
        index done = 0;
        const auto advance = [&]<index N>(std::integral_constant<index, N>) {
            for (; range.count - done >= N; done += N) {
                update_channels<Arch, Tied, Contiguous, T>(block, range.first + done, sums + done,
                                                           std::make_index_sequence<static_cast<std::size_t>(N)>{});
            }
        };
        advance(std::integral_constant<index, 8>{});  // more run out of general registers for the rows' addresses
        advance(std::integral_constant<index, 1>{});
        range.store(sum_each<R, Arch>(sums), y);
    });
}

/// The most channels handled at once: preparing and finishing them in one go hides the latency of softplus and silu.
inline constexpr index update_chunk = 256;

/// One step of channels c0 ... c0 + count - 1 of a head, all of one group.
template <class Arch, class T>
[[gnu::flatten]] void update_chunk_of_head(const selective_state_update_args<T>& a, index b, index entry, index head,
                                           index group, index c0, index count, bool tied, bool contiguous)
{
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    alignas(64) R rate[update_chunk], x[update_chunk], sums[update_chunk];
    const T* const u = a.u.pointer(b, head, c0);
    const T* const delta = a.delta.pointer(b, head, c0);
    const R* const bias = a.delta_bias.data() ? a.delta_bias.pointer(head, c0) : nullptr;
    const v A_tied(tied && a.A.extent(2) ? *a.A.pointer(head) : R(0));
    for_each_lanes<R, Arch>(count, [&](auto range) __attribute__((always_inline)) {
        v step = range.load(delta, a.delta.stride(2));
        if (bias) step += range.load(bias, a.delta_bias.stride(1));
        if (a.delta_softplus) step = softplus(step);
        const v exponent = step * v(R(log2_e));
        range.store(tied ? fast_exp2(exponent * A_tied) : exponent, rate);
        range.store(step * range.load(u, a.u.stride(2)), x);
    });

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
    const auto update = tied ? (contiguous ? update_states<Arch, true, true, T> : update_states<Arch, true, false, T>)
                             : (contiguous ? update_states<Arch, false, true, T> : update_states<Arch, false, false, T>);
    update(block, count, sums);

    const R* const D = a.D.data() ? a.D.pointer(head, c0) : nullptr;
    const T* const z = a.z.data() ? a.z.pointer(b, head, c0) : nullptr;
    T* const out = a.y.pointer(b, head, c0);
    for_each_lanes<R, Arch>(count, [&](auto range) __attribute__((always_inline)) {
        v y = range.load(sums);
        if (D) y = xsimd::fma(range.load(D, a.D.stride(1)), range.load(u, a.u.stride(2)), y);
        if (z) y *= silu(range.load(z, a.z.stride(2)));
        range.store(y, out, a.y.stride(2));
    });
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
    const index parts = (headdim + update_chunk - 1) / update_chunk;
    // Mamba-2: one rate a head and one step size a head make one decay.
    const bool tied = a.A.stride(1) == 0 && a.A.stride(2) == 0 && a.delta.stride(2) == 0 &&
                      (a.delta_bias.data() == nullptr || a.delta_bias.stride(1) == 0);
    const bool contiguous = (a.h.stride(3) == 1 && a.B.stride(2) == 1 && a.C.stride(2) == 1 && (tied || a.A.stride(2) == 1));
    run_tasks(exec, static_cast<std::size_t>(batch * nheads * parts), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const index part = static_cast<index>(task) % parts, row = static_cast<index>(task) / parts;
        const index b = row / nheads, head = row % nheads;
        const index entry = a.state_batch_indices.data() ? index{a.state_batch_indices[b]} : b;
        const index end = std::min(headdim, (part + 1) * update_chunk);
        for (index c = part * update_chunk; c < end;) {
            // A group is of whole heads, but a single head may be cut into groups.
            const index group = nheads == 1 ? c / group_channels : head / group_heads;
            const index count = nheads == 1 ? std::min(end, (group + 1) * group_channels) - c : end - c;
            if (entry < 0) {
                for (index i = c; i < c + count; ++i) a.y(b, head, i) = T(compute_t<T>(0));
            } else {
                update_chunk_of_head<Arch>(a, b, entry, head, group, c, count, tied, contiguous);
            }
            c += count;
        }
    });
}

}  // namespace ssmkit
