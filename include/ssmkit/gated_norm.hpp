#pragma once

#include <cstddef>
#include <utility>

#include <ssmkit/args/gated_norm.hpp>
#include <ssmkit/detail/norm.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit {
namespace detail {

/// Normalises what lies in one register's reach along the tokens: token t of batch b, or it and its neighbours. values:
/// scratch memory.
template <class Layout, class T, class R = compute_t<T>>
void norm_tokens(const gated_norm_args<T>& a, const Layout& along, index b, index t, R* values)
{
    using v = typename Layout::v;
    const index dim = a.x.extent(2), size = a.group_size ? a.group_size : dim;
    const auto x = row_of(a.x, b, t), z = row_of(a.z, b, t);
    const auto y = row_of(a.y, b, t);
    const bool gate_first = z.data && !a.norm_before_gate, gate_last = z.data && a.norm_before_gate;
    along.for_each_cell(0, dim, [&](auto cell) {
        const v value = cell.load(x);
        cell.keep(gate_first ? value * silu(cell.load(z)) : value, values);
    });
    for (index first = 0; first < dim; first += size) {
        const auto norm = norm_of_group(along, values, first, size, a.eps, a.layer);
        along.for_each_cell(first, size, [&](auto cell) {
            const v bias = a.bias.data() ? cell.load(a.bias) : v(R(0));
            const v out = multiply_add(norm(cell, values), cell.load(a.weight), bias);
            cell.store(gate_last ? out * silu(cell.load(z)) : out, y);
        });
    }
}

}  // namespace detail

/// Bytes of scratch memory that gated_norm(a) takes where up to `concurrency` tasks run at once: one token in
/// compute_t<T> each, or a register's width of them if the data is time-contiguous.
template <class Arch = xsimd::default_arch, class T>
std::size_t gated_norm_workspace_size(const gated_norm_args<T>& a, std::size_t concurrency = 1)
{
    using namespace detail;
    using R = compute_t<T>;
    arena one;
    one.take<R>(kept_elements<R, Arch>(a.x.extent(2), lane_axis_of(a.x, a.z, a.y, a.weight, a.bias)));
    return one.size() * concurrency;
}

/// The gated norm: shapes, equations and options at gated_norm_args. Throws shape_error before anything is written.
/// Work splits over tokens; the result does not depend on the split, bit for bit. float results lie within 1e-6 of the
/// largest output of a double computation, on every instruction set.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void gated_norm(const gated_norm_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    using R = compute_t<T>;
    check(a);
    const token_blocks blocks(a.x.extent(0), a.x.extent(1));
    const lane_axis axis = lane_axis_of(a.x, a.z, a.y, a.weight, a.bias);
    const std::size_t each = gated_norm_workspace_size<Arch>(a);
    const scratch own("gated_norm", memory, each * concurrency(exec));
    run_tasks(exec, static_cast<std::size_t>(blocks.count), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(slot * each, each));
        R* const values = part.take<R>(kept_elements<R, Arch>(a.x.extent(2), axis));
        for_each_token<R, Arch>(blocks.begin(task), blocks.end(task), a.x.extent(1), axis,
                                [&](auto along, index b, index t) { norm_tokens(a, along, b, t, values); });
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void gated_norm(const gated_norm_args<T>& a, Exec&& exec)
{
    gated_norm<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
