#include <ssmkit/args/s5.hpp>

#include <algorithm>
#include <complex>
#include <memory>

#include <ssmkit/reference/s5.hpp>

#include "../s5_problem.hpp"
#include "harness.hpp"

namespace bench::device {
namespace {

template <class T>
struct layer_data {
    using complex = std::complex<float>;

    explicit layer_data(const s5_shape& shape) : s(shape) {}

    s5_shape s;
    index scans = s.bidirectional ? 2 : 1, count = s.batch * s.length;
    array<complex> A{s.state, -1, -0.1f, 1}, B{s.state * s.dim, -0.1f, 0.1f, 4}, C{scans * s.state * s.dim, -0.1f, 0.1f, 5};
    array<float> delta{s.state, 0.1f, 0.2f, 2}, interval{s.events ? count : 0, 0.5f, 1.5f, 3}, D{s.dim, -1, 1, 6};
    array<T> u{count * s.dim, -1, 1, 7}, y{count * s.dim};

    template <class E>
    view<E, 3> tokens(E* p) const
    {
        if (s.time_contiguous) return view<E, 3>(p, s.batch, s.dim, s.length).transposed(1, 2);
        return {p, s.batch, s.length, s.dim};
    }
    ssmkit::s5_args<T> args() const
    {
        ssmkit::s5_args<T> a{.A = {A.data(), s.state}, .delta = {delta.data(), s.state}, .B = {B.data(), s.state, s.dim},
                             .C = {C.data(), s.dim, scans * s.state}, .D = {D.data(), s.dim}, .u = tokens<const T>(u.data()),
                             .bidirectional = s.bidirectional, .y = tokens<T>(y.data())};
        if (s.events) a.interval = {interval.data(), s.batch, s.length};
        return a;
    }

    /// The first row's first tokens on the CPU; a second scan would need all of them.
    std::string mismatch() const
    {
        const index length = std::min<index>(s.length, 200), row = s.length * s.dim;
        const auto hA = A.host(), hB = B.host(), hC = C.host();
        const auto hdelta = delta.host(), hinterval = interval.host(s.events ? length : 0), hD = D.host();
        const auto hu = u.host(row), got = y.host(row);
        bench::array<T> expected(hu.size());
        const auto few = [&](const auto& v) { return v.slice(0, 0, 1).slice(1, 0, length); };
        auto a = args();
        a.A = {hA.data(), s.state};
        a.delta = {hdelta.data(), s.state};
        if (s.events) a.interval = {hinterval.data(), 1, length};
        a.B = {hB.data(), s.state, s.dim};
        a.C = view<const complex, 2>(hC.data(), s.dim, scans * s.state);
        a.D = {hD.data(), s.dim};
        a.u = few(tokens<const T>(hu.data()));
        a.y = few(tokens<T>(expected.data()));
        if (s.bidirectional) return "";
        ssmkit::reference::s5(a);
        return bench::mismatch("y", few(tokens<const T>(got.data())), view<const T, 3>(a.y), 2);
    }
};

template <class T>
task layer_task(const s5_shape& s)
{
    const auto d = std::make_shared<layer_data<T>>(s);
    task t;
    t.run = [d, run = call(d->args())](cudaStream_t stream) { run(stream); };
    const auto tokens = static_cast<double>(d->count), dim = static_cast<double>(s.dim), state = static_cast<double>(s.state);
    const auto scans = static_cast<double>(d->scans);
    t.needs.bytes = 2 * sizeof(T) * tokens * dim;
    // Products by a real vector of 2 state numbers: one in, one out for each scan; of float three products of tf32, of 16 bits two.
    t.needs.tensor_flops = tokens * 4 * state * dim * ((sizeof(T) == 2 ? 2 : 3) + 3 * scans);
    t.needs.tensor_rate = 495e12;
    t.run(nullptr);
    must(cudaDeviceSynchronize());
    t.mismatch = d->mismatch();
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const s5_shape& s : {s5_shape{.batch = 8, .length = 4096, .dim = 256, .state = 256},
                              s5_shape{.batch = 8, .length = 4096, .dim = 256, .state = 128},
                              s5_shape{.batch = 8, .length = 4096, .dim = 1024, .state = 256},
                              s5_shape{.batch = 8, .length = 4096, .dim = 64, .state = 128},
                              s5_shape{.batch = 1, .length = 4096, .dim = 256, .state = 256},
                              s5_shape{.batch = 8, .length = 1021, .dim = 250, .state = 123},
                              s5_shape{.batch = 8, .length = 4096, .dim = 256, .state = 256, .events = true},
                              s5_shape{.batch = 8, .length = 4096, .dim = 256, .state = 256, .time_contiguous = true},
                              s5_shape{.batch = 8, .length = 4096, .dim = 256, .state = 256, .bidirectional = true}}) {
        rows.push_back({"s5", s.name(), "f32", [s] { return layer_task<float>(s); }});
        rows.push_back({"s5", s.name(), "bf16", [s] { return layer_task<ssmkit::bfloat16>(s); }});
    }
}};

}  // namespace
}  // namespace bench::device
