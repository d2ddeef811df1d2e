// One decoding step of one channel with one state: h = exp(-1) * 2 + 1 * 3 * 5, y = 7 h.

#include <cmath>
#include <cstdio>
#include <vector>

#include <ssmkit/ssmkit.hpp>

int main()
{
    std::vector<float> h{2}, u{5}, delta{1}, A{-1}, B{3}, C{7}, y{0};
    const ssmkit::selective_state_update_args<float> step{.h = {h, 1, 1, 1, 1},
                                                          .u = {u, 1, 1, 1},
                                                          .delta = {delta, 1, 1, 1},
                                                          .A = {A, 1, 1, 1},
                                                          .B = {B, 1, 1, 1},
                                                          .C = {C, 1, 1, 1},
                                                          .y = {y, 1, 1, 1}};
    ssmkit::selective_state_update(step);
    const float expected = 7 * (std::exp(-1.0f) * 2 + 15);
    std::printf("%g, expected %g\n", static_cast<double>(y[0]), static_cast<double>(expected));
    return std::abs(y[0] - expected) <= 1e-5f * expected ? 0 : 1;
}
