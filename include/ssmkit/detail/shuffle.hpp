#pragma once

// Exchanges between lanes: transposition, sums across lanes, records of a few elements. Written on the compilers' shuffle
// builtin, which knows the cheapest instructions of every set.

#include <ssmkit/detail/simd.hpp>

namespace ssmkit::detail {

/// Swaps the odd blocks of `Block` lanes of a with the even ones of b.
template <index Block, class T, class Arch>
[[gnu::always_inline]] inline void swap_blocks(vec<T, Arch>& a, vec<T, Arch>& b)
{
    using reg = typename vec<T, Arch>::register_type;
    constexpr index n = lanes<T, Arch>;
    [&]<index... L>(std::integer_sequence<index, L...>) {
        const reg x = a, y = b;
        a = vec<T, Arch>(
            reg(__builtin_shufflevector(x, y, ((L & Block) ? static_cast<int>(n + L - Block) : static_cast<int>(L))...)));
        b = vec<T, Arch>(
            reg(__builtin_shufflevector(x, y, ((L & Block) ? static_cast<int>(n + L) : static_cast<int>(L + Block))...)));
    }(std::make_integer_sequence<index, n>{});
}

/// Calls f(Block) with the compile-time constants 1, 2, 4, ... below the number of lanes.
template <class T, class Arch, index Block = 1, class F>
[[gnu::always_inline]] inline void for_each_block_size(F&& f)
{
    if constexpr (Block < lanes<T, Arch>) {
        f(std::integral_constant<index, Block>{});
        for_each_block_size<T, Arch, 2 * Block>(f);
    }
}

/// Transposes the square matrix whose rows are r[0] ... r[lanes - 1], by Eklundh's method.
template <class T, class Arch>
[[gnu::always_inline]] inline void transpose(vec<T, Arch> (&r)[static_cast<std::size_t>(lanes<T, Arch>)])
{
    constexpr index n = lanes<T, Arch>;
    for_each_block_size<T, Arch>([&](auto block) __attribute__((always_inline)) {
        unrolled<n>([&](auto i) {
            if constexpr (!(i & block)) swap_blocks<block, T, Arch>(r[i], r[i + block]);
        });
    });
}

/// The blocks of `Block` lanes with even numbers (Odd = 0) or odd ones (1) of a and of b, in groups of `Group` blocks: within
/// each group first a's, then b's.
template <index Block, index Group, index Odd, class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> every_second_block(const vec<T, Arch>& a, const vec<T, Arch>& b)
{
    using reg = typename vec<T, Arch>::register_type;
    constexpr index n = lanes<T, Arch>, half = Block * Group / 2;
    return [&]<index... L>(std::integer_sequence<index, L...>) {
        const reg x = a, y = b;
        return vec<T, Arch>(reg(__builtin_shufflevector(
            x, y,
            static_cast<int>((L & half ? n : 0) + L / (2 * half) * (2 * half) +  // which of the two, and where its group begins
                             (2 * (L % half / Block) + Odd) * Block + L % Block)...)));
    }(std::make_integer_sequence<index, n>{});
}

/// The sums of the lanes of each of r[0] ... r[lanes - 1], side by side; r is used up. Neighbours are added first within the
/// 128 bits that shuffle cheaply, then across them.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> sum_each(vec<T, Arch> (&r)[static_cast<std::size_t>(lanes<T, Arch>)])
{
    constexpr index n = lanes<T, Arch>, cheap = 16 / static_cast<index>(sizeof(T));
    for_each_block_size<T, Arch>([&](auto distance) __attribute__((always_inline)) {
        constexpr index block = distance < cheap ? 1 : cheap, group = distance < cheap ? cheap : n / cheap;
        unrolled<n>([&](auto i) {
            if constexpr (i % (2 * distance) == 0) {
                r[i] = every_second_block<block, group, 0>(r[i], r[i + distance]) +
                       every_second_block<block, group, 1>(r[i], r[i + distance]);
            }
        });
    });
    return r[0];
}

/// The sum of the lanes of one register, in the order of additions that sum_each has.
template <class T, class Arch>
[[gnu::always_inline]] inline T sum_in_order(vec<T, Arch> x)
{
    using reg = typename vec<T, Arch>::register_type;
    for_each_block_size<T, Arch>([&](auto distance) __attribute__((always_inline)) {
        [&]<index... L>(std::integer_sequence<index, L...>) {
            const reg r = x;
            x = x + vec<T, Arch>(reg(__builtin_shufflevector(r, r, static_cast<int>(L ^ distance)...)));
        }(std::make_integer_sequence<index, lanes<T, Arch>>{});
    });
    return x.get(0);
}

/// Loads `lanes` records of N neighbouring elements each: element k of every record into out[k].
template <index N, class T, class Arch>
[[gnu::always_inline]] inline void load_records(const T* p, vec<T, Arch> (&out)[static_cast<std::size_t>(N)])
{
    using reg = typename vec<T, Arch>::register_type;
    constexpr index n = lanes<T, Arch>;
    if constexpr (N == 4 && n >= 4) {  // even and odd elements, twice: 8 exchanges for 12
        vec<T, Arch> m[4], half[4];
        unrolled<4>([&](auto i) { m[i] = load<T, Arch>(p + i * n); });
        unrolled<2>([&](auto odd) {
            half[2 * odd] = every_second_block<1, n, odd>(m[0], m[1]);
            half[2 * odd + 1] = every_second_block<1, n, odd>(m[2], m[3]);
        });
        unrolled<2>([&](auto odd) {
            out[odd] = every_second_block<1, n, 0>(half[2 * odd], half[2 * odd + 1]);
            out[odd + 2] = every_second_block<1, n, 1>(half[2 * odd], half[2 * odd + 1]);
        });
        return;
    }
    reg memory[static_cast<std::size_t>(N)];
    unrolled<N>([&](auto m) { memory[m] = load<T, Arch>(p + m * n); });
    unrolled<N>([&](auto k) {
        [&]<index... L>(std::integer_sequence<index, L...>) {
            reg lanes_of_k = memory[0];
            // From register m come the lanes that it holds; those that register 0 holds move to their place at once.
            unrolled<N - 1>([&](auto before) {
                constexpr index m = before + 1;
                lanes_of_k = __builtin_shufflevector(
                    lanes_of_k, memory[m],
                    ((L * N + k) / n == m ? static_cast<int>(n + (L * N + k) % n)
                                          : static_cast<int>(m == 1 ? (L * N + k) % n : L))...);
            });
            out[k] = vec<T, Arch>(lanes_of_k);
        }(std::make_integer_sequence<index, n>{});
    });
}

/// The way back.
template <index N, class T, class Arch>
[[gnu::always_inline]] inline void store_records(const vec<T, Arch> (&x)[static_cast<std::size_t>(N)], T* p)
{
    using reg = typename vec<T, Arch>::register_type;
    constexpr index n = lanes<T, Arch>;
    unrolled<N>([&](auto m) {
        [&]<index... L>(std::integer_sequence<index, L...>) {
            reg lanes_of_m = x[0];
            unrolled<N - 1>([&](auto before) {
                constexpr index k = before + 1;
                const reg next = x[k];
                lanes_of_m = __builtin_shufflevector(
                    lanes_of_m, next,
                    ((m * n + L) % N == k ? static_cast<int>(n + (m * n + L) / N)
                                          : static_cast<int>(k == 1 ? (m * n + L) / N : L))...);
            });
            store(vec<T, Arch>(lanes_of_m), p + m * n);
        }(std::make_integer_sequence<index, n>{});
    });
}

/// The sums over the lanes of `rows` neighbouring rows, added to or written to out.
template <class Arch, class R>
[[gnu::flatten]] void sum_rows(const R* rows, index count, R* out, bool add)
{
    constexpr index n = lanes<R, Arch>;
    for_each_lanes<R, Arch>(count, [&](auto range) {
        vec<R, Arch> r[static_cast<std::size_t>(n)];
        for (index i = 0; i < n; ++i) {
            r[i] = i < range.count ? load<R, Arch>(rows + (range.first + i) * n) : vec<R, Arch>(R(0));
        }
        const auto sums = sum_each<R, Arch>(r);
        range.store(add ? sums + range.load(out) : sums, out);
    });
}

}  // namespace ssmkit::detail
