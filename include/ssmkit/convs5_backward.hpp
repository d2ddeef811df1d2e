#pragma once

#include <algorithm>
#include <complex>
#include <utility>

#include <ssmkit/convs5.hpp>
#include <ssmkit/detail/s5_adjoint.hpp>

namespace ssmkit {
namespace detail {

/// Every image sequence in turn, from the last piece of images to the first; threads work within the calls of S5, whose gradients
/// are then added up in one order.
template <class Arch, class T>
struct convs5_adjoint {
    using R = compute_t<T>;
    using complex = std::complex<R>;
    const convs5_backward_args<T>& a;
    const convs5_args<T>& f;
    convs5_shape<T> s;
    convs5_matrices<T> kernels, part, total;  // part: the gradients of one call
    R *gathered, *spread, *d_gathered, *sums;
    complex *h, *kept, *later, *earlier, *dA_part, *dA;
    arena rest;

    convs5_adjoint(const convs5_backward_args<T>& args, std::size_t concurrency, arena& memory)
        : a(args), f(args.forward), s(f), kernels(s, memory), part(s, memory), total(s, memory)
    {
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count)); };
        const auto take_complex = [&](index count) { return memory.take<complex>(static_cast<std::size_t>(count)); };
        gathered = take(s.band * s.piece * s.inputs);
        spread = take(s.band * s.piece * s.outputs);
        d_gathered = take(s.band * s.piece * s.inputs);
        sums = take(a.du.data() ? s.piece * s.pixels * s.dim : 0);
        h = take_complex(s.pixels * s.state);
        kept = take_complex(s.pieces * s.pixels * s.state);
        later = take_complex(s.pixels * s.state);
        earlier = take_complex(s.band * s.state);
        dA_part = take_complex(s.state);
        dA = take_complex(s.state);
        rest = memory;
        arena forward = memory, backward = memory;
        s5_forward<Arch, R>(ahead(0, s.band, s.piece), concurrency, forward);
        s5_adjoint<Arch, R>(back(0, 0, s.band, s.piece), concurrency, backward);
        memory = forward.taken() > backward.taken() ? forward : backward;
    }

    /// The states only: no outputs.
    s5_args<R> ahead(index first, index count, index tokens) const
    {
        complex* const states = h + first * s.state;
        return {.A = f.A, .B = kernels.B, .C = {nullptr, 0, s.state}, .u = {gathered, count, tokens, s.inputs},
                .initial_state = {states, count, s.state}, .conjugate_pairs = f.conjugate_pairs, .y = {nullptr, count, tokens, 0},
                .final_state = {states, count, s.state}};
    }

    s5_backward_args<R> back(index piece, index first, index count, index tokens) const
    {
        return {.forward = {.A = f.A,
                            .B = kernels.B,
                            .C = kernels.C,
                            .u = {gathered, count, tokens, s.inputs},
                            .initial_state = {kept + (piece * s.pixels + first) * s.state, count, s.state},
                            .conjugate_pairs = f.conjugate_pairs},
                .dy = {spread, count, tokens, s.outputs},
                .dfinal_state = {later + first * s.state, count, s.state},
                .dA = {dA_part, s.state},
                .dB = part.B,
                .dC = part.C,
                .du = a.du.data() ? view<R, 3>(d_gathered, count, tokens, s.inputs) : view<R, 3>{},
                .dinitial_state = {earlier, count, s.state}};
    }

    template <class Exec>
    void run(Exec& exec)
    {
        kernels.load(f);
        std::fill_n(dA, s.state, complex(0));
        std::fill_n(total.B.data(), total.B.size(), complex(0));
        std::fill_n(total.C.data(), total.C.size(), complex(0));
        for (index b = 0; b < f.u.extent(0); ++b) {
            s.load_states(f.initial_state, b, h);
            for (index piece = 0; piece < s.pieces; ++piece) {
                std::copy_n(h, s.pixels * s.state, kept + piece * s.pixels * s.state);
                if (piece + 1 < s.pieces) advance(b, piece * s.piece, exec);
            }
            s.load_states(a.dfinal_state, b, later);
            for (index piece = s.pieces; piece-- > 0;) go_back(b, piece, exec);
            s.store_states(later, a.dinitial_state, b);
        }
        for (index n = 0; n < s.state && a.dA.data(); ++n) a.dA[n] = dA[n];
        const auto copy = [](const complex& from, complex& to) { to = from; };
        if (a.dB.data()) total.pair_inputs(total.B, a.dB, copy);
        if (a.dC.data()) total.pair_outputs(total.C, a.dC, copy);
    }

    template <class Exec>
    void advance(index b, index t, Exec& exec)
    {
        s.for_bands([&](index first, index count) {
            s.template gather<1>(convs5_images(f.u, b, t, s.piece), s.in_rows, s.in_columns, first, count, gathered);
            arena scratch_of_call = rest;
            run_s5<Arch>(ahead(first, count, s.piece), scratch_of_call, exec);
        });
    }

    template <class Exec>
    void go_back(index b, index piece, Exec& exec)
    {
        const index t = piece * s.piece, tokens = std::min(s.piece, s.length - t);
        if (a.du.data()) std::fill_n(sums, tokens * s.pixels * s.dim, R(0));
        s.for_bands([&](index first, index count) {
            s.template gather<1>(convs5_images(f.u, b, t, tokens), s.in_rows, s.in_columns, first, count, gathered);
            s.template gather<-1>(convs5_images(a.dy, b, t, tokens), s.out_rows, s.out_columns, first, count, spread);
            arena scratch_of_call = rest;
            run_s5_backward<Arch>(back(piece, first, count, tokens), scratch_of_call, exec);
            std::copy_n(earlier, count * s.state, later + first * s.state);
            if (a.du.data()) s.template scatter<1>(d_gathered, s.in_rows, s.in_columns, s.dim, tokens, first, count, sums);
            const auto add = [](const complex* from, index n, complex* to) {
                for (index i = 0; i < n; ++i) to[i] += from[i];
            };
            add(dA_part, s.state, dA);
            add(part.B.data(), part.B.size(), total.B.data());
            add(part.C.data(), part.C.size(), total.C.data());
        });
        if (a.du.data()) s.store(sums, convs5_images(a.du, b, t, tokens));
    }
};

}  // namespace detail

/// Bytes of scratch memory with which convs5_backward(a) runs on any resource of at most this concurrency: an image of states
/// every 16 images of one sequence and two more, 16 of inputs, the kernels three times, 2 MB and what s5_backward needs.
template <class Arch = xsimd::default_arch, class T>
std::size_t convs5_backward_workspace_size(const convs5_backward_args<T>& a, std::size_t concurrency = 1)
{
    detail::arena count;
    detail::convs5_adjoint<Arch, T>(a, concurrency, count);
    return count.size();
}

/// The gradients of ConvS5: equations at convs5_backward_args. Throws shape_error before anything is written. Threads share the
/// pixels of a band; the result does not depend on the split, bit for bit. float gradients lie within 1e-5 of the largest one of
/// a double computation where convs5's results do.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void convs5_backward(const convs5_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t slots = concurrency(exec);
    const scratch own("convs5_backward", memory, convs5_backward_workspace_size<Arch>(a, slots));
    arena parts(own.memory());
    convs5_adjoint<Arch, T>(a, slots, parts).run(exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void convs5_backward(const convs5_backward_args<T>& a, Exec&& exec)
{
    convs5_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
