#include <ssmkit/dss_kernel.hpp>

#include <ssmkit/dss_kernel_backward.hpp>
#include <ssmkit/reference/dss_kernel.hpp>
#include <ssmkit/reference/s4d_kernel.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "diagonal_problem.hpp"

namespace ssmkit::testing {
namespace {

struct dss_options {
    dss_scaling scaling = dss_scaling::softmax;
    bool one_step = false, growing = false;
    double epsilon = 1e-7;
};

template <class T>
struct dss_problem {
    using E = std::complex<T>;

    diagonal_setup s;
    dss_options o;
    tensor<double, 2> delta, ddelta;  // (dim, 1) if there is one step
    tensor<complex_double, 1> A, dA;
    tensor<E, 3> W, dW;
    tensor<T, 3> K, dK;

    explicit dss_problem(const diagonal_setup& setup, const dss_options& options = {}) : s(setup), o(options)
    {
        random numbers(s.seed);
        delta = s.input<double, 2>(numbers, {s.dim, o.one_step ? 1 : 2}, {0.02, 0.2});
        A = s.input<complex_double, 1>(numbers, {s.state}, {-1, o.growing ? 1.0 : -0.1, -6, 6});
        W = s.input<E, 3>(numbers, {s.channels, s.dim, s.state}, {0.2, 1, -1, 1});
        dK = s.input<T, 3>(numbers, {s.channels, s.dim, s.length}, {-1, 1});
        make_outputs();
    }

    dss_problem(const diagonal_setup& setup, const dss_options& options, std::nullptr_t) : s(setup), o(options) {}

    void make_outputs()
    {
        K = s.output<T, 3>({s.channels, s.dim, s.length});
        ddelta = s.output<double, 2>(delta.view().extents());
        dA = s.output<complex_double, 1>({s.state});
        dW = s.output<E, 3>({s.channels, s.dim, s.state});
    }

    dss_problem<double> wide() const
    {
        diagonal_setup plain = s;
        plain.inputs = plain.outputs = layout::row_major;
        plain.edge = guard::none;
        dss_problem<double> p(plain, o, nullptr);
        p.delta = delta.template as<double>();
        p.A = A.template as<complex_double>();
        p.W = W.template as<complex_double>();
        p.dK = dK.template as<double>();
        p.make_outputs();
        return p;
    }

    template <class D>
    view<D, 2> pairs(const view<D, 2>& v) const
    {
        return o.one_step ? view<D, 2>(v.data(), {s.dim, 2}, {v.stride(0), 0}) : v;
    }

    dss_kernel_args<T> args() const
    {
        return {.delta = pairs(view<const double, 2>(delta)), .A = A, .W = W, .scaling = o.scaling, .epsilon = o.epsilon, .K = K};
    }
    dss_kernel_backward_args<T> backward_args() const
    {
        dss_kernel_backward_args<T> a{.forward = args(), .dK = dK, .ddelta = pairs(ddelta.view()), .dA = dA, .dW = dW};
        a.forward.K = {};
        return a;
    }
    void run() const
    {
        dss_kernel(args());
        dss_kernel_backward(backward_args());
    }
    void run_reference() const
    {
        reference::dss_kernel(args());
        reference::dss_kernel_backward(backward_args());
    }
    bool gaps_untouched() const
    {
        return K.gaps_untouched() && ddelta.gaps_untouched() && dA.gaps_untouched() && dW.gaps_untouched();
    }
};

template <class T>
void compare(const diagonal_setup& s, const dss_options& o = {})
{
    INFO(s.text() << " scaling " << static_cast<int>(o.scaling) << " growing " << o.growing << " one step " << o.one_step);
    const dss_problem<T> p(s, o);
    const auto expected = p.wide();
    p.run();
    expected.run_reference();
    CHECK(relative_error(p.K, expected.K) <= 2 * kernel_budget<T>);
    const double budget = 4 * gradient_budget<T>;
    CHECK(relative_error(p.ddelta, expected.ddelta) <= budget);
    CHECK(relative_error(p.dA, expected.dA) <= budget);
    CHECK(relative_error(p.dW, expected.dW) <= budget);
    CHECK(p.gaps_untouched());
}

std::vector<dss_options> all_options()
{
    std::vector<dss_options> all;
    for (const auto scaling : {dss_scaling::softmax, dss_scaling::exponential, dss_scaling::none}) {
        for (unsigned bits = 0; bits < 8; ++bits) {
            // A large ε: some of the poles are smaller.
            all.push_back({scaling, (bits & 1u) != 0, (bits & 2u) != 0, bits & 4u ? 9.0 : 1e-7});
        }
    }
    return all;
}

}  // namespace

TEST_CASE("dss_kernel: a pole by hand")
{
    // z = -ln 2, A = -1: softmax over 2 taps (1, 1/2) / (1.5 A); where it grows, the same from the other end.
    const double delta[] = {std::log(2.0), 0};
    complex_double A(-1);
    const complex_double W(3);
    double K[2];
    dss_kernel_args<double> a{.delta = {delta, 1, 2}, .A = {&A, 1}, .W = {&W, 1, 1, 1}, .epsilon = 0, .K = {K, 1, 1, 2}};
    const auto gives = [&](double first, double second) {
        for (const bool plain : {false, true}) {
            plain ? reference::dss_kernel(a) : dss_kernel(a);
            CHECK(std::abs(K[0] - first) < 1e-12);
            CHECK(std::abs(K[1] - second) < 1e-12);
        }
    };
    gives(-2, -1);  // (1/2 - 1) / (A (1/4 - 1))
    a.scaling = dss_scaling::exponential;
    gives(1.5, 0.75);
    a.scaling = dss_scaling::none;
    gives(3, 1.5);
    A = 1;
    gives(3, 6);
    a.scaling = dss_scaling::softmax;
    gives(1, 2);
}

TEMPLATE_TEST_CASE("dss_kernel: agrees with the reference, whatever is switched on", "", float, double)
{
    for (const dss_options& o : all_options()) {
        compare<TestType>({.state = 9, .length = 70}, o);
        for (const layout form : all_layouts) compare<TestType>({.state = 19, .length = 33, .inputs = form, .outputs = form}, o);
    }
}

TEMPLATE_TEST_CASE("dss_kernel: agrees with the reference at every length and number of poles", "", float, double)
{
    for (const index length : kernel_lengths) {
        if (length > 1) compare<TestType>({.dim = 2, .length = length}, {.growing = length % 2 == 0});
    }
    for (const index state : kernel_states) {
        if (state > 0) compare<TestType>({.state = state, .length = 90}, {.scaling = dss_scaling::exponential});
    }
    compare<TestType>({.channels = 0});
    const dss_problem<TestType> one({.length = 1});  // nearly W / A: what remains of the gradients is below rounding
    const auto expected = one.wide();
    one.run();
    expected.run_reference();
    CHECK(relative_error(one.K, expected.K) <= kernel_budget<TestType>);
    CHECK(relative_error(one.dW, expected.dW) <= gradient_budget<TestType>);
    for (const guard edge : {guard::below, guard::above})
        compare<TestType>({.state = 17, .length = 65, .edge = edge}, {.growing = true});
    const dss_problem<TestType> empty({.dim = 0}), none({.length = 0});
    empty.run();
    none.run();
    CHECK(relative_error(none.dA, none.wide().A) > 0);  // written: no tap has a gradient
}

TEST_CASE("dss_kernel: the reference's gradients are those of finite differences")
{
    for (const dss_options& o : all_options()) {
        const dss_problem<double> p({.dim = 2, .state = 3, .length = 12}, o);
        INFO("scaling " << static_cast<int>(o.scaling) << " growing " << o.growing << " epsilon " << o.epsilon);
        p.run_reference();
        const auto loss = [&] {
            reference::dss_kernel(p.args());
            double sum = 0;
            for_each_index(p.K.view(), [&](auto... i) { sum += p.K(i...) * p.dK(i...); });
            return sum;
        };
        const auto slope = [&](auto& x, auto step) {
            const auto here = x;
            x = here + step;
            const double above = loss();
            x = here - step;
            const double below = loss();
            x = here;
            return (above - below) / 2e-5;
        };
        if (!o.one_step) {
            for_each_index(p.delta.view(), [&](auto... i) {
                const double expected = slope(p.delta(i...), 1e-5);
                REQUIRE(std::abs(expected - p.ddelta(i...)) <= 1e-6 * (1 + std::abs(expected)));
            });
        }
        const auto verify = [&](const auto& input, const auto& gradient) {
            for_each_index(input.view(), [&](auto... i) {
                const complex_double expected(slope(input(i...), complex_double(1e-5)),
                                              slope(input(i...), complex_double(0, 1e-5)));
                REQUIRE(std::abs(expected - gradient(i...)) <= 1e-6 * (1 + std::abs(expected)));
            });
        };
        verify(p.A, p.dA);
        verify(p.W, p.dW);
    }
}

TEST_CASE("dss_kernel: a NaN reaches exactly what depends on it")
{
    for (const auto scaling : {dss_scaling::softmax, dss_scaling::exponential}) {
        for (index what = 0; what < 4; ++what) {
            const dss_problem<float> p({.state = 19, .length = 90}, {.scaling = scaling});
            if (what == 0) p.delta(1, 1) = quiet_nan<double>();
            if (what == 1) p.A(18) = quiet_nan<complex_double>();
            if (what == 2) p.W(1, 2, 16) = quiet_nan<std::complex<float>>();
            if (what == 3) p.dK(1, 2, 64) = quiet_nan<float>();
            const auto expected = p.wide();
            p.run();
            expected.run_reference();
            CHECK(same_nans(p.K, expected.K));
            CHECK(same_nans(p.ddelta, expected.ddelta));
            CHECK(same_nans(p.dA, expected.dA));
            CHECK(same_nans(p.dW, expected.dW));
        }
    }
}

TEST_CASE("dss_kernel: neither threads nor the workspace's content change a bit")
{
    threads pool(3);
    const diagonal_setup s{.dim = 6, .state = 19, .length = 1200};
    const dss_options o{.growing = true};
    const dss_problem<float> one(s, o), several(s, o);
    one.run();
    const auto same = [&](const dss_problem<float>& p) {
        return same_bits(one.K, p.K) && same_bits(one.dA, p.dA) && same_bits(one.dW, p.dW) && same_bits(one.ddelta, p.ddelta);
    };
    dss_kernel(several.args(), pool);
    dss_kernel_backward(several.backward_args(), pool);
    CHECK(same(several));
    for (const int pattern : {0xff, 0}) {
        const dss_problem<float> p(s, o);
        const poisoned_workspace forward(dss_kernel_workspace_size(p.args()), pattern),
            backward(dss_kernel_backward_workspace_size(p.backward_args()), pattern);
        CHECK(allocations_during([&] {
                  dss_kernel(p.args(), forward);
                  dss_kernel_backward(p.backward_args(), backward);
              }) == 0);
        CHECK(same(p));
    }
}

TEST_CASE("dss_kernel: names the argument that does not fit")
{
    const dss_problem<float> p({});
    const auto forward = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        const std::string said = complaint_of([&] { dss_kernel(a); });
        INFO(said);
        CHECK(said.find(std::string("dss_kernel: ") + text) == 0);
    };
    forward("delta has shape", [](auto& a) { a.delta = a.delta.slice(1, 0, 1); });
    forward("A has shape", [](auto& a) { a.A = a.A.slice(0, 0, 1); });
    forward("K has shape", [](auto& a) { a.K = a.K.slice(1, 0, 1); });
    // Within K, as in the other tests: an output laid over a smaller input could reach into what lies behind that.
    forward("K overlaps W", [](auto& a) { a.W = {reinterpret_cast<std::complex<float>*>(a.K.data()), a.W.extents()}; });
    const auto backward = [&](const char* text, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        CHECK(complaint_of([&] { dss_kernel_backward(a); }).find(std::string("dss_kernel_backward: ") + text) == 0);
    };
    backward("dK has shape", [](auto& a) { a.dK = a.dK.slice(1, 0, 1); });
    backward("ddelta has shape", [](auto& a) { a.ddelta = a.ddelta.slice(1, 0, 1); });
    backward("ddelta is written but", [](auto& a) { a.ddelta = {a.ddelta.data(), a.ddelta.extents(), {0, 1}}; });
    backward("dA has shape", [](auto& a) { a.dA = a.dA.slice(0, 0, 1); });
    backward("dW has shape", [](auto& a) { a.dW = a.dW.slice(0, 0, 1); });
    backward("dW overlaps W", [&](auto& a) { a.dW = p.W; });
}

TEST_CASE("dss_kernel: without a gain the first tap depends on no pole, NaN or not")
{
    for (const index length : {1, 2}) {
        const dss_problem<float> p({.state = 19, .length = length}, {.scaling = dss_scaling::none});
        p.A(18) = quiet_nan<complex_double>();
        const auto expected = p.wide();
        p.run();
        expected.run_reference();
        CHECK(!is_nan(p.K(0, 0, 0)));
        CHECK(is_nan(p.dW(0, 0, 18)) == (length == 2));
        CHECK(same_nans(p.K, expected.K));
        CHECK(same_nans(p.dW, expected.dW));
    }
}

}  // namespace ssmkit::testing
