#include <ssmkit/krylov.hpp>

#include <memory>
#include <string>

#include <ssmkit/reference/krylov.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct krylov_shape {
    index dim, state, length;

    std::string name() const { return by({dim, state, length}); }
};

/// Matrices of norm below 1.
struct krylov_data {
    krylov_shape s;
    array<double> A, b, c, k, AL, dk, dA, db, dc;

    explicit krylov_data(const krylov_shape& shape) : s(shape)
    {
        const double bound = 1 / static_cast<double>(s.state);
        A = fill<double>(count(s.dim, s.state, s.state), -bound, bound, 1);
        b = fill<double>(count(s.dim, s.state), -1, 1, 2), c = fill<double>(b.size(), -1, 1, 3);
        for (index h = 0; h < s.dim; ++h) {
            for (index n = 0; n < s.state; ++n) A[count(h * s.state + n, s.state) + count(n)] += 0.5;
        }
        dk = fill<double>(count(s.dim, s.length), -1, 1, 4);
        k.resize(dk.size()), AL.resize(A.size()), dA.resize(A.size()), db.resize(b.size()), dc.resize(c.size());
    }

    ssmkit::krylov_args<double> args()
    {
        return {.A = {A.data(), s.dim, s.state, s.state}, .b = {b.data(), s.dim, s.state}, .c = {c.data(), s.dim, s.state},
                .length = s.length, .k = {k.data(), s.dim, s.length}, .AL = {AL.data(), s.dim, s.state, s.state}};
    }
    ssmkit::krylov_backward_args<double> backward_args()
    {
        return {.forward = args(), .dk = {dk.data(), s.dim, s.length}, .dA = {dA.data(), s.dim, s.state, s.state},
                .db = {db.data(), s.dim, s.state}, .dc = {dc.data(), s.dim, s.state}};
    }

    /// `products` of a matrix and a vector for every tap.
    work needs(double products) const
    {
        const double terms = static_cast<double>(count(s.dim, s.length, s.state, s.state));
        return {.updates = terms, .token_channels = static_cast<double>(k.size()), .fmas = products * terms,
                .bytes = sizeof(double) * static_cast<double>(A.size() + 2 * b.size() + k.size())};
    }
};

task forward_task(const krylov_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<krylov_data>(s);
    return checked(
        d, d->needs(1), with_threads(threads, [d](auto&&... exec) { ssmkit::krylov(d->args(), exec...); }),
        [](krylov_data& e) { ssmkit::reference::krylov(e.args()); },
        [](const krylov_data& got, const krylov_data& expected) {
            return first_of({mismatch("k", got.k, expected.k), mismatch("AL", got.AL, expected.AL)});
        });
}

task backward_task(const krylov_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<krylov_data>(s);
    task t = checked(
        d, d->needs(3), with_threads(threads, [d](auto&&... exec) { ssmkit::krylov_backward(d->backward_args(), exec...); }),
        [](krylov_data& e) { ssmkit::reference::krylov_backward(e.backward_args()); },
        [](const krylov_data& got, const krylov_data& expected) {
            return first_of({mismatch("dA", got.dA, expected.dA), mismatch("db", got.db, expected.db),
                             mismatch("dc", got.dc, expected.dc)});
        });
    if (threads == 1) t.rivals.push_back({"times_forward", [d] { ssmkit::krylov(d->args()); }, true});
    return t;
}

task reference_task(const krylov_shape& s)
{
    const auto d = std::make_shared<krylov_data>(s);
    task t;
    t.run = [d] { ssmkit::reference::krylov(d->args()); };
    t.needs = d->needs(1);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const krylov_shape s{8, 64, 1024};
    for (const std::size_t n : thread_counts()) {
        rows.push_back({"krylov", "ssmkit", s.name(), "f64", n, [=] { return forward_task(s, n); }});
        rows.push_back({"krylov_backward", "ssmkit", s.name(), "f64", n, [=] { return backward_task(s, n); }});
    }
    rows.push_back({"krylov", "reference", s.name(), "f64", 1, [=] { return reference_task(s); }});
}};

}  // namespace
}  // namespace bench
