#pragma once

// A pole of a diagonal system on the device: detail/s4d_discretisation.hpp's formulas, in double, one thread a pole.

#include <ssmkit/args/s4d_kernel.hpp>
#include <ssmkit/cuda/device.cuh>

namespace ssmkit::cuda::detail {

struct complex_double {
    double re, im;
};

__device__ __forceinline__ complex_double operator+(complex_double x, complex_double y) { return {x.re + y.re, x.im + y.im}; }
__device__ __forceinline__ complex_double operator-(complex_double x, complex_double y) { return {x.re - y.re, x.im - y.im}; }
__device__ __forceinline__ complex_double operator*(complex_double x, complex_double y)
{
    return {x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re};
}
__device__ __forceinline__ complex_double operator*(double s, complex_double x) { return {s * x.re, s * x.im}; }
__device__ __forceinline__ complex_double conj(complex_double x) { return {x.re, -x.im}; }
__device__ __forceinline__ double squared_magnitude(complex_double x) { return x.re * x.re + x.im * x.im; }
__device__ __forceinline__ complex_double reciprocal(complex_double x) { return (1 / squared_magnitude(x)) * conj(x); }

template <class R>
__device__ __forceinline__ complex_double load_complex(const std::complex<R>* at)
{
    const R* const parts = reinterpret_cast<const R*>(at);
    return {parts[0], parts[1]};
}

template <class R>
__device__ __forceinline__ void store_complex(complex_double x, std::complex<R>* at)
{
    R* const parts = reinterpret_cast<R*>(at);
    parts[0] = static_cast<R>(x.re);
    parts[1] = static_cast<R>(x.im);
}

/// e^(steps z) and that less 1, which keeps its digits near 0. One copy: it is long.
struct exponential {
    complex_double value, less_1;
};
static __device__ __noinline__ exponential exp_with_expm1(complex_double z, double steps)
{
    double sine, cosine;
    sincos(0.5 * steps * z.im, &sine, &cosine);
    const double growth = ::expm1(steps * z.re), size = growth + 1, twice = sine + sine;
    const double turned = 1 - twice * sine, across = size * twice * cosine;
    return {{size * turned, across}, {growth * turned - twice * sine, across}};
}

/// e^(steps log); 1 at 0 steps whatever the logarithm.
static __device__ __noinline__ complex_double power(complex_double log, double steps)
{
    if (steps == 0) return {1, 0};
    double sine, cosine;
    sincos(steps * log.im, &sine, &cosine);
    return exp(steps * log.re) * complex_double{cosine, sine};
}

/// φ(z) = (e^z - 1) / z of e^z - 1.
__device__ __forceinline__ complex_double quotient_of_exponential(complex_double less_1, complex_double z)
{
    const double size = squared_magnitude(z);
    if (size < 1e-280) return {1, 0};
    return (1 / size) * (less_1 * conj(z));
}

struct diagonal_pole {
    complex_double log, value, gain;
    bool growing;  ///< under dss with Re A > 0: log and value are the reciprocal's, whose powers count from the other end
};

/// `delta` with the rate; `length` is that of dss.
static __device__ __noinline__ diagonal_pole discretise(s4d_discretization method, complex_double A, double delta, double length)
{
    const bool dss = method == s4d_discretization::dss, growing = dss && A.re > 0;
    const complex_double z = (growing ? -delta : delta) * A;
    diagonal_pole p{z, {0, 0}, {1, 0}, growing};
    if (method == s4d_discretization::bilinear) {
        const complex_double below{1 - 0.5 * z.re, -0.5 * z.im}, above{1 + 0.5 * z.re, 0.5 * z.im};
        const double over = 1 / squared_magnitude(below);
        const complex_double inverse = over * conj(below);
        p.value = above * inverse;
        p.gain = delta * inverse;
        // |λ|² = 1 + 2 Re z / |1 - z/2|²; the angle is that of (1 + z/2) conj(1 - z/2). A pole of 0 has a finite logarithm.
        const double less_1 = (z.re + z.re) * over;
        p.log.re = 0.5 * log1p(less_1 < -1 ? -1 : less_1);
        if (p.log.re < -1000) p.log.re = -1000;
        p.log.im = atan2(z.im, 1 - 0.25 * squared_magnitude(z));
        return p;
    }
    const exponential e = exp_with_expm1(z, 1);
    p.value = e.value;
    if (dss) {
        const complex_double x = exp_with_expm1(z, length).less_1 * A;
        p.gain = (1 / (squared_magnitude(x) + 1e-7)) * (e.less_1 * conj(x));
    } else {
        p.gain = delta * quotient_of_exponential(e.less_1, z);
    }
    return p;
}

/// φ'(z) = (e^z - φ(z)) / z, by its series near zero.
static __device__ __noinline__ complex_double quotient_derivative(complex_double z, complex_double value, complex_double quotient)
{
    const double size = squared_magnitude(z);
    if (!(size < 0.25)) return (1 / size) * ((value - quotient) * conj(z));
    complex_double sum{1, 0};  // Σ (k+1) z^k / (k+2)!: each term is the one before times z (k+1) / (k (k+2))
    for (int k = 15; k > 0; --k) sum = complex_double{1, 0} + ((k + 1.0) / (k * (k + 2.0))) * (sum * z);
    return 0.5 * sum;
}

struct pole_gradient {
    complex_double A;
    double delta;
};

/// The way back from g(λ) and g(β), complex gradients ∂/∂Re + i ∂/∂Im, to those of A and of `delta`, which has the rate.
static __device__ __noinline__ pole_gradient discretise_backward(s4d_discretization method, complex_double A, double delta,
                                                                 double length, const diagonal_pole& p, complex_double dpole,
                                                                 complex_double dgain)
{
    const double direction = p.growing ? -1 : 1;
    const complex_double z = (direction * delta) * A;
    complex_double dz = dpole * conj(p.value), direct{0, 0};  // what z gets, and what A gets beside it
    double direct_delta = 0;
    if (method == s4d_discretization::bilinear) {
        const complex_double inverse = reciprocal({1 - 0.5 * z.re, -0.5 * z.im});
        dz = (dpole + (0.5 * delta) * dgain) * conj(inverse * inverse);
        direct_delta = (dgain * conj(inverse)).re;
    } else if (method == s4d_discretization::zoh) {
        const complex_double quotient = quotient_of_exponential(exp_with_expm1(z, 1).less_1, z);
        dz = dz + delta * (dgain * conj(quotient_derivative(z, p.value, quotient)));
        direct_delta = (dgain * conj(quotient)).re;
    } else {
        constexpr double epsilon = 1e-7;
        const exponential whole = exp_with_expm1(z, length);
        const complex_double x = whole.less_1 * A;
        const double over = 1 / (squared_magnitude(x) + epsilon);
        const complex_double dr = dgain * conj(exp_with_expm1(z, 1).less_1);  // of r = conj(x) / (|x|² + ε)
        const complex_double dx = (over * over) * (epsilon * conj(dr) - dr * (x * x));
        direct = dx * conj(whole.less_1);
        dz = dz + (dgain * (over * x)) * conj(p.value);
        dz = dz + length * ((dx * conj(A)) * conj(whole.value));
    }
    dz = direction * dz;
    return {direct + delta * dz, A.re * dz.re + A.im * dz.im + direct_delta};
}

__device__ __forceinline__ bool beyond_band(double delta, double A_im, double bandlimit)
{
    return delta * fabs(A_im) / 6.283185307179586477 >= bandlimit / 2;
}

}  // namespace ssmkit::cuda::detail
