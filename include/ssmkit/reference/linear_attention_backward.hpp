#pragma once

#include <cstddef>
#include <vector>

#include <ssmkit/args/linear_attention_backward.hpp>
#include <ssmkit/reference/linear_attention.hpp>
#include <ssmkit/reference/selective_scan_backward.hpp>

namespace ssmkit::reference {

/// The gradients of linear_attention (args/linear_attention_backward.hpp) as their equations say it: the oracle of the
/// tests. It keeps all states of a head, (length + 1) * key * value numbers.
template <class T>
void linear_attention_backward(const linear_attention_backward_args<T>& a)
{
    check(a);
    using real = compute_t<T>;
    const linear_attention_args<T>& f = a.forward;
    const index nheads = f.v.extent(2), key = f.k.extent(3), value = f.v.extent(3);
    const real scale = linear_attention_scale<T>(f.scale, key);

    // What is summed over the heads of a group starts at zero.
    for (const auto& sum : {a.dq, a.dk, a.dgk}) parts::for_each_element(sum, [](real& x) { x = 0; });

    for (index sequence = 0; sequence < linear_attention_sequence_count(f); ++sequence) {
        const parts::linear_attention_sequence of = parts::linear_attention_sequence_at(f, sequence);
        for (index head = 0; head < nheads; ++head) {
            const index group = head / (nheads / f.k.extent(2));

            std::vector<std::vector<real>> states{parts::linear_attention_state(f, f.initial_state, sequence, head)};
            for (const index t : of.tokens) {  // states[step] is what that step meets
                states.push_back(states.back());
                const auto token = parts::linear_attention_token_at(f, of.b, t, head);
                token.forget({states.back(), key, value});
                token.learn({states.back(), key, value});
            }

            // The gradient of the state, from everything that happens later.
            std::vector<real> gradient = parts::linear_attention_state(f, a.dfinal_state, sequence, head);
            const view<real, 2> G(gradient, key, value);
            for (std::size_t step = of.tokens.size(); step-- > 0;) {
                const index t = of.tokens[step];
                const auto token = parts::linear_attention_token_at(f, of.b, t, head);
                std::vector<real> before = states[step];
                const view<real, 2> S(states[step + 1], key, value), decayed(before, key, value);
                token.forget(decayed);
                const std::vector<real> innovation = token.innovation(decayed);
                const auto dy = [&](index j) { return static_cast<real>(a.dy(of.b, t, head, j)); };

                for (index i = 0; i < key; ++i) {
                    for (index j = 0; j < value; ++j) G(i, j) += scale * token.q_at(i) * dy(j);
                }
                std::vector<real> du(innovation.size());
                for (index i = 0; i < key; ++i) {
                    for (index j = 0; j < value; ++j) du[static_cast<std::size_t>(j)] += G(i, j) * token.k_at(i);
                }
                real dbeta = 0, dg = 0;
                for (index j = 0; j < value; ++j) {
                    const auto n = static_cast<std::size_t>(j);
                    dbeta += du[n] * innovation[n];
                    if (a.dv.data()) a.dv(of.b, t, head, j) = static_cast<T>(token.beta * du[n]);
                }
                for (index i = 0; i < key; ++i) {
                    real dq = 0, dk = 0, dgk = 0;
                    for (index j = 0; j < value; ++j) {
                        const auto n = static_cast<std::size_t>(j);
                        dq += scale * S(i, j) * dy(j);
                        dk += G(i, j) * (token.beta * innovation[n]);
                        if (token.corrects) {
                            dk -= token.beta * decayed(i, j) * du[n];
                            G(i, j) -= token.beta * token.k_at(i) * du[n];  // that of S'
                        }
                        dgk += G(i, j) * decayed(i, j);
                        G(i, j) *= token.decay(i);  // that of the state before
                    }
                    dg += dgk;
                    if (a.dq.data()) a.dq(of.b, t, group, i) += dq;
                    if (a.dk.data()) a.dk(of.b, t, group, i) += dk;
                    if (a.dgk.data()) a.dgk(of.b, t, group, i) += dgk;
                }
                if (a.dg.data()) a.dg(of.b, t, head) = dg;
                if (a.dbeta.data()) a.dbeta(of.b, t, head) = dbeta;
            }
            parts::put_linear_attention_state(gradient, a.dinitial_state, sequence, head);
        }
    }
}

}  // namespace ssmkit::reference
