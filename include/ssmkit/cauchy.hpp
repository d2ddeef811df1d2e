#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include <ssmkit/args/cauchy.hpp>
#include <ssmkit/detail/cauchy_sums.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit {
namespace detail {

/// Nodes of a task: enough that making its table costs little.
inline constexpr index cauchy_chunk = 1024;

/// True if the sums can be taken over pairs: whatever the answer, they are right.
template <class T>
bool on_imaginary_axis(const view<const std::complex<T>, 1>& z)
{
    for (index l = 0; l < z.extent(0); ++l) {
        if (z[l].real() != T(0)) return false;
    }
    return true;
}

/// Where things lie in the workspace: the nodes' parts, shared, then a table and sums for each task that runs at once.
template <class Arch, class T>
struct cauchy_plan {
    index padded, chunks, groups;
    T *re, *im;
    std::size_t shared, each, table;

    cauchy_plan(const cauchy_args<T>& a, workspace memory)
        : padded((a.z.extent(0) + cauchy_padding<T, Arch> - 1) / cauchy_padding<T, Arch> * cauchy_padding<T, Arch>),
          chunks((padded + cauchy_chunk - 1) / cauchy_chunk), groups((a.v.extent(0) + cauchy_terms - 1) / cauchy_terms)
    {
        arena nodes = memory.empty() ? arena() : arena(memory);
        re = nodes.take<T>(static_cast<std::size_t>(padded));
        im = nodes.take<T>(static_cast<std::size_t>(padded));
        shared = nodes.size();
        table = static_cast<std::size_t>(a.w.extent(1) * 2 * (3 + 2 * cauchy_terms));
        arena sizes;
        sizes.take<T>(table);
        sizes.take<T>(static_cast<std::size_t>(2 * cauchy_terms * cauchy_chunk));
        each = sizes.size();
    }
};

/// The table of up to cauchy_terms numerators, from number `first` on, of row h.
template <class Nodes, class T>
index fill_cauchy_table(const cauchy_args<T>& a, index h, index first, index terms, T* table)
{
    const auto wide = [](const std::complex<T>& x) { return std::complex<double>(x.real(), x.imag()); };
    index poles = 0;
    for (const bool second : {false, true}) {
        if (second && (Nodes::pairs || !a.conjugate_pairs)) continue;
        for (index n = 0; n < a.w.extent(1); ++n, ++poles) {
            const std::complex<double> w = second ? std::conj(wide(a.w(h, n))) : wide(a.w(h, n));
            T* const record = table + poles * (Nodes::pole_numbers + 2 * terms);
            Nodes::put_pole(w, record);
            for (index i = 0; i < terms; ++i) {
                const std::complex<double> v = wide(a.v(first + i, h, n));
                Nodes::put_numerator(second ? std::conj(v) : v, w, record + Nodes::pole_numbers + 2 * i);
            }
        }
    }
    return poles;
}

}  // namespace detail

/// Bytes of scratch memory with which cauchy(a) runs on any resource of at most this concurrency: 2 length numbers, and
/// 22 state + 8192 for each task that runs at once.
template <class Arch = xsimd::default_arch, class T>
std::size_t cauchy_workspace_size(const cauchy_args<T>& a, std::size_t concurrency = 1)
{
    const detail::cauchy_plan<Arch, T> plan(a, {});
    return plan.shared + concurrency * plan.each;
}

/// Cauchy sums: shapes and equations at cauchy_args. Throws shape_error before anything is written. Work splits over dim, terms
/// and nodes; the result does not depend on the split, bit for bit. float sums lie within 2e-6 of the largest of a double
/// computation as long as no node comes within |z| / 100 of a pole, on every instruction set.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void cauchy(const cauchy_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t slots = concurrency(exec);
    const scratch own("cauchy", memory, cauchy_workspace_size<Arch>(a, slots));
    const cauchy_plan<Arch, T> plan(a, own.memory());
    const index length = a.z.extent(0);
    for (index l = 0; l < plan.padded; ++l) {  // behind the end a node that meets no pole
        plan.re[l] = l < length ? a.z[l].real() : T(1);
        plan.im[l] = l < length ? a.z[l].imag() : T(1);
    }
    const bool imaginary = a.conjugate_pairs && on_imaginary_axis(a.z);
    const index rows = a.out.extent(1) * plan.groups;
    run_tasks(exec, static_cast<std::size_t>(rows * plan.chunks), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(plan.shared + slot * plan.each, plan.each));
        T* const table = part.take<T>(plan.table);
        T* const sums = part.take<T>(static_cast<std::size_t>(2 * cauchy_terms * cauchy_chunk));
        const index row = static_cast<index>(task) / plan.chunks, first = static_cast<index>(task) % plan.chunks * cauchy_chunk;
        const index h = row / plan.groups, term = row % plan.groups * cauchy_terms;
        const index terms = std::min(cauchy_terms, a.v.extent(0) - term), count = std::min(cauchy_chunk, plan.padded - first);
        const auto run = [&](const auto& nodes) {
            using Nodes = std::remove_cvref_t<decltype(nodes)>;
            const index poles = fill_cauchy_table<Nodes>(a, h, term, terms, table);
            cauchy_sums<Arch>(nodes, first, count, table, poles, terms, sums, cauchy_chunk);
        };
        if (imaginary) {
            run(imaginary_nodes<T>{plan.im, plan.re});  // the real parts are zero: nothing that rounding left
        } else {
            run(complex_nodes<T>{plan.re, plan.im});
        }
        for (index i = 0; i < terms; ++i) {
            const auto out = a.out[term + i][h];
            const T *const re = sums + 2 * i * cauchy_chunk, *const im = re + cauchy_chunk;
            for (index l = 0; l < std::min(count, length - first); ++l) out[first + l] = {re[l], im[l]};
        }
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void cauchy(const cauchy_args<T>& a, Exec&& exec)
{
    cauchy<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
