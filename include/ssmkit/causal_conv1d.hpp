#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <ssmkit/detail/causal_conv1d_rows.hpp>
#include <ssmkit/detail/causal_conv1d_times.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// How a call is cut into tasks, whatever the number of threads.
template <class T>
struct conv_partition {
    bool along_time;               // lanes along time, otherwise along the channels
    index tokens, channels;        // of a task
    index token_tasks, channel_tasks;

    explicit conv_partition(const causal_conv1d_args<T>& a)
    {
        const index length = a.x.extent(1), dim = a.x.extent(2);
        const auto contiguous = [&](std::size_t axis) {
            return (a.x.stride(axis) == 1 || a.x.stride(axis) == -1) && a.x.stride(axis) == a.y.stride(axis);
        };
        along_time = contiguous(1) && !(contiguous(2) && dim >= length);
        // Along the channels a task sweeps over rows of a page; along time it keeps to few channels, each a stream.
        tokens = along_time ? 8192 : 256;
        channels = along_time ? 8 : conv_taps<compute_t<T>, conv_register_width>::channels;
        token_tasks = (length + tokens - 1) / tokens;
        channel_tasks = (dim + channels - 1) / channels;
    }

    std::size_t tasks(index batch) const { return static_cast<std::size_t>(batch * token_tasks * channel_tasks); }
};

template <class Arch, index Width, class T>
void conv_task(const causal_conv1d_args<T>& a, const conv_partition<T>& p, index task)
{
    using R = compute_t<T>;
    const index b = task / (p.token_tasks * p.channel_tasks), rest = task % (p.token_tasks * p.channel_tasks);
    const index first = rest / p.channel_tasks * p.tokens, c0 = rest % p.channel_tasks * p.channels;
    const index last = std::min(first + p.tokens, a.x.extent(1)), count = std::min(p.channels, a.x.extent(2) - c0);
    const conv_row<T> row(a, b);
    const view<T, 2> y = as_visited(a.y, a.reverse)[b];
    const bool streaming =
        std::is_same_v<T, R> && a.y.size() * static_cast<index>(sizeof(T)) >= conv_streaming_bytes &&
        reinterpret_cast<std::uintptr_t>(a.y.data()) % sizeof(T) == 0 && (p.along_time || y.stride(0) % lanes<R, Arch> == 0);
    if (p.along_time) {
        conv_channels<Arch, Width>(a, row, y, first, last, c0, count, streaming);
    } else if constexpr (Width == 0) {
        constexpr index step = 32;
        for (index t = first; t < last; t += step) {
            for_each_lanes<R, Arch>(count, [&](auto channels) {
                channels.first += c0;
                conv_any<Arch>(a, row, y, t, std::min(t + step, last), channels);
            });
        }
    } else {
        conv_rows<Arch, Width, T>(a, row, y, c0, count, streaming && y.stride(1) == 1).run(first, last);
    }
    if (streaming) streaming_fence();
}

/// Calls f with the width as a constant, 0 for those that stay in memory.
template <class F>
void with_conv_width(index width, F&& f)
{
    switch (width) {
    case 1: return f(std::integral_constant<index, 1>{});
    case 2: return f(std::integral_constant<index, 2>{});
    case 3: return f(std::integral_constant<index, 3>{});
    case 4: return f(std::integral_constant<index, 4>{});
    default: return f(std::integral_constant<index, 0>{});
    }
}

/// The inputs that a next call needs.
template <class T>
void conv_final_states(const causal_conv1d_args<T>& a)
{
    const index past = a.weight.extent(1) - 1;
    for (index b = 0; b < a.x.extent(0); ++b) {
        const conv_row<T> row(a, b);
        const view<T, 2> states = a.final_states[b];
        const index n = unpadded_length(row.seq_idx, row.length());
        for (index j = 0; j < past; ++j) {
            const index t = n + j - past;
            const bool held = n == 0 || row.sequence(t) == row.sequence(n - 1);
            for (index c = 0; c < row.dim(); ++c) {
                if (held && t >= 0) {
                    states(c, j) = row.x(t, c);
                } else {
                    states(c, j) = held && row.initial_states.data() ? row.initial_states(c, past + t) : T(0);
                }
            }
        }
    }
}

}  // namespace detail

/// The short causal convolution: shapes, equations and options at causal_conv1d_args. Throws shape_error before anything is
/// written. Work splits over batch, time and channels; the result does not depend on the split, bit for bit, and no memory
/// is allocated. float results lie within 2e-6 of the largest output of a double computation, on every instruction set.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void causal_conv1d(const causal_conv1d_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const conv_partition<T> partition(a);
    with_conv_width(a.weight.extent(1), [&](auto width) {
        run_tasks(exec, partition.tasks(a.x.extent(0)), [&](std::size_t task, std::size_t) {
            const flush_denormals guard;
            conv_task<Arch, width()>(a, partition, static_cast<index>(task));
        });
    });
    if (a.final_states.data()) conv_final_states(a);
}

}  // namespace ssmkit
