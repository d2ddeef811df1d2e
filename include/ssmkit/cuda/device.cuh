#pragma once

// What the device code of all operations is written on: elements, functions, launches.

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit::cuda {

/// What the CUDA runtime says of a launch: the message names the operation.
class error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

namespace detail {

inline void require_success(const char* op, cudaError_t status)
{
    if (status != cudaSuccess) throw error(std::string(op) + ": " + cudaGetErrorString(status));
}

/// What may be stored on the device.
template <class T>
concept device_element = std::is_same_v<T, float> || std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

template <class T>
__device__ __forceinline__ float widened(T x)
{
    if constexpr (std::is_same_v<T, bfloat16>) {
        return __uint_as_float(std::uint32_t(x.bits) << 16);
    } else if constexpr (std::is_same_v<T, float16>) {
        return __half2float(__ushort_as_half(x.bits));
    } else {
        return x;
    }
}

/// Rounds to nearest, ties to even.
template <class T>
__device__ __forceinline__ T narrowed(float x)
{
    if constexpr (std::is_same_v<T, bfloat16>) {
        T to;
        to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
        return to;
    } else if constexpr (std::is_same_v<T, float16>) {
        T to;
        to.bits = __half_as_ushort(__float2half_rn(x));
        return to;
    } else {
        return x;
    }
}

inline constexpr float log2_e = 1.4426950408889634f;

/// 2^x by the special-function unit: within 2 units in the last place, subnormal results are zero.
__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), the latter as e^-|x| times a polynomial in it (degree 9, error 5e-9 over [0, 1]):
/// relative error 4e-7 also where it is nearly 0. Logarithms would share the unit that bounds the scan.
__device__ __forceinline__ float softplus(float x)
{
    const float e = exp2_fast(-fabsf(x) * log2_e);
    float p = -0.003256378462538123f;
    p = fmaf(p, e, 0.019907161593437195f);
    p = fmaf(p, e, -0.057064201682806015f);
    p = fmaf(p, e, 0.10614264756441116f);
    p = fmaf(p, e, -0.15311862528324127f);
    p = fmaf(p, e, 0.19678117334842682f);
    p = fmaf(p, e, -0.24954558908939362f);
    p = fmaf(p, e, 0.33330005407333374f);
    p = fmaf(p, e, -0.4999990463256836f);
    p = fmaf(p, e, 1.0f);
    return fmaf(p, e, fmaxf(x, 0.0f));
}

/// 1 / x by the special-function unit: within 1 unit in the last place, subnormal results are zero.
__device__ __forceinline__ float reciprocal_fast(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// 1 / (1 + e^-x).
__device__ __forceinline__ float sigmoid(float x)
{
    return reciprocal_fast(1.0f + exp2_fast(-x * log2_e));
}

/// x sigmoid(x), which is NaN for -inf as on the CPU.
__device__ __forceinline__ float silu(float x)
{
    return x * sigmoid(x);
}

}  // namespace detail
}  // namespace ssmkit::cuda
