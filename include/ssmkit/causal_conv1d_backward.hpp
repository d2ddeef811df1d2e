#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <ssmkit/args/causal_conv1d_backward.hpp>
#include <ssmkit/causal_conv1d.hpp>
#include <ssmkit/detail/math.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/detail/tile.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit {
namespace detail {

/// How a call is cut into tasks, whatever the number of threads: a batch row, a span of tokens, a chunk of channels. Every
/// span leaves its own sums for dweight and dbias, which are then added in their order.
struct conv_backward_partition {
    static constexpr index channels = 256, steps = 16;  // of a task; tokens turned into tiles at a time
    index tokens;                                       // of a span
    index token_tasks, channel_tasks;

    conv_backward_partition(index length, index dim)
        : tokens(std::max<index>(512, (length + 15) / 16)),
          token_tasks(std::max<index>(1, (length + tokens - 1) / tokens)),  // one without tokens passes the state on
          channel_tasks((dim + channels - 1) / channels)
    {
    }
};

/// Scratch memory of one task: tiles of `lanes` channels, in each of them rows of tokens (detail/tile.hpp).
template <class Arch, class R>
struct conv_backward_scratch {
    R *taps;   // (width + 1) rows: taps and bias
    R *x, *e;  // (width - 1 + steps) rows; the first width - 1 are those of the tokens before
    R *dx;     // (steps) rows
    R *sums;   // (width + 1) rows: dweight and dbias of the span

    conv_backward_scratch(arena& memory, index width)
    {
        constexpr index n = conv_backward_partition::channels + lanes<R, Arch>, steps = conv_backward_partition::steps;
        const auto take = [&](index rows) { return memory.take<R>(static_cast<std::size_t>(rows * n)); };
        taps = take(width + 1);
        x = take(width - 1 + steps);
        e = take(width - 1 + steps);
        dx = take(steps);
        sums = take(width + 1);
    }
};

/// All scratch memory of a call.
template <class Arch, class T>
struct conv_backward_plan {
    using R = compute_t<T>;
    conv_backward_partition partition;
    std::size_t task_bytes, partial_elements;

    explicit conv_backward_plan(const causal_conv1d_backward_args<T>& a)
        : partition(a.forward.x.extent(1), a.forward.x.extent(2))
    {
        arena one;
        conv_backward_scratch<Arch, R>(one, a.forward.weight.extent(1));
        task_bytes = one.size();
        const bool sums = a.dweight.data() || a.dbias.data();
        partial_elements = !sums ? 0
                                 : static_cast<std::size_t>(a.forward.x.extent(0) * partition.token_tasks *
                                                            (a.forward.weight.extent(1) + 1) * a.forward.x.extent(2));
    }

    std::size_t bytes(std::size_t concurrency) const
    {
        arena all;
        all.take<R>(partial_elements);
        return all.size() + concurrency * task_bytes;
    }
};

/// The tokens that a block of tiles holds: row i of e is token first - (width - 1) + i.
template <class T>
struct conv_block {
    const conv_row<T>& row;
    index first, steps;  // tokens whose e is new; beyond the sequence they have none
    index owned;         // how many of them count in the sums: the others belong to the next span
    bool silu;

    bool packed() const { return row.seq_idx.data() != nullptr; }
    /// True if a tap leads from token t to the input at position s.
    bool reads(index t, index s) const { return t < row.length() && row.sequence(t) >= 0 && row.sequence(t) == row.sequence(s); }
};

/// One tile of a block: e from dy, in place; the sums; and dx of the tokens from `first - (width - 1)` on.
template <class Arch, index Width, class T, class R>
[[gnu::noinline]] void conv_backward_tile(const conv_block<T>& block, const R* taps, const R* x, R* e, R* dx, R* sums)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    const index width = Width ? Width : block.row.width, past = width - 1;
    const auto at = [](const R* rows, index i) { return load<R, Arch>(rows + i * n); };
    const bool packed = block.packed();

    const index inside = std::clamp<index>(block.row.length() - block.first, 0, block.steps);
    for (index i = 0; i < block.steps; ++i) {
        R* const own = e + (past + i) * n;
        const index t = block.first + i;
        if (i >= inside || block.row.sequence(t) < 0) {
            store(v(R(0)), own);
            continue;
        }
        if (!block.silu) continue;
        v p = at(taps, width);
        for (index j = 0; j < width; ++j) {
            if (packed && !block.reads(t, t + j - past)) continue;
            p = multiply_add(at(taps, j), at(x, i + j), p);
        }
        store(load<R, Arch>(own) * silu_derivative(p), own);
    }

    if (sums) {
        const index count = std::min(inside, block.owned);
        for (index j = 0; j < width; ++j) {
            v sum(R(0));
            for (index i = 0; i < count; ++i) {
                const index t = block.first + i;
                if (packed && !block.reads(t, t + j - past)) continue;
                sum = multiply_add(at(e, past + i), at(x, i + j), sum);
            }
            store(at(sums, j) + sum, sums + j * n);
        }
        v sum(R(0));
        for (index i = 0; i < count; ++i) sum += at(e, past + i);
        store(at(sums, width) + sum, sums + width * n);
    }

    if (dx) {
        const bool edge = packed || block.first < 2 * past || block.first + block.steps > block.row.length();
        for (index i = 0; i < block.steps; ++i) {
            v sum(R(0));
            for (index j = width; j-- > 0;) {
                const index s = block.first + i - past, t = s + past - j;
                if (edge && (t < 0 || !block.reads(t, s))) continue;
                sum = multiply_add(at(taps, j), at(e, i + past - j), sum);
            }
            store(sum, dx + i * n);
        }
    }
}

/// One span of tokens of one batch row and chunk of channels. `partial`: where to leave its sums, (width + 1, dim), or null.
template <class Arch, index Width, class T>
void conv_backward_span(const causal_conv1d_backward_args<T>& a, const conv_backward_partition& p, index b, index span,
                        index chunk, const conv_backward_scratch<Arch, compute_t<T>>& m, compute_t<T>* partial)
{
    using R = compute_t<T>;
    constexpr index n = lanes<R, Arch>, steps = conv_backward_partition::steps;
    const causal_conv1d_args<T>& f = a.forward;
    const conv_row<T> row(f, b);
    const view<const T, 2> dy = as_visited(a.dy, f.reverse)[b];
    const view<T, 2> dx = a.dx.data() ? as_visited(a.dx, f.reverse)[b] : view<T, 2>{};
    const index width = row.width, past = width - 1, length = row.length(), dim = row.dim();
    const index c0 = chunk * p.channels, channels = std::min(p.channels, dim - c0), tiles = tiles_for<R, Arch>(channels);
    const index first = span * p.tokens, last = std::min(first + p.tokens, length);
    const index taps_tile = (width + 1) * n, tile = (past + steps) * n, dx_tile = steps * n;
    const bool wants_dx = dx.data() || a.dinitial_states.data();

    load_tiles<Arch, R, R>({f.weight.pointer(c0), f.weight.stride(1), f.weight.stride(0), width, channels}, m.taps, taps_tile);
    for (index k = 0; k < tiles; ++k) {
        const lane_range<R, Arch, false> lane{k * n, std::min(n, channels - k * n)};
        store(f.bias.data() ? lane.load(f.bias.pointer(c0), f.bias.stride(0)) : vec<R, Arch>(R(0)),
              m.taps + k * taps_tile + width * n);
    }
    if (partial) std::fill_n(m.sums, tiles * taps_tile, R(0));

    // What the first token finds before it: inputs, and no e yet, as those dx belong to the span before.
    std::fill_n(m.x, tiles * tile, R(0));
    std::fill_n(m.e, tiles * tile, R(0));
    const index inside = std::min(past, first), initial = past - inside;  // of the inputs before
    if (initial > 0 && row.initial_states.data()) {
        const view<const T, 2>& s = row.initial_states;
        load_tiles<Arch, R, T>({s.pointer(c0, past - initial), s.stride(1), s.stride(0), initial, channels}, m.x, tile);
    }
    // With fewer tokens before than the taps reach, the initial state ends where they begin.
    load_tiles<Arch, R, T>({row.x.pointer(first - inside, c0), row.x.stride(0), row.x.stride(1), inside, channels},
                           m.x + initial * n, tile);

    const index tokens = unpadded_length(row.seq_idx, length);
    const auto add_final = [&](index s, R* rows) {
        const index j = s - tokens + past;
        if (j < 0 || j >= past || (tokens > 0 && row.sequence(s) != row.sequence(tokens - 1))) return;
        for (index k = 0; k < tiles; ++k) {
            const lane_range<R, Arch, false> lane{k * n, std::min(n, channels - k * n)};
            const view<const T, 2> gradient = a.dfinal_states[b];
            store(load<R, Arch>(rows + k * dx_tile) + lane.load(gradient.pointer(c0, j), gradient.stride(0)), rows + k * dx_tile);
        }
    };

    // Past the span's end for as long as its last tokens still get gradients from later ones.
    for (index t = first; t < last + (wants_dx ? past : 0); t += steps) {
        const conv_block<T> block{row, t, std::min(steps, last + past - t), last - t, f.silu};
        const index inside_now = std::clamp<index>(length - t, 0, block.steps);
        load_tiles<Arch, R, T>({row.x.pointer(t, c0), row.x.stride(0), row.x.stride(1), inside_now, channels},
                               m.x + past * n, tile);
        load_tiles<Arch, R, T>({dy.pointer(t, c0), dy.stride(0), dy.stride(1), inside_now, channels}, m.e + past * n, tile);
        for (index k = 0; k < tiles; ++k) {
            conv_backward_tile<Arch, Width, T, R>(block, m.taps + k * taps_tile, m.x + k * tile, m.e + k * tile,
                                                  wants_dx ? m.dx + k * dx_tile : nullptr,
                                                  partial ? m.sums + k * taps_tile : nullptr);
        }
        if (wants_dx) {
            // Rows: positions t - past ... of which some lie in the initial state or in the span before.
            const index begin = t - past, end = begin + block.steps;
            for (index s = begin; s < end && a.dfinal_states.data(); ++s) add_final(s, m.dx + (s - begin) * n);
            if (begin < 0 && first == 0 && a.dinitial_states.data()) {
                const view<T, 2> gradient = a.dinitial_states[b];
                store_tiles<Arch, R, T>(m.dx, dx_tile,
                                        {gradient.pointer(c0, begin + past), gradient.stride(1), gradient.stride(0),
                                         std::min<index>(end, 0) - begin, channels});
            }
            const index from = std::max(begin, first), to = std::min(end, last);
            if (dx.data() && from < to) {
                store_tiles<Arch, R, T>(m.dx + (from - begin) * n, dx_tile,
                                        {dx.pointer(from, c0), dx.stride(0), dx.stride(1), to - from, channels});
            }
        }
        for (index k = 0; k < tiles; ++k) {  // the last rows are the past of the next block
            std::copy_n(m.x + k * tile + block.steps * n, past * n, m.x + k * tile);
            std::copy_n(m.e + k * tile + block.steps * n, past * n, m.e + k * tile);
        }
    }
    if (partial) {
        store_tiles<Arch, R, R>(m.sums, taps_tile, {partial + c0, dim, 1, width + 1, channels});
    }
}

/// Adds the partial sums of all spans, in their order, and stores them as dweight and dbias.
template <class T>
void conv_backward_sums(const causal_conv1d_backward_args<T>& a, compute_t<T>* partials, index count)
{
    using R = compute_t<T>;
    const index width = a.forward.weight.extent(1), dim = a.forward.x.extent(2), size = (width + 1) * dim;
    for (index k = 1; k < count; ++k) {
        const R* const more = partials + k * size;
        for (index i = 0; i < size; ++i) partials[i] += more[i];
    }
    for (index c = 0; c < dim; ++c) {
        for (index j = 0; j < width && a.dweight.data(); ++j) a.dweight(c, j) = count ? partials[j * dim + c] : R(0);
        if (a.dbias.data()) a.dbias[c] = count ? partials[width * dim + c] : R(0);
    }
}

}  // namespace detail

/// Bytes of scratch memory for causal_conv1d_backward with so many calls at once. With s = sizeof(compute_t<T>): about
/// 256 s (5 width + 50) for each of them, and s (width + 1) dim for every 512 tokens of a batch row (at most 16 a row) if
/// dweight or dbias is asked for.
template <class Arch = xsimd::default_arch, class T>
std::size_t causal_conv1d_backward_workspace_size(const causal_conv1d_backward_args<T>& a, std::size_t concurrency = 1)
{
    return detail::conv_backward_plan<Arch, T>(a).bytes(concurrency);
}

/// The gradients of the short causal convolution: equations at causal_conv1d_backward_args. Throws shape_error before
/// anything is written. Work splits over batch, time and channels; the result does not depend on the split, bit for bit.
/// float gradients lie within 4e-6 of the largest one of a double computation, on every instruction set.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void causal_conv1d_backward(const causal_conv1d_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    using R = compute_t<T>;
    check(a);
    const conv_backward_plan<Arch, T> plan(a);
    const conv_backward_partition& p = plan.partition;
    const std::size_t slots = concurrency(exec);
    const scratch own("causal_conv1d_backward", memory, plan.bytes(slots));
    arena all(own.memory());
    R* const partials = plan.partial_elements ? all.take<R>(plan.partial_elements) : nullptr;
    const workspace rest = own.memory().subspan(all.size());
    const index batch = a.forward.x.extent(0), width = a.forward.weight.extent(1), dim = a.forward.x.extent(2);
    const index spans = batch * p.token_tasks;
    with_conv_width(width, [&](auto constant_width) {
        run_tasks(exec, static_cast<std::size_t>(spans * p.channel_tasks), [&](std::size_t task, std::size_t slot) {
            const flush_denormals guard;
            const index span = static_cast<index>(task) / p.channel_tasks, chunk = static_cast<index>(task) % p.channel_tasks;
            arena part(rest.subspan(slot * plan.task_bytes, plan.task_bytes));
            conv_backward_span<Arch, constant_width(), T>(a, p, span / p.token_tasks, span % p.token_tasks, chunk,
                                                         conv_backward_scratch<Arch, R>(part, width),
                                                         partials ? partials + span * (width + 1) * dim : nullptr);
        });
    });
    if (a.dweight.data() || a.dbias.data()) {
        const flush_denormals guard;
        conv_backward_sums(a, partials, spans);
    }
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void causal_conv1d_backward(const causal_conv1d_backward_args<T>& a, Exec&& exec)
{
    causal_conv1d_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
