#pragma once

#include <algorithm>
#include <complex>
#include <utility>

#include <ssmkit/detail/convs5_bands.hpp>

namespace ssmkit {
namespace detail {

/// One image sequence after the other on one thread; `memory` is what is left of its scratch memory for S5.
template <class Arch, class T>
struct convs5_sequence {
    using R = compute_t<T>;
    using complex = std::complex<R>;
    const convs5_args<T>& a;
    const convs5_shape<T>& s;
    const convs5_matrices<T>& kernels;
    R *gathered, *spread, *sums;
    complex* h;
    arena rest;

    convs5_sequence(const convs5_args<T>& args, const convs5_shape<T>& shape, const convs5_matrices<T>& matrices, arena& memory)
        : a(args), s(shape), kernels(matrices)
    {
        gathered = memory.take<R>(static_cast<std::size_t>(s.band * s.piece * s.inputs));
        spread = memory.take<R>(static_cast<std::size_t>(s.band * s.piece * s.outputs));
        sums = memory.take<R>(static_cast<std::size_t>(s.piece * s.pixels * s.out));
        h = memory.take<complex>(static_cast<std::size_t>(s.pixels * s.state));
        rest = memory;
        s5_forward<Arch, R>(call(0, s.band, s.piece), 1, memory);
    }

    s5_args<R> call(index first, index count, index tokens) const
    {
        complex* const states = h + first * s.state;
        return {.A = a.A,
                .B = kernels.B,
                .C = kernels.C,
                .u = {gathered, count, tokens, s.inputs},
                .initial_state = {states, count, s.state},
                .conjugate_pairs = a.conjugate_pairs,
                .y = {spread, count, tokens, s.outputs},
                .final_state = {states, count, s.state}};
    }

    void run(index b)
    {
        s.load_states(a.initial_state, b, h);
        for (index t = 0; t < s.length; t += s.piece) {
            const index tokens = std::min(s.piece, s.length - t);
            std::fill_n(sums, tokens * s.pixels * s.out, R(0));
            s.for_bands([&](index first, index count) {
                s.template gather<1>(convs5_images(a.u, b, t, tokens), s.in_rows, s.in_columns, first, count, gathered);
                arena scratch_of_call = rest;
                in_place here;
                run_s5<Arch>(call(first, count, tokens), scratch_of_call, here);
                s.template scatter<-1>(spread, s.out_rows, s.out_columns, s.out, tokens, first, count, sums);
            });
            s.store(sums, convs5_images(a.y, b, t, tokens));
        }
        s.store_states(h, a.final_state, b);
    }
};

}  // namespace detail

/// Bytes of scratch memory with which convs5(a) runs on any resource of at most this concurrency: the kernels once more and, for
/// each of the tasks that run at once, an image of states, 16 of outputs, 1 MB and what s5 needs.
template <class Arch = xsimd::default_arch, class T>
std::size_t convs5_workspace_size(const convs5_args<T>& a, std::size_t concurrency = 1)
{
    using namespace detail;
    arena count;
    const convs5_shape<T> s(a);
    const convs5_matrices<T> kernels(s, count);
    const std::size_t tasks = std::min(concurrency, std::max<std::size_t>(1, static_cast<std::size_t>(a.u.extent(0))));
    for (std::size_t i = 0; i < tasks; ++i) convs5_sequence<Arch, T>(a, s, kernels, count);
    return count.size();
}

/// ConvS5: shapes, equations and options at convs5_args. Throws shape_error before anything is written. Work splits over the
/// batch; the result does not depend on the split, bit for bit. float results lie within 1e-5 of the largest output of a double
/// computation as long as the memory is short, 1 / (1 - |Ā|) up to some hundred images.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void convs5(const convs5_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t slots = concurrency(exec), tasks = static_cast<std::size_t>(a.u.extent(0));
    const scratch own("convs5", memory, convs5_workspace_size<Arch>(a, slots));
    arena parts(own.memory());
    const convs5_shape<T> s(a);
    const convs5_matrices<T> kernels(s, parts);
    kernels.load(a);
    arena one;  // how much a task takes
    convs5_sequence<Arch, T>(a, s, kernels, one);
    const arena first = parts;
    run_tasks(exec, tasks, [&](std::size_t b, std::size_t slot) {
        const flush_denormals guard;
        arena own_part = first;
        own_part.take<std::byte>(slot * one.taken());
        convs5_sequence<Arch, T>(a, s, kernels, own_part).run(static_cast<index>(b));
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void convs5(const convs5_args<T>& a, Exec&& exec)
{
    convs5<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
