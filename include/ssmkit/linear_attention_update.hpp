#pragma once

#include <algorithm>

#include <ssmkit/args/linear_attention_update.hpp>
#include <ssmkit/detail/math.hpp>
#include <ssmkit/detail/tile_product.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// Registers of values that go by together, as rows of the state lie in memory.
template <class Arch>
inline constexpr index linear_attention_step_columns = many_registers<Arch> ? 4 : 2;

/// Keys and values that a step handles at once: rows of the stack's arrays.
inline constexpr index linear_attention_block = 256;

/// Some keys and values of a head's state in memory, and what a step multiplies them by.
template <class R>
struct linear_attention_block_of_state {
    R* S;
    index key_stride, value_stride;
    index keys, values;
    const R *decay, *k, *q;  // [key]
};

/// Which part of a step is taken.
enum class linear_attention_pass {
    whole,  // S = a S + k ⊗ u, y += S^T q
    read,   // Sk += (a S)^T k, y += (a S)^T q
    write,  // S = a S + k ⊗ u
};

/// A pass over `Columns` registers of values from `range` on: lanes run along the values, which are independent of each other.
template <class Arch, linear_attention_pass Pass, bool Contiguous, index Columns, class Range, class R>
[[gnu::noinline, gnu::flatten]] void pass_over_columns(const linear_attention_block_of_state<R>& block, const Range range,
                                                       const R* u, R* Sk, R* y)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    const linear_attention_block_of_state<R> m = block;  // a copy: the compiler cannot know that stores leave it alone
    v taken_in[Columns], sum_q[Columns], sum_k[Columns];
    unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
        if constexpr (Pass != linear_attention_pass::read) taken_in[c] = range.load(u + c * n);
        if constexpr (Pass != linear_attention_pass::write) sum_q[c] = range.load(y + c * n);
        if constexpr (Pass == linear_attention_pass::read) sum_k[c] = range.load(Sk + c * n);
    });
    R* row = m.S;
    for (index i = 0; i < m.keys; ++i, row += m.key_stride) {
        const v decay(m.decay[i]), k(m.k[i]), q(m.q[i]);
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            R* const p = row + c * n * m.value_stride;
            v S = decay * (Contiguous ? range.load(p) : range.load(p, m.value_stride));
            if constexpr (Pass == linear_attention_pass::read) {
                sum_k[c] = multiply_add(k, S, sum_k[c]);
            } else {
                S = multiply_add(k, taken_in[c], S);
                Contiguous ? range.store(S, p) : range.store(S, p, m.value_stride);
            }
            if constexpr (Pass != linear_attention_pass::write) sum_q[c] = multiply_add(q, S, sum_q[c]);
        });
    }
    unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
        if constexpr (Pass != linear_attention_pass::write) range.store(sum_q[c], y + c * n);
        if constexpr (Pass == linear_attention_pass::read) range.store(sum_k[c], Sk + c * n);
    });
}

/// A pass over all values of a block, as many registers side by side as there are accumulators for.
template <class Arch, linear_attention_pass Pass, bool Contiguous, class R>
void pass_over_state(const linear_attention_block_of_state<R>& m, const R* u, R* Sk, R* y)
{
    constexpr index n = lanes<R, Arch>;
    const index full = m.values / n;
    for_each_column_group<Arch, linear_attention_step_columns<Arch>>(full, [&](index first, auto columns) {
        pass_over_columns<Arch, Pass, Contiguous, columns()>(m, lane_range<R, Arch, true>{first * n}, u, Sk, y);
    });
    if (full * n < m.values) {
        const lane_range<R, Arch, false> rest{full * n, m.values - full * n};
        pass_over_columns<Arch, Pass, Contiguous, 1>(m, rest, u, Sk, y);
    }
}

/// One step of a block of values of a head.
template <class Arch, class T>
class linear_attention_step {
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    static constexpr index most = linear_attention_block;

public:
    linear_attention_step(const linear_attention_update_args<T>& a, index b, index entry, index head, index first, index values)
        : a_(a), b_(b), entry_(entry), head_(head),
          group_(head / std::max(index{1}, a.v.extent(1) / std::max(index{1}, a.k.extent(1)))),
          first_(first), values_(values), scale_(linear_attention_scale<T>(a.scale, a.k.extent(2)))
    {
    }

    void run()
    {
        const view<const T, 3>& given = a_.v;
        copy(given.pointer(b_, head_, first_), given.stride(2), values_, u_);
        std::fill_n(y_, values_, R(0));
        if (a_.beta.data()) {
            std::fill_n(Sk_, values_, R(0));
            const R kq = pass<linear_attention_pass::read>();
            correct(static_cast<R>(a_.beta(b_, head_)), kq);
            pass<linear_attention_pass::write>();
        } else {
            pass<linear_attention_pass::whole>();
        }
        finish();
    }

private:
    template <class E>
    [[gnu::flatten]] static void copy(const E* from, index stride, index count, R* to)
    {
        for_each_lanes<R, Arch>(
            count, [&](auto range) __attribute__((always_inline)) { range.store(range.load(from, stride), to); });
    }

    /// Over all keys, a block of them at a time. Returns k·q.
    template <linear_attention_pass Pass>
    R pass()
    {
        R kq = 0;
        const index key = a_.k.extent(2);
        for (index first = 0; first < key; first += most) {
            const index keys = std::min(most, key - first);
            // Otherwise it is as the reading left it.
            if (Pass != linear_attention_pass::write || key > most) kq += prepare(first, keys);
            const linear_attention_block_of_state<R> m{.S = a_.S.pointer(entry_, head_, first, first_),
                                                       .key_stride = a_.S.stride(2),
                                                       .value_stride = a_.S.stride(3),
                                                       .keys = keys,
                                                       .values = values_,
                                                       .decay = decay_,
                                                       .k = k_,
                                                       .q = q_};
            m.value_stride == 1 ? pass_over_state<Arch, Pass, true>(m, u_, Sk_, y_)
                                : pass_over_state<Arch, Pass, false>(m, u_, Sk_, y_);
        }
        return kq;
    }

    /// Decays, k and q of some keys; returns what they add to k·q.
    [[gnu::flatten]] R prepare(index first, index keys)
    {
        copy(a_.k.pointer(b_, group_, first), a_.k.stride(2), keys, k_);
        copy(a_.q.pointer(b_, group_, first), a_.q.stride(2), keys, q_);
        const v rate(static_cast<R>(log2_e)), head(a_.g.data() ? static_cast<R>(a_.g(b_, head_)) : R(0));
        const T* const each = a_.gk.data() ? a_.gk.pointer(b_, group_, first) : nullptr;
        v kq(R(0));
        for_each_lanes<R, Arch>(keys, [&](auto range) __attribute__((always_inline)) {
            const v log_decay = each ? head + range.load(each, a_.gk.stride(2)) : head;
            range.store(fast_exp2(log_decay * rate), decay_);
            kq = multiply_add(range.load(k_), range.load(q_), kq);
        });
        return sum<R, Arch>(kq);
    }

    /// The delta rule: what is taken in, u = β (v - S'^T k), and its share of the output.
    [[gnu::flatten]] void correct(R beta, R kq)
    {
        for_each_lanes<R, Arch>(values_, [&](auto range) __attribute__((always_inline)) {
            const v u = v(beta) * (range.load(u_) - range.load(Sk_));
            range.store(u, u_);
            range.store(multiply_add(v(kq), u, range.load(y_)), y_);
        });
    }

    [[gnu::flatten]] void finish()
    {
        T* const out = a_.y.pointer(b_, head_, first_);
        for_each_lanes<R, Arch>(values_, [&](auto range) __attribute__((always_inline)) {
            range.store(v(scale_) * range.load(y_), out, a_.y.stride(2));
        });
    }

    const linear_attention_update_args<T>& a_;
    index b_, entry_, head_, group_, first_, values_;
    R scale_;
    alignas(64) R u_[most], y_[most], Sk_[most], decay_[most], k_[most], q_[most];
};

}  // namespace detail

/// One decoding step: shapes, equations and options at linear_attention_update_args. Throws shape_error before anything is
/// written. Allocates nothing and takes no lock; work splits over batch, heads and blocks of 256 values. The state is read and
/// written once, with the delta rule read twice.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void linear_attention_update(const linear_attention_update_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index batch = a.v.extent(0), nheads = a.v.extent(1), value = a.v.extent(2);
    const index parts = (value + linear_attention_block - 1) / linear_attention_block;
    run_tasks(exec, static_cast<std::size_t>(batch * nheads * parts), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const index part = static_cast<index>(task) % parts, row = static_cast<index>(task) / parts;
        const index b = row / nheads, head = row % nheads, first = part * linear_attention_block;
        const index values = std::min(linear_attention_block, value - first);
        const index entry = a.state_batch_indices.data() ? index{a.state_batch_indices[b]} : b;
        if (entry < 0) {
            for (index j = first; j < first + values; ++j) a.y(b, head, j) = T(compute_t<T>(0));
        } else {
            linear_attention_step<Arch, T>(a, b, entry, head, first, values).run();
        }
    });
}

}  // namespace ssmkit
