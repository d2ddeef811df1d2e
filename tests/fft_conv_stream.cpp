#include <ssmkit/fft_conv_stream.hpp>

#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include <ssmkit/reference/fft_conv.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "fft_conv_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = (std::is_same_v<T, double> ? 1e-14 : 2e-6) + (sizeof(T) == 2 ? rounding<T> : 0);

template <class T>
fft_conv_stream<T> stream_of(const long_problem<T>& p, index part = 0, std::size_t workers = 1)
{
    return {p.s.batch, p.k.view(), p.D.view(), part, workers};
}

/// The whole input in calls of the sizes given, again and again.
template <class T>
void play(fft_conv_stream<T>& stream, const long_problem<T>& p, const std::vector<index>& sizes, const view<T, 4>& y)
{
    const view<const T, 3> u = p.u;
    for (index t = 0, call = 0; t < p.s.length; ++call) {
        const index count = std::min(sizes[static_cast<std::size_t>(call) % sizes.size()], p.s.length - t);
        stream(u.slice(2, t, count), y.slice(3, t, count));
        t += count;
    }
}

}  // namespace

TEMPLATE_TEST_CASE("fft_conv_stream: any cut gives the whole convolution, the same bits", "", float, double, bfloat16)
{
    for (const index width : {1, 2, 100, 256, 257, 700, 3000}) {
        for (const layout form : {layout::row_major, layout::strided}) {
            const long_problem<TestType> p(
                {.channels = 2, .dim = 2, .length = 1700, .width = width, .D = width != 100, .inputs = form});
            const auto expected = p.wide();
            reference::fft_conv(expected.args());
            auto stream = stream_of(p);
            play(stream, p, {p.s.length}, p.y.view());
            CHECK(relative_error(p.y, expected.y) <= budget<TestType>);
            CHECK(stream.position() == p.s.length);
            tensor<TestType, 4> y(p.y.view().extents(), form);
            for (const std::vector<index>& sizes :
                 {std::vector<index>{1}, {64}, {stream.part()}, {stream.part() + 1, 0, 3}, {255, 1, 600}}) {
                stream.reset();
                play(stream, p, sizes, y.view());
                CHECK(same_bits(y, p.y));
            }
            CHECK(y.gaps_untouched());
        }
    }
}

TEST_CASE("fft_conv_stream: the size of a part changes no more than rounding")
{
    const long_problem<float> p({.dim = 1, .length = 4000, .width = 2500, .D = true});
    const auto expected = p.wide();
    reference::fft_conv(expected.args());
    for (const index part : {1, 300, 1024, 2500, 5000}) {
        auto stream = stream_of(p, part);
        CHECK(stream.part() >= part);
        play(stream, p, {97}, p.y.view());
        CHECK(relative_error(p.y, expected.y) <= budget<float>);
    }
}

TEST_CASE("fft_conv_stream: a saved state goes on where it was, also in another stream")
{
    const long_problem<float> p({.channels = 2, .length = 1500, .width = 1100});
    auto stream = stream_of(p), other = stream_of(p);
    play(stream, p, {1500}, p.y.view());
    for (const index cut : {0, 1, 256, 511, 900}) {
        tensor<float, 4> y(p.y.view().extents());
        const view<const float, 3> u = p.u;
        stream.reset();
        stream(u.slice(2, 0, cut), y.view().slice(3, 0, cut));
        std::vector<std::byte> saved(stream.state_size());
        stream.save(saved);
        other(u.slice(2, 0, 77), y.view().slice(3, cut, 77));  // anything
        other.restore(saved);
        CHECK(other.position() == cut);
        other(u.slice(2, cut, 1500 - cut), y.view().slice(3, cut, 1500 - cut));
        CHECK(same_bits(y, p.y));
    }
    std::vector<std::byte> wrong(stream.state_size() - 1);
    CHECK_THROWS_AS(stream.save(wrong), shape_error);
    CHECK_THROWS_AS(stream.restore(wrong), shape_error);
}

TEST_CASE("fft_conv_stream: threads change no bit")
{
    threads pool(3);
    const long_problem<float> p({.batch = 3, .channels = 2, .length = 900, .width = 600});
    auto one = stream_of(p), several = stream_of(p, 0, 4);
    play(one, p, {900}, p.y.view());
    tensor<float, 4> y(p.y.view().extents());
    several(p.u, y.view(), pool);
    CHECK(same_bits(y, p.y));
    several.reset();
    several(p.u, y.view(), last_task_first{});
    CHECK(same_bits(y, p.y));
    CHECK_THROWS_AS(one(p.u, y.view(), last_task_first{}), shape_error);
}

TEST_CASE("fft_conv_stream: a call allocates nothing")
{
    const long_problem<float> p({.channels = 2, .length = 900, .width = 600});
    auto stream = stream_of(p);
    const std::vector<index> sizes{100};
    CHECK(allocations_during([&] { play(stream, p, sizes, p.y.view()); }) == 0);
}

TEST_CASE("fft_conv_stream: a NaN reaches no output before it")
{
    const long_problem<float> p({.batch = 1, .dim = 1, .length = 1500, .width = 1000});
    p.u(0, 0, 700) = quiet_nan<float>();
    auto stream = stream_of(p);
    play(stream, p, {1500}, p.y.view());
    for (index t = 0; t < 700; ++t) REQUIRE(!std::isnan(p.y(0, 0, 0, t)));
    for (index t = 700; t < 1500; ++t) REQUIRE(std::isnan(p.y(0, 0, 0, t)));
}

TEST_CASE("fft_conv_stream: silence after a burst costs what sound costs")
{
    long_problem<float> p({.batch = 1, .dim = 4, .length = 8192, .width = 2000});
    const auto seconds = [&](bool silent) {
        p.u.fill([&](index, index, index t) { return silent ? (t < 100 ? 1e-36f : 1e-41f) : 0.5f; });
        auto stream = stream_of(p);
        double best = 1e30;
        for (int i = 0; i < 5; ++i) {
            const auto start = std::chrono::steady_clock::now();
            play(stream, p, {64}, p.y.view());
            best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        return best;
    };
    CHECK(seconds(true) <= 2 * seconds(false));
}

TEST_CASE("fft_conv_stream: empty calls, empty shapes, and what does not fit")
{
    const long_problem<float> p({.length = 10, .width = 5, .D = true});
    auto stream = stream_of(p);
    stream(p.u.view().slice(2, 0, 0), p.y.view().slice(3, 0, 0));
    CHECK(stream.position() == 0);
    const long_problem<float> none({.batch = 0, .length = 10, .width = 5});
    auto nobody = stream_of(none);
    nobody(none.u, none.y.view());
    const auto complaint = [&](auto&& call) -> std::string {
        try {
            call();
        } catch (const shape_error& e) {
            return e.what();
        }
        return "";
    };
    CHECK(complaint([&] { stream(p.u.view().slice(1, 0, 2), p.y.view()); }).find("fft_conv_stream: u has shape") == 0);
    CHECK(complaint([&] { stream(p.u.view(), p.y.view().slice(3, 0, 2)); }).find("fft_conv_stream: y has shape") == 0);
    CHECK(complaint([&] {
              stream(p.u.view(), {p.u.view().data(), p.y.view().extents()});
          }).find("fft_conv_stream: y overlaps u") == 0);
    CHECK(complaint([&] {
              fft_conv_stream<float>(2, p.k.view(), p.D.view().slice(1, 0, 2));
          }).find("fft_conv_stream: D has shape") == 0);
    CHECK(stream.position() == 0);
    fft_conv_stream<float> alone(p.u.view().extent(0), p.k.view(), p.D.view(), 0, 0);  // no worker: the calling thread
    alone(p.u.view(), p.y.view());
    CHECK(alone.position() == 10);
}

}  // namespace ssmkit::testing
