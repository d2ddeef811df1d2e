#pragma once

#include <algorithm>
#include <utility>

#include <ssmkit/detail/s7_rows.hpp>

namespace ssmkit {
namespace detail {

/// The recurrence back over a piece: rows of C^T dy become s. `h` holds the states after the tokens, `before` that before them.
template <class Arch, class R, class T>
[[gnu::noinline, gnu::flatten]] void s7_scan_rows_back(const view<const T, 2>& A, const R* h, const R* before, R* g, index pitch,
                                                       R* later, const view<T, 2>& dA)
{
    using v = vec<R, Arch>;
    for_each_lanes<R, Arch>(A.extent(1), [&](auto range) __attribute__((always_inline)) {
        v from_later = load<R, Arch>(later + range.first);
        for (index t = A.extent(0) - 1; t >= 0; --t) {
            R* const row = g + t * pitch + range.first;
            const v s = load<R, Arch>(row) + from_later, inverse_of = v(R(1)) / s7_denominator<Arch, R>(A[t], range);
            s.store_unaligned(row);
            if (dA.data()) {
                const v previous = load<R, Arch>((t > 0 ? h + (t - 1) * pitch : before) + range.first);
                const v rate = range.load(A[t].data(), A.extent(1) > 1 ? A.stride(1) : 1);
                range.store(s * previous * (rate + rate) * inverse_of * inverse_of, dA[t].data(),
                            dA.extent(1) > 1 ? dA.stride(1) : 1);
            }
            from_later = s - inverse_of * s;
        }
        from_later.store_unaligned(later + range.first);
    });
}

template <class Arch, class T>
struct s7_adjoint {
    using R = compute_t<T>;
    const s7_scan_backward_args<T>& a;
    const s7_scan_args<T>& f;
    s7_shape<Arch, T> s;
    R *h, *g, *state, *later, *kept;

    s7_adjoint(const s7_scan_backward_args<T>& args, std::size_t concurrency, arena& memory)
        : a(args), f(args.forward), s(f, concurrency)
    {
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count)); };
        h = take(s.span * s.panel());
        g = take(s.span * s.panel());
        state = take(s.pitch);
        later = take(s.pitch);
        kept = take(s.total() * s.pitch);
    }

    template <class Exec>
    void run(Exec& exec)
    {
        for (index first = 0; first < s.total(); first += s.span) {  // ahead: the states that pieces begin with
            const index count = std::min(s.span, s.total() - first);
            if (s.pieces > 1) s.for_pieces(exec, first, count, [&](index k, index i) { enter(k, i); });
            const flush_denormals guard;
            for (index k = 0; k < count; ++k) keep(k, first + k);
        }
        for (index last = s.total(); last > 0; last -= std::min(s.span, last)) {
            const index count = std::min(s.span, last), first = last - count;
            s.for_pieces(exec, first, count, [&](index k, index i) {
                enter(k, i);
                for (index t = 0; t < s.tokens(i); ++t) {
                    const index b = s.row(i), at = s.first(i) + t;
                    s7_sum_rows<Arch, R>(f.C[b][at], a.dy[b][at], view<const T, 1>{}, g + k * s.panel() + t * s.pitch);
                }
            });
            const flush_denormals guard;
            for (index k = count; k-- > 0;) scan_back(k, first + k);
            s.for_pieces(exec, first, count, [&](index k, index i) { leave(k, i); });
        }
    }

    void enter(index k, index i) const
    {
        for (index t = 0; t < s.tokens(i); ++t) {
            const index b = s.row(i), at = s.first(i) + t;
            s7_sum_rows<Arch, R>(f.B[b][at], f.u[b][at], f.bias.data() ? f.bias[b][at] : view<const T, 1>{},
                                 h + k * s.panel() + t * s.pitch);
        }
    }

    view<const T, 2> factors(index i) const { return f.A[s.row(i)].slice(0, s.first(i), s.tokens(i)); }

    void keep(index k, index i) const
    {
        if (s.first(i) == 0) s7_load_state<Arch>(f.initial_state, s.row(i), s.state, s.pitch, state);
        std::copy_n(state, s.pitch, kept + i * s.pitch);
        if (s.first(i) + s.tokens(i) < s.length) s7_scan_rows<Arch, R>(factors(i), h + k * s.panel(), s.pitch, state);
    }

    void scan_back(index k, index i) const
    {
        const index b = s.row(i);
        const R* const before = kept + i * s.pitch;
        std::copy_n(before, s.pitch, state);
        s7_scan_rows<Arch, R>(factors(i), h + k * s.panel(), s.pitch, state);
        if (s.first(i) + s.tokens(i) == s.length) s7_load_state<Arch>(a.dfinal_state, b, s.state, s.pitch, later);
        s7_scan_rows_back<Arch, R>(factors(i), h + k * s.panel(), before, g + k * s.panel(), s.pitch, later,
                                   a.dA.data() ? a.dA[b].slice(0, s.first(i), s.tokens(i)) : view<T, 2>{});
        if (s.first(i) > 0) return;
        for (index n = 0; n < s.state && a.dinitial_state.data(); ++n) a.dinitial_state(b, n) = later[n];
    }

    void leave(index k, index i) const
    {
        for (index t = 0; t < s.tokens(i); ++t) {
            const index b = s.row(i), at = s.first(i) + t;
            const R *const states = h + k * s.panel() + t * s.pitch, *const gradient = g + k * s.panel() + t * s.pitch;
            if (a.du.data()) s7_dot_rows<Arch, R>(f.B[b][at], gradient, a.du[b][at]);
            if (a.dB.data()) s7_store_rows<Arch, R>(f.u[b][at], gradient, a.dB[b][at]);
            if (a.dC.data()) s7_store_rows<Arch, R>(a.dy[b][at], states, a.dC[b][at]);
            for (index n = 0; n < s.state && a.dbias.data(); ++n) a.dbias(b, at, n) = static_cast<T>(gradient[n]);
        }
    }
};

}  // namespace detail

/// Bytes of scratch memory with which s7_scan_backward(a) runs on any resource of at most this concurrency: one state every 32
/// tokens of every sequence, and 66 of them or, with threads, 256 for each.
template <class Arch = xsimd::default_arch, class T>
std::size_t s7_scan_backward_workspace_size(const s7_scan_backward_args<T>& a, std::size_t concurrency = 1)
{
    detail::arena count;
    detail::s7_adjoint<Arch, T>(a, concurrency, count);
    return count.size();
}

/// The gradients of S7's scan: equations at s7_scan_backward_args. Throws shape_error before anything is written. Work splits over
/// time; the result does not depend on the split, bit for bit. float gradients lie within 1e-5 of the largest one of a double
/// computation where s7_scan's results do.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s7_scan_backward(const s7_scan_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t slots = concurrency(exec);
    const scratch own("s7_scan_backward", memory, s7_scan_backward_workspace_size<Arch>(a, slots));
    arena parts(own.memory());
    s7_adjoint<Arch, T> scan(a, slots, parts);
    for (index b = 0; b < a.dinitial_state.extent(0) && scan.s.length == 0; ++b) {
        for (index n = 0; n < scan.s.state; ++n)
            a.dinitial_state(b, n) = a.dfinal_state.data() ? a.dfinal_state(b, n) : compute_t<T>(0);
    }
    scan.run(exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void s7_scan_backward(const s7_scan_backward_args<T>& a, Exec&& exec)
{
    s7_scan_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
