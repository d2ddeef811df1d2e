#include <cmath>
#include <iterator>
#include <limits>

#include "../catch.hpp"
#include "../causal_conv1d_problem.hpp"
#include "../operations/operations.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const conv_setup& s)
{
    compare_conv<T>(s, [](const auto& a) { run_on_device(a); });
}

TEMPLATE_TEST_CASE("cuda::causal_conv1d: agrees with the reference, whatever is switched on", "", float, bfloat16, float16)
{
    for (unsigned options = 0; options < 1u << conv_setup::options; ++options) {
        for (const layout form : all_layouts) {
            for (const index width : {1, 2, 3, 4, 7}) {
                compare<TestType>(conv_setup{.length = 64, .dim = 24, .width = width, .inputs = form, .outputs = form}.with_options(options));
            }
        }
    }
}

TEMPLATE_TEST_CASE("cuda::causal_conv1d: every length and number of channels", "", float, bfloat16)
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const index n : {0, 1, 3, 7, 8, 9, 16, 33, 64, 65, 136, 2047, 2048, 2056}) {
            for (const bool dim : {false, true}) {
                conv_setup s{.bias = true, .silu = true, .initial_states = true, .inputs = form, .outputs = form};
                s.length = dim ? 16 : n;
                s.dim = dim ? n : 16;
                compare<TestType>(s);
            }
        }
    }
}

TEMPLATE_TEST_CASE("cuda::causal_conv1d: silu of any number, infinities and NaN among them", "", float, bfloat16)
{
    const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
    const double special[] = {infinity, -infinity, nan, 1e37, -1e37, 0, -0.0, -87, -88.5, -89, -104};
    for (const layout form : {layout::row_major, layout::time_contiguous, layout::strided}) {
        conv_problem<TestType> p({.batch = 1, .length = 400, .dim = 8, .width = 1, .silu = true, .inputs = form, .outputs = form});
        p.weight.fill([](auto...) { return 1.0f; });
        p.x.fill([&](index, index t, index) {
            return convert<TestType>(t < index{std::size(special)} ? special[t] : (static_cast<double>(t) - 200) * 0.7);
        });
        const conv_problem<double> expected = p.wide();
        run_on_device(p.args());
        reference::causal_conv1d(expected.args());
        const double bound = 1e-5 + (sizeof(TestType) == 2 ? rounding<TestType> : 0);  // an exponent of 100 is rounded to 4e-6
        for_each_index(p.y.view(), [&](auto... i) {
            const double y = convert<double>(p.y(i...)), sought = expected.y(i...);
            CAPTURE(y, sought);
            REQUIRE(is_nan(y) == is_nan(sought));
            if (!is_nan(y) && y != sought) REQUIRE(std::abs(y - sought) <= bound * std::abs(sought) + 1e-35);
        });
    }
}

}  // namespace
}  // namespace ssmkit::testing
