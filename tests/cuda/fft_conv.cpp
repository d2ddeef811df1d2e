#include <ssmkit/fft_conv.hpp>

#include <ssmkit/reference/fft_conv.hpp>

#include "../catch.hpp"
#include "../fft_conv_problem.hpp"
#include "../operations/operations.hpp"

namespace ssmkit::testing {
namespace {

/// What the header of the CPU's kernel promises, and one rounding to T.
template <class T>
constexpr double budget = 2e-6 + (sizeof(T) == 2 ? rounding<T> : 0);

/// Against plain sums, or, where they would take minutes, against the CPU's transforms in 64 bits.
template <class T>
void compare(const long_setup& s)
{
    INFO(s.text());
    const long_problem<T> p(s), again(s);
    const auto expected = p.wide();
    run_on_device(p.args());
    run_on_device(again.args());
    if (s.length * s.width > 100000000) {
        fft_conv(expected.args());
    } else {
        reference::fft_conv(expected.args());
    }
    CHECK(relative_error(p.y, expected.y) <= budget<T>);
    CHECK(same_bits(p.y, again.y));
    CHECK(p.y.gaps_untouched());
}

}  // namespace

TEMPLATE_TEST_CASE("cuda::fft_conv: agrees with the reference, whatever is switched on, in any layout", "", float, bfloat16,
                   float16)
{
    for (unsigned options = 0; options < 1u << long_setup::options; ++options) {
        for (const layout form : all_layouts) {
            compare<TestType>(long_setup{.channels = 1 + index(options % 3 == 0), .dim = 5, .length = 121, .width = 133, .inputs = form,
                                         .outputs = all_layouts[(options + 1) % 6]}
                                  .with_options(options));
        }
    }
}

TEST_CASE("cuda::fft_conv: any length and any width")
{
    for (const index length : {0, 1, 2, 3, 31, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1025}) {
        for (const index width : {0, 1, 2, 33, 128, 256, 300, 1024}) {
            compare<float>({.batch = 1, .dim = 2, .length = length, .width = width, .D = true});
            compare<float>({.batch = 2, .dim = 1, .length = length, .width = width / 2, .reverse_width = width,
                            .includes_current = length % 2 == 0});
        }
    }
    compare<float>({.batch = 0});
    compare<float>({.channels = 0});
    compare<float>({.dim = 0});
    compare<float>({.batch = 17, .dim = 67, .length = 90, .width = 90});
}

TEST_CASE("cuda::fft_conv: lengths of every kind of transform, and rows in pieces")
{
    for (const index length : {2047, 2048, 2049, 4095, 4097, 8191, 8193, 16383, 16384, 16385, 20000}) {
        compare<float>({.batch = 1, .dim = 1, .length = length, .width = length, .seed = 7});
        compare<float>({.batch = 3, .dim = 2, .length = length, .width = 90, .reverse_width = 41, .D = true, .seed = 9});
        compare<bfloat16>({.batch = 1, .channels = 2, .dim = 1, .length = length, .width = 300, .reverse_width = 101,
                           .includes_current = true, .input_gate = true, .output_gate = true, .seed = 8});
    }
    compare<float>({.batch = 2, .dim = 1, .length = 100000, .width = 1000, .reverse_width = 3000});
    compare<float>({.batch = 1, .dim = 1, .length = 70000, .width = 10000, .reverse_width = 6000});
}

TEMPLATE_TEST_CASE("cuda::fft_conv: transforms that no block holds", "", float, bfloat16)
{
    for (const layout form : {layout::row_major, layout::time_contiguous, layout::column_major}) {
        compare<TestType>({.batch = 3, .channels = 2, .dim = 2, .length = 40001, .width = 39000, .reverse_width = 35000,
                           .includes_current = form == layout::row_major, .D = true, .input_gate = true, .output_gate = true,
                           .inputs = form, .outputs = form});
    }
    compare<TestType>({.batch = 2, .dim = 1, .length = 65536, .width = 65536});   // 256 rows of 256
    compare<TestType>({.batch = 1, .dim = 3, .length = 200000, .width = 70000});  // of 1024
    compare<TestType>({.batch = 1, .dim = 1, .length = 300000, .width = 300000}); // of 2048
    compare<TestType>({.batch = 1, .dim = 1, .length = 20000, .width = 300000, .reverse_width = 17000});
}

TEST_CASE("cuda::fft_conv: an impulse gives the kernel of a million taps, and of ten million")
{
    for (const index length : {1000000, 1500000, 3000000, 10000000}) {  // 256 rows of 4096, 8192, 16384; 4096 rows of 4096
        long_problem<float> p({.batch = 2, .dim = 1, .length = length, .width = length});
        p.u.fill([&](index b, index, index t) { return float(t == (b == 0 ? 17 : length - 12345)); });
        run_on_device(p.args());
        double worst = 0;
        for (index b = 0; b < 2; ++b) {
            const index at = b == 0 ? 17 : length - 12345;
            for (index t = 0; t < length; ++t) {
                const double expected = t >= at ? p.k(0, 0, t - at) : 0;
                worst = std::max(worst, std::abs(p.y(b, 0, 0, t) - expected));
            }
        }
        INFO(length);
        CHECK(worst <= budget<float>);
    }
}

TEST_CASE("cuda::fft_conv: a NaN stays in its row")
{
    for (const index length : {200, 3000, 40000}) {
        for (const index width : {20, 200, 39000}) {
            long_problem<float> p({.batch = 2, .dim = 6, .length = length, .width = width});
            run_on_device(p.args());
            const auto clean = p.y.as<float>();
            p.u(1, 5, 90) = quiet_nan<float>();
            run_on_device(p.args());
            index wrong = 0;
            for_each_index(p.y.view(), [&](index b, index c, index h, index t) {
                if (b == 1 && h == 5) {
                    wrong += t >= 90 && t < 90 + width && !std::isnan(p.y(b, c, h, t));
                } else {
                    wrong += p.y(b, c, h, t) != clean(b, c, h, t);
                }
            });
            INFO(length << " " << width);
            CHECK(wrong == 0);
        }
    }
}

TEST_CASE("cuda::fft_conv: names a workspace that is too small, and what does not fit")
{
    const device_operation& op = device_operations().at(typeid(fft_conv_args<float>));
    for (const index length : {100, 40000}) {
        const long_problem<float> p({.length = length, .width = length});
        auto a = p.args();
        std::vector<std::byte> few(op.workspace_size(&a) - 1);
        CHECK_THROWS_AS(op.run(&a, few, nullptr), shape_error);
        CHECK_THROWS_AS(op.run(&a, {}, nullptr), shape_error);
        a.k = a.k.slice(1, 0, 2);
        CHECK_THROWS_AS(op.run(&a, few, nullptr), shape_error);
    }
}

}  // namespace ssmkit::testing
