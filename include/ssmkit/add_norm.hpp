#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include <ssmkit/args/add_norm.hpp>
#include <ssmkit/detail/norm.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit {
namespace detail {

/// x as it is when stored as an E.
template <class E, class R, class Arch>
vec<R, Arch> rounded_to(const vec<R, Arch>& x)
{
    if constexpr (std::is_same_v<E, R>) {
        return x;
    } else {
        E stored[static_cast<std::size_t>(lanes<R, Arch>)];
        store(x, stored);
        return load<R, Arch>(stored);
    }
}

/// Adds and normalises token t of batch b, or it and its neighbours. values: scratch memory.
template <class Layout, class T, class Residual, class R = compute_t<T>>
void add_norm_tokens(const add_norm_args<T, Residual>& a, const Layout& along, index b, index t, R* values)
{
    using v = typename Layout::v;
    const index dim = a.x.extent(2);
    const auto x = row_of(a.x, b, t);
    const auto residual = row_of(a.residual, b, t);
    const auto y = row_of(a.y, b, t);
    const auto residual_out = row_of(a.residual_out, b, t);
    along.for_each_cell(0, dim, [&](auto cell) {
        const v sum = residual.data ? cell.load(x) + cell.load(residual) : cell.load(x);
        if (residual_out.data) cell.store(sum, residual_out);
        cell.keep(rounded_to<Residual>(sum), values);
    });
    const auto norm = norm_of_group(along, values, 0, dim, a.eps, a.layer);
    along.for_each_cell(0, dim, [&](auto cell) {
        const v bias = a.bias.data() ? cell.load(a.bias) : v(R(0));
        cell.store(multiply_add(norm(cell, values), cell.load(a.weight), bias), y);
    });
}

}  // namespace detail

/// Bytes of scratch memory that add_norm(a) takes where up to `concurrency` tasks run at once: one token in
/// compute_t<T> each, or a register's width of them if the data is time-contiguous.
template <class Arch = xsimd::default_arch, class T, class Residual>
std::size_t add_norm_workspace_size(const add_norm_args<T, Residual>& a, std::size_t concurrency = 1)
{
    using namespace detail;
    using R = compute_t<T>;
    const lane_axis axis = lane_axis_of(a.x, a.residual, a.y, a.residual_out, a.weight, a.bias);
    arena one;
    one.take<R>(kept_elements<R, Arch>(a.x.extent(2), axis));
    return one.size() * concurrency;
}

/// Residual addition and norm: shapes, equations and options at add_norm_args. Throws shape_error before anything is
/// written. Work splits over tokens; the result does not depend on the split, bit for bit. float results lie within
/// 1e-6 of the largest output of a double computation, on every instruction set.
template <class Arch = xsimd::default_arch, class T, class Residual, execution_resource Exec = in_place>
void add_norm(const add_norm_args<T, Residual>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    using R = compute_t<T>;
    check(a);
    const token_blocks blocks(a.x.extent(0), a.x.extent(1));
    const lane_axis axis = lane_axis_of(a.x, a.residual, a.y, a.residual_out, a.weight, a.bias);
    const std::size_t each = add_norm_workspace_size<Arch>(a);
    const scratch own("add_norm", memory, each * concurrency(exec));
    run_tasks(exec, static_cast<std::size_t>(blocks.count), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(slot * each, each));
        R* const values = part.take<R>(kept_elements<R, Arch>(a.x.extent(2), axis));
        for_each_token<R, Arch>(blocks.begin(task), blocks.end(task), a.x.extent(1), axis,
                                [&](auto along, index b, index t) { add_norm_tokens(a, along, b, t, values); });
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, class Residual, execution_resource Exec>
void add_norm(const add_norm_args<T, Residual>& a, Exec&& exec)
{
    add_norm<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
