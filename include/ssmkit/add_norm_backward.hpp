#pragma once

#include <cstddef>
#include <utility>

#include <ssmkit/args/add_norm_backward.hpp>
#include <ssmkit/detail/norm.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit {
namespace detail {

/// What a task keeps of the tokens it is at.
template <class R, class Arch>
struct add_norm_backward_memory {
    R* values;  ///< residual_out
    R* d;       ///< dy

    add_norm_backward_memory(arena& memory, index dim, lane_axis axis)
    {
        const std::size_t size = kept_elements<R, Arch>(dim, axis);
        values = memory.take<R>(size);
        d = memory.take<R>(size);
    }
};

template <class T, class Residual>
lane_axis lane_axis_of(const add_norm_backward_args<T, Residual>& a)
{
    return lane_axis_of(a.residual_out, a.dy, a.dresidual_out, a.dx, a.dresidual, a.weight);
}

/// The gradients of token t of batch b, or of it and its neighbours. dweight, dbias: (dim) sums, or null.
template <class Layout, class T, class Residual, class R, class Arch>
void add_norm_tokens_backward(const add_norm_backward_args<T, Residual>& a, const Layout& along, index b, index t,
                              const add_norm_backward_memory<R, Arch>& m, R* dweight, R* dbias)
{
    using v = typename Layout::v;
    const index dim = a.residual_out.extent(2);
    const auto sum = row_of(a.residual_out, b, t), passed_on = row_of(a.dresidual_out, b, t);
    const auto dy = row_of(a.dy, b, t);
    const auto dx = row_of(a.dx, b, t);
    const auto dresidual = row_of(a.dresidual, b, t);
    along.for_each_cell(0, dim, [&](auto cell) {
        cell.keep(cell.load(sum), m.values);
        cell.keep(cell.load(dy), m.d);
    });
    const auto norm = norm_of_group(along, m.values, 0, dim, a.eps, a.layer);
    const auto gradient = gradient_of_group(along, norm, m.values, m.d, a.weight, 0, dim, a.layer);
    along.for_each_cell(0, dim, [&](auto cell) {
        const v n = norm(cell, m.values), d = cell.kept(m.d);
        if (dweight) cell.add_to(dweight, d * n);
        if (dbias) cell.add_to(dbias, d);
        const v dv = gradient(n, d * cell.load(a.weight));
        const v g = passed_on.data ? dv + cell.load(passed_on) : dv;
        if (dx.data) cell.store(g, dx);
        if (dresidual.data) cell.store(g, dresidual);
    });
}

}  // namespace detail

/// Bytes of scratch memory that add_norm_backward(a) takes where up to `concurrency` tasks run at once: two tokens in
/// compute_t<T> a task (two registers' widths of them if the data is time-contiguous), and for dweight and for dbias
/// about the square root of the number of tokens in all.
template <class Arch = xsimd::default_arch, class T, class Residual>
std::size_t add_norm_backward_workspace_size(const add_norm_backward_args<T, Residual>& a, std::size_t concurrency = 1)
{
    using namespace detail;
    using R = compute_t<T>;
    const token_blocks blocks(a.residual_out.extent(0), a.residual_out.extent(1));
    arena shared, one;
    parameter_gradient<R>(shared, a.dweight, blocks);
    parameter_gradient<R>(shared, a.dbias, blocks);
    add_norm_backward_memory<R, Arch>(one, a.residual_out.extent(2), lane_axis_of(a));
    return shared.size() + one.size() * concurrency;
}

/// The gradients of add_norm: shapes and equations at add_norm_backward_args. Throws shape_error before anything is
/// written. Work splits over blocks of tokens whose size depends on the shape alone; the result does not depend on the
/// number of threads, bit for bit. float gradients lie within 2e-6 of the largest of a double computation.
template <class Arch = xsimd::default_arch, class T, class Residual, execution_resource Exec = in_place>
void add_norm_backward(const add_norm_backward_args<T, Residual>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    using R = compute_t<T>;
    check(a);
    const token_blocks blocks(a.residual_out.extent(0), a.residual_out.extent(1));
    const index length = a.residual_out.extent(1), dim = a.residual_out.extent(2);
    const lane_axis axis = lane_axis_of(a);
    const std::size_t all = add_norm_backward_workspace_size<Arch>(a, concurrency(exec));
    const std::size_t shared = add_norm_backward_workspace_size<Arch>(a, 0);
    const std::size_t each = (all - shared) / concurrency(exec);
    const scratch own("add_norm_backward", memory, all);
    arena sums(own.memory().first(shared));
    const parameter_gradient<R> dweight(sums, a.dweight, blocks), dbias(sums, a.dbias, blocks);
    run_tasks(exec, static_cast<std::size_t>(blocks.count), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(shared + slot * each, each));
        const add_norm_backward_memory<R, Arch> m(part, dim, axis);
        R* const dweight_sums = dweight.begin_block(task);
        R* const dbias_sums = dbias.begin_block(task);
        for_each_token<R, Arch>(blocks.begin(task), blocks.end(task), length, axis,
                                [&](auto along, index b, index t) {
                                    add_norm_tokens_backward(a, along, b, t, m, dweight_sums, dbias_sums);
                                });
    });
    dweight.write();
    dbias.write();
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, class Residual, execution_resource Exec>
void add_norm_backward(const add_norm_backward_args<T, Residual>& a, Exec&& exec)
{
    add_norm_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
