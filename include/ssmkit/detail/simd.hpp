#pragma once

// The one header that includes xsimd: differences between its versions and between instruction sets end here. Kernels are
// written on vec<T, Arch> and for_each_lanes and contain no `#if`.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push  // g++ 12 takes the deliberately undefined operands of its own AVX-512 intrinsics for mistakes
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <xsimd/xsimd.hpp>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit::detail {

/// A SIMD register of T: float or double.
template <class T, class Arch>
using vec = xsimd::batch<T, Arch>;

/// Elements in a register.
template <class T, class Arch>
inline constexpr index lanes = static_cast<index>(vec<T, Arch>::size);

/// True with 32 vector registers (AVX-512, NEON): a kernel may keep twice the state in them.
template <class Arch>
inline constexpr bool many_registers =
#if XSIMD_WITH_AVX512F
    std::is_base_of_v<xsimd::avx512f, Arch> ||
#endif
#if XSIMD_WITH_NEON64
    std::is_base_of_v<xsimd::neon64, Arch> ||
#endif
    false;

/// True where xsimd::fma rounds once.
template <class Arch>
inline constexpr bool fused_multiply_add = many_registers<Arch>;
template <class Base>
inline constexpr bool fused_multiply_add<xsimd::fma3<Base>> = true;

/// The same bits seen as another type of equal width.
template <class To, class T, class Arch>
vec<To, Arch> bit_cast(const vec<T, Arch>& x)
{
#if XSIMD_VERSION_MAJOR >= 10
    return xsimd::bitwise_cast<To>(x);
#else
    return xsimd::bitwise_cast<vec<To, Arch>>(x);
#endif
}

/// The sum of all lanes.
template <class T, class Arch>
T sum(const vec<T, Arch>& x)
{
#if XSIMD_VERSION_MAJOR >= 10
    return xsimd::reduce_add(x);
#else
    return xsimd::hadd(x);
#endif
}

/// Asks for the cache line at p to be brought into the second-level cache; harmless whatever p is. Inlined by force: g++ 12
/// takes calls of a function that only prefetches for dead code.
[[gnu::always_inline]] inline void prefetch(const void* p)
{
    __builtin_prefetch(p, 0, 2);
}

// ---- Loading and storing, with conversion between storage and compute types ------------------------------------------

namespace native {

/// Loads the first n < lanes elements, zeros behind them; touches no memory beyond.
template <class T, class Arch>
vec<T, Arch> load_first(const T* p, index n)
{
    alignas(64) T buffer[static_cast<std::size_t>(lanes<T, Arch>)] = {};
    for (index i = 0; i < n; ++i) buffer[i] = p[i];
    return vec<T, Arch>::load_aligned(buffer);
}

template <class T, class Arch>
void store_first(const vec<T, Arch>& x, T* p, index n)
{
    alignas(64) T buffer[static_cast<std::size_t>(lanes<T, Arch>)];
    x.store_aligned(buffer);
    for (index i = 0; i < n; ++i) p[i] = buffer[i];
}

/// x with zeros in all but the first n lanes.
template <class T, class Arch>
vec<T, Arch> keep_first(const vec<T, Arch>& x, index n)
{
    alignas(64) T buffer[static_cast<std::size_t>(lanes<T, Arch>)];
    x.store_aligned(buffer);
    return load_first<T, Arch>(buffer, n);
}

#if XSIMD_WITH_AVX512F
template <class T, class Arch>
    requires(std::is_same_v<T, float> && std::is_base_of_v<xsimd::avx512f, Arch>)
vec<T, Arch> load_first(const T* p, index n)
{
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p);
}

template <class T, class Arch>
    requires(std::is_same_v<T, float> && std::is_base_of_v<xsimd::avx512f, Arch>)
void store_first(const vec<T, Arch>& x, T* p, index n)
{
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1u), x);
}
#endif

}  // namespace native

template <class T, class Arch, class E>
[[gnu::always_inline]] inline vec<T, Arch> load(const E* p)
{
    if constexpr (std::is_same_v<T, E>) {
        return vec<T, Arch>::load_unaligned(p);
    } else {
        alignas(64) T buffer[static_cast<std::size_t>(lanes<T, Arch>)];
        for (index i = 0; i < lanes<T, Arch>; ++i) buffer[i] = static_cast<T>(p[i]);
        return vec<T, Arch>::load_aligned(buffer);
    }
}

template <class T, class Arch, class E>
[[gnu::always_inline]] inline void store(const vec<T, Arch>& x, E* p)
{
    if constexpr (std::is_same_v<T, E>) {
        x.store_unaligned(p);
    } else {
        alignas(64) T buffer[static_cast<std::size_t>(lanes<T, Arch>)];
        x.store_aligned(buffer);
        for (index i = 0; i < lanes<T, Arch>; ++i) p[i] = static_cast<E>(buffer[i]);
    }
}

/// Stores to an address aligned to the register, around the caches where the processor can: for results of several MB, whose
/// lines would otherwise be read before they are overwritten. End with a streaming_fence.
template <class T, class Arch>
void store_streaming(const vec<T, Arch>& x, T* p)
{
    using reg [[maybe_unused]] = typename vec<T, Arch>::register_type;
#if defined(__clang__)
    __builtin_nontemporal_store(static_cast<reg>(x), reinterpret_cast<reg*>(p));
#elif defined(__SSE2__)
    float* const q = reinterpret_cast<float*>(p);
    if constexpr (sizeof(reg) == 16) _mm_stream_ps(q, std::bit_cast<__m128>(static_cast<reg>(x)));
#if defined(__AVX__)
    if constexpr (sizeof(reg) == 32) _mm256_stream_ps(q, std::bit_cast<__m256>(static_cast<reg>(x)));
#endif
#if defined(__AVX512F__)
    if constexpr (sizeof(reg) == 64) _mm512_stream_ps(q, std::bit_cast<__m512>(static_cast<reg>(x)));
#endif
#else
    x.store_aligned(p);
#endif
}

/// Makes the streaming stores of this thread visible to others before anything that it stores later.
inline void streaming_fence()
{
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

/// `count` neighbouring elements, at most a register's worth, of which the first is number `first` of some axis. A short
/// range (the remainder of an axis) loads zeros beyond its end and stores nothing there, so that a kernel is written once
/// for all lengths. Elements may be stored as any type that converts to T.
template <class T, class Arch, bool Full>
struct lane_range {
    static constexpr bool full = Full;
    index first = 0;
    index count = lanes<T, Arch>;

    /// Elements first ... first + count - 1 of a contiguous axis starting at p.
    template <class E>
    vec<T, Arch> load(const E* p) const
    {
        if constexpr (Full) {
            return detail::load<T, Arch>(p + first);
        } else if constexpr (std::is_same_v<T, E>) {
            return native::load_first<T, Arch>(p + first, count);
        } else {
            return load(p, 1);
        }
    }

    /// The same for an axis of any stride.
    template <class E>
    vec<T, Arch> load(const E* p, index stride) const
    {
        if (stride == 1 && (Full || std::is_same_v<T, E>)) return load(p);
        alignas(64) T buffer[static_cast<std::size_t>(lanes<T, Arch>)] = {};
        for (index i = 0; i < count; ++i) buffer[i] = static_cast<T>(p[(first + i) * stride]);
        return vec<T, Arch>::load_aligned(buffer);
    }

    /// x with zeros beyond the end of the range, where an infinity may have met a zero.
    vec<T, Arch> keep(const vec<T, Arch>& x) const
    {
        if constexpr (Full) {
            return x;
        } else {
            return native::keep_first<T, Arch>(x, count);
        }
    }

    template <class E>
    void store(const vec<T, Arch>& x, E* p) const
    {
        if constexpr (Full) {
            detail::store(x, p + first);
        } else if constexpr (std::is_same_v<T, E>) {
            native::store_first<T, Arch>(x, p + first, count);
        } else {
            store(x, p, 1);
        }
    }

    template <class E>
    void store(const vec<T, Arch>& x, E* p, index stride) const
    {
        if (stride == 1 && (Full || std::is_same_v<T, E>)) return store(x, p);
        alignas(64) T buffer[static_cast<std::size_t>(lanes<T, Arch>)];
        x.store_aligned(buffer);
        for (index i = 0; i < count; ++i) p[(first + i) * stride] = static_cast<E>(buffer[i]);
    }
};

/// Calls f(range) for consecutive ranges that cover 0 ... n - 1: full registers, then at most one short range.
template <class T, class Arch, class F>
[[gnu::always_inline]] inline void for_each_lanes(index n, F&& f)
{
    index first = 0;
    for (; first + lanes<T, Arch> <= n; first += lanes<T, Arch>) f(lane_range<T, Arch, true>{first});
    if (first < n) f(lane_range<T, Arch, false>{first, n - first});
}

/// Calls f with 0 ... N - 1 as constants, written out: an array of registers that they index stays in registers. Inlined by
/// force, as an f within another should be: g++ 12 leaves calls where it finds several, and all registers spill.
template <index N, class F>
[[gnu::always_inline]] inline void unrolled(F&& f)
{
    [&]<index... I>(std::integer_sequence<index, I...>) __attribute__((always_inline)) {
        (f(std::integral_constant<index, I>{}), ...);
    }(std::make_integer_sequence<index, N>{});
}

/// Calls f with two booleans as compile-time constants.
template <class F>
void with_constants(bool first, bool second, F&& f)
{
    using yes = std::true_type;
    using no = std::false_type;
    if (first) return second ? f(yes{}, yes{}) : f(yes{}, no{});
    return second ? f(no{}, yes{}) : f(no{}, no{});
}

// ---- Arithmetic that xsimd lacks ------------------------------------------------------------------------------------

/// a * b + c, rounded once where the instruction set can. xsimd 8.1 has no such operation for AVX-512: its xsimd::fma is
/// two, and fused only if the compiler sees fit, which clang++ never does and g++ not where a * b is used elsewhere too.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> multiply_add(const vec<T, Arch>& a, const vec<T, Arch>& b, const vec<T, Arch>& c)
{
#if XSIMD_WITH_AVX512F
    if constexpr (std::is_base_of_v<xsimd::avx512f, Arch>) {
        if constexpr (std::is_same_v<T, float>) {
            return _mm512_fmadd_ps(a, b, c);
        } else {
            return _mm512_fmadd_pd(a, b, c);
        }
    }
#endif
    return xsimd::fma(a, b, c);
}

/// c - a * b, rounded once where the instruction set can.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> subtract_product(const vec<T, Arch>& c, const vec<T, Arch>& a, const vec<T, Arch>& b)
{
#if XSIMD_WITH_AVX512F
    if constexpr (std::is_base_of_v<xsimd::avx512f, Arch>) {
        if constexpr (std::is_same_v<T, float>) {
            return _mm512_fnmadd_ps(a, b, c);
        } else {
            return _mm512_fnmadd_pd(a, b, c);
        }
    }
#endif
    return xsimd::fnma(a, b, c);
}

/// Entries of a table of floats that a permutation looks up in registers; 1 where there is no such instruction.
template <class Arch>
inline constexpr index table_entries =
#if XSIMD_WITH_AVX512DQ
    std::is_base_of_v<xsimd::avx512dq, Arch> ? 32 :
#endif
#if XSIMD_WITH_AVX2
    std::is_base_of_v<xsimd::avx2, Arch> ? 8 :
#endif
    1;

template <class Arch>
using float_table = std::array<float, static_cast<std::size_t>(table_entries<Arch>)>;

/// The entries whose numbers are in the lowest bits of t. Tables should be static: they stay in registers within a loop.
template <class Arch>
[[gnu::always_inline]] inline vec<float, Arch> look_up(const float_table<Arch>& table, const vec<float, Arch>& t)
{
#if XSIMD_WITH_AVX512DQ
    if constexpr (table_entries<Arch> == 32) {
        return _mm512_permutex2var_ps(_mm512_loadu_ps(table.data()), _mm512_castps_si512(t), _mm512_loadu_ps(&table[16]));
    }
#endif
#if XSIMD_WITH_AVX2
    if constexpr (table_entries<Arch> == 8) {
        return _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.data()), _mm256_castps_si256(t));
    }
#endif
    static_cast<void>(t);
    return vec<float, Arch>(table[0]);
}

/// True where scale_by_floor and distance_to_32nd are single instructions.
template <class Arch>
inline constexpr bool scales_exponents = table_entries<Arch> == 32;

#if XSIMD_WITH_AVX512DQ
/// x * 2^floor(n), for any n.
template <class Arch>
[[gnu::always_inline]] inline vec<float, Arch> scale_by_floor(const vec<float, Arch>& x, const vec<float, Arch>& n)
{
    return _mm512_scalef_ps(x, n);
}

/// z minus the nearest multiple of 1/32; 0 for an infinity.
template <class Arch>
[[gnu::always_inline]] inline vec<float, Arch> distance_to_32nd(const vec<float, Arch>& z)
{
    __m512 in_register = z;  // with an operand in memory, Zen 4 waits for whatever was in the destination: 26 cycles for 5
    __asm__("" : "+v"(in_register));
    return _mm512_reduce_ps(in_register, 0x50);
}
#endif

/// 1 / x for an x whose reciprocal is a normal number: relative error at most epsilon. By an estimate and
/// Newton's step with AVX-512, whose divisions take as long as 16 additions.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> inverse(const vec<T, Arch>& x)
{
#if XSIMD_WITH_AVX512F
    if constexpr (std::is_same_v<T, float> && std::is_base_of_v<xsimd::avx512f, Arch>) {
        const vec<T, Arch> r = _mm512_rcp14_ps(x);
        const vec<T, Arch> error = _mm512_fnmadd_ps(x, r, _mm512_set1_ps(1.0f));  // 1 - x r, without an operation for -x
        return multiply_add(r, error, r);
    }
#endif
    return vec<T, Arch>(T(1)) / x;
}

/// a * b - rounded(a * b), exactly (barring underflow).
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> product_error(const vec<T, Arch>& a, const vec<T, Arch>& b, const vec<T, Arch>& product)
{
    if constexpr (fused_multiply_add<Arch>) {
        return multiply_add(a, b, -product);
    } else {  // Dekker: halves of the fractions, whose products are exact
        using v = vec<T, Arch>;
        const v splitter(std::is_same_v<T, float> ? T(4097) : T(134217729));
        const v a_big = a * splitter, b_big = b * splitter;
        const v a_high = a_big - (a_big - a), b_high = b_big - (b_big - b);
        const v a_low = a - a_high, b_low = b - b_high;
        return ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
    }
}

// ---- The processor's mode -------------------------------------------------------------------------------------------

/// While it lives, this thread takes subnormal numbers for zero and produces none; then the caller's mode is back. A
/// decaying state that passes through the subnormal range otherwise costs 4 to 40 times the time.
class flush_denormals {
public:
    flush_denormals(const flush_denormals&) = delete;
    flush_denormals& operator=(const flush_denormals&) = delete;

#if defined(__SSE2__)
    flush_denormals() : caller_(_mm_getcsr()) { _mm_setcsr(caller_ | 0x8040u); }  // flush to zero, denormals are zero
    ~flush_denormals() { _mm_setcsr(caller_); }

private:
    unsigned caller_;
#elif defined(__aarch64__)
    flush_denormals()
    {
        __asm__ volatile("mrs %0, fpcr" : "=r"(caller_));
        __asm__ volatile("msr fpcr, %0" : : "r"(caller_ | (std::uint64_t{1} << 24)));  // FZ
    }
    ~flush_denormals() { __asm__ volatile("msr fpcr, %0" : : "r"(caller_)); }

private:
    std::uint64_t caller_;
#else
    flush_denormals() = default;
    ~flush_denormals() {}
#endif
};

}  // namespace ssmkit::detail
