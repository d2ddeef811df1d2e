#pragma once

#include <algorithm>
#include <utility>

#include <ssmkit/detail/s7_rows.hpp>

namespace ssmkit {
namespace detail {

template <class Arch, class T>
struct s7_forward {
    using R = compute_t<T>;
    const s7_scan_args<T>& a;
    s7_shape<Arch, T> s;
    R *h, *state;

    s7_forward(const s7_scan_args<T>& args, std::size_t concurrency, arena& memory) : a(args), s(args, concurrency)
    {
        h = memory.take<R>(static_cast<std::size_t>(s.span * s.panel()));
        state = memory.take<R>(static_cast<std::size_t>(s.pitch));
    }

    template <class Exec>
    void run(Exec& exec)
    {
        for (index first = 0; first < s.total(); first += s.span) {
            const index count = std::min(s.span, s.total() - first);
            s.for_pieces(exec, first, count, [&](index k, index i) { enter(k, i); });
            const flush_denormals guard;
            for (index k = 0; k < count; ++k) scan(k, first + k);
            s.for_pieces(exec, first, count, [&](index k, index i) { leave(k, i); });
        }
    }

    void enter(index k, index i) const
    {
        for (index t = 0; t < s.tokens(i); ++t) {
            const index b = s.row(i), at = s.first(i) + t;
            s7_sum_rows<Arch, R>(a.B[b][at], a.u[b][at], a.bias.data() ? a.bias[b][at] : view<const T, 1>{},
                                 h + k * s.panel() + t * s.pitch);
        }
    }

    void scan(index k, index i) const
    {
        const index b = s.row(i);
        if (s.first(i) == 0) s7_load_state<Arch>(a.initial_state, b, s.state, s.pitch, state);
        s7_scan_rows<Arch, R>(a.A[b].slice(0, s.first(i), s.tokens(i)), h + k * s.panel(), s.pitch, state);
        if (s.first(i) + s.tokens(i) < s.length) return;
        for (index n = 0; n < s.state && a.final_state.data(); ++n) a.final_state(b, n) = state[n];
    }

    void leave(index k, index i) const
    {
        for (index t = 0; t < s.tokens(i); ++t) {
            const index b = s.row(i), at = s.first(i) + t;
            s7_dot_rows<Arch, R>(a.C[b][at], h + k * s.panel() + t * s.pitch, a.y[b][at]);
        }
    }
};

}  // namespace detail

/// Bytes of scratch memory with which s7_scan(a) runs on any resource of at most this concurrency: 33 states or, with threads,
/// 128 for each.
template <class Arch = xsimd::default_arch, class T>
std::size_t s7_scan_workspace_size(const s7_scan_args<T>& a, std::size_t concurrency = 1)
{
    detail::arena count;
    detail::s7_forward<Arch, T>(a, concurrency, count);
    return count.size();
}

/// The scan of S7: shapes, equations and options at s7_scan_args. Throws shape_error before anything is written. Work splits over
/// time; the result does not depend on the split, bit for bit. float results lie within 4e-6 of the largest output of a double
/// computation as long as the memory is short, some hundred tokens.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s7_scan(const s7_scan_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t slots = concurrency(exec);
    const scratch own("s7_scan", memory, s7_scan_workspace_size<Arch>(a, slots));
    arena parts(own.memory());
    s7_forward<Arch, T> scan(a, slots, parts);
    for (index b = 0; b < a.final_state.extent(0) && scan.s.length == 0; ++b) {
        for (index n = 0; n < scan.s.state; ++n)
            a.final_state(b, n) = a.initial_state.data() ? a.initial_state(b, n) : compute_t<T>(0);
    }
    scan.run(exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void s7_scan(const s7_scan_args<T>& a, Exec&& exec)
{
    s7_scan<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
