// The response of one channel with one state to an impulse: the decay exp(delta A) from token to token.

#include <cstdio>
#include <vector>

#include <ssmkit/selective_scan.hpp>

int main()
{
    constexpr int batch = 1, length = 5, dim = 1, state = 1, ngroups = 1;
    const std::vector<float> u{1, 0, 0, 0, 0}, delta(length, 0.5f), A{-1}, B(length, 1), C(length, 1);
    std::vector<float> y(length);
    ssmkit::selective_scan(ssmkit::selective_scan_args<float>{.u = {u, batch, length, dim},
                                                              .delta = {delta, batch, length, dim},
                                                              .A = {A, dim, state},
                                                              .B = {B, batch, length, ngroups, state},
                                                              .C = {C, batch, length, ngroups, state},
                                                              .y = {y, batch, length, dim}});
    for (const float value : y) std::printf("%.4f ", value);  // 0.5 exp(-t / 2)
    std::printf("\n");
}
