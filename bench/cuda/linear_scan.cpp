#include <ssmkit/args/linear_scan.hpp>

#include <algorithm>
#include <complex>
#include <memory>
#include <type_traits>

#include <ssmkit/reference/linear_scan.hpp>

#include "../linear_scan_problem.hpp"
#include "harness.hpp"

namespace bench::device {
namespace {

using complex = std::complex<float>;

template <class T>
struct scan_data {
    using state_type = ssmkit::linear_scan_state_t<T>;

    explicit scan_data(const linear_shape& shape) : s(shape) {}

    linear_shape s;
    array<state_type> a{s.varying ? s.elements() : s.state, 0.3f, 0.69f, 1};
    array<T> b{s.elements(), -1, 1, 2}, h{s.elements()};

    template <class E>
    view<E, 3> tokens(E* p) const
    {
        if (s.time_contiguous) return view<E, 3>(p, s.batch, s.state, s.length).transposed(1, 2);
        return {p, s.batch, s.length, s.state};
    }
    view<const state_type, 3> factor(const state_type* p) const
    {
        if (s.varying) return tokens<const state_type>(p);
        return ssmkit::constant_over_time(view<const state_type, 1>(p, s.state), s.batch, s.length);
    }
    ssmkit::linear_scan_args<T> args() const
    {
        return {.a = factor(a.data()), .b = tokens<const T>(b.data()), .h = tokens<T>(h.data())};
    }

    /// The first row's first tokens, on the CPU.
    std::string mismatch() const
    {
        const index row = s.length * s.state, length = std::min<index>(s.length, 3000);
        const auto ha = a.host(s.varying ? row : s.state);
        const auto hb = b.host(row), got = h.host(row);
        bench::array<T> expected(hb.size());
        const auto few = [&](const auto& v) { return v.slice(0, 0, 1).slice(1, 0, length); };
        ssmkit::linear_scan_args<T> x{.a = few(factor(ha.data())), .b = few(tokens<const T>(hb.data())),
                                      .h = few(tokens<T>(expected.data()))};
        ssmkit::reference::linear_scan(x);
        if constexpr (ssmkit::detail::is_complex<T>) {
            const auto real = [](const auto& v, const T* first) {
                const auto& n = v.strides();
                return view<const float, 3>(reinterpret_cast<const float*>(first), v.extents(), {2 * n[0], 2 * n[1], 2 * n[2]});
            };
            return bench::mismatch("h", real(x.h, got.data()), real(x.h, expected.data()), 5);
        } else {
            return bench::mismatch("h", few(tokens<const T>(got.data())), view<const T, 3>(x.h), 5);
        }
    }
};

template <class T>
task scan_task(const linear_shape& s)
{
    const auto d = std::make_shared<scan_data<T>>(s);
    task t;
    t.run = [d, run = call(d->args())](cudaStream_t stream) { run(stream); };
    const auto elements = static_cast<double>(s.elements());
    t.needs.bytes = elements * (2 * sizeof(T) + (s.varying ? sizeof(typename scan_data<T>::state_type) : 0));
    t.needs.fmas = elements * (ssmkit::detail::is_complex<T> ? 4 : 1);
    t.run(nullptr);
    must(cudaDeviceSynchronize());
    t.mismatch = d->mismatch();
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto add = [&]<class T>(std::type_identity<T>, const char* dtype) {
        for (const bool varying : {false, true}) {
            for (const bool turned : {false, true}) {
                const linear_shape s{.batch = 8, .length = 4096, .state = 256, .varying = varying, .time_contiguous = turned};
                rows.push_back({"linear_scan", s.name<T>(), dtype, [s] { return scan_task<T>(s); }});
            }
        }
        for (const linear_shape& s : {linear_shape{.batch = 8, .length = 4096, .state = 2048, .varying = true},
                                      linear_shape{.batch = 1, .length = 131072, .state = 256, .varying = true},
                                      linear_shape{.batch = 8, .length = 4095, .state = 255, .varying = true}}) {
            rows.push_back({"linear_scan", s.name<T>(), dtype, [s] { return scan_task<T>(s); }});
        }
    };
    add(std::type_identity<float>{}, "f32");
    add(std::type_identity<ssmkit::bfloat16>{}, "bf16");
    add(std::type_identity<complex>{}, "f32");
}};

}  // namespace
}  // namespace bench::device
