#include <ssmkit/shift_kernel.hpp>

#include <string>

#include <ssmkit/reference/shift_kernel.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "random_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = std::is_same_v<T, double> ? 1e-14 : 2e-6;

template <class T>
struct shift_problem {
    tensor<T, 2> B, dB;
    tensor<T, 3> C, state, u, K, dK, dC, final_state, next, y;
    tensor<T, 2> input;
    tensor<T, 4> K_state;

    shift_problem(index size, index length, layout form = layout::row_major)
    {
        random numbers(static_cast<std::uint64_t>(size * 1000 + length));
        const auto filled = [&](auto& t, const auto& extents) { (t = {extents, form}).fill(numbers, {-1, 1}); };
        using two = std::array<index, 2>;
        using three = std::array<index, 3>;
        filled(B, two{3, size});
        filled(C, three{2, 3, size});
        filled(state, three{4, 3, size});
        filled(u, three{4, 3, length});
        filled(dK, three{2, 3, length});
        filled(input, two{4, 3});
        outputs(form);
    }
    shift_problem(std::nullptr_t) {}

    void outputs(layout form)
    {
        const index size = B.extent(1), length = u.extent(2);
        K = {{2, 3, length}, form};
        K_state = {{4, 2, 3, length}, form};
        dB = {{3, size}, form};
        dC = {{2, 3, size}, form};
        final_state = {{4, 3, size}, form};
        next = {{4, 3, size}, form};
        next.fill([&](auto... i) { return state(i...); });
        y = {{4, 2, 3}, form};
    }

    shift_problem<double> wide() const
    {
        shift_problem<double> w(nullptr);
        w.B = B.template as<double>();
        w.C = C.template as<double>();
        w.state = state.template as<double>();
        w.u = u.template as<double>();
        w.dK = dK.template as<double>();
        w.input = input.template as<double>();
        w.outputs(layout::row_major);
        return w;
    }

    shift_kernel_args<T> args() const { return {B.view(), C.view(), state.view(), K.view(), K_state.view()}; }
    shift_kernel_backward_args<T> backward_args() const { return {B.view(), C.view(), dK.view(), dB.view(), dC.view()}; }
    shift_update_args<T> update_args() const { return {B.view(), C.view(), input.view(), next.view(), y.view()}; }
    shift_chunk_args<T> chunk_args() const { return {B.view(), u.view(), state.view(), final_state.view()}; }
};

}  // namespace

TEMPLATE_TEST_CASE("shift_kernel: agrees with the reference, any state, any length, any layout", "", float, double)
{
    for (const index size : {0, 1, 2, 15, 16, 17, 33, 64, 300}) {
        for (const index length : {0, 1, 7, 16, 64, 299, 310}) {
            for (const layout form : {layout::row_major, layout::column_major, layout::negative}) {
                INFO("state " << size << ", length " << length);
                const shift_problem<TestType> p(size, length, form);
                const auto expected = p.wide();
                shift_kernel(p.args());
                shift_kernel_backward(p.backward_args());
                shift_update(p.update_args());
                shift_chunk(p.chunk_args());
                reference::shift_kernel(expected.args());
                reference::shift_kernel_backward(expected.backward_args());
                reference::shift_update(expected.update_args());
                reference::shift_chunk(expected.chunk_args());
                CHECK(relative_error(p.K, expected.K) <= budget<TestType>);
                CHECK(relative_error(p.K_state, expected.K_state) <= budget<TestType>);
                CHECK(relative_error(p.dB, expected.dB) <= budget<TestType>);
                CHECK(relative_error(p.dC, expected.dC) <= budget<TestType>);
                CHECK(relative_error(p.next, expected.next) <= budget<TestType>);
                CHECK(relative_error(p.y, expected.y) <= budget<TestType>);
                CHECK(relative_error(p.final_state, expected.final_state) <= budget<TestType>);
            }
        }
    }
}

TEST_CASE("shift_kernel: steps from zero are the convolution with the kernel")
{
    const index size = 40, length = 70;
    const shift_problem<double> p(size, length);
    shift_kernel(p.args());
    tensor<double, 3> x({4, 3, size});
    x.fill([](auto...) { return 0.0; });
    double worst = 0;
    for (index t = 0; t < length; ++t) {
        tensor<double, 2> u({4, 3});
        u.fill([&](index b, index h) { return p.u(b, h, t); });
        shift_update(shift_update_args<double>{p.B.view(), p.C.view(), u.view(), x.view(), p.y.view()});
        for_each_index(p.y.view(), [&](index b, index c, index h) {
            double sum = 0;
            for (index s = 0; s <= t; ++s) sum += p.K(c, h, t - s) * p.u(b, h, s);
            worst = std::max(worst, std::abs(sum - p.y(b, c, h)));
        });
    }
    CHECK(worst <= 1e-12);
    auto chunk = p.chunk_args();
    chunk.initial_state = {};
    shift_chunk(chunk);
    CHECK(relative_error(p.final_state, x) <= 1e-14);
}

TEST_CASE("shift_kernel: threads and workspace change no bit; nothing is allocated with one")
{
    threads pool(3);
    const shift_problem<float> one(300, 310), other(300, 310);
    shift_kernel(one.args());
    shift_kernel_backward(one.backward_args());
    shift_chunk(one.chunk_args());
    shift_kernel(other.args(), {}, pool);
    shift_kernel_backward(other.backward_args(), {}, pool);
    shift_chunk(other.chunk_args(), {}, pool);
    const auto same = [&] {
        return same_bits(one.K, other.K) && same_bits(one.K_state, other.K_state) && same_bits(one.dB, other.dB) &&
               same_bits(one.dC, other.dC) && same_bits(one.final_state, other.final_state);
    };
    CHECK(same());
    for (const unsigned char garbage : {0xff, 0x7f}) {
        std::vector<std::byte> memory(
            std::max({shift_kernel_workspace_size(other.args()), shift_chunk_workspace_size(other.chunk_args()),
                      shift_kernel_backward_workspace_size(other.backward_args())}),
            std::byte{garbage});
        CHECK(allocations_during([&] {
            shift_kernel(other.args(), memory);
            shift_kernel_backward(other.backward_args(), memory);
            shift_chunk(other.chunk_args(), memory);
            shift_update(other.update_args());
        }) == 0);
        CHECK(same());
    }
}

TEST_CASE("shift_kernel: names the argument that does not fit")
{
    const shift_problem<float> p(5, 9);
    const auto complaint = [](auto&& call) -> std::string {
        try {
            call();
        } catch (const shape_error& e) {
            return e.what();
        }
        return "";
    };
    auto a = p.args();
    a.C = a.C.slice(2, 0, 2);
    CHECK(complaint([&] { shift_kernel(a); }).find("shift_kernel: C has shape") == 0);
    a = p.args();
    a.state = {};
    CHECK(complaint([&] { shift_kernel(a); }).find("shift_kernel: K_state") == 0);
    auto b = p.backward_args();
    b.dB = b.dB.slice(1, 0, 2);
    CHECK(complaint([&] { shift_kernel_backward(b); }).find("shift_kernel_backward: dB has shape") == 0);
    auto u = p.update_args();
    u.state = u.state.slice(0, 0, 1);
    CHECK(complaint([&] { shift_update(u); }).find("shift_update: state has shape") == 0);
    auto c = p.chunk_args();
    c.final_state = {const_cast<float*>(c.initial_state.data()), 4, 3, 5};
    CHECK(complaint([&] { shift_chunk(c); }).find("shift_chunk: final_state overlaps initial_state") == 0);
}

}  // namespace ssmkit::testing
