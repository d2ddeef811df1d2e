#pragma once

#include <cstddef>
#include <utility>

#include <ssmkit/args/cauchy_backward.hpp>
#include <ssmkit/cauchy.hpp>
#include <ssmkit/detail/complex_fft.hpp>

namespace ssmkit {
namespace detail {

/// What the backward pass keeps: parts of the nodes, and of the upstream gradients of the rows that are at work.
template <class Arch, class T>
struct cauchy_backward_plan {
    index padded, chunks;
    T *re, *im;
    std::size_t shared, each, gradients;

    cauchy_backward_plan(const cauchy_backward_args<T>& a, workspace memory)
        : padded((a.forward.z.extent(0) + lanes<T, Arch> - 1) / lanes<T, Arch> * lanes<T, Arch>),
          chunks((padded + cauchy_chunk - 1) / cauchy_chunk)
    {
        arena nodes = memory.empty() ? arena() : arena(memory);
        re = nodes.take<T>(static_cast<std::size_t>(padded));
        im = nodes.take<T>(static_cast<std::size_t>(padded));
        shared = nodes.size();
        arena sizes;
        gradients = static_cast<std::size_t>(2 * std::max<index>(a.forward.v.extent(0), 1) * cauchy_chunk);
        sizes.take<T>(gradients);
        sizes.take<T>(static_cast<std::size_t>(2 * cauchy_chunk));
        sizes.take<std::complex<double>>(static_cast<std::size_t>(a.forward.v.extent(0) + 1));
        each = sizes.size();
    }
};

/// The parts of dout at nodes [first, first + count) of row h, zeros behind its end: term i's at 2 i cauchy_chunk.
template <class T>
void load_cauchy_gradients(const cauchy_backward_args<T>& a, index h, index first, index count, T* g)
{
    const index length = a.forward.z.extent(0);
    for (index i = 0; i < a.dout.extent(0); ++i, g += 2 * cauchy_chunk) {
        for (index l = 0; l < count; ++l) {
            const std::complex<T> x = first + l < length ? a.dout(i, h, first + l) : std::complex<T>(0);
            g[l] = x.real();
            g[cauchy_chunk + l] = x.imag();
        }
    }
}

/// One over the distance of a register of nodes to a pole.
template <class Arch, class T>
[[gnu::always_inline]] inline complex_lanes<vec<T, Arch>> cauchy_quotient(const T* re, const T* im, std::complex<T> w)
{
    using V = vec<T, Arch>;
    const V x = load<T, Arch>(re) - V(w.real()), y = load<T, Arch>(im) - V(w.imag());
    const V g = inverse(multiply_add(x, x, y * y));
    return {g * x, -(g * y)};
}

/// Σ_l g_l conj(q_l) and Σ_l g_l conj(q_l²), q_l = 1 / (z_l - w), over a chunk of nodes.
template <class T>
struct cauchy_moments {
    std::complex<T> first, second;
};

template <class Arch, class T>
[[gnu::noinline, gnu::flatten]] cauchy_moments<T> cauchy_moments_of(const T* re, const T* im, index count, std::complex<T> w,
                                                                    const T* g)
{
    using number = complex_lanes<vec<T, Arch>>;
    const vec<T, Arch> zero(T(0));
    number first{zero, zero}, second{zero, zero};
    for (index l = 0; l < count; l += lanes<T, Arch>) {
        const number q = cauchy_quotient<Arch>(re + l, im + l, w).conjugate();
        const number x = number{load<T, Arch>(g + l), load<T, Arch>(g + cauchy_chunk + l)}.times(q.re, q.im);
        first = first + x;
        second = second + x.times(q.re, q.im);
    }
    return {{sum(first.re), sum(first.im)}, {sum(second.re), sum(second.im)}};
}

/// Adds -Σ_terms g_l conj(v q_l²) of one pole to the parts of dz, chunk by chunk.
template <class Arch, class T>
[[gnu::noinline, gnu::flatten]] void add_cauchy_node_gradients(const T* re, const T* im, index count, std::complex<T> w,
                                                               std::complex<T> v, const T* g, T* dz)
{
    using V = vec<T, Arch>;
    using number = complex_lanes<V>;
    for (index l = 0; l < count; l += lanes<T, Arch>) {
        const number q = cauchy_quotient<Arch>(re + l, im + l, w), square = q.times(q.re, q.im).times(V(v.real()), V(v.imag()));
        const number x = number{load<T, Arch>(g + l), load<T, Arch>(g + cauchy_chunk + l)}.times(square.re, -square.im);
        (load<T, Arch>(dz + l) - x.re).store_unaligned(dz + l);
        (load<T, Arch>(dz + cauchy_chunk + l) - x.im).store_unaligned(dz + cauchy_chunk + l);
    }
}

/// dv and dw of row h: all nodes, a chunk at a time, of which sums are added up in double.
template <class Arch, class T>
void cauchy_row_gradients(const cauchy_backward_args<T>& a, const cauchy_backward_plan<Arch, T>& plan, index h, workspace memory)
{
    const cauchy_args<T>& f = a.forward;
    arena part(memory);
    T* const g = part.take<T>(plan.gradients);
    part.take<T>(static_cast<std::size_t>(2 * cauchy_chunk));
    auto* const sums = part.take<std::complex<double>>(static_cast<std::size_t>(f.v.extent(0) + 1));
    const index terms = f.v.extent(0);
    for (index n = 0; n < f.w.extent(1); ++n) {
        std::fill_n(sums, terms + 1, 0.0);
        for (index chunk = 0; chunk < plan.chunks; ++chunk) {
            const index first = chunk * cauchy_chunk, count = std::min(cauchy_chunk, plan.padded - first);
            if (n == 0 || plan.chunks > 1) load_cauchy_gradients(a, h, first, count, g);
            for (const bool second : {false, true}) {
                if (second && !f.conjugate_pairs) continue;
                const std::complex<T> w = second ? std::conj(f.w(h, n)) : f.w(h, n);
                for (index i = 0; i < terms; ++i) {
                    const auto m = cauchy_moments_of<Arch>(plan.re + first, plan.im + first, count, w, g + 2 * i * cauchy_chunk);
                    const std::complex<T> v = second ? f.v(i, h, n) : std::conj(f.v(i, h, n)), of_w = v * m.second;
                    sums[i] += second ? std::conj(m.first) : m.first;
                    sums[terms] += second ? std::conj(of_w) : of_w;
                }
            }
        }
        const auto narrow = [](std::complex<double> x) {
            return std::complex<T>(static_cast<T>(x.real()), static_cast<T>(x.imag()));
        };
        for (index i = 0; i < terms && a.dv.data(); ++i) a.dv(i, h, n) = narrow(sums[i]);
        if (a.dw.data()) a.dw(h, n) = narrow(sums[terms]);
    }
}

/// dz of a chunk of nodes.
template <class Arch, class T>
void cauchy_node_gradients(const cauchy_backward_args<T>& a, const cauchy_backward_plan<Arch, T>& plan, index chunk,
                           workspace memory)
{
    const cauchy_args<T>& f = a.forward;
    arena part(memory);
    T* const g = part.take<T>(plan.gradients);
    T* const dz = part.take<T>(static_cast<std::size_t>(2 * cauchy_chunk));
    const index first = chunk * cauchy_chunk, count = std::min(cauchy_chunk, plan.padded - first);
    std::fill_n(dz, 2 * cauchy_chunk, T(0));
    for (index h = 0; h < f.w.extent(0); ++h) {
        load_cauchy_gradients(a, h, first, count, g);
        for (index n = 0; n < f.w.extent(1); ++n) {
            for (const bool second : {false, true}) {
                if (second && !f.conjugate_pairs) continue;
                const std::complex<T> w = second ? std::conj(f.w(h, n)) : f.w(h, n);
                for (index i = 0; i < f.v.extent(0); ++i) {
                    const std::complex<T> v = second ? std::conj(f.v(i, h, n)) : f.v(i, h, n);
                    add_cauchy_node_gradients<Arch>(plan.re + first, plan.im + first, count, w, v, g + 2 * i * cauchy_chunk, dz);
                }
            }
        }
    }
    for (index l = 0; l < std::min(count, f.z.extent(0) - first); ++l) a.dz[first + l] = {dz[l], dz[cauchy_chunk + l]};
}

}  // namespace detail

/// Bytes of scratch memory with which cauchy_backward(a) runs on any resource of at most this concurrency: 2 length numbers, and
/// 2048 (terms + 1) for each task that runs at once.
template <class Arch = xsimd::default_arch, class T>
std::size_t cauchy_backward_workspace_size(const cauchy_backward_args<T>& a, std::size_t concurrency = 1)
{
    const detail::cauchy_backward_plan<Arch, T> plan(a, {});
    return plan.shared + concurrency * plan.each;
}

/// The gradients of Cauchy sums: equations at cauchy_backward_args. Throws shape_error before anything is written. Quotients are
/// computed anew. Work splits over dim and, for dz, over nodes; the result does not depend on the split, bit for bit. float
/// gradients lie within 1e-5 of the largest of a double computation as long as no node comes within |z| / 100 of a pole.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void cauchy_backward(const cauchy_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t slots = concurrency(exec);
    const scratch own("cauchy_backward", memory, cauchy_backward_workspace_size<Arch>(a, slots));
    const cauchy_backward_plan<Arch, T> plan(a, own.memory());
    const index length = a.forward.z.extent(0), rows = a.dv.data() || a.dw.data() ? a.forward.w.extent(0) : 0;
    for (index l = 0; l < plan.padded; ++l) {  // behind the end, where dout is zero, a node far from every pole
        plan.re[l] = l < length ? a.forward.z[l].real() : T(1e6);
        plan.im[l] = l < length ? a.forward.z[l].imag() : T(1e6);
    }
    const index nodes = a.dz.data() ? plan.chunks : 0;
    run_tasks(exec, static_cast<std::size_t>(rows + nodes), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        const workspace part = own.memory().subspan(plan.shared + slot * plan.each, plan.each);
        const index i = static_cast<index>(task);
        i < rows ? cauchy_row_gradients<Arch>(a, plan, i, part) : cauchy_node_gradients<Arch>(a, plan, i - rows, part);
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void cauchy_backward(const cauchy_backward_args<T>& a, Exec&& exec)
{
    cauchy_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
