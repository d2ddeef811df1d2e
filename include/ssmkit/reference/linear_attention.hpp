#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include <ssmkit/args/linear_attention.hpp>

namespace ssmkit::reference {

namespace parts {

/// What a head reads of a token, and what it does with its state: one function for each equation.
template <class T>
struct linear_attention_token {
    using real = compute_t<T>;
    using matrix = view<real, 2>;  // (key, value)

    view<const T, 1> q{}, k{}, v{}, gk{};
    real g = 0, beta = 1;
    bool corrects = false;  // the delta rule

    index key() const { return k.extent(0); }
    index value() const { return v.extent(0); }
    real q_at(index i) const { return static_cast<real>(q[i]); }
    real k_at(index i) const { return static_cast<real>(k[i]); }
    real v_at(index j) const { return static_cast<real>(v[j]); }

    real decay(index i) const { return std::exp(gk.data() ? g + static_cast<real>(gk[i]) : g); }

    /// S' from S.
    void forget(const matrix& S) const
    {
        for (index i = 0; i < key(); ++i) {
            const real kept = decay(i);
            for (index j = 0; j < value(); ++j) S(i, j) *= kept;
        }
    }

    /// v - S'^T k, or v: β times this is u.
    std::vector<real> innovation(const matrix& S) const
    {
        std::vector<real> e;
        for (index j = 0; j < value(); ++j) {
            real recalled = 0;
            if (corrects) {
                for (index i = 0; i < key(); ++i) recalled += S(i, j) * k_at(i);
            }
            e.push_back(v_at(j) - recalled);
        }
        return e;
    }

    /// S from S'.
    void learn(const matrix& S) const
    {
        const std::vector<real> e = innovation(S);
        for (index i = 0; i < key(); ++i) {
            for (index j = 0; j < value(); ++j) S(i, j) += k_at(i) * (beta * e[static_cast<std::size_t>(j)]);
        }
    }

    /// y from S.
    void recall(const matrix& S, real scale, const view<T, 1>& y) const
    {
        for (index j = 0; j < value(); ++j) {
            real sum = 0;
            for (index i = 0; i < key(); ++i) sum += S(i, j) * q_at(i);
            y[j] = static_cast<T>(scale * sum);
        }
    }
};

template <class T>
linear_attention_token<T> linear_attention_token_at(const linear_attention_args<T>& a, index b, index t, index head)
{
    using real = compute_t<T>;
    const index group = head / (a.v.extent(2) / a.k.extent(2));
    linear_attention_token<T> token{.q = a.q[b][t][group], .k = a.k[b][t][group], .v = a.v[b][t][head]};
    if (a.gk.data()) token.gk = a.gk[b][t][group];
    if (a.g.data()) token.g = static_cast<real>(a.g(b, t, head));
    if (a.beta.data()) token.beta = static_cast<real>(a.beta(b, t, head));
    token.corrects = a.beta.data() != nullptr;
    return token;
}

/// Which row of the batch a sequence lies in, and the positions of its tokens in the order of visiting.
struct linear_attention_sequence {
    index b = 0;
    std::vector<index> tokens;
};

template <class T>
linear_attention_sequence linear_attention_sequence_at(const linear_attention_args<T>& a, index sequence)
{
    const bool packed = a.cu_seqlens.data() != nullptr;
    const index begin = packed ? a.cu_seqlens[sequence] : 0;
    const index end = packed ? a.cu_seqlens[sequence + 1] : a.v.extent(1);
    linear_attention_sequence s{.b = packed ? 0 : sequence, .tokens = {}};
    for (index i = 0; i < end - begin; ++i) s.tokens.push_back(a.reverse ? end - 1 - i : begin + i);
    return s;
}

/// A state's elements, (key, value) row by row; zeros unless there is something to copy.
template <class T>
std::vector<compute_t<T>> linear_attention_state(const linear_attention_args<T>& a,
                                                 const view<const compute_t<T>, 4>& from, index sequence, index head)
{
    const index key = a.k.extent(3), value = a.v.extent(3);
    std::vector<compute_t<T>> S(static_cast<std::size_t>(key * value));
    if (from.data()) {
        for (index i = 0; i < key; ++i) {
            for (index j = 0; j < value; ++j) S[static_cast<std::size_t>(i * value + j)] = from(sequence, head, i, j);
        }
    }
    return S;
}

template <class Real>
void put_linear_attention_state(const std::vector<Real>& S, const view<Real, 4>& to, index sequence, index head)
{
    if (to.data() == nullptr) return;
    const index key = to.extent(2), value = to.extent(3);
    for (index i = 0; i < key; ++i) {
        for (index j = 0; j < value; ++j) to(sequence, head, i, j) = S[static_cast<std::size_t>(i * value + j)];
    }
}

}  // namespace parts

/// linear_attention (args/linear_attention.hpp) as its recurrence says it, token by token: the oracle of the tests, for any
/// strides and options, in compute_t<T> throughout.
template <class T>
void linear_attention(const linear_attention_args<T>& a)
{
    check(a);
    using real = compute_t<T>;
    const index key = a.k.extent(3), value = a.v.extent(3);
    const real scale = linear_attention_scale<T>(a.scale, key);
    for (index sequence = 0; sequence < linear_attention_sequence_count(a); ++sequence) {
        const parts::linear_attention_sequence of = parts::linear_attention_sequence_at(a, sequence);
        for (index head = 0; head < a.v.extent(2); ++head) {
            std::vector<real> state = parts::linear_attention_state(a, a.initial_state, sequence, head);
            const view<real, 2> S(state, key, value);
            for (const index t : of.tokens) {
                const auto token = parts::linear_attention_token_at(a, of.b, t, head);
                token.forget(S);
                token.learn(S);
                token.recall(S, scale, a.y[of.b][t][head]);
            }
            parts::put_linear_attention_state(state, a.final_state, sequence, head);
        }
    }
}

}  // namespace ssmkit::reference
