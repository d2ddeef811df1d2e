#include <ssmkit/dense_kernel.hpp>

#include <complex>
#include <memory>
#include <string>

#include <ssmkit/reference/dense_kernel.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct dense_shape {
    index channels, dim, state, length;

    std::string name() const { return by({channels, dim, state, length}); }
};

/// Damped matrices.
struct dense_data {
    using complex = std::complex<double>;
    dense_shape s;
    array<double> delta, K, dK, ddelta;
    array<complex> A, B, C, dA, dB, dC;

    explicit dense_data(const dense_shape& shape) : s(shape)
    {
        delta = fill<double>(count(s.dim), 1e-3, 1e-1, 1);
        A = fill_complex<double>(count(s.dim, s.state, s.state), -0.5, 0.5, 2);
        for (index h = 0; h < s.dim; ++h) {
            for (index n = 0; n < s.state; ++n) A[count(h * s.state + n, s.state) + count(n)] -= static_cast<double>(s.state);
        }
        B = fill_complex<double>(count(s.dim, s.state), -1, 1, 3),
        C = fill_complex<double>(count(s.channels, s.dim, s.state), -1, 1, 4);
        dK = fill<double>(count(s.channels, s.dim, s.length), -1, 1, 5);
        K.resize(dK.size()), ddelta.resize(delta.size()), dA.resize(A.size()), dB.resize(B.size()), dC.resize(C.size());
    }

    ssmkit::dense_kernel_args<double> args()
    {
        return {.delta = {delta.data(), s.dim}, .A = {A.data(), s.dim, s.state, s.state}, .B = {B.data(), s.dim, s.state},
                .C = {C.data(), s.channels, s.dim, s.state}, .K = {K.data(), s.channels, s.dim, s.length}};
    }
    ssmkit::dense_kernel_backward_args<double> backward_args()
    {
        return {.forward = args(), .dK = {dK.data(), s.channels, s.dim, s.length}, .ddelta = {ddelta.data(), s.dim},
                .dA = {dA.data(), s.dim, s.state, s.state}, .dB = {dB.data(), s.dim, s.state},
                .dC = {dC.data(), s.channels, s.dim, s.state}};
    }

    /// `products` of a complex matrix and a vector for every tap.
    work needs(double products) const
    {
        const double terms = static_cast<double>(count(s.dim, s.length, s.state, s.state));
        return {.updates = terms, .token_channels = static_cast<double>(K.size()), .fmas = 4 * products * terms,
                .bytes = static_cast<double>((A.size() + B.size() + C.size()) * sizeof(complex) + K.size() * sizeof(double))};
    }
};

task forward_task(const dense_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<dense_data>(s);
    return checked(
        d, d->needs(1), with_threads(threads, [d](auto&&... exec) { ssmkit::dense_kernel(d->args(), exec...); }),
        [](dense_data& e) { ssmkit::reference::dense_kernel(e.args()); },
        [](const dense_data& got, const dense_data& expected) { return mismatch("K", got.K, expected.K); });
}

task backward_task(const dense_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<dense_data>(s);
    task t = checked(
        d, d->needs(3), with_threads(threads, [d](auto&&... exec) { ssmkit::dense_kernel_backward(d->backward_args(), exec...); }),
        [](dense_data& e) { ssmkit::reference::dense_kernel_backward(e.backward_args()); },
        [](const dense_data& got, const dense_data& expected) {
            return first_of({mismatch("ddelta", got.ddelta, expected.ddelta), mismatch("dA", got.dA, expected.dA),
                             mismatch("dB", got.dB, expected.dB), mismatch("dC", got.dC, expected.dC)});
        });
    if (threads == 1) t.rivals.push_back({"times_forward", [d] { ssmkit::dense_kernel(d->args()); }, true});
    return t;
}

task reference_task(const dense_shape& s)
{
    const auto d = std::make_shared<dense_data>(s);
    task t;
    t.run = [d] { ssmkit::reference::dense_kernel(d->args()); };
    t.needs = d->needs(1);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const dense_shape s{1, 4, 64, 1024};
    for (const std::size_t n : thread_counts()) {
        rows.push_back({"dense_kernel", "ssmkit", s.name(), "f64", n, [=] { return forward_task(s, n); }});
        rows.push_back({"dense_kernel_backward", "ssmkit", s.name(), "f64", n, [=] { return backward_task(s, n); }});
    }
    rows.push_back({"dense_kernel", "reference", s.name(), "f64", 1, [=] { return reference_task(s); }});
}};

}  // namespace
}  // namespace bench
