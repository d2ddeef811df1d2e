#pragma once

// The backward pass of S4's kernel, in the terms of s4_nodes.hpp: with A' = ΔA = diag(λ) - Σ p_r q_r and at every node
//     x_i = (z - A')^-1 b_i,   y_c = (z - A')^-T C_c,   g'_ci = conj(1 + iy/2) dK̂_ci,   u_i = Σ_c g'_ci conj(y_c),
// the gradients of C, b, λ, p and q are sums over nodes of g' x*, u, u x*, -u conj(q·x), -(u·p*) x*. By Woodbury, q·x_i = τ_i and
// u_i·p* = v_i are what the Cauchy sums give, and x and u follow element by element.

#include <algorithm>
#include <complex>
#include <cstddef>
#include <optional>
#include <type_traits>

#include <ssmkit/args/s4_kernel_backward.hpp>
#include <ssmkit/s4_kernel.hpp>

namespace ssmkit::detail {

/// What is computed of a chunk of nodes in type W: g', τ, v and one state's gradients.
template <class Arch, class W>
struct s4_adjoint_work {
    W *upstream, *tau, *v, *accumulators;
    std::size_t size;  // of accumulators

    template <class Plan>
    s4_adjoint_work(const Plan& plan, arena& memory)
        : upstream(memory.take<W>(plan.upstream())),
          tau(memory.take<W>(plan.projections())),
          v(memory.take<W>(plan.projections())),
          accumulators(memory.take<W>(static_cast<std::size_t>(2 * plan.terms * lanes<W, Arch>))),
          size(static_cast<std::size_t>(2 * plan.terms * lanes<W, Arch>))
    {
    }
};

/// As s4_kernel's, and gradients of every channel of dim that are to be summed over those of a copy.
template <class Arch, class T>
struct s4_backward_plan : s4_kernel_plan<Arch, T> {
    using number = std::complex<double>;
    number *dA, *dB, *dP;  // (dim, state), dP (rank, dim, state)
    double* ddelta;        // (dim, state)
    index terms;           // accumulated for each state: C, b, λ, p, q

    s4_backward_plan(const s4_kernel_backward_args<T>& a, workspace lent)
        : s4_kernel_plan<Arch, T>(a.forward, a.dK.extent(2), a.forward.initial_state.data() && a.dK_state.data(), lent)
    {
        const s4_sizes& s = this->sizes;
        const auto entries = static_cast<std::size_t>(s.dim * s.state);
        dA = this->memory.template take<number>(entries);
        dB = this->memory.template take<number>(entries);
        dP = this->memory.template take<number>(entries * static_cast<std::size_t>(s.rank));
        ddelta = this->memory.template take<double>(entries);
        terms = s.channels + s.columns + 1 + 2 * s.rank;
        this->shared = this->memory.size();
        arena more;
        s4_adjoint_work<Arch, T>(*this, more);
        if (this->repairs()) s4_adjoint_work<Arch, double>(*this, more);
        more.take<number>(totals());
        this->each += more.size();
    }

    std::size_t upstream() const { return static_cast<std::size_t>(2 * this->sizes.rows() * s4_chunk); }
    std::size_t projections() const { return static_cast<std::size_t>(2 * this->sizes.columns * this->sizes.rank * s4_chunk); }
    std::size_t totals() const { return static_cast<std::size_t>(terms * this->sizes.state); }
};

/// Scratch memory of one channel's gradients.
template <class Arch, class T>
struct s4_adjoint {
    s4_system system;
    s4_sums<T> sums;
    std::optional<s4_near_nodes> near;  // where T is float
    s4_adjoint_work<Arch, T> work;
    std::optional<s4_adjoint_work<Arch, double>> near_work;
    std::complex<double>* totals;  // (state, terms)

    s4_adjoint(const s4_backward_plan<Arch, T>& plan, arena& memory)
        : system(plan.sizes, memory), sums(plan.sizes, memory), work(plan, memory)
    {
        if (plan.repairs()) {
            near.emplace(plan.sizes, memory);
            near_work.emplace(plan, memory);
        }
        totals = memory.take<std::complex<double>>(plan.totals());
    }
};

/// g' at nodes bin(l), l < count, in type W, from the channel's rows of the spectra of dK; 0 at the node where z is infinite, behind
/// the end and where skip(bin).
template <class Arch, class T, class W, class Bin, class Skip>
void s4_load_upstream(const s4_backward_plan<Arch, T>& plan, index count, Bin&& bin, Skip&& skip, T* spectra, index first_row,
                      W* upstream)
{
    constexpr index n = lanes<T, Arch>;
    const s4_sizes& s = plan.sizes;
    const W scale = W(1) / static_cast<W>(s.transform);
    for (index i = 0; i < s.rows(); ++i, upstream += 2 * s4_chunk) {
        const T* const row = plan.rows.row(spectra, first_row + i);
        for (index l = 0; l < count; ++l) {
            const index j = bin(l);
            const bool finite = 2 * j < s.transform && !skip(j);
            const W weight = !finite ? W(0) : j == 0 ? scale : 2 * scale;
            const W re = finite ? weight * static_cast<W>(row[2 * n * j]) : W(0),
                    im = finite && j > 0 ? weight * static_cast<W>(row[2 * n * j + n]) : W(0);
            const W half = static_cast<W>(plan.nodes.y[j]) / 2;
            upstream[l] = re + half * im;
            upstream[s4_chunk + l] = im - half * re;
        }
    }
}

/// τ_i = (I + q·p)^-1 q·b_i and v_i = Σ_c g'_ci conj(C_c·p (I + q·p)^-1) at a chunk of nodes.
template <class Arch, class W>
void s4_project(const s4_sizes& s, const s4_sums<W>& sums, const s4_adjoint_work<Arch, W>& work, index count)
{
    using number = complex_lanes<vec<W, Arch>>;
    for (index l = 0; l < count; l += lanes<W, Arch>) {
        const auto sum = [&](index x, index y) { return load_parts<Arch>(sums.re(s, x, y) + l, s4_chunk); };
        const auto inverse = [&](index r, index t) {
            return load_parts<Arch>(sums.inverse + 2 * (r * s.rank + t) * s4_chunk + l, s4_chunk);
        };
        const auto put = [&](W* p, const number& x) {
            x.re.store_unaligned(p + l);
            x.im.store_unaligned(p + s4_chunk + l);
        };
        for (index i = 0; i < s.columns; ++i) {
            for (index r = 0; r < s.rank; ++r) {
                const vec<W, Arch> zero(W(0));
                number tau{zero, zero}, v{zero, zero};
                for (index t = 0; t < s.rank; ++t) tau = tau + product(inverse(r, t), sum(s.channels + t, i));
                for (index c = 0; c < s.channels; ++c) {
                    number sigma{zero, zero};
                    for (index t = 0; t < s.rank; ++t) sigma = sigma + product(sum(c, s.columns + t), inverse(t, r));
                    v = v + product(load_parts<Arch>(work.upstream + 2 * (i * s.channels + c) * s4_chunk + l, s4_chunk),
                                    sigma.conjugate());
                }
                put(work.tau + 2 * (i * s.rank + r) * s4_chunk, tau);
                put(work.v + 2 * (i * s.rank + r) * s4_chunk, v);
            }
        }
    }
}

/// How many kernels, columns and ranks: as constants, with which all sums of a state stay in registers (measured: 0.92 times the
/// time), or as they are.
template <index Rank>
struct s4_one_kernel {
    static constexpr index channels = 1, columns = 1, rank = Rank;
    static constexpr bool fixed = true;
};
struct s4_any_counts {
    index channels, columns, rank;
    static constexpr bool fixed = false;
};

/// Writes what a chunk of nodes gives to one state: work.accumulators, whose lanes are those of the nodes.
template <class Arch, class T, class Counts>
[[gnu::noinline, gnu::flatten]] void s4_accumulate(const s4_system& system, index state, const imaginary_nodes<T>& nodes,
                                                   const s4_adjoint_work<Arch, T>& work, const Counts& counts, index n, index first,
                                                   index count)
{
    using V = vec<T, Arch>;
    using number = complex_lanes<V>;
    constexpr index width = lanes<T, Arch>;
    const auto broadcast = [](std::complex<double> x) { return number{V(static_cast<T>(x.real())), V(static_cast<T>(x.imag()))}; };
    const number zero{V(T(0)), V(T(0))};
    number sums[static_cast<std::size_t>(Counts::fixed ? 9 : 1)];
    for (number& x : sums) x = zero;
    const auto add = [&](index term, const number& x) __attribute__((always_inline)) {
        if constexpr (Counts::fixed) {
            sums[term] = sums[term] + x;
        } else {
            T* const p = work.accumulators + 2 * term * width;
            (load_parts<Arch>(p, width) + x).store(p);
        }
    };
    const double pole = system.pole[n].imag();
    const V damping(static_cast<T>(-system.pole[n].real())), high(static_cast<T>(pole)),
        low(static_cast<T>(pole - static_cast<double>(static_cast<T>(pole))));
    const auto reciprocal = [&](const V& distance) __attribute__((always_inline)) {  // of z - λ
        const V g = inverse(multiply_add(distance, distance, damping * damping));
        return number{damping * g, -(distance * g)};
    };
    const auto upstream = [&](index i, index c, index l) __attribute__((always_inline)) {
        return load_parts<Arch>(work.upstream + 2 * (i * counts.channels + c) * s4_chunk + l, s4_chunk);
    };
    const auto projection = [&](const T* of, index i, index r, index l) __attribute__((always_inline)) {
        return load_parts<Arch>(of + 2 * (i * counts.rank + r) * s4_chunk + l, s4_chunk);
    };
    const index of_b = counts.channels, of_pole = of_b + counts.columns, of_p = of_pole + 1, of_q = of_p + counts.rank;
    for (index l = 0; l < count; l += width) {
        const V y = load<T, Arch>(nodes.y + first + l);
        V beyond = y - high, before = y + high;
        if constexpr (std::is_same_v<T, float>) {
            const V y_low = load<T, Arch>(nodes.y_low + first + l);
            beyond = beyond + (y_low - low);
            before = before + (y_low + low);
        }
        const number here = reciprocal(beyond), there = reciprocal(before);
        for (index i = 0; i < counts.columns; ++i) {
            number left_here = zero, left_there = zero, right_here = broadcast(system.right[i * state + n]),
                   right_there = right_here.conjugate();
            for (index c = 0; c < counts.channels; ++c) {
                const number g = upstream(i, c, l), map = broadcast(system.left[c * state + n]);
                left_here = left_here + conjugate_product(g, map);
                left_there = left_there + product(g, map);
            }
            for (index r = 0; r < counts.rank; ++r) {
                const number tau = projection(work.tau, i, r, l), v = projection(work.v, i, r, l);
                const number p = broadcast(system.right[(counts.columns + r) * state + n]),
                             q = broadcast(system.left[(counts.channels + r) * state + n]);
                left_here = left_here - conjugate_product(v, q);
                left_there = left_there - product(v, q);
                right_here = right_here - product(p, tau);
                right_there = right_there - conjugate_product(tau, p);
            }
            const number u_here = conjugate_product(left_here, here), u_there = conjugate_product(left_there, there);
            const number x_here = product(right_here, here), x_there = product(right_there, there);
            add(of_b + i, u_here + u_there.conjugate());
            add(of_pole, conjugate_product(u_here, x_here) + conjugate_product(x_there, u_there));
            for (index c = 0; c < counts.channels; ++c) {
                const number g = upstream(i, c, l);
                add(c, conjugate_product(g, x_here) + conjugate_product(x_there, g));
            }
            for (index r = 0; r < counts.rank; ++r) {
                const number tau = projection(work.tau, i, r, l), v = projection(work.v, i, r, l);
                add(of_p + r, conjugate_product(u_here, tau) + conjugate_product(tau, u_there));
                add(of_q + r, conjugate_product(x_here, v) + conjugate_product(v, x_there));
            }
        }
    }
    if constexpr (Counts::fixed) {
        for (index term = 0; term < of_q + counts.rank; ++term) sums[term].store(work.accumulators + 2 * term * width);
    }
}

/// Adds what a chunk of nodes gives to all states to m.totals.
template <class Arch, class T, class W>
void s4_add_nodes(const s4_backward_plan<Arch, T>& plan, const s4_adjoint<Arch, T>& m, const imaginary_nodes<W>& nodes,
                  const s4_adjoint_work<Arch, W>& work, index first, index count)
{
    constexpr index n = lanes<W, Arch>;
    const s4_sizes& s = plan.sizes;
    for (index i = 0; i < s.state; ++i) {
        std::fill_n(work.accumulators, work.size, W(0));
        const auto accumulate = [&](const auto& counts) { s4_accumulate(m.system, s.state, nodes, work, counts, i, first, count); };
        if (s.rows() != 1 || s.rank > 2) {
            accumulate(s4_any_counts{s.channels, s.columns, s.rank});
        } else if (s.rank == 0) {
            accumulate(s4_one_kernel<0>{});
        } else if (s.rank == 1) {
            accumulate(s4_one_kernel<1>{});
        } else {
            accumulate(s4_one_kernel<2>{});
        }
        for (index term = 0; term < plan.terms; ++term) {
            const auto total = load_parts<Arch>(work.accumulators + 2 * term * n, n);
            m.totals[i * plan.terms + term] += std::complex<double>(sum(total.re), sum(total.im));
        }
    }
}

/// From the sums over nodes to the gradients of channel h. p and q, with signs as they are in A', both belong to P.
template <class Arch, class T>
void s4_store_gradients(const s4_kernel_backward_args<T>& a, const s4_backward_plan<Arch, T>& plan, const s4_adjoint<Arch, T>& m,
                        index h)
{
    using number = std::complex<double>;
    const s4_sizes& s = plan.sizes;
    const s4_system& system = m.system;
    const index of_b = s.channels, of_pole = of_b + s.columns, of_p = of_pole + 1, of_q = of_p + s.rank, copy = h % s.copies;
    const auto total = [&](index n, index term) -> number& { return m.totals[n * plan.terms + term]; };
    for (index n = 0; n < s.state; ++n) {
        for (index r = 0; r < 2 * s.rank; ++r) total(n, of_p + r) = -total(n, of_p + r);
    }
    for (index b = 0; b + 1 < s.columns; ++b) {  // column = s + λ s / 2 - Σ p_r (Q_r·s) / 2
        const number* const given = system.state + b * s.state;
        const auto store = [&](index n, number g) {
            if (a.dinitial_state.data()) a.dinitial_state(b, h, n) = narrow<T>(g);
        };
        for (index n = 0; n < s.state; ++n) {
            const number g = total(n, of_b + 1 + b);
            number ds = g * std::conj(1.0 + 0.5 * system.pole[n]);
            for (index r = 0; r < s.rank; ++r) {
                double of_product = 0;
                for (index k = 0; k < s.state; ++k) {
                    of_product -= 0.5 * (total(k, of_b + 1 + b) * std::conj(system.right[(s.columns + r) * s.state + k])).real();
                }
                ds += 2 * of_product * std::conj(system.left[(s.channels + r) * s.state + n]);
                total(n, of_p + r) -= 0.5 * g * system.state_product(s, r, b);
                total(n, of_q + r) += 2 * of_product * given[n];  // of P = conj(q)
            }
            total(n, of_pole) += 0.5 * g * std::conj(given[n]);
            store(n, ds);
        }
    }
    for (index n = 0; n < s.state; ++n) {
        const double delta = system.delta[n];
        const index entry = h * s.state + n;
        plan.dA[entry] = delta * total(n, of_pole);
        plan.dB[entry] = delta * total(n, of_b);
        double ddelta = (total(n, of_pole) * std::conj(a.forward.A(copy, n))).real() +
                        (total(n, of_b) * std::conj(widen(a.forward.B(copy, n)))).real();
        for (index r = 0; r < s.rank; ++r) {
            plan.dP[r * s.dim * s.state + entry] = delta * total(n, of_p + r) + total(n, of_q + r);
            ddelta += (total(n, of_p + r) * system.left[(s.channels + r) * s.state + n]).real();
        }
        plan.ddelta[entry] = a.forward.rate * ddelta;
        for (index c = 0; c < s.channels && a.dC.data(); ++c) {
            a.dC(c, h, n) = s4_system::masked(a.forward, h, n) ? std::complex<T>(0) : narrow<T>(total(n, c));
        }
    }
}

/// The gradients of a group of channels.
template <class Arch, class T>
void s4_backward_group(const s4_kernel_backward_args<T>& a, const s4_backward_plan<Arch, T>& plan, index group, workspace memory)
{
    constexpr index n = lanes<T, Arch>;
    const s4_sizes& s = plan.sizes;
    arena part(memory);
    s4_adjoint<Arch, T> m(plan, part);
    T* const spectra = part.take<T>(static_cast<std::size_t>(plan.rows.batches * plan.rows.spectrum));
    T* const work = part.take<T>(static_cast<std::size_t>(plan.fft.template work_size<Arch>()));
    const index h0 = group * plan.rows.channels, channels = std::min(plan.rows.channels, s.dim - h0), used = channels * s.rows();
    for (index batch = 0; batch * n < used; ++batch) {
        T* const x = spectra + batch * plan.rows.spectrum;
        std::fill_n(x, n * s.transform, T(0));
        constexpr index tokens = 64;
        for (index t = 0; t < s.length; t += tokens) {
            for (index lane = 0; lane < std::min(n, used - batch * n); ++lane) {
                const index row = batch * n + lane, h = h0 + row / s.rows(), i = row % s.rows() / s.channels, c = row % s.channels;
                const view<const T, 1> in = i == 0 ? a.dK[c][h] : a.dK_state[i - 1][c][h];
                for (index l = t; l < std::min(t + tokens, s.length); ++l) x[n * l + lane] = in[l];
            }
        }
        plan.fft.template forward<Arch>(x, x, work);
    }
    for (index k = 0; k < channels; ++k) {
        m.system.fill(a.forward, s, h0 + k);
        m.sums.prepare(s, m.system);
        if (m.near) m.near->prepare(s, m.system);
        std::fill_n(m.totals, plan.totals(), 0.0);
        for (index first = 0; first < s.padded && s.rows() > 0 && s.length > 0; first += s4_chunk) {
            const index count = std::min(s4_chunk, s.padded - first);
            m.sums.template compute<Arch>(s, plan.nodes.all(), first, count);
            s4_load_upstream(plan, count, [&](index l) { return first + l; }, [&](index j) { return m.near && m.near->holds(j); }, spectra,
                             k * s.rows(), m.work.upstream);
            s4_project(s, m.sums, m.work, count);
            s4_add_nodes(plan, m, plan.nodes.all(), m.work, first, count);
        }
        while (const index count = m.near && s.rows() > 0 && s.length > 0 ? m.near->template compute<Arch>(s, plan.nodes) : 0) {
            constexpr index padding = cauchy_padding<double, Arch>;
            const index padded = (count + padding - 1) / padding * padding;
            s4_load_upstream(plan, padded, [&](index l) { return m.near->bin(std::min(l, count - 1)); }, [](index) { return false; },
                             spectra, k * s.rows(), m.near_work->upstream);
            for (index i = 0; i < s.rows(); ++i) {  // behind the last node
                for (index side = 0; side < 2; ++side)
                    std::fill(m.near_work->upstream + (2 * i + side) * s4_chunk + count,
                              m.near_work->upstream + (2 * i + side) * s4_chunk + padded, 0.0);
            }
            s4_project(s, m.near->sums, *m.near_work, padded);
            s4_add_nodes(plan, m, m.near->gathered(), *m.near_work, 0, padded);
        }
        for (index i = 0; i < s.rows() && s.transform % 2 == 0 && s.length > 0; ++i) {  // where M = 4 I: K̂ = Re C b
            const double g = static_cast<double>(plan.rows.row(spectra, k * s.rows() + i)[2 * n * (s.bins - 1)]) /
                             static_cast<double>(s.transform);
            const index c = i % s.channels, column = i / s.channels;
            for (index state = 0; state < s.state; ++state) {
                m.totals[state * plan.terms + c] += g * std::conj(m.system.right[column * s.state + state]);
                m.totals[state * plan.terms + s.channels + column] += g * std::conj(m.system.left[c * s.state + state]);
            }
        }
        s4_store_gradients(a, plan, m, h0 + k);
    }
}

/// Sums over the channels of each copy, in their order whatever the split was.
template <class Arch, class T>
void s4_sum_gradients(const s4_kernel_backward_args<T>& a, const s4_backward_plan<Arch, T>& plan)
{
    const s4_sizes& s = plan.sizes;
    const auto of_copy = [&](const std::complex<double>* each, index copy, index n) {
        std::complex<double> sum = 0;
        for (index h = copy; h < s.dim; h += s.copies) sum += each[h * s.state + n];
        return sum;
    };
    for (index copy = 0; copy < s.copies; ++copy) {
        for (index n = 0; n < s.state; ++n) {
            if (a.dA.data()) a.dA(copy, n) = of_copy(plan.dA, copy, n);
            if (a.dB.data()) a.dB(copy, n) = narrow<T>(of_copy(plan.dB, copy, n));
            for (index r = 0; r < s.rank && a.dP.data(); ++r)
                a.dP(r, copy, n) = narrow<T>(of_copy(plan.dP + r * s.dim * s.state, copy, n));
        }
    }
    for (index b = 0; b < a.dinitial_state.extent(0) && !a.dK_state.data(); ++b) {  // nothing reaches it
        for (index h = 0; h < s.dim; ++h) {
            for (index n = 0; n < s.state; ++n) a.dinitial_state(b, h, n) = 0;
        }
    }
    if (!a.ddelta.data()) return;
    for (index h = 0; h < s.dim; ++h) {
        for (index n = 0; n < s.state; ++n) a.ddelta(h, n) = 0;
        for (index n = 0; n < s.state; ++n) a.ddelta(h, n) += plan.ddelta[h * s.state + n];
    }
}

}  // namespace ssmkit::detail
