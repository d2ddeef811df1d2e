#pragma once

// Random problems for the norms and their gradients, and the properties that all four operations share. Each test file
// names its operation by a struct with
//
//     problem                                        gated_norm_problem<T> or add_norm_problem<T, Residual>
//     run(problem, memory, exec), reference(problem) the operation and its oracle
//     workspace_size(problem, concurrency)
//     outputs(problem)                               references to all tensors that it writes

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <ssmkit/args/add_norm_backward.hpp>
#include <ssmkit/args/gated_norm_backward.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "random_problem.hpp"
#include "sparse_memory.hpp"

namespace ssmkit::testing {

struct norm_setup {
    index batch = 2, length = 19, dim = 24, groups = 1;
    bool second = false;            ///< z of the gated norm, residual of add_norm
    bool norm_before_gate = false;  ///< for add_norm: residual_out and dresidual_out are given
    bool bias = false, layer = false;
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;
    double mean = 0, spread = 2;  ///< x is uniform in mean ± spread
    double eps = 1e-5;
    std::uint64_t seed = 1;

    std::string text() const
    {
        std::string s = "(" + std::to_string(batch) + ", " + std::to_string(length) + ", " + std::to_string(dim) + ") " +
                        std::to_string(groups) + " groups, layouts " + std::to_string(static_cast<int>(inputs)) + " " +
                        std::to_string(static_cast<int>(outputs));
        if (second) s += " second";
        if (norm_before_gate) s += " norm_before_gate";
        if (bias) s += " bias";
        if (layer) s += " layer";
        return s;
    }

    /// The options that the bits of a number switch on.
    norm_setup with_options(unsigned bits) const
    {
        norm_setup s = *this;
        for (bool* flag : {&s.second, &s.norm_before_gate, &s.bias, &s.layer}) {
            *flag = bits & 1u;
            bits >>= 1;
        }
        return s;
    }
    static constexpr unsigned options = 4;
};

/// The largest relative_error that an output stored as T may have: some tens of roundings, and the output's own.
template <class T>
inline constexpr double norm_budget = std::is_same_v<T, double>  ? 1e-13
                                      : std::is_same_v<T, float> ? 2e-6
                                                                 : 2e-6 + rounding<T>;

template <class T>
struct gated_norm_problem {
    using storage = T;
    using real = compute_t<T>;

    norm_setup setup;
    tensor<T, 3> x, z, dy;
    tensor<real, 1> weight, bias;
    tensor<T, 3> y, dx, dz;
    tensor<real, 1> dweight, dbias;

    gated_norm_problem() = default;

    explicit gated_norm_problem(const norm_setup& s) : setup(s)
    {
        random numbers(s.seed);
        const std::array<index, 3> tokens{s.batch, s.length, s.dim};
        const std::array<index, 1> channels{s.dim};
        const auto make = [&](auto& member, const auto& extents, const range& r) {
            member = {extents, s.inputs, s.edge};
            member.fill(numbers, r);
        };
        make(x, tokens, {s.mean - s.spread, s.mean + s.spread});
        make(dy, tokens, {-1, 1});
        make(weight, channels, {0.5, 1.5});
        if (s.second) make(z, tokens, {-4, 4});
        if (s.bias) make(bias, channels, {-1, 1});
        make_outputs();
    }

    void make_outputs()
    {
        for (auto* out : {&y, &dx}) *out = {x.view().extents(), setup.outputs, setup.edge};
        if (setup.second) dz = {x.view().extents(), setup.outputs, setup.edge};
        for (auto* out : {&dweight, &dbias}) *out = {weight.view().extents(), setup.outputs, setup.edge};
    }

    template <class F>
    void for_each_input(F&& f)
    {
        f(x), f(z), f(dy), f(weight), f(bias);
    }

    /// The same problem in double.
    gated_norm_problem<wide_t<real>> wide() const
    {
        gated_norm_problem<wide_t<real>> w;
        w.setup = setup;
        w.setup.eps = static_cast<double>(static_cast<real>(setup.eps));
        w.setup.outputs = layout::row_major;
        w.setup.edge = guard::none;
        w.x = x.template as<double>();
        w.z = z.template as<double>();
        w.dy = dy.template as<double>();
        w.weight = weight.template as<double>();
        w.bias = bias.template as<double>();
        w.make_outputs();
        return w;
    }

    gated_norm_args<T> args() const
    {
        return {.x = x,
                .z = z,
                .weight = weight,
                .bias = bias,
                .eps = static_cast<real>(setup.eps),
                .group_size = setup.groups == 1 ? 0 : setup.dim / setup.groups,
                .layer = setup.layer,
                .norm_before_gate = setup.norm_before_gate,
                .y = y};
    }

    gated_norm_backward_args<T> backward_args() const
    {
        gated_norm_args<T> forward = args();
        forward.y = {};
        return {.forward = forward, .dy = dy, .dx = dx, .dz = dz, .dweight = dweight, .dbias = dbias};
    }
};

/// How the tensors of an add_norm are stored.
template <class Element, class Sum = compute_t<Element>>
struct add_norm_storage {
    using T = Element;
    using Residual = Sum;
};

template <class Storage>
struct add_norm_problem {
    using storage = Storage;
    using T = typename Storage::T;
    using Residual = typename Storage::Residual;
    using real = compute_t<T>;

    norm_setup setup;
    tensor<T, 3> x, dy;
    tensor<Residual, 3> residual, dresidual_out;
    tensor<real, 1> weight, bias;
    tensor<T, 3> y, dx;
    tensor<Residual, 3> residual_out, dresidual;
    tensor<real, 1> dweight, dbias;
    tensor<Residual, 3> sum;  // residual_out as an input of the backward pass

    add_norm_problem() = default;

    explicit add_norm_problem(const norm_setup& s) : setup(s)
    {
        random numbers(s.seed);
        const std::array<index, 3> tokens{s.batch, s.length, s.dim};
        const std::array<index, 1> channels{s.dim};
        const auto make = [&](auto& member, const auto& extents, const range& r) {
            member = {extents, s.inputs, s.edge};
            member.fill(numbers, r);
        };
        make(x, tokens, {s.mean - s.spread, s.mean + s.spread});
        make(sum, tokens, {s.mean - s.spread, s.mean + s.spread});
        make(dy, tokens, {-1, 1});
        make(weight, channels, {0.5, 1.5});
        if (s.second) make(residual, tokens, {-s.spread, s.spread});
        if (s.norm_before_gate) make(dresidual_out, tokens, {-1, 1});
        if (s.bias) make(bias, channels, {-1, 1});
        make_outputs();
    }

    void make_outputs()
    {
        for (auto* out : {&y, &dx}) *out = {x.view().extents(), setup.outputs, setup.edge};
        dresidual = {x.view().extents(), setup.outputs, setup.edge};
        if (setup.norm_before_gate) residual_out = {x.view().extents(), setup.outputs, setup.edge};
        for (auto* out : {&dweight, &dbias}) *out = {weight.view().extents(), setup.outputs, setup.edge};
    }

    template <class F>
    void for_each_input(F&& f)
    {
        f(x), f(dy), f(residual), f(dresidual_out), f(weight), f(bias), f(sum);
    }

    /// The same problem in double.
    add_norm_problem<add_norm_storage<double>> wide() const
    {
        add_norm_problem<add_norm_storage<double>> w;
        w.setup = setup;
        w.setup.eps = static_cast<double>(static_cast<real>(setup.eps));
        w.setup.outputs = layout::row_major;
        w.setup.edge = guard::none;
        w.x = x.template as<double>();
        w.dy = dy.template as<double>();
        w.residual = residual.template as<double>();
        w.dresidual_out = dresidual_out.template as<double>();
        w.weight = weight.template as<double>();
        w.bias = bias.template as<double>();
        w.sum = sum.template as<double>();
        w.make_outputs();
        return w;
    }

    add_norm_args<T, Residual> args() const
    {
        return {.x = x,
                .residual = residual,
                .weight = weight,
                .bias = bias,
                .eps = static_cast<real>(setup.eps),
                .layer = setup.layer,
                .y = y,
                .residual_out = residual_out};
    }

    add_norm_backward_args<T, Residual> backward_args() const
    {
        return {.residual_out = sum,
                .weight = weight,
                .eps = static_cast<real>(setup.eps),
                .layer = setup.layer,
                .dy = dy,
                .dresidual_out = dresidual_out,
                .dx = dx,
                .dresidual = dresidual,
                .dweight = dweight,
                .dbias = dbias};
    }
};

template <class T>
inline constexpr double norm_budget<add_norm_storage<T>> = norm_budget<T>;
template <class T>
inline constexpr double norm_budget<add_norm_storage<T, bfloat16>> = norm_budget<T> + 2 * rounding<bfloat16>;

template <class Operation>
using problem_of = typename Operation::problem;

template <class Operation>
inline constexpr index lanes_of = detail::lanes<typename problem_of<Operation>::real, xsimd::default_arch>;

template <class Operation>
void run(const problem_of<Operation>& p)
{
    Operation::run(p, workspace{}, in_place{});
}

/// The result of f(a, b) for each output a of one problem and b of another.
template <class Operation, class P, class Q, class F>
auto for_each_output(const P& p, const Q& q, F&& f)
{
    const auto mine = Operation::outputs(p);
    const auto other = Operation::outputs(q);
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
        return std::array{f(std::get<I>(mine), std::get<I>(other))...};
    }(std::make_index_sequence<std::tuple_size_v<decltype(mine)>>{});
}

template <class Operation>
bool same_outputs(const problem_of<Operation>& p, const problem_of<Operation>& q)
{
    const auto same = for_each_output<Operation>(p, q, [](const auto& a, const auto& b) {
        return a.given() == b.given() && (!a.given() || same_bits(a, b));
    });
    return std::find(same.begin(), same.end(), false) == same.end();
}

/// The relative error of an output; that of a sum over tokens (dweight, dbias) is relative to 1 at least: its terms are of
/// order 1 and may cancel, which their roundings do not.
template <class T, class U, std::size_t Rank>
double scaled_error(const tensor<T, Rank>& x, const tensor<U, Rank>& expected)
{
    const double error = relative_error(x, expected);
    if (Rank != 1 || error == 0 || !std::isfinite(error)) return error;
    double largest = 0;
    for_each_index(expected.view(), [&](auto... i) {
        const double magnitude = std::abs(static_cast<double>(expected.view()(i...)));
        if (std::isfinite(magnitude)) largest = std::max(largest, magnitude);
    });
    return error * std::min(largest, 1.0);
}

/// Runs the operation and, in double, its reference on the same numbers; returns the worst relative error.
template <class Operation>
double against_reference(const problem_of<Operation>& p)
{
    run<Operation>(p);
    const auto expected = p.wide();
    Operation::reference(expected);
    const auto errors = for_each_output<Operation>(
        p, expected, [](const auto& a, const auto& b) { return scaled_error(a, b); });
    return *std::max_element(errors.begin(), errors.end());
}

template <class Operation>
std::vector<std::vector<std::byte>> input_bytes(problem_of<Operation>& p)
{
    std::vector<std::vector<std::byte>> bytes;
    p.for_each_input([&](const auto& t) { bytes.push_back(t.bytes()); });
    return bytes;
}

template <class F>
std::string message_of(F&& f)
{
    try {
        f();
    } catch (const shape_error& e) {
        return e.what();
    }
    return "nothing thrown";
}

// ---- The properties
// --------------------------------------------------------------------------------------------------

/// Every option in every layout; inputs and the memory between the elements stay as they were.
template <class Operation>
void agrees_with_the_reference()
{
    for (unsigned i = 0; i < 36u << norm_setup::options; ++i) {
        norm_setup s = norm_setup{}.with_options(i);
        s.inputs = all_layouts[(i >> norm_setup::options) % 6];
        s.outputs = all_layouts[(i >> norm_setup::options) / 6];
        s.groups = std::array{1, 2, 3}[i % 3];
        s.seed = i;
        CAPTURE(s.text());
        problem_of<Operation> p(s);
        const auto inputs = input_bytes<Operation>(p);
        REQUIRE(against_reference<Operation>(p) <= norm_budget<typename problem_of<Operation>::storage>);
        REQUIRE(inputs == input_bytes<Operation>(p));
        std::apply([](const auto&... out) { REQUIRE((out.gaps_untouched() && ...)); }, Operation::outputs(p));
    }
}

template <class Operation>
void holds_for_every_size()
{
    constexpr index n = lanes_of<Operation>;
    const index sizes[] = {0, 1, 2, n - 1, n, n + 1, 2 * n + 3, 5 * n + 1};
    for (const index dim : sizes) {
        for (const index length : sizes) {
            for (const layout form : {layout::row_major, layout::time_contiguous}) {
                for (const unsigned bits : {3u, 15u}) {
                    // With eps far below x squared, the gradient of a lone channel is the difference of equals.
                    norm_setup s{.batch = 2, .length = length, .dim = dim, .inputs = form, .outputs = form, .eps = 3};
                    s = s.with_options(bits);
                    s.seed = static_cast<std::uint64_t>(dim * 64 + length);
                    CAPTURE(s.text());
                    const problem_of<Operation> p(s);
                    REQUIRE(against_reference<Operation>(p) <= norm_budget<typename problem_of<Operation>::storage>);
                }
            }
        }
    }
    for (const index batch : {0, 3}) {  // more tokens than a block of the sums over them, cut in the middle of a sequence
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            const norm_setup s{.batch = batch, .length = 211, .dim = 5, .bias = true, .inputs = form, .outputs = form};
            const problem_of<Operation> p(s);
            REQUIRE(against_reference<Operation>(p) <= norm_budget<typename problem_of<Operation>::storage>);
        }
    }
}

/// Group sizes below, at and above a register.
template <class Operation>
void holds_for_every_group_size()
{
    constexpr index n = lanes_of<Operation>;
    for (const index size : {index{1}, index{3}, n - 1, n, n + 1, 2 * n + 3}) {
        for (const layout form : {layout::row_major, layout::time_contiguous, layout::strided}) {
            for (unsigned bits = 0; bits < 1u << norm_setup::options; ++bits) {
                norm_setup s{.batch = 1, .length = n + 1, .dim = 5 * size, .groups = 5, .inputs = form, .eps = 0.3};
                s = s.with_options(bits);
                CAPTURE(s.text());
                const problem_of<Operation> p(s);
                REQUIRE(against_reference<Operation>(p) <= norm_budget<typename problem_of<Operation>::storage>);
            }
        }
    }
}

/// A NaN in one element of an input reaches the outputs that the reference computes from it, and no others.
template <class Operation>
void nan_goes_where_it_belongs()
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (unsigned bits = 0; bits < 1u << norm_setup::options; ++bits) {
            norm_setup s{.batch = 2, .length = 5, .dim = 2 * lanes_of<Operation> + 6, .groups = 2, .inputs = form};
            s.outputs = form;
            problem_of<Operation> p(s.with_options(bits));
            p.for_each_input([&](auto& input) {
                if (!input.given()) return;
                random numbers(bits);
                for (int i = 0; i < 3; ++i) {
                    auto* at = input.view().data();
                    index chosen = numbers.below(input.view().size());
                    for_each_index(input.view(), [&](auto... j) {
                        if (chosen-- == 0) at = input.view().pointer(j...);
                    });
                    const auto before = *at;
                    *at = quiet_nan<std::remove_pointer_t<decltype(at)>>();
                    run<Operation>(p);
                    const auto expected = p.wide();
                    Operation::reference(expected);
                    const auto same = for_each_output<Operation>(
                        p, expected, [](const auto& a, const auto& b) { return !a.given() || same_nans(a, b); });
                    CAPTURE(p.setup.text());
                    REQUIRE(std::find(same.begin(), same.end(), false) == same.end());
                    *at = before;
                }
            });
        }
    }
}

/// Values whose squares are beyond the range of numbers, or vanish.
template <class Operation>
void holds_for_huge_and_tiny_values()
{
    using P = problem_of<Operation>;
    constexpr bool wide = std::is_same_v<typename P::real, double>;
    const double huge = wide ? 1e300 : 1e38, tiny = wide ? 1e-290 : 1e-30;
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const double spread : {huge, std::sqrt(huge), 1e20, 1e10, 1e-10, 1e-15, tiny}) {
            for (const double eps : {0.0, 1e-30, 1e-5}) {
                for (const bool layer : {false, true}) {
                    norm_setup s{.length = 3, .dim = 50, .second = true, .layer = layer, .inputs = form};
                    s.spread = spread;
                    s.eps = eps;
                    CAPTURE(spread, eps, layer);
                    CHECK(against_reference<Operation>(P(s)) <= norm_budget<typename P::storage>);
                }
            }
        }
    }
}

/// A mean that is large against the deviations costs no accuracy. (In double, it costs the reference some.)
template <class Operation>
void layer_form_survives_a_large_mean()
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        norm_setup s{.length = 7, .dim = 1000, .layer = true, .inputs = form, .mean = 1e5, .spread = 1};
        problem_of<Operation> p(s);
        CHECK(against_reference<Operation>(p) <= norm_budget<typename problem_of<Operation>::storage>);
    }
}

/// Neither the number of threads nor what the workspace held, nor its alignment, changes a bit.
template <class Operation>
void threads_and_workspace_change_nothing()
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        norm_setup s{.batch = 3, .length = 131, .dim = 37, .second = true, .bias = true, .inputs = form, .outputs = form};
        const problem_of<Operation> expected(s);
        run<Operation>(expected);
        threads two(2), three(3);
        for (const int poison : {0x00, 0x7f, 0xff}) {
            const problem_of<Operation> p(s);
            std::vector<std::byte> memory(Operation::workspace_size(p, 4) + 3, static_cast<std::byte>(poison));
            const workspace unaligned = workspace(memory).subspan(3);
            const auto check = [&](auto&& exec) {
                const problem_of<Operation> q(s);
                Operation::run(q, unaligned, exec);
                CHECK(same_outputs<Operation>(q, expected));
            };
            check(two);
            check(three);
            check(last_task_first{});
            check(in_place{});
        }
    }
}

template <class Operation>
void takes_nothing_from_the_heap()
{
    const problem_of<Operation> p(norm_setup{.batch = 3, .length = 100, .dim = 35, .second = true, .bias = true});
    threads pool(2);
    std::vector<std::byte> memory(Operation::workspace_size(p, 2));
    CHECK(allocations_during([&] {
              Operation::run(p, memory, in_place{});
              Operation::run(p, memory, pool);
          }) == 0);
    CHECK(allocations_during([&] { run<Operation>(p); }) > 0);
    std::vector<std::byte> too_small(Operation::workspace_size(p, 1) - 1);
    CHECK(message_of([&] { Operation::run(p, too_small, in_place{}); }).find("workspace has") != std::string::npos);
}

/// Memory ends, above or below, where the tensors do.
template <class Operation>
void touches_nothing_outside()
{
    constexpr index n = lanes_of<Operation>;
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : {layout::row_major, layout::time_contiguous, layout::negative}) {
            for (const index dim : {index{1}, n - 1, n + 1, 2 * n + 3}) {
                norm_setup s{.length = n + 3, .dim = dim, .second = true, .norm_before_gate = true, .bias = true};
                s.inputs = s.outputs = form;
                s.edge = edge;
                s.eps = 0.3;
                const problem_of<Operation> p(s);
                REQUIRE(against_reference<Operation>(p) <= norm_budget<typename problem_of<Operation>::storage>);
            }
        }
    }
}

}  // namespace ssmkit::testing
