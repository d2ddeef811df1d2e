#pragma once

#include <ssmkit/args/linear_attention_update.hpp>
#include <ssmkit/reference/linear_attention.hpp>

namespace ssmkit::reference {

/// The decoding step (args/linear_attention_update.hpp) as its equations say it: the oracle of the tests, for any strides
/// and options, in compute_t<T> throughout.
template <class T>
void linear_attention_update(const linear_attention_update_args<T>& a)
{
    check(a);
    using real = compute_t<T>;
    const index nheads = a.v.extent(1), value = a.v.extent(2);
    const real scale = linear_attention_scale<T>(a.scale, a.k.extent(2));
    for (index b = 0; b < a.v.extent(0); ++b) {
        const index entry = a.state_batch_indices.data() ? a.state_batch_indices[b] : b;
        for (index head = 0; head < nheads; ++head) {
            if (entry < 0) {  // padding
                for (index j = 0; j < value; ++j) a.y(b, head, j) = static_cast<T>(real(0));
                continue;
            }
            const index group = head / (nheads / a.k.extent(1));
            parts::linear_attention_token<T> token{.q = a.q[b][group], .k = a.k[b][group], .v = a.v[b][head]};
            if (a.gk.data()) token.gk = a.gk[b][group];
            if (a.g.data()) token.g = static_cast<real>(a.g(b, head));
            if (a.beta.data()) token.beta = static_cast<real>(a.beta(b, head));
            token.corrects = a.beta.data() != nullptr;
            const view<real, 2> S = a.S[entry][head];
            token.forget(S);
            token.learn(S);
            token.recall(S, scale, a.y[b][head]);
        }
    }
}

}  // namespace ssmkit::reference
