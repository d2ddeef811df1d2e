#pragma once

#include <vector>

#include <ssmkit/args/causal_conv1d_update.hpp>
#include <ssmkit/reference/causal_conv1d.hpp>

namespace ssmkit::reference {

/// Decoding with the causal convolution as its equations say it (args/causal_conv1d_update.hpp): the oracle of the tests.
/// It keeps one channel's inputs, state_len + length of them.
template <class T>
void causal_conv1d_update(const causal_conv1d_update_args<T>& a)
{
    check(a);
    using real = compute_t<T>;
    const index length = a.x.extent(1), width = a.weight.extent(1), state_len = a.conv_state.extent(2);
    std::vector<T> seen(static_cast<std::size_t>(state_len + length));  // the past, oldest first, then x
    for (index b = 0; b < a.x.extent(0); ++b) {
        const index entry = a.conv_state_indices.data() ? a.conv_state_indices[b] : b;
        for (index c = 0; c < a.x.extent(2); ++c) {
            if (entry < 0) {
                for (index l = 0; l < length; ++l) a.y(b, l, c) = T(0);
                continue;
            }
            // The past ends right before the first token: at the end of the entry, or in the ring's slot of token -1.
            const auto slot = [&](index position) {
                return a.cache_seqlens.data() ? ssmkit::detail::ring_slot(a.cache_seqlens[b] + position, state_len)
                                              : state_len + position;
            };
            for (index k = 0; k < state_len; ++k) {
                seen[static_cast<std::size_t>(k)] = a.conv_state(entry, c, slot(k - state_len));
            }
            for (index l = 0; l < length; ++l) {
                seen[static_cast<std::size_t>(state_len + l)] = a.x(b, l, c);
                real sum = a.bias.data() ? a.bias[c] : real(0);
                for (index j = 0; j < width; ++j) {
                    sum += a.weight(c, j) * static_cast<real>(seen[static_cast<std::size_t>(state_len + l + j - (width - 1))]);
                }
                a.y(b, l, c) = static_cast<T>(a.silu ? parts::causal_conv1d_silu(sum) : sum);
            }
            if (a.cache_seqlens.data()) {
                for (index l = 0; l < length && state_len > 0; ++l) a.conv_state(entry, c, slot(l)) = a.x(b, l, c);
            } else {
                for (index k = 0; k < state_len; ++k) {
                    a.conv_state(entry, c, k) = seen[static_cast<std::size_t>(length + k)];
                }
            }
        }
    }
}

}  // namespace ssmkit::reference
