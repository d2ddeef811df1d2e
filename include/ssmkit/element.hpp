#pragma once

#include <bit>
#include <complex>
#include <cstdint>
#include <type_traits>

namespace ssmkit {

/// The upper half of a float: 8 bits of exponent, 7 of fraction. Storage only; arithmetic happens in float.
struct bfloat16 {
    std::uint16_t bits = 0;

    bfloat16() = default;

    /// Rounds to nearest, ties to even; a NaN stays one.
    explicit constexpr bfloat16(float value)
    {
        const std::uint32_t b = std::bit_cast<std::uint32_t>(value);
        const std::uint32_t rounded = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
        const std::uint32_t quiet_nan = (b >> 16) | 0x40u;
        bits = static_cast<std::uint16_t>((b & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded);
    }

    explicit constexpr operator float() const { return std::bit_cast<float>(std::uint32_t(bits) << 16); }
};

/// IEEE binary16: 5 bits of exponent, 10 of fraction. Storage only; arithmetic happens in float.
struct float16 {
    std::uint16_t bits = 0;

    float16() = default;

    /// Rounds to nearest, ties to even; overflow gives infinity, underflow a subnormal or zero, a NaN stays one.
    explicit constexpr float16(float value)
    {
        const std::uint32_t b = std::bit_cast<std::uint32_t>(value);
        const std::uint32_t magnitude = b & 0x7fffffffu;
        std::uint32_t half;
        if (magnitude >= 0x47800000u) {  // 2^16 and above, infinity, NaN
            half = magnitude > 0x7f800000u ? 0x7e00u | ((b >> 13) & 0x3ffu) : 0x7c00u;
        } else if (magnitude >= 0x38800000u) {  // normal; a carry out of the fraction lands in the exponent, as it should
            half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
        } else {  // a multiple of 2^-24: the shift that aligns the fraction to it, rounding what falls off
            const std::uint32_t exponent = magnitude >> 23;
            const std::uint32_t shift = exponent < 101 ? 25 : 126 - exponent;
            const std::uint32_t fraction = exponent < 101 ? 0 : (magnitude & 0x7fffffu) | 0x800000u;
            half = (fraction + (1u << (shift - 1)) - 1 + ((fraction >> shift) & 1u)) >> shift;
        }
        bits = static_cast<std::uint16_t>(half | ((b >> 16) & 0x8000u));
    }

    /// In integers throughout, so that subnormals survive where the processor flushes them.
    explicit constexpr operator float() const
    {
        const std::uint32_t sign = std::uint32_t(bits & 0x8000u) << 16;
        const std::uint32_t magnitude = bits & 0x7fffu;
        if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
        if (magnitude >= 0x400u) return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
        // A multiple of 2^-24, below 2^-14: put it into the low bits of 0.5 and subtract the 0.5 again.
        const float small = std::bit_cast<float>(0x3f000000u | magnitude) - 0.5f;
        return std::bit_cast<float>(std::bit_cast<std::uint32_t>(small) | sign);
    }
};

/// What arithmetic and state use for elements stored as T: double for double, float for everything narrower.
template <class T>
using compute_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// What inputs and outputs may be stored as.
template <class T>
concept storage_element = std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, bfloat16> ||
                          std::is_same_v<T, float16>;

namespace detail {

template <class T>
inline constexpr bool is_complex = false;
template <class T>
inline constexpr bool is_complex<std::complex<T>> = true;

}  // namespace detail
}  // namespace ssmkit
