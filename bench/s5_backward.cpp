#include <ssmkit/s5_backward.hpp>

#include <memory>

#include <ssmkit/reference/s5_backward.hpp>
#include <ssmkit/s5.hpp>

#include "s5_problem.hpp"

namespace bench {
namespace {

std::string compared(s5_shape shape)
{
    shape.batch = 1;
    shape.length = 70;
    s5_data got(shape), expected(shape);
    got.make_gradients(), expected.make_gradients();
    ssmkit::s5_backward(got.backward_args());
    ssmkit::reference::s5_backward(expected.backward_args());
    const auto all = [](const array<float>& x) { return view<const float, 1>(x.data(), static_cast<index>(x.size())); };
    std::string worst;
    const auto compare = [&](const char* name, const array<float>& x, const array<float>& y) {
        if (worst.empty()) worst = mismatch(name, all(x), all(y));
    };
    compare("dA", got.dA, expected.dA), compare("ddelta", got.ddelta, expected.ddelta), compare("dB", got.dB, expected.dB);
    compare("dC", got.dC, expected.dC), compare("dD", got.dD, expected.dD), compare("du", got.du, expected.du);
    compare("dinterval", got.dinterval, expected.dinterval);
    return worst;
}

task ssmkit_task(const s5_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<s5_data>(shape);
    d->make_gradients();
    const auto a = d->backward_args();
    const auto memory = std::make_shared<array<std::byte>>(
        std::max(ssmkit::s5_backward_workspace_size(a, threads), ssmkit::s5_workspace_size(a.forward)));
    task t;
    t.run = [a, d, memory, threads] {
        if (threads == 1) return ssmkit::s5_backward(a, ssmkit::workspace(*memory));
        ssmkit::s5_backward(a, ssmkit::workspace(*memory), pool(threads));
    };
    t.needs = d->needs(5, 4);  // B u, C^H dy, B^H s, and the sums for dB and dC
    t.mismatch = compared(shape);
    if (threads == 1) {
        t.rivals.push_back({"times_forward", [a, d, memory] { ssmkit::s5(a.forward, ssmkit::workspace(*memory)); }, true});
    } else {
        t.rivals.push_back({"times_one_thread", [a, d, memory] { ssmkit::s5_backward(a, ssmkit::workspace(*memory)); }});
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const bool events : {false, true}) {
        const s5_shape s{.batch = 8, .length = 2048, .dim = 256, .state = 256, .events = events};
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"s5_backward", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
        }
    }
}};

}  // namespace
}  // namespace bench
