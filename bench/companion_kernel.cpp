#include <ssmkit/companion_kernel.hpp>

#include <memory>
#include <string>

#include <ssmkit/reference/companion_kernel.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct companion_shape {
    index kernels, state, length;

    std::string name() const { return by({kernels, state, length}); }
};

struct companion_data {
    companion_shape s;
    array<double> a, b, c, K, dK, da, db, dc;

    explicit companion_data(const companion_shape& shape) : s(shape)
    {
        const std::size_t n = count(s.kernels, s.state);
        a = fill<double>(n, -1, 1, 1), b = fill<double>(n, -1, 1, 2), c = fill<double>(n, -1, 1, 3);
        dK = fill<double>(count(s.kernels, s.length), -1, 1, 4);
        K.resize(dK.size()), da.resize(n), db.resize(n), dc.resize(n);
    }

    template <class E>
    view<E, 2> map(E* p) const
    {
        return {p, s.kernels, s.state};
    }

    ssmkit::companion_kernel_args<double> args()
    {
        return {.a = map(a.data()), .b = map(b.data()), .c = map(c.data()), .K = {K.data(), s.kernels, s.length}};
    }
    ssmkit::companion_kernel_backward_args<double> backward_args()
    {
        return {.forward = args(), .dK = {dK.data(), s.kernels, s.length}, .da = map(da.data()), .db = map(db.data()),
                .dc = map(dc.data())};
    }

    /// For every tap and number of the state.
    work needs(double fmas) const
    {
        const double terms = static_cast<double>(count(s.kernels, s.length, s.state));
        return {.updates = terms, .token_channels = static_cast<double>(K.size()), .fmas = fmas * terms,
                .bytes = sizeof(double) * static_cast<double>(3 * a.size() + K.size())};
    }
};

task forward_task(const companion_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<companion_data>(s);
    return checked(
        d, d->needs(2), with_threads(threads, [d](auto&&... exec) { ssmkit::companion_kernel(d->args(), exec...); }),
        [](companion_data& e) { ssmkit::reference::companion_kernel(e.args()); },
        [](const companion_data& got, const companion_data& expected) { return mismatch("K", got.K, expected.K); });
}

task backward_task(const companion_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<companion_data>(s);
    task t = checked(
        d, d->needs(5),
        with_threads(threads, [d](auto&&... exec) { ssmkit::companion_kernel_backward(d->backward_args(), exec...); }),
        [](companion_data& e) { ssmkit::reference::companion_kernel_backward(e.backward_args()); },
        [](const companion_data& got, const companion_data& expected) {
            return first_of({mismatch("da", got.da, expected.da), mismatch("db", got.db, expected.db),
                             mismatch("dc", got.dc, expected.dc)});
        });
    if (threads == 1) t.rivals.push_back({"times_forward", [d] { ssmkit::companion_kernel(d->args()); }, true});
    return t;
}

task reference_task(const companion_shape& s)
{
    const auto d = std::make_shared<companion_data>(s);
    task t;
    t.run = [d] { ssmkit::reference::companion_kernel(d->args()); };
    t.needs = d->needs(2);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const companion_shape smaller{16, 32, 128};  // for the reference of the gradients
    for (const std::size_t n : thread_counts()) {
        for (const companion_shape& s : {companion_shape{128, 64, 720}})
            rows.push_back({"companion_kernel", "ssmkit", s.name(), "f64", n, [=] { return forward_task(s, n); }});
        rows.push_back({"companion_kernel_backward", "ssmkit", smaller.name(), "f64", n,
                        [=] { return backward_task(smaller, n); }});
    }
    const companion_shape usual{128, 64, 720};
    rows.push_back({"companion_kernel", "reference", usual.name(), "f64", 1, [=] { return reference_task(usual); }});
}};

}  // namespace
}  // namespace bench
