#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <type_traits>
#include <utility>

#include <ssmkit/args/s4_kernel.hpp>
#include <ssmkit/detail/s4_near_nodes.hpp>
#include <ssmkit/detail/s4_nodes.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// Spectra and sequences of a group of channels, as the FFT takes them: batches of rows, a register of rows each.
template <class Arch, class T>
struct s4_rows {
    index channels;  // of dim in a group: as many as fill a register
    index batches;
    index spectrum;  // numbers of a batch's spectra

    explicit s4_rows(const s4_sizes& s)
        : channels(std::max<index>(lanes<T, Arch> / std::max<index>(s.rows(), 1), 1)),
          batches((channels * s.rows() + lanes<T, Arch> - 1) / lanes<T, Arch>),
          spectrum(2 * lanes<T, Arch> * std::max(s.bins, s.transform))
    {
    }

    index groups(const s4_sizes& s) const { return (s.dim + channels - 1) / channels; }

    /// Where bin 0 of row number i of the group is; the next bin is 2 lanes further, the imaginary part lanes.
    T* row(T* spectra, index i) const { return spectra + i / lanes<T, Arch> * spectrum + i % lanes<T, Arch>; }
};

/// Shared by all tasks: the nodes and the transform's tables. Each task: a system, sums, spectra.
template <class Arch, class T>
struct s4_kernel_plan {
    s4_sizes sizes;
    s4_rows<Arch, T> rows;
    arena memory;
    s4_nodes<T> nodes;
    real_fft<T> fft;
    std::size_t shared, each;

    s4_kernel_plan(const s4_kernel_args<T>& a, index length, bool states, workspace lent)
        : sizes(s4_sizes::of<Arch>(a, length, states)),
          rows(sizes),
          memory(lent.empty() ? arena() : arena(lent)),
          nodes(sizes, memory),
          fft(sizes.transform, memory),
          shared(memory.size())
    {
        arena task;
        s4_system(sizes, task), s4_sums<T>(sizes, task);
        if (repairs()) s4_near_nodes(sizes, task);
        task.take<T>(static_cast<std::size_t>(rows.batches * rows.spectrum));
        task.take<T>(static_cast<std::size_t>(fft.template work_size<Arch>()));
        each = task.size();
    }

    /// Whether nodes beside poles are computed in double.
    bool repairs() const { return std::is_same_v<T, float> && sizes.rank > 0; }
};

/// The transforms of the kernels of one channel at `count` nodes y, of whose Cauchy sums they are made: store(c, i, l, value) takes
/// those of map c and column i at the register of nodes from l on.
template <class Arch, class T, class F>
void s4_transforms(const s4_sizes& s, const s4_sums<T>& sums, const T* y, index count, F&& store)
{
    using V = vec<T, Arch>;
    using number = complex_lanes<V>;
    for (index l = 0; l < count; l += lanes<T, Arch>) {
        const V half = load<T, Arch>(y + l) * V(T(0.5));
        for (index i = 0; i < s.columns; ++i) {
            for (index c = 0; c < s.channels; ++c) {
                const auto sum = [&](index x, index z) { return load_parts<Arch>(sums.re(s, x, z) + l, s4_chunk); };
                number value = sum(c, i);
                for (index r = 0; r < s.rank; ++r) {
                    for (index t = 0; t < s.rank; ++t) {
                        const number inverse = load_parts<Arch>(sums.inverse + 2 * (r * s.rank + t) * s4_chunk + l, s4_chunk);
                        value = value - product(product(sum(c, s.columns + r), inverse), sum(s.channels + t, i));
                    }
                }
                store(c, i, l, value + value.times_i().scaled(half));  // times 2 / (1 + ω)
            }
        }
    }
}

/// Those at bins [first, first + count), into a channel's rows of the group's spectra.
template <class Arch, class T>
void s4_spectra(const s4_kernel_plan<Arch, T>& plan, const s4_sums<T>& sums, index first, index count, T* spectra, index first_row)
{
    constexpr index n = lanes<T, Arch>;
    const s4_sizes& s = plan.sizes;
    alignas(64) T parts[static_cast<std::size_t>(2 * n)];
    s4_transforms<Arch>(s, sums, plan.nodes.y + first, count, [&](index c, index i, index l, const auto& value) {
        value.store(parts);
        T* out = plan.rows.row(spectra, first_row + i * s.channels + c) + 2 * n * (first + l);
        for (index k = 0; k < std::min(n, s.bins - first - l); ++k, out += 2 * n) {
            out[0] = parts[k];
            out[n] = parts[n + k];
        }
    });
}

/// The nodes beside poles once more, in double.
template <class Arch, class T>
void s4_repair(const s4_kernel_plan<Arch, T>& plan, s4_near_nodes& near, const s4_system& system, T* spectra, index first_row)
{
    constexpr index n = lanes<T, Arch>, m = lanes<double, Arch>;
    const s4_sizes& s = plan.sizes;
    alignas(64) double parts[static_cast<std::size_t>(2 * m)];
    near.prepare(s, system);
    while (const index count = near.template compute<Arch>(s, plan.nodes)) {
        s4_transforms<Arch>(s, near.sums, near.y(), count, [&](index c, index i, index l, const auto& value) {
            value.store(parts);
            T* const row = plan.rows.row(spectra, first_row + i * s.channels + c);
            for (index k = 0; k < std::min(m, count - l); ++k) {
                T* const out = row + 2 * n * near.bin(l + k);
                out[0] = static_cast<T>(parts[k]);
                out[n] = static_cast<T>(parts[m + k]);
            }
        });
    }
}

/// The kernels of a group of channels.
template <class Arch, class T>
void s4_kernel_group(const s4_kernel_args<T>& a, const s4_kernel_plan<Arch, T>& plan, index group, workspace memory)
{
    constexpr index n = lanes<T, Arch>;
    const s4_sizes& s = plan.sizes;
    arena part(memory);
    s4_system system(s, part);
    const s4_sums<T> sums(s, part);
    std::optional<s4_near_nodes> near;
    if (plan.repairs()) near.emplace(s, part);
    T* const spectra = part.take<T>(static_cast<std::size_t>(plan.rows.batches * plan.rows.spectrum));
    T* const work = part.take<T>(static_cast<std::size_t>(plan.fft.template work_size<Arch>()));
    const index h0 = group * plan.rows.channels, channels = std::min(plan.rows.channels, s.dim - h0), used = channels * s.rows();
    for (index i = used; i < plan.rows.batches * n; ++i) {  // lanes without a row
        T* const row = plan.rows.row(spectra, i);
        for (index j = 0; j < 2 * s.bins; ++j) row[n * j] = T(0);
    }
    for (index k = 0; k < channels; ++k) {
        system.fill(a, s, h0 + k);
        sums.prepare(s, system);
        for (index first = 0; first < s.padded; first += s4_chunk) {
            const index count = std::min(s4_chunk, s.padded - first);
            sums.template compute<Arch>(s, plan.nodes.all(), first, count);
            s4_spectra(plan, sums, first, count, spectra, k * s.rows());
        }
        if (near) s4_repair(plan, *near, system, spectra, k * s.rows());
        for (index i = 0; i < s.rows() && s.transform % 2 == 0; ++i) {
            T* const last = plan.rows.row(spectra, k * s.rows() + i) + 2 * n * (s.bins - 1);
            last[0] = static_cast<T>(system.last_bin(s, i % s.channels, i / s.channels));
            last[n] = T(0);
        }
    }
    for (index batch = 0; batch * n < used; ++batch) {
        const T* const result = plan.fft.template inverse<Arch>(spectra + batch * plan.rows.spectrum, work);
        constexpr index tokens = 64;  // whose numbers stay in the first-level cache while every lane takes its own
        for (index t = 0; t < s.length; t += tokens) {
            for (index lane = 0; lane < std::min(n, used - batch * n); ++lane) {
                const index row = batch * n + lane, h = h0 + row / s.rows(), i = row % s.rows() / s.channels, c = row % s.channels;
                const view<T, 1> out = i == 0 ? a.K[c][h] : a.K_state[i - 1][c][h];
                for (index l = t; l < std::min(t + tokens, s.length); ++l) out[l] = result[n * l + lane];
            }
        }
    }
}

}  // namespace detail

/// Bytes of scratch memory with which s4_kernel(a) runs on any resource of at most this concurrency: in numbers of T some 10 L' for
/// nodes and transform and, for each task that runs at once, 4 L' for every row of K and K_state that fits into a register or
/// belongs to one channel, and the Cauchy sums of 256 nodes.
template <class Arch = xsimd::default_arch, class T>
std::size_t s4_kernel_workspace_size(const s4_kernel_args<T>& a, std::size_t concurrency = 1)
{
    const detail::s4_kernel_plan<Arch, T> plan(a, a.K.extent(2), a.K_state.data() != nullptr, {});
    return plan.shared + concurrency * plan.each;
}

/// S4's kernel: shapes, equations and options at s4_kernel_args. Throws shape_error before anything is written. Work splits
/// over dim; the result does not depend on the split, bit for bit. Nodes, poles and products of parameters are computed in
/// double, their sums and the transform in T, but those of float kernels at nodes beside poles, which cancel, in double (see
/// detail/s4_near_nodes.hpp). Float kernels with 16 and 64 states, lengths 1024 to 16384 and steps 1e-3 to 1e-1 lie within 1e-6 of
/// the largest value of a double computation for HiPPO-LegS and the Fourier measure, within 4e-6 for LegT and LagT.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s4_kernel(const s4_kernel_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    if (a.K.extent(2) == 0) return;
    const std::size_t slots = concurrency(exec);
    const scratch own("s4_kernel", memory, s4_kernel_workspace_size<Arch>(a, slots));
    const s4_kernel_plan<Arch, T> plan(a, a.K.extent(2), a.K_state.data() != nullptr, own.memory());
    if (plan.sizes.channels == 0) return;
    run_tasks(exec, static_cast<std::size_t>(plan.rows.groups(plan.sizes)), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        s4_kernel_group<Arch>(a, plan, static_cast<index>(task), own.memory().subspan(plan.shared + slot * plan.each, plan.each));
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void s4_kernel(const s4_kernel_args<T>& a, Exec&& exec)
{
    s4_kernel<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
