#include <ssmkit/sgconv_kernel.hpp>

#include <cmath>
#include <string>

#include <ssmkit/reference/sgconv_kernel.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "random_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = std::is_same_v<T, double> ? 1e-14 : 2e-6;

struct sg_setup {
    index scales = 3, channels = 2, dim = 3, taps = 4, length = 30, init_scale = 0;
    bool sum = false, nearest = false, multiplier = false, decay = false, norm = false;

    sg_setup with_options(unsigned bits) const
    {
        sg_setup s = *this;
        s.sum = bits & 1u;
        s.nearest = bits & 2u;
        s.multiplier = bits & 4u;
        s.decay = bits & 8u;
        s.norm = bits & 16u;
        s.init_scale = bits & 32u ? 2 : 0;
        return s;
    }
};

template <class T>
struct sg_problem {
    sg_setup s;
    tensor<T, 4> w, dw;
    tensor<T, 1> multiplier, decay, ddecay;
    tensor<T, 2> norm, new_norm;
    tensor<T, 3> K, dK;

    explicit sg_problem(const sg_setup& setup, layout form = layout::row_major) : s(setup)
    {
        random numbers(static_cast<std::uint64_t>(s.length * 100 + s.taps));
        w = {{s.scales, s.channels, s.dim, s.taps}, form};
        w.fill(numbers, {-1, 1});
        multiplier = {{s.dim}, form};
        multiplier.fill(numbers, {1, 3});
        decay = {{s.dim}, form};
        decay.fill(numbers, {0.5, 2});
        norm = {{s.channels, s.dim}, form};
        norm.fill(numbers, {1, 2});
        dK = {{s.channels, s.dim, s.length}, form};
        dK.fill(numbers, {-1, 1});
        outputs(form);
    }
    sg_problem(const sg_setup& setup, std::nullptr_t) : s(setup) {}

    void outputs(layout form)
    {
        K = {{s.channels, s.dim, s.length}, form};
        new_norm = {{s.channels, s.dim}, form};
        dw = {{s.scales, s.channels, s.dim, s.taps}, form};
        ddecay = {{s.dim}, form};
    }

    sg_problem<double> wide() const
    {
        sg_problem<double> p(s, nullptr);
        p.w = w.template as<double>();
        p.multiplier = multiplier.template as<double>();
        p.decay = decay.template as<double>();
        p.norm = norm.template as<double>();
        p.dK = dK.template as<double>();
        p.outputs(layout::row_major);
        return p;
    }

    sgconv_kernel_args<T> args() const
    {
        sgconv_kernel_args<T> a{.w = w.view(), .join = s.sum ? sgconv_join::sum : sgconv_join::concatenate, .nearest = s.nearest,
                                .init_scale = s.init_scale, .K = K.view(), .new_norm = new_norm.view()};
        if (s.multiplier) a.multiplier = multiplier.view();
        if (s.decay) a.decay = decay.view();
        if (s.norm) a.norm = norm.view();
        return a;
    }

    sgconv_kernel_backward_args<T> backward_args() const
    {
        sgconv_kernel_backward_args<T> a{.forward = args(), .dK = dK.view(), .dw = dw.view()};
        if (s.decay) a.ddecay = ddecay.view();
        a.forward.K = {};
        a.forward.new_norm = {};
        return a;
    }
};

template <class T>
void compare(const sg_setup& s, layout form = layout::row_major)
{
    INFO("scales " << s.scales << " taps " << s.taps << " length " << s.length << " init_scale " << s.init_scale << " sum " << s.sum
                   << " nearest " << s.nearest << " multiplier " << s.multiplier << " decay " << s.decay << " norm " << s.norm);
    const sg_problem<T> p(s, form);
    const auto expected = p.wide();
    sgconv_kernel(p.args());
    sgconv_kernel_backward(p.backward_args());
    reference::sgconv_kernel(expected.args());
    reference::sgconv_kernel_backward(expected.backward_args());
    CHECK(relative_error(p.K, expected.K) <= budget<T>);
    CHECK(relative_error(p.new_norm, expected.new_norm) <= budget<T>);
    CHECK(relative_error(p.dw, expected.dw) <= budget<T>);
    if (s.decay) CHECK(relative_error(p.ddecay, expected.ddecay) <= 4 * budget<T>);  // a sum that cancels
    CHECK(p.K.gaps_untouched());
    CHECK(p.dw.gaps_untouched());
}

}  // namespace

TEST_CASE("sgconv_kernel: interpolation by hand")
{
    const double w[] = {0, 4}, norm[] = {1};
    double K[4];
    sgconv_kernel_args<double> a{.w = {w, 1, 1, 1, 2}, .norm = {norm, 1, 1}, .init_scale = 1, .K = {K, 1, 1, 4}};
    const auto gives = [&](std::array<double, 4> expected) {
        sgconv_kernel(a);
        CHECK(std::equal(expected.begin(), expected.end(), K));
        reference::sgconv_kernel(a);
        CHECK(std::equal(expected.begin(), expected.end(), K));
    };
    gives({0, 1, 3, 4});
    a.nearest = true;
    gives({0, 0, 4, 4});
    a.join = sgconv_join::sum;
    const double multiplier[] = {9};  // of a single scale, to the power 0
    a.multiplier = {multiplier, 1};
    gives({0, 0, 4, 4});
}

TEMPLATE_TEST_CASE("sgconv_kernel: agrees with the reference, whatever is switched on", "", float, double)
{
    for (unsigned options = 0; options < 64; ++options) {
        for (const index length : {0, 1, 14, 16, 33, 200}) {
            compare<TestType>(sg_setup{.length = length}.with_options(options));
            compare<TestType>(sg_setup{.scales = 5, .channels = 1, .dim = 2, .taps = 9, .length = length}.with_options(options),
                              layout::strided);
            compare<TestType>(sg_setup{.scales = 1, .taps = 1, .length = length}.with_options(options), layout::column_major);
        }
    }
    compare<TestType>({.dim = 0});
    compare<TestType>({.channels = 0});
    compare<TestType>({.scales = 0, .norm = true});
    compare<TestType>({.scales = 9, .taps = 64, .length = 16000, .multiplier = true, .decay = true});
}

TEST_CASE("sgconv_kernel: the reference's gradients are derivatives")
{
    for (unsigned options = 16; options < 64; ++options) {
        const sg_problem<double> p(sg_setup{.length = 25}.with_options(options | 16u));  // the norm kept
        reference::sgconv_kernel_backward(p.backward_args());
        const auto loss = [&] {
            reference::sgconv_kernel(p.args());
            double sum = 0;
            for_each_index(p.K.view(), [&](auto... i) { sum += p.K(i...) * p.dK(i...); });
            return sum;
        };
        const auto check = [&](const auto& x, const auto& gradient) {
            for_each_index(x.view(), [&](auto... i) {
                const double at = x(i...), step = 1e-4;
                x(i...) = at + step;
                const double above = loss();
                x(i...) = at - step;
                const double below = loss();
                x(i...) = at;
                CHECK(std::abs((above - below) / (2 * step) - gradient(i...)) <= 1e-6 * (1 + std::abs(gradient(i...))));
            });
        };
        check(p.w, p.dw);
        if (p.s.decay) check(p.decay, p.ddecay);
    }
}

TEST_CASE("sgconv_kernel: a norm that was kept gives the kernel again")
{
    const sg_problem<float> p({.decay = true}), again({.decay = true});
    sgconv_kernel(p.args());
    auto a = again.args();
    a.norm = p.new_norm.view();
    sgconv_kernel(a);
    CHECK(same_bits(p.K, again.K));
    CHECK(same_bits(p.new_norm, again.new_norm));
}

TEST_CASE("sgconv_kernel: threads and workspace change no bit; nothing is allocated with one")
{
    threads pool(3);
    const sg_setup s{.dim = 9, .length = 100, .multiplier = true, .decay = true};
    const sg_problem<float> one(s), other(s);
    sgconv_kernel(one.args());
    sgconv_kernel_backward(one.backward_args());
    sgconv_kernel(other.args(), {}, pool);
    sgconv_kernel_backward(other.backward_args(), {}, pool);
    const auto same = [&] {
        return same_bits(one.K, other.K) && same_bits(one.dw, other.dw) && same_bits(one.ddecay, other.ddecay);
    };
    CHECK(same());
    for (const unsigned char garbage : {0xff, 0x7f}) {
        std::vector<std::byte> memory(std::max(sgconv_kernel_workspace_size(other.args()),
                                               sgconv_kernel_backward_workspace_size(other.backward_args())), std::byte{garbage});
        CHECK(allocations_during([&] {
            sgconv_kernel(other.args(), memory);
            sgconv_kernel_backward(other.backward_args(), memory);
        }) == 0);
        CHECK(same());
    }
}

TEST_CASE("sgconv_kernel: names the argument that does not fit")
{
    const sg_problem<float> p({.multiplier = true, .decay = true, .norm = true});
    const auto complaint = [](auto&& call) -> std::string {
        try {
            call();
        } catch (const shape_error& e) {
            return e.what();
        }
        return "";
    };
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        CHECK(complaint([&] { sgconv_kernel(a); }).find(std::string("sgconv_kernel: ") + text) == 0);
    };
    named("w has no taps", [](auto& a) { a.w = a.w.slice(3, 0, 0); });
    named("multiplier has shape", [](auto& a) { a.multiplier = a.multiplier.slice(0, 0, 1); });
    named("decay has shape", [](auto& a) { a.decay = a.decay.slice(0, 0, 1); });
    named("norm has shape", [](auto& a) { a.norm = a.norm.slice(0, 0, 1); });
    named("init_scale", [](auto& a) { a.init_scale = -1; });
    named("K has shape", [](auto& a) { a.K = a.K.slice(0, 0, 1); });
    named("K overlaps w", [](auto& a) { a.K = {const_cast<float*>(a.w.data()), 2, 3, 4}; });
    auto b = p.backward_args();
    b.forward.decay = {};
    CHECK(complaint([&] { sgconv_kernel_backward(b); }).find("sgconv_kernel_backward: ddecay") == 0);
}

TEST_CASE("sgconv_kernel: a NaN reaches exactly what depends on it")
{
    for (unsigned options = 0; options < 64; ++options) {
        for (index what = 0; what < 5; ++what) {
            for (const index length : {9, 30, 70}) {  // cropped and filled
                const sg_setup s = sg_setup{.length = length}.with_options(options);
                const sg_problem<float> p(s);
                if (what == 0) p.w(1, 0, 2, 1) = quiet_nan<float>();
                if (what == 1) p.dK(1, 2, options % 2 == 0 ? 0 : length - 1) = quiet_nan<float>();
                if (what == 2) p.multiplier(1) = quiet_nan<float>();
                if (what == 3) p.decay(1) = quiet_nan<float>();
                if (what == 4) p.norm(1, 1) = quiet_nan<float>();
                const auto expected = p.wide();
                sgconv_kernel(p.args());
                sgconv_kernel_backward(p.backward_args());
                reference::sgconv_kernel(expected.args());
                reference::sgconv_kernel_backward(expected.backward_args());
                INFO("options " << options << " what " << what << " length " << length);
                CHECK(same_nans(p.K, expected.K));
                CHECK(same_nans(p.new_norm, expected.new_norm));
                CHECK(same_nans(p.dw, expected.dw));
                if (s.decay) CHECK(same_nans(p.ddecay, expected.ddecay));
            }
        }
    }
}

}  // namespace ssmkit::testing
