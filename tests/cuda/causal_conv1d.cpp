#include <ssmkit/reference/causal_conv1d.hpp>

#include "../catch.hpp"
#include "../causal_conv1d_problem.hpp"
#include "../operations/operations.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const conv_setup& s)
{
    INFO(s.text());
    const conv_problem<T> p(s);
    const conv_problem<double> expected = p.wide();
    const auto before = p.input_bytes();
    run_on_device(p.args());
    reference::causal_conv1d(expected.args());
    CHECK(relative_error(p.y, expected.y) <= 2e-6 + (sizeof(T) == 2 ? rounding<T> : 0));
    CHECK(relative_error(p.final_states, expected.final_states) == 0);
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
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

}  // namespace
}  // namespace ssmkit::testing
