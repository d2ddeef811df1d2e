#include <complex>
#include <cstring>
#include <memory>
#include <type_traits>

#include <ssmkit/linear_scan.hpp>
#include <ssmkit/reference/linear_scan.hpp>

#include "linear_scan_problem.hpp"

namespace plain {  // plain/linear_scan.cpp

void linear_scan(std::size_t length, std::size_t state, const float* a, const float* b, float* h);
void linear_scan_complex(std::size_t length, std::size_t state, const float* a, const float* b, float* h, float* re, float* im);

}  // namespace plain

namespace bench {
namespace {

template <class T>
void run_plain(linear_data<T>& d, float* out)
{
    const auto length = static_cast<std::size_t>(d.s.length), state = static_cast<std::size_t>(d.s.state);
    const std::size_t row = length * state * d.unit;
    array<float> re(state), im(state);
    for (std::size_t b = 0; b < static_cast<std::size_t>(d.s.batch); ++b) {
        if constexpr (d.unit == 2) {
            plain::linear_scan_complex(length, state, d.a.data(), d.b.data() + b * row, out + b * row, re.data(), im.data());
        } else {
            plain::linear_scan(length, state, d.a.data(), d.b.data() + b * row, out + b * row);
        }
    }
}

/// As many bytes as the scan moves, from one array to another.
template <class R>
void copy_all(const array<R>& from, array<R>& to, std::size_t threads)
{
    const std::size_t bytes = to.size() * sizeof(R), piece = bytes / threads / 64 * 64;
    const auto part = [&](std::size_t i) {
        const std::size_t first = i * piece, count = i + 1 == threads ? bytes - first : piece;
        const char* const source = reinterpret_cast<const char*>(from.data());
        std::memcpy(reinterpret_cast<char*>(to.data()) + first, source + first, count);
    };
    if (threads == 1) return part(0);
    pool(threads)(threads, part);
}

template <class T>
task forward_task(const linear_shape& shape, std::size_t threads)
{
    using R = typename linear_data<T>::R;
    const auto d = std::make_shared<linear_data<T>>(shape);
    task t;
    t.run = [d, threads] {
        if (threads == 1) return ssmkit::linear_scan(d->args(d->h.data()));
        ssmkit::linear_scan(d->args(d->h.data()), pool(threads));
    };
    t.needs = d->needs(shape.varying ? 3 : 2);
    array<R> expected(d->h.size());
    if (shape.in_place) d->h = expected = d->b;
    ssmkit::reference::linear_scan(d->args(expected.data()));
    t.run();
    t.mismatch = mismatch("h", d->numbers(d->h), d->numbers(expected), 5);
    if (shape.in_place) d->h.assign(d->h.size(), R(0));  // what it makes of its own output again and again would overflow
    const auto source = std::make_shared<array<R>>(fill<R>(d->copy.size(), -1, 1, 5));
    t.rivals.push_back({"over_memcpy", [d, source, threads] { copy_all(*source, d->copy, threads); }, true});
    if constexpr (std::is_same_v<R, float>) {
        if (threads == 1 && !shape.varying && !shape.time_contiguous && !shape.in_place) {
            t.rivals.push_back({"times_plain", [d] { run_plain(*d, d->copy.data()); }});
        }
    }
    if (shape.silent) {
        linear_shape loud = shape;
        loud.silent = false;
        const auto other = std::make_shared<linear_data<T>>(loud);
        t.rivals.push_back({"over_normal_input", [other] { ssmkit::linear_scan(other->args(other->h.data())); }, true});
    }
    return t;
}

template <class T, class F>
task other_task(const linear_shape& shape, F&& run)
{
    const auto d = std::make_shared<linear_data<T>>(shape);
    task t;
    t.run = [d, run] { run(*d); };
    t.needs = d->needs(shape.varying ? 3 : 2);
    array<typename linear_data<T>::R> expected(d->h.size());
    ssmkit::reference::linear_scan(d->args(expected.data()));
    t.run();
    t.mismatch = mismatch("h", d->numbers(d->h), d->numbers(expected), 5);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto forward = [&]<class T>(std::type_identity<T>, const linear_shape& s) {
        const char* const dtype = dtype_name<typename linear_data<T>::R>();
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"linear_scan", "ssmkit", s.name<T>(), dtype, n, [=] { return forward_task<T>(s, n); }});
        }
    };
    const auto others = [&]<class T>(std::type_identity<T>, const linear_shape& s) {
        const auto plain = [](linear_data<T>& d) { run_plain(d, d.h.data()); };
        const auto reference = [](linear_data<T>& d) { ssmkit::reference::linear_scan(d.args(d.h.data())); };
        rows.push_back({"linear_scan", "plain", s.name<T>(), "f32", 1, [=] { return other_task<T>(s, plain); }});
        rows.push_back({"linear_scan", "reference", s.name<T>(), "f32", 1, [=] { return other_task<T>(s, reference); }});
    };
    const linear_shape usual{.batch = 8, .length = 4096, .state = 256};
    const auto all = [&](auto type) {
        for (const bool varying : {false, true}) {
            for (const bool turned : {false, true}) {
                linear_shape s = usual;
                s.varying = varying;
                s.time_contiguous = turned;
                forward(type, s);
            }
        }
        linear_shape s = usual;
        s.in_place = true;
        forward(type, s);
        others(type, usual);
        forward(type, {.batch = 8, .length = 4095, .state = 255});                  // rows that start anywhere
        forward(type, {.batch = 1, .length = 256, .state = 256});                   // in the caches
        forward(type, {.batch = 1, .length = 512, .state = 256, .silent = true});
    };
    all(std::type_identity<std::complex<float>>{});
    all(std::type_identity<float>{});
    forward(std::type_identity<std::complex<double>>{}, usual);
    // Small sizes: no number of channels may cost much more than the next larger one.
    for (index state = 1; state <= 33; ++state) forward(std::type_identity<float>{}, {.batch = 1, .length = 1024, .state = state});
}};

}  // namespace
}  // namespace bench
