#pragma once

#include <algorithm>
#include <complex>
#include <cstddef>
#include <span>

#include <ssmkit/args/s5.hpp>
#include <ssmkit/cuda/detail/diagonal_pole.cuh>
#include <ssmkit/cuda/detail/s5_products.cuh>
#include <ssmkit/cuda/device.cuh>
#include <ssmkit/cuda/linear_scan.cuh>

namespace ssmkit::cuda {
namespace detail {

/// What the kernels of a call leave for one another in the workspace. Re and Im of a number are neighbours, also as terms of the
/// products.
struct s5_plan {
    std::complex<float>* poles;     ///< (state)
    float* B;                       ///< (2 state padded, dim padded): of the gain times B; of B itself with intervals
    float* C;                       ///< (out padded, scans * (2 state padded)): f Re C, -f Im C
    std::complex<float>* h[2];      ///< (batch, length, state): the input, then a scan's states; the second one if bidirectional
    std::complex<float>* varying;   ///< (batch, length, state): poles that change with the token
    std::uint8_t* begins;           ///< (batch, length): where a sequence begins for the second scan
    chain_plan chains;
    std::size_t bytes;
};

template <class T>
s5_plan plan_s5(const s5_args<T>& a, std::byte* memory)
{
    const index batch = a.u.extent(0), length = a.u.extent(1), dim = a.u.extent(2), state = a.A.extent(0), out = a.C.extent(0);
    const index scans = ssmkit::detail::s5_scans(a), terms = padded(2 * state, product_terms);
    s5_plan p{};
    const auto take = [&](index count, std::size_t size) {
        std::byte* const at = memory + p.bytes;
        p.bytes += (static_cast<std::size_t>(count) * size + 15) / 16 * 16;
        return at;
    };
    const auto numbers = [&](index count) {
        return reinterpret_cast<std::complex<float>*>(take(count, sizeof(std::complex<float>)));
    };
    p.poles = numbers(state);
    p.B = reinterpret_cast<float*>(take(padded(2 * state, product_columns) * padded(dim, product_terms), sizeof(float)));
    p.C = reinterpret_cast<float*>(take(padded(out, product_columns) * scans * terms, sizeof(float)));
    for (index scan = 0; scan < scans; ++scan) p.h[scan] = numbers(batch * length * state);
    if (a.interval.data() || a.liquid) p.varying = numbers(batch * length * state);
    if (a.bidirectional && a.reset.data()) p.begins = reinterpret_cast<std::uint8_t*>(take(batch * length, 1));
    p.chains = plan_chains(batch, length, state, 16 * scan_tokens<std::complex<float>>);
    const std::size_t slots = chain_slot_bytes(p.chains, batch, state, sizeof(std::complex<float>));
    place_chain_slots(p.chains, take(static_cast<index>(slots), 1), batch, state, sizeof(std::complex<float>));
    return p;
}

struct s5_discrete {
    complex_double pole, gain;
};

/// discretize.hpp's formulas, in double.
static __device__ __noinline__ s5_discrete s5_discretise(discretization method, complex_double A, double delta, double interval)
{
    const double step = delta * interval;
    const complex_double z = step * A;
    if (method == discretization::zoh || method == discretization::dirac || method == discretization::async) {
        const exponential e = exp_with_expm1(z, 1);
        if (method == discretization::dirac) return {e.value, {1, 0}};
        if (method == discretization::zoh) return {e.value, step * quotient_of_exponential(e.less_1, z)};
        const complex_double whole = delta * A;
        return {e.value, delta * quotient_of_exponential(exp_with_expm1(whole, 1).less_1, whole)};
    }
    const double alpha = method == discretization::bilinear ? 0.5 : method == discretization::forward_euler ? 0 : 1;
    const complex_double e = reciprocal({1 - alpha * z.re, -alpha * z.im});
    return {complex_double{1 + (1 - alpha) * z.re, (1 - alpha) * z.im} * e, step * e};
}

template <class T>
__device__ __forceinline__ s5_discrete s5_system_of(const s5_args<T>& a, index n, double interval)
{
    complex_double A = load_complex(a.A.pointer(n));
    if (a.clip_eigs && A.re > -1e-4) A.re = -1e-4;
    if (!a.delta.data()) return {A, {1, 0}};
    return s5_discretise(a.method, A, static_cast<double>(a.delta[n]), interval);
}

/// Poles, and the matrices as the products take them. A block takes one state, with its row of B, or one output with its row of C,
/// or one row of padding.
template <class T>
__global__ void __launch_bounds__(128) s5_pack_kernel(const __grid_constant__ s5_args<T> a, const __grid_constant__ s5_plan p,
                                                      index state_rows, index output_rows)
{
    const index state = a.A.extent(0), dim = a.u.extent(2), out = a.C.extent(0), scans = a.bidirectional ? 2 : 1;
    const index row = blockIdx.x;
    if (row < state_rows) {  // of two rows of B each
        const index terms = (dim + product_terms - 1) / product_terms * product_terms;
        s5_discrete system{};
        if (row < state) system = s5_system_of(a, row, 1.0);
        if (row < state && threadIdx.x == 0) store_complex(system.pole, p.poles + row);
        const complex_double gain = a.interval.data() ? complex_double{1, 0} : system.gain;
        for (index c = threadIdx.x; c < terms; c += blockDim.x) {
            complex_double x{0, 0};
            if (row < state && c < dim) x = gain * load_complex(a.B.pointer(row, c));
            p.B[2 * row * terms + c] = static_cast<float>(x.re);
            p.B[(2 * row + 1) * terms + c] = static_cast<float>(x.im);
        }
        return;
    }
    const index o = row - state_rows;
    if (o >= output_rows) return;
    const index terms = (2 * state + product_terms - 1) / product_terms * product_terms;
    const float f = a.conjugate_pairs ? 2.0f : 1.0f;
    for (index i = threadIdx.x; i < scans * terms; i += blockDim.x) {
        const index scan = i / terms, k = i % terms;
        float x = 0;
        if (o < out && k < 2 * state) {
            const float* const C = reinterpret_cast<const float*>(a.C.pointer(o, scan * state + k / 2));
            x = k % 2 == 0 ? f * C[0] : -f * C[1];
        }
        p.C[o * scans * terms + i] = x;
    }
}

/// Poles that change with the token: by its interval, which the gain follows too, and by its input if liquid.
template <class T>
__global__ void __launch_bounds__(256) s5_poles_kernel(const __grid_constant__ s5_args<T> a, const __grid_constant__ s5_plan p)
{
    const index length = a.u.extent(1), state = a.A.extent(0), all = a.u.extent(0) * length * state;
    for (index i = blockIdx.x * index{256} + threadIdx.x; i < all; i += gridDim.x * index{256}) {
        const index n = i % state, token = i / state;
        float* const input = reinterpret_cast<float*>(p.h[0] + i);
        complex_number pole = load_raw(p.poles + n, true);
        if (a.interval.data()) {
            const s5_discrete system = s5_system_of(a, n, static_cast<double>(a.interval(token / length, token % length)));
            pole = {static_cast<float>(system.pole.re), static_cast<float>(system.pole.im)};
            const complex_number gain{static_cast<float>(system.gain.re), static_cast<float>(system.gain.im)};
            const complex_number scaled = times(complex_number{input[0], input[1]}, gain);
            input[0] = scaled.re, input[1] = scaled.im;
        }
        if (a.liquid) pole = plus(pole, complex_number{input[0], input[1]});
        store_number<std::complex<float>>(pole, p.varying + i, true);
    }
}

/// The second scan of a bidirectional call begins a sequence at its last token.
static __global__ void __launch_bounds__(256) s5_begins_kernel(const __grid_constant__ view<const std::uint8_t, 2> reset,
                                                               std::uint8_t* begins)
{
    const index length = reset.extent(1), all = reset.extent(0) * length;
    for (index i = blockIdx.x * index{256} + threadIdx.x; i < all; i += gridDim.x * index{256}) {
        const index b = i / length, t = i % length;
        begins[i] = t + 1 < length ? reset(b, t + 1) : 0;
    }
}

inline unsigned s5_blocks(index items) { return static_cast<unsigned>(std::min<index>((items + 255) / 256, index{1} << 20)); }

}  // namespace detail

/// Bytes of the device's memory that s5 needs beside its arguments: the states of all tokens, 8 bytes each (twice if bidirectional,
/// once more if poles change with the token), B, C, and what linear_scan needs.
template <class T>
std::size_t s5_workspace_size(const s5_args<T>& a)
{
    return detail::plan_s5(a, nullptr).bytes + 15;
}

/// S5 on the device: shapes, equations and options at s5_args, whose views hold device pointers; T is float, bfloat16 or float16.
/// Asynchronous on `stream`. Throws shape_error before anything is launched if shapes do not fit or the workspace is smaller than
/// s5_workspace_size, and cuda::error if a launch fails. Results are the same bit for bit from run to run.
///
/// B u, the scan in place and C h + D u, one after the other. The products run on the tensor cores, three of tf32 for each of float
/// (two for 16-bit u), so that states agree with the equations to 4e-6 of the largest; an infinite u, state or parameter counts as
/// NaN in them. They are what binds: 4 state (dim + out) multiplications and additions a token and scan, three times over.
template <class T>
void s5(const s5_args<T>& a, std::span<std::byte> workspace, cudaStream_t stream)
{
    using namespace detail;
    using complex = std::complex<float>;
    static_assert(device_element<T>, "float, bfloat16 or float16");
    constexpr const char* op = "cuda::s5";
    check(a);
    ssmkit::detail::require(workspace.size() >= s5_workspace_size(a), op, "workspace", "is smaller than s5_workspace_size");
    const index batch = a.u.extent(0), length = a.u.extent(1), state = a.A.extent(0), out = a.C.extent(0);
    const index scans = ssmkit::detail::s5_scans(a), tokens = batch * length;
    if (batch == 0) return;
    const s5_plan p = plan_s5(a, aligned_to_16(workspace.data()));

    const index state_rows = padded(2 * state, product_columns) / 2, output_rows = padded(out, product_columns);
    ssmkit::detail::require(state_rows + output_rows < (index{1} << 31), op, "B", "has more rows than a grid has blocks");
    if (state_rows + output_rows > 0) {
        const auto grid = static_cast<unsigned>(state_rows + output_rows);
        s5_pack_kernel<T><<<grid, 128, 0, stream>>>(a, p, state_rows, output_rows);
        require_success(op, cudaGetLastError());
    }
    float* const inputs = reinterpret_cast<float*>(p.h[0]);
    launch_s5_product<T, float>(op, {.left = {a.u, {}}, .right = p.B, .out = {inputs, batch, length, 2 * state}}, stream);
    if (p.varying && tokens * state > 0) {
        s5_poles_kernel<T><<<s5_blocks(tokens * state), 256, 0, stream>>>(a, p);
        require_success(op, cudaGetLastError());
    }
    if (p.begins && tokens > 0) {
        s5_begins_kernel<<<s5_blocks(tokens), 256, 0, stream>>>(a.reset, p.begins);
        require_success(op, cudaGetLastError());
    }
    for (index scan = scans - 1; scan >= 0; --scan) {  // the first, last, takes the place of the inputs
        linear_scan_args<complex> s{.a = constant_over_time(view<const complex, 1>(p.poles, state), batch, length),
                                    .b = {p.h[0], batch, length, state}, .reset = a.reset, .reverse = a.reverse || scan == 1,
                                    .h = {p.h[scan], batch, length, state}};
        if (p.varying) s.a = {p.varying, batch, length, state};
        if (scan == 1 && p.begins) s.reset = {p.begins, batch, length};
        if (a.initial_state.data()) s.initial_state = a.initial_state.slice(1, scan * state, state);
        if (a.final_state.data()) s.final_state = a.final_state.slice(1, scan * state, state);
        run_linear_scan(op, s, p.chains, stream);
    }
    product_args<float, T> q{.parts = static_cast<int>(scans), .right = p.C, .D = a.D, .u = a.u, .out = a.y};
    for (index scan = 0; scan < scans; ++scan) q.left[scan] = {reinterpret_cast<float*>(p.h[scan]), batch, length, 2 * state};
    launch_s5_product(op, q, stream);
}

/// The same where s5_workspace_size is 0; otherwise shape_error.
template <class T>
void s5(const s5_args<T>& a, cudaStream_t stream)
{
    s5(a, {}, stream);
}

}  // namespace ssmkit::cuda
