#include <ssmkit/toeplitz.hpp>

#include <cmath>
#include <memory>
#include <string>

#include <ssmkit/reference/toeplitz.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

/// Floor: three real transforms of twice the length a row, 2.5 n log2 n operations each, half as many multiply-adds.
task toeplitz_task(index rows, index length, std::size_t threads)
{
    struct data {
        array<float> u, v, y;
        array<std::byte> memory;
    };
    const auto count = static_cast<std::size_t>(rows * length);
    const auto d = std::make_shared<data>(data{fill<float>(count, -1, 1, 1), fill<float>(count, -1, 1, 2), array<float>(count), {}});
    const auto matrix = [=](array<float>& x) { return view<float, 2>(x.data(), rows, length); };
    const ssmkit::toeplitz_args<float> a{.u = matrix(d->u), .v = matrix(d->v), .y = matrix(d->y)};
    d->memory.resize(ssmkit::toeplitz_workspace_size(a, threads));
    task t;
    t.run = [d, a, threads] {
        if (threads == 1) return ssmkit::toeplitz(a, ssmkit::workspace(d->memory));
        ssmkit::toeplitz(a, ssmkit::workspace(d->memory), pool(threads));
    };
    t.run();
    array<float> expected(count);
    auto oracle = a;
    oracle.y = matrix(expected);
    ssmkit::reference::toeplitz(oracle);
    t.mismatch = mismatch("y", a.y, oracle.y);
    const double n = 2 * static_cast<double>(length), all = static_cast<double>(count);
    t.needs = {.updates = all, .token_channels = all, .fmas = 3 * 1.25 * n * std::log2(n) * static_cast<double>(rows),
               .bytes = 3 * sizeof(float) * all};
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const auto& [count, length] : {std::pair<index, index>{64, 1024}, {16, 4096}, {63, 1000}}) {
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"toeplitz", "ssmkit", std::to_string(count) + "x" + std::to_string(length), "f32", n,
                            [=, count = count, length = length] { return toeplitz_task(count, length, n); }});
        }
    }
}};

}  // namespace
}  // namespace bench
