#pragma once

#include <vector>

#include <ssmkit/args/lssl.hpp>
#include <ssmkit/reference/dense_system.hpp>

namespace ssmkit::reference {

namespace parts {

template <class T>
bilinear_steps<double> lssl_steps(const lssl_args<T>& a, index h)
{
    return {widened<double>(a.A), widened<double>(a.B), a.delta[h], a.alpha};
}

template <class T>
std::vector<double> lssl_before(const lssl_args<T>& a, index b, index h)
{
    return a.initial_state.data() ? widened<double>(a.initial_state[b][h]) : std::vector<double>(at(a.B.extent(0)));
}

/// The input of one channel of one sequence.
template <class T>
std::vector<double> lssl_input(const lssl_args<T>& a, index b, index h)
{
    std::vector<double> u;
    for (index l = 0; l < a.u.extent(0); ++l) u.push_back(static_cast<double>(a.u(l, b, h)));
    return u;
}

}  // namespace parts

/// The linear state space layer (args/lssl.hpp), step by step: the oracle of the tests; double inside.
template <class T>
void lssl(const lssl_args<T>& a)
{
    check(a);
    const index length = a.u.extent(0), state = a.B.extent(0);
    for (index h = 0; h < a.u.extent(2); ++h) {
        const auto system = parts::lssl_steps(a, h);
        std::vector<double> impulse(parts::at(length));
        if (length > 0) impulse[0] = 1;
        const auto response = system.states(std::vector<double>(parts::at(state)), impulse);
        for (index n = 0; n < state && a.k.data(); ++n) {
            for (index l = 0; l < length; ++l) a.k(h, n, l) = static_cast<T>(response[parts::at(l + 1)][parts::at(n)]);
        }
        for (index b = 0; b < a.u.extent(1); ++b) {
            const auto x = system.states(parts::lssl_before(a, b, h), parts::lssl_input(a, b, h));
            for (index m = 0; m < a.C.extent(1) && a.y.data(); ++m) {
                const std::vector<double> C = parts::widened<double>(a.C[h][m]);
                for (index l = 0; l < length; ++l) {
                    const double skip = a.D.data() ? static_cast<double>(a.D(h, m)) * static_cast<double>(a.u(l, b, h)) : 0;
                    a.y(l, b, h, m) = static_cast<T>(parts::sum_of_products(C, x[parts::at(l + 1)]) + skip);
                }
            }
            for (index n = 0; n < state && a.final_state.data(); ++n)
                a.final_state(b, h, n) = static_cast<T>(x.back()[parts::at(n)]);
        }
    }
}

/// The gradients of lssl (args/lssl.hpp): the oracle of the tests.
template <class T>
void lssl_backward(const lssl_backward_args<T>& a)
{
    check(a);
    const lssl_args<T>& f = a.forward;
    const index length = f.u.extent(0), state = f.B.extent(0), channels = f.C.extent(1);
    std::vector<double> dA(parts::at(state * state)), dB(parts::at(state));
    for (index h = 0; h < f.u.extent(2); ++h) {
        const auto system = parts::lssl_steps(f, h);
        double ddelta = 0;
        std::vector<double> dC(parts::at(channels * state)), dD(parts::at(channels));
        for (index b = 0; b < f.u.extent(1); ++b) {
            const auto before = parts::lssl_before(f, b, h), u = parts::lssl_input(f, b, h);
            std::vector<double> du(parts::at(length)), dbefore(parts::at(state));
            const auto add = [&](const std::vector<double>& map, const std::vector<double>& upstream) {
                const parts::bilinear_gradients<double> g(system, before, u, map, upstream);
                ddelta += g.delta;
                for (std::size_t i = 0; i < dA.size(); ++i) dA[i] += g.A[i];
                for (std::size_t i = 0; i < dB.size(); ++i) dB[i] += g.B[i], dbefore[i] += g.before[i];
                for (std::size_t l = 0; l < du.size(); ++l) du[l] += g.u[l];
                return g.c;
            };
            for (index m = 0; m < channels; ++m) {
                std::vector<double> dy;
                for (index l = 0; l < length; ++l) {
                    dy.push_back(static_cast<double>(a.dy(l, b, h, m)));
                    if (f.D.data()) du[parts::at(l)] += dy.back() * static_cast<double>(f.D(h, m));
                }
                dD[parts::at(m)] += parts::sum_of_products(dy, u);
                const std::vector<double> g = add(parts::widened<double>(f.C[h][m]), dy);
                for (std::size_t i = 0; i < g.size(); ++i) dC[parts::at(m * state) + i] += g[i];
            }
            if (a.dfinal_state.data()) {  // as a map that looks at the last state only
                const std::vector<double> map = parts::widened<double>(a.dfinal_state[b][h]);
                std::vector<double> last(parts::at(length));
                if (length > 0) {
                    last.back() = 1;
                    add(map, last);
                } else {
                    dbefore = map;
                }
            }
            for (index l = 0; l < length && a.du.data(); ++l) a.du(l, b, h) = static_cast<T>(du[parts::at(l)]);
            for (index n = 0; n < state && a.dinitial_state.data(); ++n)
                a.dinitial_state(b, h, n) = static_cast<T>(dbefore[parts::at(n)]);
        }
        if (a.ddelta.data()) a.ddelta[h] = ddelta;
        for (index m = 0; m < channels; ++m) {
            if (a.dD.data()) a.dD(h, m) = static_cast<T>(dD[parts::at(m)]);
            for (index n = 0; n < state && a.dC.data(); ++n) a.dC(h, m, n) = static_cast<T>(dC[parts::at(m * state + n)]);
        }
    }
    for (index n = 0; n < state; ++n) {
        if (a.dB.data()) a.dB[n] = static_cast<T>(dB[parts::at(n)]);
        for (index k = 0; k < state && a.dA.data(); ++k) a.dA(n, k) = static_cast<T>(dA[parts::at(n * state + k)]);
    }
}

}  // namespace ssmkit::reference
