#pragma once

#include <cstddef>
#include <utility>

#include <ssmkit/args/gated_norm_backward.hpp>
#include <ssmkit/detail/norm.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit {
namespace detail {

/// What a task keeps of the tokens it is at.
template <class R, class Arch>
struct gated_norm_backward_memory {
    R* values;     ///< what is normalised
    R* d;          ///< gradient of the norm's output
    R* gate;       ///< silu(z), where the gate comes first
    R* gate_part;  ///< the factors of dz that are known before the norm is

    template <class T>
    gated_norm_backward_memory(arena& memory, const gated_norm_backward_args<T>& a, lane_axis axis)
    {
        const gated_norm_args<T>& f = a.forward;
        const std::size_t size = kept_elements<R, Arch>(f.x.extent(2), axis);
        values = memory.take<R>(size);
        d = memory.take<R>(size);
        gate = memory.take<R>(f.z.data() && !f.norm_before_gate ? size : 0);
        gate_part = memory.take<R>(f.z.data() ? size : 0);
    }
};

template <class T>
lane_axis lane_axis_of(const gated_norm_backward_args<T>& a)
{
    return lane_axis_of(a.forward.x, a.forward.z, a.dy, a.dx, a.dz, a.forward.weight, a.forward.bias);
}

/// The gradients of token t of batch b, or of it and its neighbours. dweight, dbias: (dim) sums, or null.
template <class Layout, class T, class R, class Arch>
void norm_tokens_backward(const gated_norm_backward_args<T>& a, const Layout& along, index b, index t,
                          const gated_norm_backward_memory<R, Arch>& m, R* dweight, R* dbias)
{
    using v = typename Layout::v;
    const gated_norm_args<T>& f = a.forward;
    const index dim = f.x.extent(2), size = f.group_size ? f.group_size : dim;
    const auto x = row_of(f.x, b, t), z = row_of(f.z, b, t), dy = row_of(a.dy, b, t);
    const auto dx = row_of(a.dx, b, t), dz = row_of(a.dz, b, t);
    const bool gate_first = z.data && !f.norm_before_gate, gate_last = z.data && f.norm_before_gate;
    along.for_each_cell(0, dim, [&](auto cell) {
        const v x_cell = cell.load(x), dy_cell = cell.load(dy);
        if (!z.data) {
            cell.keep(x_cell, m.values);
            cell.keep(dy_cell, m.d);
            return;
        }
        const v z_cell = cell.load(z), s = sigmoid(z_cell), gate = z_cell * s;
        const v gate_derivative = s * multiply_add(z_cell, v(R(1)) - s, v(R(1)));
        cell.keep(gate_first ? x_cell * gate : x_cell, m.values);
        cell.keep(gate_first ? dy_cell : dy_cell * gate, m.d);
        if (gate_first) cell.keep(gate, m.gate);
        cell.keep((gate_first ? x_cell : dy_cell) * gate_derivative, m.gate_part);
    });
    for (index first = 0; first < dim; first += size) {
        const auto norm = norm_of_group(along, m.values, first, size, f.eps, f.layer);
        const auto gradient = gradient_of_group(along, norm, m.values, m.d, f.weight, first, size, f.layer);
        along.for_each_cell(first, size, [&](auto cell) {
            const v n = norm(cell, m.values), d = cell.kept(m.d), weight = cell.load(f.weight);
            const v dv = gradient(n, d * weight);
            if (dweight) cell.add_to(dweight, d * n);
            if (dbias) cell.add_to(dbias, d);
            if (dx.data) cell.store(gate_first ? dv * cell.kept(m.gate) : dv, dx);
            if (!dz.data) return;
            const v bias = gate_last && f.bias.data() ? cell.load(f.bias) : v(R(0));
            cell.store(cell.kept(m.gate_part) * (gate_last ? multiply_add(n, weight, bias) : dv), dz);
        });
    }
}

}  // namespace detail

/// Bytes of scratch memory that gated_norm_backward(a) takes where up to `concurrency` tasks run at once: up to four
/// tokens in compute_t<T> a task (four registers' widths of them if the data is time-contiguous), and for dweight and
/// for dbias about the square root of the number of tokens in all.
template <class Arch = xsimd::default_arch, class T>
std::size_t gated_norm_backward_workspace_size(const gated_norm_backward_args<T>& a, std::size_t concurrency = 1)
{
    using namespace detail;
    using R = compute_t<T>;
    const token_blocks blocks(a.forward.x.extent(0), a.forward.x.extent(1));
    arena shared, one;
    parameter_gradient<R>(shared, a.dweight, blocks);
    parameter_gradient<R>(shared, a.dbias, blocks);
    gated_norm_backward_memory<R, Arch>(one, a, lane_axis_of(a));
    return shared.size() + one.size() * concurrency;
}

/// The gradients of the gated norm: shapes and equations at gated_norm_backward_args. Throws shape_error before
/// anything is written. Work splits over blocks of tokens whose size depends on the shape alone; the result does not
/// depend on the number of threads, bit for bit. float gradients lie within 2e-6 of the largest of a double
/// computation.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void gated_norm_backward(const gated_norm_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    using R = compute_t<T>;
    check(a);
    const token_blocks blocks(a.forward.x.extent(0), a.forward.x.extent(1));
    const lane_axis axis = lane_axis_of(a);
    const std::size_t all = gated_norm_backward_workspace_size<Arch>(a, concurrency(exec));
    const std::size_t shared = gated_norm_backward_workspace_size<Arch>(a, 0);
    const std::size_t each = (all - shared) / concurrency(exec);
    const scratch own("gated_norm_backward", memory, all);
    arena sums(own.memory().first(shared));
    const parameter_gradient<R> dweight(sums, a.dweight, blocks), dbias(sums, a.dbias, blocks);
    run_tasks(exec, static_cast<std::size_t>(blocks.count), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(shared + slot * each, each));
        const gated_norm_backward_memory<R, Arch> m(part, a, axis);
        R* const dweight_sums = dweight.begin_block(task);
        R* const dbias_sums = dbias.begin_block(task);
        for_each_token<R, Arch>(blocks.begin(task), blocks.end(task), a.forward.x.extent(1), axis,
                                [&](auto along, index b, index t) {
                                    norm_tokens_backward(a, along, b, t, m, dweight_sums, dbias_sums);
                                });
    });
    dweight.write();
    dbias.write();
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void gated_norm_backward(const gated_norm_backward_args<T>& a, Exec&& exec)
{
    gated_norm_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
