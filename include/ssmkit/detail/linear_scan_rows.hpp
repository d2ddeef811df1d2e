#pragma once

// What the linear scan and its gradients share: products of real and of interleaved complex numbers, and the operands of a task
// as rows of real numbers, whatever the layout: a row holds neighbouring channels of one token, `unit` numbers for each.

#include <algorithm>
#include <complex>
#include <cstdint>
#include <type_traits>

#include <ssmkit/args/linear_scan.hpp>
#include <ssmkit/detail/shuffle.hpp>
#include <ssmkit/detail/simd.hpp>

namespace ssmkit::detail {

/// Real numbers in an element: 2 for complex ones, real part first.
template <class T>
inline constexpr index linear_scan_unit = is_complex<T> ? 2 : 1;

template <class T>
struct linear_scan_number_type {
    using type = T;
};
template <class R>
struct linear_scan_number_type<std::complex<R>> {
    using type = R;
};

/// What an element consists of, as stored.
template <class T>
using linear_scan_number = typename linear_scan_number_type<T>::type;

/// What is computed with.
template <class T>
using linear_scan_real = linear_scan_number<linear_scan_state_t<T>>;

/// Of every pair of lanes: one member in both, or the two exchanged.
enum class pair_lanes { first, second, exchanged };

template <pair_lanes Which, class R, class Arch>
[[gnu::always_inline]] inline vec<R, Arch> pick(const vec<R, Arch>& x)
{
    using reg = typename vec<R, Arch>::register_type;
    return [&]<index... L>(std::integer_sequence<index, L...>) __attribute__((always_inline)) {
        const reg r = x;
        return vec<R, Arch>(reg(__builtin_shufflevector(
            r, r,
            static_cast<int>(Which == pair_lanes::first    ? L & ~index{1}
                             : Which == pair_lanes::second ? L | index{1}
                                                           : L ^ index{1})...)));
    }(std::make_integer_sequence<index, lanes<R, Arch>>{});
}

/// (-1, 1) in every pair of lanes.
template <class R, class Arch>
[[gnu::always_inline]] inline vec<R, Arch> pair_signs()
{
    alignas(64) static constexpr auto signs = [] {
        std::array<R, static_cast<std::size_t>(lanes<R, Arch>)> s{};
        for (std::size_t i = 0; i < s.size(); ++i) s[i] = i % 2 ? R(1) : R(-1);
        return s;
    }();
    return vec<R, Arch>::load_aligned(signs.data());
}

/// A register of factors, made ready for products with other registers. Unit 2: (re, im) pairs; Conjugate: of their conjugates.
template <class R, class Arch, index Unit, bool Conjugate>
struct linear_scan_factor {
    using v = vec<R, Arch>;
    v real, imaginary;  // Unit 2: each part in both lanes of a pair, the imaginary one with the sign that i² or its like has

    [[gnu::always_inline]] explicit linear_scan_factor(const v& a) : real(a), imaginary(a)
    {
        if constexpr (Unit == 2) {
            real = pick<pair_lanes::first>(a);
            const v parts = pick<pair_lanes::second>(a) * pair_signs<R, Arch>();
            imaginary = Conjugate ? -parts : parts;
        }
    }

    /// The factor times x, plus c.
    [[gnu::always_inline]] v times(const v& x, const v& c) const
    {
        if constexpr (Unit == 1) {
            return multiply_add(real, x, c);
        } else {
            return multiply_add(imaginary, pick<pair_lanes::exchanged>(x), multiply_add(real, x, c));
        }
    }
};

// ---- Rows ------------------------------------------------------------------------------------------------------------

/// Elements of a (time, channel) array, strides and pointer counted in numbers; channels in elements.
template <class E>
struct linear_scan_rectangle {
    E* data;
    index step, stride;  // from a token, from a channel to the next
    index steps, channels;
};

/// Transposes the square matrix of elements whose rows are r[0] ... r[lanes / Unit - 1].
template <index Unit, class R, class Arch>
[[gnu::always_inline]] inline void transpose_units(vec<R, Arch> (&r)[static_cast<std::size_t>(lanes<R, Arch> / Unit)])
{
    for_each_block_size<R, Arch, Unit>([&](auto block) {
        unrolled<lanes<R, Arch> / Unit>([&](auto i) {
            if constexpr (!(i & (block / Unit))) swap_blocks<block, R, Arch>(r[i], r[i + block / Unit]);
        });
    });
}

/// Rows from an array whose tokens are neighbours in memory, ascending or descending: square by square. Writes rows of whole
/// registers, zeros behind the last channel.
template <class Arch, index Unit, bool Ascending, class R, class E>
[[gnu::flatten]] void load_turned_rows(const linear_scan_rectangle<const E>& from, R* rows, index pitch)
{
    constexpr index k = lanes<R, Arch> / Unit;
    for (index c = 0; c < from.channels; c += k) {
        const index channels = std::min(k, from.channels - c);
        for (index s = 0; s < from.steps; s += k) {
            const index steps = std::min(k, from.steps - s);
            const E* const p = from.data + c * from.stride + (Ascending ? s : s + steps - 1) * from.step;
            vec<R, Arch> r[static_cast<std::size_t>(k)];
            if (steps == k && channels == k) {
                for (index i = 0; i < k; ++i) {
                    prefetch(p + i * from.stride + from.steps * from.step);
                    r[i] = load<R, Arch>(p + i * from.stride);
                }
            } else {
                const lane_range<R, Arch, false> range{0, steps * Unit};
                for (index i = 0; i < k; ++i) r[i] = i < channels ? range.load(p + i * from.stride) : vec<R, Arch>(R(0));
            }
            transpose_units<Unit, R, Arch>(r);
            R* const out = rows + s * pitch + c * Unit;
            for (index i = 0; i < steps; ++i) r[Ascending ? i : steps - 1 - i].store_unaligned(out + i * pitch);
        }
    }
}

/// The way back; whole registers around the caches if so asked and aligned.
template <class Arch, index Unit, bool Ascending, class R, class E>
[[gnu::flatten]] void store_turned_rows(const R* rows, index pitch, const linear_scan_rectangle<E>& to, bool streaming)
{
    constexpr index n = lanes<R, Arch>, k = n / Unit;
    for (index c = 0; c < to.channels; c += k) {
        const index channels = std::min(k, to.channels - c);
        for (index s = 0; s < to.steps; s += k) {
            const index steps = std::min(k, to.steps - s);
            const R* const in = rows + s * pitch + c * Unit;
            vec<R, Arch> r[static_cast<std::size_t>(k)];
            for (index i = 0; i < k; ++i) r[i] = vec<R, Arch>(R(0));
            for (index i = 0; i < steps; ++i) r[Ascending ? i : steps - 1 - i] = load<R, Arch>(in + i * pitch);
            transpose_units<Unit, R, Arch>(r);
            E* const p = to.data + c * to.stride + (Ascending ? s : s + steps - 1) * to.step;
            if (steps == k && channels == k) {
                if constexpr (std::is_same_v<R, E>) {
                    const auto address = reinterpret_cast<std::uintptr_t>(p);
                    if (streaming && to.stride % n == 0 && address % static_cast<std::uintptr_t>(n * index{sizeof(R)}) == 0) {
                        for (index i = 0; i < k; ++i) store_streaming(r[i], p + i * to.stride);
                        continue;
                    }
                }
                for (index i = 0; i < k; ++i) store(r[i], p + i * to.stride);
            } else {
                const lane_range<R, Arch, false> range{0, steps * Unit};
                for (index i = 0; i < channels; ++i) range.store(r[i], p + i * to.stride);
            }
        }
    }
}

/// Rows of numbers to compute with from any array; `pitch` numbers apart, whole registers.
template <class Arch, index Unit, class R, class E>
[[gnu::flatten]] void load_rows(const linear_scan_rectangle<const E>& from, R* rows, index pitch)
{
    if (from.stride == Unit) {
        for (index s = 0; s < from.steps; ++s) {
            for_each_lanes<R, Arch>(from.channels * Unit, [&](auto range) {
                range.load(from.data + s * from.step).store_unaligned(rows + s * pitch + range.first);
            });
        }
    } else if (from.step == Unit) {
        load_turned_rows<Arch, Unit, true>(from, rows, pitch);
    } else if (from.step == -Unit) {
        load_turned_rows<Arch, Unit, false>(from, rows, pitch);
    } else {
        for (index s = 0; s < from.steps; ++s) {
            for (index c = 0; c < from.channels; ++c) {
                for (index u = 0; u < Unit; ++u) {
                    rows[s * pitch + c * Unit + u] = static_cast<R>(from.data[s * from.step + c * from.stride + u]);
                }
            }
        }
    }
}

/// The way back.
template <class Arch, index Unit, class R, class E>
[[gnu::flatten]] void store_rows(const R* rows, index pitch, const linear_scan_rectangle<E>& to, bool streaming = false)
{
    if (to.stride == Unit) {
        for (index s = 0; s < to.steps; ++s) {
            for_each_lanes<R, Arch>(to.channels * Unit, [&](auto range) {
                range.store(load<R, Arch>(rows + s * pitch + range.first), to.data + s * to.step);
            });
        }
    } else if (to.step == Unit) {
        store_turned_rows<Arch, Unit, true>(rows, pitch, to, streaming);
    } else if (to.step == -Unit) {
        store_turned_rows<Arch, Unit, false>(rows, pitch, to, streaming);
    } else {
        for (index s = 0; s < to.steps; ++s) {
            for (index c = 0; c < to.channels; ++c) {
                for (index u = 0; u < Unit; ++u) {
                    to.data[s * to.step + c * to.stride + u] = static_cast<E>(rows[s * pitch + c * Unit + u]);
                }
            }
        }
    }
}

/// Numbers that a buffer of rows holds: with three or five of them, a task stays in L1 or little beyond.
template <class R>
inline constexpr index linear_scan_buffer = 8192 / static_cast<index>(sizeof(R));

/// Rows in memory, `step` numbers apart.
template <class R>
struct linear_scan_rows {
    R* data = nullptr;
    index step = 0;
};

/// An argument of a scan as one task sees it, (length, channels), tokens as visited: in place where its numbers are those that
/// are computed with and channels are neighbours, otherwise by way of a buffer. T is const for an input.
template <class Arch, class T>
class linear_scan_operand {
    using element = std::remove_const_t<T>;
    using E = std::conditional_t<std::is_const_v<T>, const linear_scan_number<element>, linear_scan_number<element>>;
    using R = linear_scan_real<element>;
    using row_number = std::conditional_t<std::is_const_v<T>, const R, R>;
    static constexpr index unit = linear_scan_unit<element>;
    static constexpr bool as_computed = std::is_same_v<linear_scan_number<element>, R>;

public:
    /// An argument that is not given.
    linear_scan_operand() = default;

    /// The channels [c0, c0 + count) of v. With a buffer for linear_scan_buffer<R> numbers, which may be one for several arguments
    /// where each is used up before the next is read.
    linear_scan_operand(const view<T, 2>& v, index c0, index count, R* buffer)
        : data_(reinterpret_cast<E*>(v.pointer(0, c0))), step_(v.stride(0) * unit), stride_(count > 1 ? v.stride(1) * unit : unit),
          channels_(count), buffer_(buffer), pitch_((count * unit + lanes<R, Arch> - 1) / lanes<R, Arch> * lanes<R, Arch>)
    {
    }

    bool given() const { return data_ != nullptr; }
    bool in_place() const { return as_computed && stride_ == unit; }
    bool constant() const { return step_ == 0; }

    /// Rows of tokens [first, first + steps) to read.
    linear_scan_rows<const R> read(index first, index steps) const
    {
        if constexpr (as_computed) {
            if (in_place()) return {data_ + first * step_, step_};
        }
        load_rows<Arch, unit, R, linear_scan_number<element>>(
            {data_ + first * step_, step_, stride_, constant() ? 1 : steps, channels_}, buffer_, pitch_);
        return {buffer_, constant() ? 0 : pitch_};
    }

    /// Where rows of tokens from `first` on are to be written; then call written().
    linear_scan_rows<R> write(index first) const
        requires(!std::is_const_v<T>)
    {
        if constexpr (as_computed) {
            if (in_place()) return {data_ + first * step_, step_};
        }
        return {buffer_, pitch_};
    }

    void written(index first, index steps, bool streaming = false) const
        requires(!std::is_const_v<T>)
    {
        if (in_place()) return;
        store_rows<Arch, unit, R, E>(buffer_, pitch_, {data_ + first * step_, step_, stride_, steps, channels_}, streaming);
    }

private:
    E* data_ = nullptr;
    index step_ = 0, stride_ = 0, channels_ = 0;
    R* buffer_ = nullptr;
    index pitch_ = 0;
};

/// Calls f(first, last, reset) for runs of tokens: those that a sequence begins with, one by one, and those between them.
template <class F>
void for_each_scan_run(const view<const std::uint8_t, 1>& reset, index first, index last, F&& f)
{
    if (reset.data() == nullptr) return f(first, last, false);
    while (first < last) {
        const bool begins = reset[first] != 0;
        index end = first + 1;
        while (!begins && end < last && reset[end] == 0) ++end;
        f(first, end, begins);
        first = end;
    }
}

/// How a call is cut into tasks: a batch row (or all of them), a chunk of channels. Channels do not see each other: the result
/// does not depend on it.
template <class Arch, class T>
struct linear_scan_partition {
    using R = linear_scan_real<T>;
    static constexpr index unit = linear_scan_unit<T>;
    index batch, channels, chunks;  // rows of the batch that are tasks of their own; elements in a chunk

    /// `turned`: tokens are neighbours in memory. A task then keeps to few channels, each a stream of its own (one register or
    /// four of them: no difference); otherwise it sweeps over rows of a page.
    linear_scan_partition(index rows, index state, bool turned, std::size_t concurrency) : batch(rows)
    {
        constexpr index line = 64 / static_cast<index>(sizeof(R)) / unit, page = 64 * line;
        channels = turned ? 2 * lanes<R, Arch> / unit : page;
        const auto slots = static_cast<index>(concurrency);
        while (channels > 16 * line && batch * ((state + channels - 1) / channels) < slots) channels /= 2;
        chunks = (state + channels - 1) / channels;
    }

    std::size_t tasks() const { return static_cast<std::size_t>(batch * chunks); }
};

template <class T>
bool tokens_are_neighbours(const view<T, 3>& v)
{
    return v.data() != nullptr && v.extent(2) > 1 && v.stride(2) != 1 && (v.stride(1) == 1 || v.stride(1) == -1);
}

}  // namespace ssmkit::detail
