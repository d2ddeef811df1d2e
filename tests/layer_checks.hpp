#pragma once

// Properties of the layers of S4 and S4D, which go by states or as a convolution. A Layer names one of them:
//
//     struct s4_layer {
//         template <class T> using problem = s4_layer_problem<T>;
//         using form = s4_form;
//         static constexpr auto run = [](const auto& a, auto&&... how) { s4(a, how...); };
//         static constexpr auto run_reference = [](const auto& a) { reference::s4(a); };
//         static constexpr auto workspace_size = [](const auto& a) { return s4_workspace_size(a); };
//         template <class T> static constexpr double budget = 1e-6;  // of the largest result
//     };

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <ssmkit/execution.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "complaint.hpp"
#include "random_problem.hpp"
#include "sparse_memory.hpp"

namespace ssmkit::testing {

template <class Layer, class T>
using layer_problem = typename Layer::template problem<T>;

template <class Layer, class T>
void check_layer(const decltype(layer_problem<Layer, T>::s)& shape)
{
    const layer_problem<Layer, T> p(shape);
    INFO(p.s.text());
    Layer::run(p.args());
    const auto expected = p.wide();
    Layer::run_reference(expected.args());
    CHECK(relative_error(p.y, expected.y) <= Layer::template budget<T>);
    const double of_state = std::min(Layer::template budget<T>, Layer::template budget<float>);
    CHECK(relative_error(p.final_state, expected.final_state) <= of_state);
    CHECK((p.y.gaps_untouched() && p.final_state.gaps_untouched()));
}

/// Without states, in a form of the caller's choice.
template <class Layer, class T>
void check_layer_in_form(const decltype(layer_problem<Layer, T>::s)& shape, typename Layer::form form)
{
    const layer_problem<Layer, T> p(shape);
    INFO(p.s.text() << " form " << static_cast<int>(form));
    const auto expected = p.wide();
    Layer::run_reference(expected.args());
    auto a = p.args();
    a.final_state = {};
    a.form = form;
    Layer::run(a);
    CHECK(relative_error(p.y, expected.y) <= Layer::template budget<T>);
    CHECK(p.y.gaps_untouched());
}

/// The automatic form is the convolution, with threads and in a workspace too, but for an input that is not finite.
template <class Layer, class T>
void check_choice_of_convolution(const decltype(layer_problem<Layer, T>::s)& shape)
{
    using form = typename Layer::form;
    threads pool(3);
    const layer_problem<Layer, T> p(shape);
    INFO(p.s.text());
    auto a = p.args();
    a.final_state = {};
    const auto result = [&](form which, auto&&... how) {
        a.form = which;
        Layer::run(a, how...);
        return p.y.template as<T>();
    };
    const auto convolved = result(form::convolution), states = result(form::states);
    CHECK(!same_bits(convolved, states));  // or the next line says nothing
    CHECK(same_bits(result(form::automatic), convolved));
    CHECK(same_bits(result(form::automatic, pool), convolved));
    std::vector<std::byte> memory(Layer::workspace_size(a), std::byte{0xff});
    CHECK(allocations_during([&] { Layer::run(a, memory); }) == 0);
    CHECK(same_bits(p.y.view(), convolved.view()));

    p.u(1, 200, 3) = static_cast<T>(std::numeric_limits<float>::infinity());
    const auto after = result(form::automatic);
    for_each_index(after.view(), [&](index b, index t, index column) {
        const bool depends = b == 1 && column % p.s.dim == 3 && (p.s.reverse ? t <= 200 : t >= 200);
        REQUIRE(std::isfinite(convert<double>(after(b, t, column))) == !depends);
    });
}

/// In two pieces, the state in place.
template <class Layer, class T>
void check_cuts(const decltype(layer_problem<Layer, T>::s)& shape, std::initializer_list<index> cuts)
{
    const layer_problem<Layer, T> p(shape);
    Layer::run(p.args());
    for (const index cut : cuts) {
        INFO("cut at " << cut);
        const layer_problem<Layer, T> q(p.s);
        const auto part = [&](index first, index count) {
            auto a = q.args();
            a.u = a.u.slice(1, first, count);
            a.y = a.y.slice(1, first, count);
            return a;
        };
        auto earlier = part(0, cut), later = part(cut, p.s.length - cut);
        if (p.s.reverse) std::swap(earlier, later);
        later.initial_state = later.final_state;
        Layer::run(earlier);
        Layer::run(later);
        CHECK(relative_error(q.y, p.y) <= Layer::template budget<T>);
        CHECK(relative_error(q.final_state, p.final_state) <= Layer::template budget<T>);
    }
}

/// Of one token, in both directions and layouts.
template <class Layer, class T>
void check_what_is_not_finite()
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const bool reverse : {false, true}) {
            for (const index t : {0, 1, 31, 32, 47, 69}) {
                for (const double value : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
                    const layer_problem<Layer, T> p({.reverse = reverse, .form = form});
                    p.u(1, t, 4) = static_cast<T>(static_cast<float>(value));
                    Layer::run(p.args());
                    for_each_index(p.y.view(), [&](index b, index at, index column) {
                        const bool depends = b == 1 && column % p.s.dim == 4 && (reverse ? at <= t : at >= t);
                        INFO(b << " " << at << " " << column << ": token " << t);
                        REQUIRE(std::isfinite(convert<double>(p.y(b, at, column))) == !depends);
                    });
                    for_each_index(p.final_state.view(), [&](index b, index h, index n) {
                        REQUIRE(std::isfinite(std::abs(p.final_state(b, h, n))) == !(b == 1 && h == 4));
                    });
                }
            }
        }
    }
}

/// Threads, their order, and workspaces and what they held change no bit; a workspace that is too small is refused.
template <class Layer, class T>
void check_resources()
{
    threads pool(3);
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const index dim : {1, 2, 40}) {
            const layer_problem<Layer, T> p({.length = 300, .dim = dim, .copies = 1, .form = form});
            Layer::run(p.args());
            const auto y = p.y.template as<T>();
            const auto state = p.final_state.template as<typename layer_problem<Layer, T>::complex>();
            const auto again = [&](auto&& run) {
                for_each_index(p.y.view(), [&](auto... i) { p.y(i...) = quiet_nan<T>(); });
                for_each_index(p.final_state.view(), [&](auto... i) {
                    p.final_state(i...) = quiet_nan<typename layer_problem<Layer, T>::complex>();
                });
                run();
                CHECK((same_bits(p.y.view(), y.view()) && same_bits(p.final_state.view(), state.view())));
            };
            again([&] { Layer::run(p.args(), pool); });
            again([&] { Layer::run(p.args(), last_task_first{}); });
            const auto a = p.args();
            std::vector<std::byte> memory(Layer::workspace_size(a), std::byte{0xff});
            again([&] { CHECK(allocations_during([&] { Layer::run(a, memory); }) == 0); });
            memory.pop_back();
            CHECK(complaint_of([&] { Layer::run(a, memory); }).find(": workspace has") != std::string::npos);
        }
    }
}

/// What a layer does does not depend on how far apart its tokens lie: strides beyond 2^31 and 2^32 elements.
template <class Args, class Layer>
void check_far_offsets(const Args& near, Layer&& layer)
{
    layer(near);
    for (const index stride : {(index{1} << 31) + 5, (index{1} << 32) + 7}) {
        for (std::size_t axis = 0; axis < 3; ++axis) {
            sparse_memory memory;
            try {
                auto far = near;
                far.u = memory.spread(far.u, axis, stride);
                far.y = memory.spread(far.y, axis, stride);
                layer(far);
                CHECK(relative_error(far.y, near.y) <= 1e-6);
            } catch (const sparse_memory::refused&) {
                WARN("no address space for stride " << stride);
            }
        }
    }
}

}  // namespace ssmkit::testing
