#include <ssmkit/causal_conv1d.hpp>

#include <limits>
#include <string>

#include "allocation_count.hpp"
#include "causal_conv1d_problem.hpp"
#include "catch.hpp"
#include "sparse_memory.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const conv_setup& s)
{
    compare_conv<T>(s, [](const auto& a) { causal_conv1d(a); });
}

}  // namespace

TEMPLATE_TEST_CASE("causal_conv1d: agrees with the reference, whatever is switched on", "", float, double, bfloat16, float16)
{
    for (unsigned options = 0; options < 1u << conv_setup::options; ++options) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            compare<TestType>(conv_setup{.length = 53, .dim = 21, .inputs = form, .outputs = form}.with_options(options));
        }
    }
}

TEMPLATE_TEST_CASE("causal_conv1d: every length and every number of channels", "", float, bfloat16)
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const index n : conv_sizes) {
            for (const index width : {1, 2, 3, 4, 7}) {
                conv_setup s{.width = width, .bias = true, .silu = true, .initial_states = true, .inputs = form, .outputs = form};
                s.dim = n;
                compare<TestType>(s);
                s.dim = 3;
                s.length = n;
                compare<TestType>(s);
            }
        }
    }
}

TEMPLATE_TEST_CASE("causal_conv1d: any width, also beyond the length", "", float, double)
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const index width : {1, 2, 3, 4, 5, 8, 16, 17, 33, 100}) {
            for (const bool packed : {false, true}) {
                compare<TestType>({.length = 70, .width = width, .bias = true, .initial_states = true, .packed = packed,
                                   .inputs = form, .outputs = form});
            }
        }
    }
}

TEMPLATE_TEST_CASE("causal_conv1d: reads and writes any layout", "", float, bfloat16)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            for (const bool reverse : {false, true}) {
                compare<TestType>({.length = 37, .dim = 19, .bias = true, .silu = true, .initial_states = true,
                                   .reverse = reverse, .inputs = inputs, .outputs = outputs});
            }
        }
    }
}

TEMPLATE_TEST_CASE("causal_conv1d: outputs too large for the caches", "", float, double)
{
    const index length = (index{4} << 20) / (513 * static_cast<index>(sizeof(TestType))) + 20;
    for (const layout form : {layout::row_major, layout::time_contiguous, layout::unaligned}) {
        for (const index dim : {513, 528}) {  // rows of which all or none start at a register's boundary
            for (const bool reverse : {false, true}) {
                compare<TestType>({.batch = 1, .length = length, .dim = dim, .bias = true, .silu = true, .packed = reverse,
                                   .reverse = reverse, .inputs = form, .outputs = form});
            }
        }
    }
}

TEMPLATE_TEST_CASE("causal_conv1d: cutting the sequence and carrying the state changes no bit", "", float, double, bfloat16)
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const bool packed : {false, true}) {
            conv_problem<TestType> p({.length = 40, .dim = 9, .bias = true, .silu = true, .initial_states = true,
                                      .packed = packed, .inputs = form, .outputs = form});
            // Sequences in one piece: of one that others interrupt, the state holds the last piece only.
            if (packed) p.seq_idx.fill([](index b, index t) { return t < 17 ? 4 : t < 19 + b ? -1 : t < 30 ? 2 : 9; });
            causal_conv1d(p.args());
            for (index cut = 0; cut <= p.s.length; ++cut) {
                // Where one sequence ends and another begins, no state is carried, and padding has none to carry.
                if (packed && cut > 0 && cut < p.s.length) {
                    bool inside = true;
                    for (index b = 0; b < p.s.batch; ++b) {
                        inside &= p.seq_idx(b, cut - 1) == p.seq_idx(b, cut) && p.seq_idx(b, cut) >= 0;
                    }
                    if (!inside) continue;
                }
                if (packed && (cut == 0 || cut == p.s.length)) continue;
                INFO("cut at " << cut);
                tensor<TestType, 3> y(p.y.view().extents(), form);
                tensor<TestType, 3> middle(p.final_states.view().extents()), last(p.final_states.view().extents());
                auto first = p.args();
                first.x = first.x.slice(1, 0, cut);
                first.y = y.view().slice(1, 0, cut);
                first.final_states = middle;
                auto second = p.args();
                second.x = second.x.slice(1, cut, p.s.length - cut);
                second.y = y.view().slice(1, cut, p.s.length - cut);
                second.initial_states = middle;
                second.final_states = last;
                if (packed) {
                    first.seq_idx = first.seq_idx.slice(1, 0, cut);
                    second.seq_idx = second.seq_idx.slice(1, cut, p.s.length - cut);
                }
                causal_conv1d(first);
                causal_conv1d(second);
                CHECK(same_bits(y, p.y));
                if (!packed) CHECK(same_bits(last, p.final_states));
            }
        }
    }
}

TEMPLATE_TEST_CASE("causal_conv1d: packed sequences do not see each other", "", float, bfloat16)
{
    using T = TestType;
    // Lengths around a register's, empty and of one token; between them padding that is NaN or huge.
    const index lengths[] = {1, 15, 0, 16, 17, 1, 2, 3, 31, 33, 64, 65};
    const T poison[] = {quiet_nan<T>(), convert<T>(1e30), convert<T>(-std::numeric_limits<double>::infinity())};
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const index gap : {0, 1, 5}) {
            for (const index width : {2, 4, 6}) {
                index total = gap;
                for (const index n : lengths) total += n + gap;
                conv_problem<T> p({.length = total, .dim = 18, .width = width, .bias = true, .silu = true, .inputs = form,
                                   .outputs = form});
                p.seq_idx = tensor<std::int32_t, 2>({p.s.batch, total});
                p.seq_idx.fill([](index, index) { return -7; });
                index start = gap;
                std::int32_t id = 12;
                for (const index n : lengths) {
                    for (index b = 0; b < p.s.batch; ++b) {
                        for (index t = start; t < start + n; ++t) p.seq_idx(b, t) = id;
                    }
                    id -= 1;
                    start += n + gap;
                }
                p.x.fill([&](index b, index t, index c) { return p.seq_idx(b, t) < 0 ? poison[(t + c) % 3] : p.x(b, t, c); });
                causal_conv1d(p.args());
                for_each_index(p.y.view(), [&](index b, index t, index c) {
                    if (p.seq_idx(b, t) < 0) REQUIRE(convert<double>(p.y(b, t, c)) == 0);
                });
                start = gap;
                for (const index n : lengths) {
                    INFO("length " << n << " gap " << gap << " width " << width);
                    tensor<T, 3> y({p.s.batch, n, p.s.dim}, form), states(p.final_states.view().extents());
                    auto alone = p.args();
                    alone.seq_idx = {};
                    alone.x = alone.x.slice(1, start, n);
                    alone.y = y;
                    alone.final_states = states;
                    causal_conv1d(alone);
                    CHECK(same_bits(y.view(), p.y.view().slice(1, start, n)));
                    start += n + gap;
                    if (start == total) CHECK(same_bits(states, p.final_states));  // also behind padding
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("causal_conv1d: a row of padding passes the state on", "", float)
{
    conv_problem<TestType> p({.length = 5, .initial_states = true, .packed = true});
    p.seq_idx.fill([](index, index) { return -1; });
    causal_conv1d(p.args());
    CHECK(same_bits(p.final_states, p.initial_states));
}

TEMPLATE_TEST_CASE("causal_conv1d: reverse is flip, convolve, flip", "", float, bfloat16)
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        conv_problem<TestType> p({.length = 45, .dim = 17, .bias = true, .silu = true, .initial_states = true, .packed = true,
                                  .reverse = true, .inputs = form, .outputs = form});
        causal_conv1d(p.args());
        tensor<TestType, 3> x(p.x.view().extents()), y(p.y.view().extents()), states(p.final_states.view().extents());
        tensor<std::int32_t, 2> seq_idx(p.seq_idx.view().extents());
        x.fill([&](index b, index t, index c) { return p.x(b, p.s.length - 1 - t, c); });
        seq_idx.fill([&](index b, index t) { return p.seq_idx(b, p.s.length - 1 - t); });
        auto flipped = p.args();
        flipped.reverse = false;
        flipped.x = x;
        flipped.seq_idx = seq_idx;
        flipped.y = y;
        flipped.final_states = states;
        causal_conv1d(flipped);
        CHECK(same_bits(y.view().reversed(1), p.y.view()));
        CHECK(same_bits(states, p.final_states));
    }
}

TEMPLATE_TEST_CASE("causal_conv1d: a NaN reaches exactly the outputs that depend on it", "", float, double, bfloat16)
{
    random numbers(3);
    for (unsigned options = 0; options < 1u << conv_setup::options; ++options) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            conv_problem<TestType> p(
                conv_setup{.length = 38, .dim = 18, .inputs = form, .outputs = form}.with_options(options));
            INFO(p.s.text());
            const index b = numbers.below(2), t = numbers.below(38), c = numbers.below(18);
            switch (numbers.below(4)) {
            case 0: p.weight(c, numbers.below(4)) = quiet_nan<compute_t<TestType>>(); break;
            case 1:
                if (p.bias.given()) p.bias(c) = quiet_nan<compute_t<TestType>>();
                break;
            case 2:
                if (p.initial_states.given()) p.initial_states(b, c, numbers.below(3)) = quiet_nan<TestType>();
                break;
            default: p.x(b, t, c) = quiet_nan<TestType>();
            }
            const conv_problem<double> expected = p.wide();
            causal_conv1d(p.args());
            reference::causal_conv1d(expected.args());
            CHECK(same_nans(p.y, expected.y));
            CHECK(same_nans(p.final_states, expected.final_states));
        }
    }
}

TEMPLATE_TEST_CASE("causal_conv1d: silu of any number", "", float, double)
{
    const double big = std::is_same_v<TestType, float> ? 1e37 : 1e300;
    conv_problem<TestType> p({.batch = 1, .length = 400, .dim = 1, .width = 1, .silu = true});
    p.weight(0, 0) = 1;
    p.x.fill([&](index, index t, index) { return static_cast<TestType>(t == 0 ? big : t == 1 ? -big : (double(t) - 200) * 0.7); });
    const conv_problem<double> expected = p.wide();
    causal_conv1d(p.args());
    reference::causal_conv1d(expected.args());
    const double eps = std::is_same_v<TestType, float> ? 1e-6 : 1e-14;
    for_each_index(p.y.view(), [&](auto... i) {
        CHECK(std::abs(double(p.y(i...)) - expected.y(i...)) <= eps * std::abs(expected.y(i...)) + eps * 0.1);
    });
}

TEMPLATE_TEST_CASE("causal_conv1d: threads change no bit", "", float, bfloat16)
{
    threads pool(3);
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const index width : {4, 6}) {
            const conv_setup s{.length = 700, .dim = 1100, .width = width, .bias = true, .silu = true, .packed = true,
                               .inputs = form, .outputs = form};
            const conv_problem<TestType> one(s);
            causal_conv1d(one.args());
            conv_problem<TestType> several(s);
            causal_conv1d(several.args(), pool);
            CHECK(same_bits(one.y, several.y));
            several.make_outputs();
            causal_conv1d(several.args(), last_task_first{});
            CHECK(same_bits(one.y, several.y));
            CHECK(same_bits(one.final_states, several.final_states));
        }
    }
}

TEST_CASE("causal_conv1d: allocates nothing")
{
    const conv_problem<float> p({.bias = true, .silu = true, .initial_states = true, .packed = true});
    CHECK(allocations_during([&] { causal_conv1d(p.args()); }) == 0);
}

TEMPLATE_TEST_CASE("causal_conv1d: touches nothing outside its arguments", "", float, bfloat16)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            for (const index n : {1, 3, 16, 17, 63, 64, 65, 127, 128, 129, 256, 257}) {
                for (const bool packed : {false, true}) {
                    conv_setup s{.dim = n, .initial_states = true, .packed = packed, .inputs = form, .outputs = form, .edge = edge};
                    compare<TestType>(s);
                    s.dim = 5;
                    s.length = n;
                    compare<TestType>(s);
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("causal_conv1d: offsets beyond 2^31 and 2^32 elements", "", float, bfloat16)
{
    const conv_problem<TestType> p({.length = 5, .dim = 3, .bias = true, .silu = true, .initial_states = true});
    causal_conv1d(p.args());
    for (const index stride : {(index{1} << 31) + 5, (index{1} << 32) + 7}) {
        for (std::size_t axis = 0; axis < 3; ++axis) {
            sparse_memory memory;
            try {
                auto far = p.args();
                far.x = memory.spread(far.x, axis, stride);
                far.y = memory.spread(far.y, axis, stride);
                causal_conv1d(far);
                CHECK(same_bits(far.y, p.y.view()));
            } catch (const sparse_memory::refused&) {
                WARN("no address space for stride " << stride);
            }
        }
    }
}

TEST_CASE("causal_conv1d: names the argument that does not fit")
{
    const conv_problem<float> p({.bias = true, .initial_states = true, .packed = true});
    const auto complaint = [](const causal_conv1d_args<float>& a) -> std::string {
        try {
            causal_conv1d(a);
        } catch (const shape_error& e) {
            return e.what();
        }
        return "";
    };
    const auto named = [&](const char* name, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        const std::string text = complaint(a);
        INFO(text);
        CHECK(text.find(std::string("causal_conv1d: ") + name) == 0);
    };
    CHECK(complaint(p.args()).empty());
    named("weight", [](auto& a) { a.weight = a.weight.slice(0, 0, 3); });
    named("weight", [](auto& a) { a.weight = a.weight.slice(1, 0, 0); });
    named("bias", [](auto& a) { a.bias = a.bias.slice(0, 0, 2); });
    named("initial_states", [](auto& a) { a.initial_states = a.initial_states.slice(2, 0, 1); });
    named("seq_idx", [](auto& a) { a.seq_idx = a.seq_idx.slice(1, 0, 1); });
    named("y", [](auto& a) { a.y = a.y.slice(1, 0, 1); });
    named("y", [&](auto& a) { a.y = {const_cast<float*>(a.x.data()), a.x.extents(), a.x.strides()}; });
    named("final_states", [](auto& a) { a.final_states = a.final_states.slice(2, 0, 1); });
}

TEMPLATE_TEST_CASE("causal_conv1d: silu of every finite sum is finite, and zero far below", "", float, double)
{
    constexpr TestType most = std::numeric_limits<TestType>::max();
    const std::vector<TestType> x{most, most * TestType(0.7), TestType(1e30), TestType(-100), TestType(-1e30), -most};
    const std::vector<TestType> weight{1};
    std::vector<TestType> y(x.size());
    const auto length = static_cast<index>(x.size());
    causal_conv1d(causal_conv1d_args<TestType>{
        .x = {x.data(), 1, length, 1}, .weight = {weight.data(), 1, 1}, .silu = true, .y = {y.data(), 1, length, 1}});
    for (std::size_t i = 0; i < 3; ++i) CHECK(y[i] == x[i]);
    for (std::size_t i = 3; i < x.size(); ++i) CHECK(std::abs(y[i]) <= TestType(1e-35));
}

}  // namespace ssmkit::testing
