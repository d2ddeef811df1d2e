#include <ssmkit/s4_setup.hpp>

#include <complex>
#include <memory>
#include <string>

#include <ssmkit/reference/s4_setup.hpp>

#include "s4_kernel_problem.hpp"

namespace bench {
namespace {

struct setup_data {
    s4_kernel_data<double> model;
    ssmkit::s4_map map;
    array<std::complex<double>> out;

    setup_data(const s4_kernel_shape& s, ssmkit::s4_map asked) : model(s), map(asked), out(model.C.size()) {}

    ssmkit::s4_setup_args<double> args()
    {
        const s4_kernel_shape& s = model.s;
        const auto a = model.args();
        return {.delta = a.delta, .A = a.A, .P = a.P, .C = a.C, .length = s.length, .map = map,
                .out = {out.data(), 1, s.dim, s.state}};
    }

    /// log₂(length) squarings of a matrix of twice the pairs, whose rows come in conjugate pairs, and a solve if C is recovered.
    work needs() const
    {
        const s4_kernel_shape& s = model.s;
        const double full = static_cast<double>(2 * s.state), dim = static_cast<double>(s.dim);
        const double squarings = std::ceil(std::log2(static_cast<double>(s.length)));
        const double solves = map == ssmkit::s4_map::recover ? 1.0 / 3 : 0;
        return {.updates = dim * full, .fmas = 4 * dim * full * full * full * (squarings / 2 + solves),
                .bytes = 2 * static_cast<double>(out.size() * sizeof(out[0]))};
    }
};

task ssmkit_task(const s4_kernel_shape& s, ssmkit::s4_map map, std::size_t threads)
{
    const auto d = std::make_shared<setup_data>(s, map);
    return checked(
        d, d->needs(), with_threads(threads, [d](auto&&... exec) { ssmkit::s4_setup(d->args(), exec...); }),
        [](setup_data& e) { ssmkit::reference::s4_setup(e.args()); },
        [](const setup_data& got, const setup_data& expected) { return mismatch("out", got.out, expected.out); });
}

const registration here{[](std::vector<row>& rows) {
    const s4_kernel_shape s{4, 32, 1024};
    for (const bool recover : {false, true}) {
        const ssmkit::s4_map map = recover ? ssmkit::s4_map::recover : ssmkit::s4_map::prepare;
        const std::string name = s.name() + (recover ? "-recover" : "-prepare");
        for (const std::size_t n : thread_counts())
            rows.push_back({"s4_setup", "ssmkit", name, "f64", n, [=] { return ssmkit_task(s, map, n); }});
        rows.push_back({"s4_setup", "reference", name, "f64", 1, [=] {
            const auto d = std::make_shared<setup_data>(s, map);
            task t;
            t.run = [d] { ssmkit::reference::s4_setup(d->args()); };
            t.needs = d->needs();
            return t;
        }});
    }
}};

}  // namespace
}  // namespace bench
