#include <ssmkit/fft_conv_backward.hpp>

#include <cmath>
#include <string>

#include <ssmkit/reference/fft_conv.hpp>
#include <ssmkit/reference/fft_conv_backward.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "fft_conv_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = (std::is_same_v<T, double> ? 1e-14 : 2e-6) + (sizeof(T) == 2 ? rounding<T> : 0);

/// Of gradients that are never stored in 16 bits.
template <class T>
constexpr double sum_budget = std::is_same_v<T, double> ? 1e-14 : 2e-6;

template <class T>
void compare(const long_setup& s)
{
    INFO(s.text());
    const long_problem<T> p(s);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    fft_conv_backward(p.backward_args());
    reference::fft_conv_backward(expected.backward_args());
    CHECK(relative_error(p.du, expected.du) <= budget<T>);
    CHECK(relative_error(p.dinput_gate, expected.dinput_gate) <= budget<T>);
    CHECK(relative_error(p.doutput_gate, expected.doutput_gate) <= budget<T>);
    CHECK(relative_error(p.dk, expected.dk) <= sum_budget<T>);
    CHECK(relative_error(p.dk_reverse, expected.dk_reverse) <= sum_budget<T>);
    // One number of each channel: relative to the sum of its terms' sizes, of which there are batch * length up to 1.
    for_each_index(p.dD.view(), [&](index c, index h) {
        const double terms = static_cast<double>(s.batch * s.length);
        CHECK(std::abs(static_cast<double>(p.dD(c, h)) - expected.dD(c, h)) <= sum_budget<T> * terms);
    });
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

}  // namespace

TEST_CASE("fft_conv_backward: the reference is the derivative")
{
    const long_setup s{
        .channels = 2, .dim = 2, .length = 7, .width = 5, .reverse_width = 4, .D = true, .input_gate = true, .output_gate = true};
    for (const bool current : {false, true}) {
        long_setup each = s;
        each.includes_current = current;
        const long_problem<double> p(each);
        reference::fft_conv_backward(p.backward_args());
        const auto loss = [&] {
            reference::fft_conv(p.args());
            double sum = 0;
            for_each_index(p.y.view(), [&](auto... i) { sum += p.y(i...) * p.dy(i...); });
            return sum;
        };
        const auto check = [&](const auto& x, const auto& gradient) {
            for_each_index(x.view(), [&](auto... i) {
                const double at = x(i...), step = 1e-3;
                x(i...) = at + step;
                const double above = loss();
                x(i...) = at - step;
                const double below = loss();
                x(i...) = at;
                CHECK(std::abs((above - below) / (2 * step) - gradient(i...)) <= 1e-10);  // the loss is linear in each number
            });
        };
        check(p.u, p.du);
        check(p.k, p.dk);
        check(p.k_reverse, p.dk_reverse);
        check(p.D, p.dD);
        check(p.input_gate, p.dinput_gate);
        check(p.output_gate, p.doutput_gate);
    }
}

TEMPLATE_TEST_CASE("fft_conv_backward: agrees with the reference, whatever is switched on, in any layout", "", float, double,
                   bfloat16)
{
    for (unsigned options = 0; options < 1u << long_setup::options; ++options) {
        for (const layout inputs : all_layouts) {
            for (const layout outputs : all_layouts) {
                const bool many = inputs == layout::column_major;
                compare<TestType>(long_setup{.channels = 1 + index(options % 3 == 0),
                                             .dim = many ? 19 : 2,
                                             .length = 61,
                                             .width = 73,
                                             .inputs = inputs,
                                             .outputs = outputs}
                                      .with_options(options));
            }
        }
    }
}

TEMPLATE_TEST_CASE("fft_conv_backward: any length and any width", "", float, double)
{
    for (const index length : {0, 1, 2, 3, 15, 16, 17, 33, 64, 127, 128, 129, 255, 256, 257, 300}) {
        for (const index width : {0, 1, 2, 17, 80, 129, 256, 300}) {
            compare<TestType>({.batch = 1, .dim = 2, .length = length, .width = width, .D = true});
            compare<TestType>({.batch = 2, .dim = 1, .length = length, .width = width / 2, .reverse_width = width,
                               .includes_current = length % 2 == 0});
        }
    }
    compare<TestType>({.batch = 0});
    compare<TestType>({.channels = 0});
    compare<TestType>({.dim = 0});
}

TEMPLATE_TEST_CASE("fft_conv_backward: whole rows of every kind, and rows in pieces", "", float, double)
{
    for (const index length : {1024, 1279, 2500, 4099}) {
        compare<TestType>({.batch = 1, .dim = 1, .length = length, .width = length, .seed = 7});
        compare<TestType>({.batch = 2,
                           .channels = 2,
                           .dim = 1,
                           .length = length,
                           .width = 60,
                           .reverse_width = 41,
                           .input_gate = true,
                           .output_gate = true,
                           .seed = 8});
    }
}

TEST_CASE("fft_conv_backward: a gradient alone is the same as among all")
{
    for (const index length : {200, 4000}) {
        const long_problem<float> p({.channels = 2,
                                     .length = length,
                                     .width = 100,
                                     .reverse_width = 90,
                                     .D = true,
                                     .input_gate = true,
                                     .output_gate = true});
        fft_conv_backward(p.backward_args());
        const auto alone = [&](const auto& expected, auto member) {
            std::remove_cvref_t<decltype(expected)> other(expected.view().extents());
            auto all = p.backward_args();
            fft_conv_backward_args<float> a{.forward = all.forward, .dy = all.dy};
            a.*member = other.view();
            fft_conv_backward(a);
            CHECK(same_bits(other, expected));
        };
        alone(p.du, &fft_conv_backward_args<float>::du);
        alone(p.dk, &fft_conv_backward_args<float>::dk);
        alone(p.dk_reverse, &fft_conv_backward_args<float>::dk_reverse);
        alone(p.dD, &fft_conv_backward_args<float>::dD);
        alone(p.dinput_gate, &fft_conv_backward_args<float>::dinput_gate);
        alone(p.doutput_gate, &fft_conv_backward_args<float>::doutput_gate);
    }
}

TEMPLATE_TEST_CASE("fft_conv_backward: neither threads nor the workspace change a bit", "", float, bfloat16)
{
    threads pool(3);
    for (const layout form : {layout::row_major, layout::column_major}) {
        for (const index dim : {1, 33}) {
            const long_setup s{.batch = 3,
                               .channels = 1 + dim % 2,
                               .dim = dim,
                               .length = 300,
                               .width = 200,
                               .reverse_width = 100,
                               .D = true,
                               .input_gate = true,
                               .output_gate = true,
                               .inputs = form,
                               .outputs = form};
            const long_problem<TestType> one(s);
            fft_conv_backward(one.backward_args());
            long_problem<TestType> several(s);
            fft_conv_backward(several.backward_args(), pool);
            const auto same = [&] {
                return same_bits(one.du, several.du) && same_bits(one.dk, several.dk) &&
                       same_bits(one.dk_reverse, several.dk_reverse) && same_bits(one.dD, several.dD) &&
                       same_bits(one.dinput_gate, several.dinput_gate) && same_bits(one.doutput_gate, several.doutput_gate);
            };
            CHECK(same());
            for (const unsigned char garbage : {0xff, 0x7f}) {
                several.make_outputs();
                std::vector<std::byte> memory(fft_conv_backward_workspace_size(several.backward_args(), 4) + 3, std::byte{garbage});
                fft_conv_backward(several.backward_args(), workspace(memory).subspan(3), last_task_first{});
                CHECK(same());
            }
            std::vector<std::byte> memory(fft_conv_backward_workspace_size(one.backward_args()));
            CHECK(allocations_during([&] { fft_conv_backward(one.backward_args(), memory); }) == 0);
        }
    }
}

TEMPLATE_TEST_CASE("fft_conv_backward: touches nothing outside its arguments and its workspace", "", float, bfloat16)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : {layout::row_major, layout::column_major}) {
            for (const index n : {1, 15, 16, 17, 90, 128, 255}) {
                const long_setup s{.batch = 1,
                                   .dim = n < 100 ? 17 : 1,
                                   .length = n,
                                   .width = 2 * n / 3 + 1,
                                   .reverse_width = n,
                                   .D = true,
                                   .input_gate = true,
                                   .output_gate = true,
                                   .inputs = form,
                                   .outputs = form,
                                   .edge = edge};
                compare<TestType>(s);
                const long_problem<TestType> p(s);
                const std::size_t need = fft_conv_backward_workspace_size(p.backward_args());
                const raw_memory lent(need, edge);
                fft_conv_backward(p.backward_args(), workspace(lent.data(), need));
            }
        }
    }
}

TEST_CASE("fft_conv_backward: names the argument that does not fit")
{
    const long_problem<float> p({.reverse_width = 7, .D = true, .input_gate = true, .output_gate = true});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        std::string said;
        try {
            fft_conv_backward(a);
        } catch (const shape_error& e) {
            said = e.what();
        }
        INFO(said);
        CHECK(said.find(std::string("fft_conv_backward: ") + text) == 0);
    };
    named("k has shape", [](auto& a) { a.forward.k = a.forward.k.slice(1, 0, 2); });
    named("dy has shape", [](auto& a) { a.dy = a.dy.slice(3, 0, 2); });
    named("du has shape", [](auto& a) { a.du = a.du.slice(2, 0, 2); });
    named("dk has shape", [](auto& a) { a.dk = a.dk.slice(2, 0, 2); });
    named("dk_reverse has shape", [](auto& a) { a.dk_reverse = a.dk_reverse.slice(2, 0, 2); });
    named("dk_reverse is asked for", [](auto& a) { a.forward.k_reverse = {}, a.dk_reverse = a.dk_reverse.slice(2, 0, 0); });
    named("dD has shape", [](auto& a) { a.dD = a.dD.slice(1, 0, 2); });
    named("dinput_gate is asked for", [](auto& a) { a.forward.input_gate = {}; });
    named("doutput_gate is asked for", [](auto& a) { a.forward.output_gate = {}; });
    named("du overlaps dy", [](auto& a) { a.du = {const_cast<float*>(a.dy.data()), a.du.extents()}; });
    named("du is written but", [](auto& a) { a.du = {a.du.data(), a.du.extents(), {0, 50, 1}}; });
    named("dinput_gate overlaps du", [](auto& a) { a.dinput_gate = a.du; });
}

}  // namespace ssmkit::testing
