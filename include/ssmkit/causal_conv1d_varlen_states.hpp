#pragma once

#include <cstddef>

#include <ssmkit/args/causal_conv1d_varlen_states.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {

/// The last inputs of packed sequences: equation at causal_conv1d_varlen_states_args. Throws shape_error before anything is
/// written. Nothing is computed and nothing allocated; work splits over the sequences.
template <class T, execution_resource Exec = in_place>
void causal_conv1d_varlen_states(const causal_conv1d_varlen_states_args<T>& a, Exec&& exec = {})
{
    check(a);
    const index dim = a.x.extent(1), state_len = a.states.extent(2);
    detail::run_tasks(exec, static_cast<std::size_t>(a.states.extent(0)), [&](std::size_t task, std::size_t) {
        const index i = static_cast<index>(task), first = a.cu_seqlens[i], end = a.cu_seqlens[i + 1];
        const view<T, 2> states = a.states[i];
        for (index k = 0; k < state_len; ++k) {
            const index token = end - state_len + k;  // read row by row; the writes of the few slots stay in cache
            for (index c = 0; c < dim; ++c) states(c, k) = token >= first ? a.x(token, c) : T(0);
        }
    });
}

}  // namespace ssmkit
