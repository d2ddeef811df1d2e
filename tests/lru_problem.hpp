#pragma once

// Problems of the linear recurrent unit: S5's, with the eigenvalues and the normalisation made of real parameters.

#include <ssmkit/args/lru_backward.hpp>

#include "s5_problem.hpp"

namespace ssmkit::testing {

template <class T>
struct lru_problem {
    using real = typename lru_args<T>::real;

    s5_problem<T> p;
    tensor<real, 1> nu_log, theta_log, gamma_log, dnu_log, dtheta_log, dgamma_log;

    explicit lru_problem(const s5_setup& s) : p(adapted(s))
    {
        random numbers(s.seed + 7);
        for (auto* x : {&nu_log, &theta_log, &gamma_log}) {
            *x = tensor<real, 1>({s.state}, s.inputs, s.edge);
            x->fill(numbers, {-3, 0.5});
        }
        make_outputs();
    }

    static s5_setup adapted(s5_setup s)
    {
        s.discrete = true;
        s.events = s.bidirectional = s.liquid = s.conjugate_pairs = s.clip_eigs = false;
        return s;
    }

    explicit lru_problem(s5_problem<T> wide) : p(std::move(wide)) {}

    lru_problem<double> wide() const
    {
        lru_problem<double> w(p.wide());
        w.nu_log = nu_log.template as<double>();
        w.theta_log = theta_log.template as<double>();
        w.gamma_log = gamma_log.template as<double>();
        w.make_outputs();
        return w;
    }

    void make_outputs()
    {
        p.make_outputs();
        for (auto* x : {&dnu_log, &dtheta_log, &dgamma_log}) *x = tensor<real, 1>({p.s.state}, p.s.outputs, p.s.edge);
    }

    lru_args<T> args() const
    {
        return {.nu_log = nu_log.view(),
                .theta_log = theta_log.view(),
                .gamma_log = gamma_log.view(),
                .B = p.B.view(),
                .C = p.C.view(),
                .D = p.D.view(),
                .u = p.u.view(),
                .initial_state = p.initial_state.view(),
                .reset = p.reset.view(),
                .reverse = p.s.reverse,
                .y = p.y.view(),
                .final_state = p.final_state.view()};
    }

    lru_backward_args<T> backward_args() const
    {
        lru_backward_args<T> x{.forward = args(),
                               .dy = p.dy.view(),
                               .dfinal_state = p.dfinal_state.view(),
                               .dnu_log = dnu_log.view(),
                               .dtheta_log = dtheta_log.view(),
                               .dgamma_log = dgamma_log.view(),
                               .dB = p.dB.view(),
                               .dC = p.dC.view(),
                               .dD = p.dD.view(),
                               .du = p.du.view(),
                               .dinitial_state = p.dinitial_state.view()};
        x.forward.y = {};
        x.forward.final_state = {};
        return x;
    }

    template <class Other, class F>
    void for_each_gradient(const Other& other, F&& f) const
    {
        f("dnu_log", dnu_log, other.dnu_log), f("dtheta_log", dtheta_log, other.dtheta_log),
            f("dgamma_log", dgamma_log, other.dgamma_log);
        f("dB", p.dB, other.p.dB), f("dC", p.dC, other.p.dC), f("dD", p.dD, other.p.dD), f("du", p.du, other.p.du);
        f("dinitial_state", p.dinitial_state, other.p.dinitial_state);
    }
};

}  // namespace ssmkit::testing
