#include <ssmkit/vandermonde.hpp>

#include <complex>
#include <memory>
#include <string>

#include <ssmkit/reference/vandermonde.hpp>
#include <ssmkit/reference/vandermonde_transpose.hpp>
#include <ssmkit/vandermonde_transpose.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct vandermonde_shape {
    index channels, dim, state, length;

    std::string name() const
    {
        return std::to_string(channels) + "x" + std::to_string(dim) + "x" + std::to_string(state) + "x" + std::to_string(length);
    }
};

template <class T>
struct vandermonde_data {
    using E = std::complex<T>;

    vandermonde_shape s;
    array<double> log_pole;
    array<T> w, K, sum, weighted;  // complex ones in pairs

    explicit vandermonde_data(const vandermonde_shape& shape) : s(shape)
    {
        const auto poles = static_cast<std::size_t>(s.dim * s.state), weights = poles * static_cast<std::size_t>(2 * s.channels);
        const auto re = fill<double>(poles, -0.01, -0.001, 1), im = fill<double>(poles, -3, 3, 2);
        for (std::size_t i = 0; i < poles; ++i) {
            log_pole.push_back(re[i]);
            log_pole.push_back(im[i]);
        }
        w = fill<T>(weights, -1, 1, 3);
        K = fill<T>(static_cast<std::size_t>(s.channels * s.dim * s.length), -1, 1, 4);
        sum.resize(weights);
        weighted.resize(weights);
    }

    view<const std::complex<double>, 2> poles() const
    {
        return {reinterpret_cast<const std::complex<double>*>(log_pole.data()), s.dim, s.state};
    }
    view<E, 3> weights(array<T>& x) const { return {reinterpret_cast<E*>(x.data()), s.channels, s.dim, s.state}; }

    ssmkit::vandermonde_args<T> args() { return {.log_pole = poles(), .w = weights(w), .K = {K.data(), s.channels, s.dim, s.length}}; }
    ssmkit::vandermonde_transpose_args<T> transpose_args()
    {
        return {.log_pole = poles(), .u = {K.data(), s.channels, s.dim, s.length}, .sum = weights(sum), .weighted = weights(weighted)};
    }

    work needs(double products) const
    {
        const double terms = static_cast<double>(K.size()) * static_cast<double>(s.state);
        return {.updates = terms, .token_channels = static_cast<double>(K.size()), .fmas = products * terms,
                .bytes = static_cast<double>((K.size() + w.size()) * sizeof(T))};
    }
};

template <class T>
view<const T, 1> numbers(const array<T>& x)
{
    return {x.data(), static_cast<index>(x.size())};
}

template <class T>
task sums_task(const vandermonde_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<vandermonde_data<T>>(shape), oracle = std::make_shared<vandermonde_data<T>>(shape);
    ssmkit::reference::vandermonde(oracle->args());
    const auto memory = std::make_shared<std::vector<std::byte>>(ssmkit::vandermonde_workspace_size(d->args(), threads));
    task t;
    t.run = [=] {
        threads == 1 ? ssmkit::vandermonde(d->args(), *memory) : ssmkit::vandermonde(d->args(), *memory, pool(threads));
    };
    t.run();
    t.needs = d->needs(2);
    t.mismatch = mismatch("K", numbers(d->K), numbers(oracle->K));
    return t;
}

template <class T>
task transpose_task(const vandermonde_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<vandermonde_data<T>>(shape), oracle = std::make_shared<vandermonde_data<T>>(shape);
    ssmkit::reference::vandermonde_transpose(oracle->transpose_args());
    const auto memory =
        std::make_shared<std::vector<std::byte>>(ssmkit::vandermonde_transpose_workspace_size(d->transpose_args(), threads));
    task t;
    t.run = [=] {
        threads == 1 ? ssmkit::vandermonde_transpose(d->transpose_args(), *memory)
                     : ssmkit::vandermonde_transpose(d->transpose_args(), *memory, pool(threads));
    };
    t.run();
    t.needs = d->needs(4);
    t.mismatch = mismatch("sum", numbers(d->sum), numbers(oracle->sum));
    if (t.mismatch.empty()) t.mismatch = mismatch("weighted", numbers(d->weighted), numbers(oracle->weighted));
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const vandermonde_shape& s : {vandermonde_shape{1, 64, 32, 4096}, {4, 16, 32, 4096}, {1, 64, 128, 1024}, {1, 63, 5, 1000}}) {
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"vandermonde", "ssmkit", s.name(), "f32", n, [=] { return sums_task<float>(s, n); }});
            rows.push_back({"vandermonde_transpose", "ssmkit", s.name(), "f32", n, [=] { return transpose_task<float>(s, n); }});
        }
    }
    const vandermonde_shape usual{1, 64, 32, 4096};
    rows.push_back({"vandermonde", "ssmkit", usual.name(), "f64", 1, [=] { return sums_task<double>(usual, 1); }});
}};

}  // namespace
}  // namespace bench
