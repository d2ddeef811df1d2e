#include <ssmkit/s4d_discretize.hpp>

#include <complex>
#include <memory>
#include <numbers>
#include <string>

#include <ssmkit/reference/s4d_discretize.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct discretize_data {
    index dim, state;
    array<double> delta;
    array<std::complex<double>> A, B, pole, input;

    discretize_data(index channels, index pairs) : dim(channels), state(pairs), delta(fill<double>(count(channels), 1e-3, 0.1, 1))
    {
        for (index n = 0; n < state; ++n) A.emplace_back(-0.5, std::numbers::pi * static_cast<double>(n));
        B.assign(count(state), 1.0);
        pole.resize(count(dim, state)), input.resize(pole.size());
    }

    ssmkit::s4d_discretize_args<double> args()
    {
        return {.delta = ssmkit::tied_over_state(view<const double, 1>(delta.data(), dim), state),
                .A = {A.data(), 1, state},
                .B = {B.data(), 1, state},
                .pole = {pole.data(), dim, state},
                .input = {input.data(), dim, state}};
    }

    /// An exponential, a sine and a cosine, and about ten operations for the gain.
    work needs() const
    {
        const double poles = static_cast<double>(pole.size());
        return {.updates = poles, .exps = 3 * poles, .fmas = 10 * poles,
                .bytes = 2 * sizeof(pole[0]) * poles + sizeof(double) * static_cast<double>(dim)};
    }
};

task row_task(bool by_reference)
{
    const auto d = std::make_shared<discretize_data>(256, 32);
    const auto reference = [](discretize_data& e) { ssmkit::reference::s4d_discretize(e.args()); };
    return checked(
        d, d->needs(), by_reference ? std::function<void()>([=] { reference(*d); }) : [d] { ssmkit::s4d_discretize(d->args()); },
        reference, [](const discretize_data& got, const discretize_data& expected) {
            return first_of({mismatch("pole", got.pole, expected.pole), mismatch("input", got.input, expected.input)});
        });
}

const registration here{[](std::vector<row>& rows) {
    rows.push_back({"s4d_discretize", "ssmkit", by({256, 32}), "f64", 1, [] { return row_task(false); }});
    rows.push_back({"s4d_discretize", "reference", by({256, 32}), "f64", 1, [] { return row_task(true); }});
}};

}  // namespace
}  // namespace bench
