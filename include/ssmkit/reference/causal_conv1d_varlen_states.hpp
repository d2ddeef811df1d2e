#pragma once

#include <ssmkit/args/causal_conv1d_varlen_states.hpp>

namespace ssmkit::reference {

/// The states of packed sequences as their equation says it (args/causal_conv1d_varlen_states.hpp): the oracle of the tests.
template <class T>
void causal_conv1d_varlen_states(const causal_conv1d_varlen_states_args<T>& a)
{
    check(a);
    const index state_len = a.states.extent(2);
    for (index i = 0; i < a.states.extent(0); ++i) {
        for (index c = 0; c < a.x.extent(1); ++c) {
            for (index k = 0; k < state_len; ++k) {
                const index token = a.cu_seqlens[i + 1] - 1 - k;
                a.states(i, c, state_len - 1 - k) = token >= a.cu_seqlens[i] ? a.x(token, c) : T(0);
            }
        }
    }
}

}  // namespace ssmkit::reference
