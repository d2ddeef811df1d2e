#include <ssmkit/fft_conv_backward.hpp>

#include <ssmkit/reference/fft_conv_backward.hpp>

#include "../catch.hpp"
#include "../fft_conv_problem.hpp"
#include "../operations/operations.hpp"

namespace ssmkit::testing {
namespace {

constexpr double sum_budget = 2e-6;  ///< of gradients that are never stored in 16 bits
template <class T>
constexpr double budget = sum_budget + (sizeof(T) == 2 ? rounding<T> : 0);

template <class T>
void compare(const long_setup& s)
{
    INFO(s.text());
    const long_problem<T> p(s), again(s);
    const auto expected = p.wide();
    run_on_device(p.backward_args());
    run_on_device(again.backward_args());
    if (s.length * s.width > 50000000) {
        fft_conv_backward(expected.backward_args());
    } else {
        reference::fft_conv_backward(expected.backward_args());
    }
    CHECK(relative_error(p.du, expected.du) <= budget<T>);
    CHECK(relative_error(p.dinput_gate, expected.dinput_gate) <= budget<T>);
    CHECK(relative_error(p.doutput_gate, expected.doutput_gate) <= budget<T>);
    CHECK(relative_error(p.dk, expected.dk) <= sum_budget);
    CHECK(relative_error(p.dk_reverse, expected.dk_reverse) <= sum_budget);
    // One number of each channel: relative to the sum of its terms' sizes, of which there are batch * length up to 1.
    for_each_index(p.dD.view(), [&](index c, index h) {
        const double terms = static_cast<double>(s.batch * s.length);
        CHECK(std::abs(static_cast<double>(p.dD(c, h)) - expected.dD(c, h)) <= sum_budget * terms);
    });
    CHECK(p.gaps_untouched());
    CHECK(same_bits(p.du, again.du));
    CHECK(same_bits(p.dinput_gate, again.dinput_gate));
    CHECK(same_bits(p.doutput_gate, again.doutput_gate));
    CHECK(same_bits(p.dk, again.dk));
    CHECK(same_bits(p.dk_reverse, again.dk_reverse));
    CHECK(same_bits(p.dD, again.dD));
}

}  // namespace

TEMPLATE_TEST_CASE("cuda::fft_conv_backward: agrees with the reference, whatever is switched on, in any layout", "", float, bfloat16,
                   float16)
{
    for (unsigned options = 0; options < 1u << long_setup::options; ++options) {
        for (const layout form : all_layouts) {
            compare<TestType>(long_setup{.channels = 1 + index(options % 3 == 0), .dim = 5, .length = 61, .width = 73, .inputs = form,
                                         .outputs = all_layouts[(options + 1) % 6]}
                                  .with_options(options));
        }
    }
}

TEST_CASE("cuda::fft_conv_backward: any length and any width")
{
    for (const index length : {0, 1, 2, 3, 33, 127, 128, 129, 255, 256, 257, 1025}) {
        for (const index width : {0, 1, 2, 17, 129, 256, 300}) {
            compare<float>({.batch = 1, .dim = 2, .length = length, .width = width, .D = true});
            compare<float>({.batch = 2, .dim = 1, .length = length, .width = width / 2, .reverse_width = width,
                            .includes_current = length % 2 == 0});
        }
    }
    compare<float>({.batch = 0});
    compare<float>({.dim = 0});
    compare<float>({.batch = 9, .dim = 67, .length = 90, .width = 90});
}

TEST_CASE("cuda::fft_conv_backward: whole rows of every kind, and rows in pieces")
{
    for (const index length : {2047, 2500, 4099, 8192, 16384, 20000}) {
        compare<float>({.batch = 1, .dim = 1, .length = length, .width = length, .seed = 7});
        compare<bfloat16>({.batch = 2, .channels = 2, .dim = 1, .length = length, .width = 60, .reverse_width = 41, .input_gate = true,
                           .output_gate = true, .seed = 8});
    }
    compare<float>({.batch = 2, .dim = 1, .length = 100000, .width = 1000, .reverse_width = 3000});
}

TEMPLATE_TEST_CASE("cuda::fft_conv_backward: transforms that no block holds", "", float, bfloat16)
{
    for (const layout form : {layout::row_major, layout::time_contiguous, layout::column_major}) {
        compare<TestType>({.batch = 3, .channels = 2, .dim = 2, .length = 40001, .width = 39000, .reverse_width = 35000,
                           .includes_current = form == layout::row_major, .D = true, .input_gate = true, .output_gate = true,
                           .inputs = form, .outputs = form});
    }
    compare<TestType>({.batch = 70, .dim = 1, .length = 33000, .width = 33000});  // more rows than go at a time
    compare<TestType>({.batch = 1, .dim = 3, .length = 200000, .width = 70000});
    compare<TestType>({.batch = 1, .dim = 1, .length = 20000, .width = 300000, .reverse_width = 17000, .D = true});
    compare<TestType>({.batch = 0, .dim = 1, .length = 40000, .width = 40000});
}

TEST_CASE("cuda::fft_conv_backward: a gradient alone is the same as among all")
{
    for (const index length : {200, 4000, 40000}) {
        const long_problem<float> p({.channels = 2, .length = length, .width = 30000, .reverse_width = 90, .D = true, .input_gate = true,
                                     .output_gate = true});
        run_on_device(p.backward_args());
        const auto alone = [&](const auto& expected, auto member) {
            std::remove_cvref_t<decltype(expected)> other(expected.view().extents());
            auto all = p.backward_args();
            fft_conv_backward_args<float> a{.forward = all.forward, .dy = all.dy};
            a.*member = other.view();
            run_on_device(a);
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

TEST_CASE("cuda::fft_conv_backward: names a workspace that is too small, and what does not fit")
{
    const device_operation& op = device_operations().at(typeid(fft_conv_backward_args<float>));
    for (const index length : {100, 40000}) {
        const long_problem<float> p({.length = length, .width = length});
        auto a = p.backward_args();
        std::vector<std::byte> few(op.workspace_size(&a) - 1);
        CHECK_THROWS_AS(op.run(&a, few, nullptr), shape_error);
        CHECK_THROWS_AS(op.run(&a, {}, nullptr), shape_error);
        a.dy = a.dy.slice(2, 0, 1);
        CHECK_THROWS_AS(op.run(&a, few, nullptr), shape_error);
    }
}

}  // namespace ssmkit::testing
