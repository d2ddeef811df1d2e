#include <ssmkit/args/linear_scan_backward.hpp>

#include <complex>
#include <memory>
#include <type_traits>

#include <ssmkit/reference/linear_scan_backward.hpp>

#include "../linear_scan_problem.hpp"
#include "harness.hpp"

namespace bench::device {
namespace {

/// h need not be a forward pass's: the backward reads it as it is.
template <class T>
struct backward_data {
    using state_type = ssmkit::linear_scan_state_t<T>;

    explicit backward_data(const linear_shape& shape) : s(shape) {}

    linear_shape s;
    index factors = s.varying ? s.elements() : s.state;
    array<state_type> a{factors, 0.3f, 0.69f, 1}, da{factors};
    array<T> h{s.elements(), -1, 1, 2}, dh{s.elements(), -1, 1, 3}, db{s.elements()};

    template <class E>
    view<E, 3> tokens(E* p) const
    {
        if (s.time_contiguous) return view<E, 3>(p, s.batch, s.state, s.length).transposed(1, 2);
        return {p, s.batch, s.length, s.state};
    }
    template <class E>
    view<E, 3> factor(E* p) const
    {
        if (s.varying) return tokens<E>(p);
        return {p, {s.batch, s.length, s.state}, {0, 0, 1}};
    }
    ssmkit::linear_scan_backward_args<T> args() const
    {
        return {.forward = {.a = factor<const state_type>(a.data()), .h = tokens<T>(h.data())}, .dh = tokens<const T>(dh.data()),
                .da = factor<state_type>(da.data()), .db = tokens<T>(db.data())};
    }

    /// All of db on the CPU, and da.
    std::string mismatch() const
    {
        const auto ha = a.host(), got_da = da.host();
        auto hh = h.host();
        const auto hdh = dh.host(), got = db.host();
        bench::array<T> expected(got.size());
        bench::array<state_type> expected_da(got_da.size());
        auto x = args();
        x.forward.a = factor<const state_type>(ha.data());
        x.forward.h = tokens<T>(hh.data());
        x.dh = tokens<const T>(hdh.data());
        x.da = factor<state_type>(expected_da.data());
        x.db = tokens<T>(expected.data());
        ssmkit::reference::linear_scan_backward(x);
        const auto compared = [](const char* name, const auto& one, const auto& other, double digits) {
            using E = typename std::remove_cvref_t<decltype(one)>::value_type;
            const auto n = static_cast<index>(one.size());
            if constexpr (ssmkit::detail::is_complex<E>) {
                return bench::mismatch(name, view<const float, 1>(reinterpret_cast<const float*>(one.data()), 2 * n),
                                       view<const float, 1>(reinterpret_cast<const float*>(other.data()), 2 * n), digits);
            } else {
                return bench::mismatch(name, view<const E, 1>(one.data(), n), view<const E, 1>(other.data(), n), digits);
            }
        };
        const std::string said = compared("db", got, expected, 5);
        // The reference adds up 32768 terms one after the other in float.
        return said.empty() ? compared("da", got_da, expected_da, s.varying ? 5 : 50) : said;
    }
};

template <class T>
task backward_task(const linear_shape& s)
{
    const auto d = std::make_shared<backward_data<T>>(s);
    task t;
    t.run = [d, run = call(d->args())](cudaStream_t stream) { run(stream); };
    const auto elements = static_cast<double>(s.elements());
    t.needs.bytes = elements * (3 * sizeof(T) + (s.varying ? 2 * sizeof(typename backward_data<T>::state_type) : 0));
    t.needs.fmas = elements * (ssmkit::detail::is_complex<T> ? 8 : 2);
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
                rows.push_back({"linear_scan_backward", s.name<T>(), dtype, [s] { return backward_task<T>(s); }});
            }
        }
    };
    add(std::type_identity<float>{}, "f32");
    add(std::type_identity<ssmkit::bfloat16>{}, "bf16");
    add(std::type_identity<std::complex<float>>{}, "f32");
}};

}  // namespace
}  // namespace bench::device
