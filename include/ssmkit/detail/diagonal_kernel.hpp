#pragma once

// Convolution kernels of diagonal systems from their parameters, and the gradients: what s4d_kernel and dss_kernel share. A task
// is one channel of dim; arithmetic on its poles is double, on planar rows.

#include <algorithm>
#include <complex>
#include <limits>
#include <numbers>

#include <ssmkit/detail/s4d_discretisation.hpp>
#include <ssmkit/detail/vandermonde_rows.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit::detail {

/// Shapes as in s4d_kernel_args; a view that is not given has no data.
template <class T>
struct diagonal_kernel {
    view<const double, 2> delta_re, delta_im;  // step sizes of the real and of the imaginary part of A
    view<const std::complex<double>, 2> A;
    view<const std::complex<T>, 2> B;  // optional: 1
    view<const std::complex<T>, 3> C;
    pole_gain_rule rule;
    double rate = 1, bandlimit = std::numeric_limits<double>::infinity(), factor = 1;
    view<const std::complex<T>, 3> initial_state;  // optional, as its kernel below
    view<T, 3> K;
    view<T, 4> K_state;

    index dim() const { return C.extent(1); }
    index state() const { return C.extent(2); }
    index copy(index h) const { return h % A.extent(0); }
};

template <class T>
struct diagonal_kernel_gradients {
    view<const T, 3> dK;
    view<const T, 4> dK_state;
    view<double, 2> ddelta_re, ddelta_im;  // without the second, their sum in the first
    view<std::complex<double>, 2> dA;
    view<std::complex<T>, 2> dB;
    view<std::complex<T>, 3> dC, dinitial_state;
};

/// Where both passes begin with a channel.
template <class T, class Arch>
class diagonal_channel {
public:
    diagonal_channel(arena& memory, const diagonal_kernel<T>& k)
        : k_(k), pitch_(pole_pitch<Arch>(k.state())), system_(memory, pitch_), B_(take_planar(memory, pitch_)),
          input_(take_planar(memory, pitch_)), C_(take_planar(memory, pitch_)), w_(take_planar(memory, pitch_)),
          other_(take_planar(memory, pitch_))
    {
    }

protected:
    /// Poles and gains, B and B β.
    void load_channel(index h)
    {
        h_ = h;
        const index copy = k_.copy(h);
        load_system(k_.delta_re[h], k_.delta_im[h], k_.rate, k_.A[copy], system_, pitch_);
        discretise_poles<Arch>(system_, k_.rule, pitch_);
        any_growing_ = false;
        for (index n = 0; k_.rule.kind == pole_gain::softmax && n < pitch_; ++n) any_growing_ |= growing(n);
        if (k_.B.data()) {
            load_planar(k_.B[copy], B_, pitch_);
            multiply_poles<Arch>(pitch_, input_, B_, system_.gain);
        } else {
            std::copy_n(system_.gain.re, pitch_, input_.re);
            std::copy_n(system_.gain.im, pitch_, input_.im);
        }
    }

    /// C of an output channel, with zeros for the poles beyond the band.
    void load_output(index c)
    {
        load_planar(k_.C[c][h_], C_, pitch_);
        if (k_.bandlimit == std::numeric_limits<double>::infinity()) return;
        for (index n = 0; n < k_.state(); ++n) {
            if (beyond_band(n)) C_.re[n] = C_.im[n] = 0;
        }
    }

    bool beyond_band(index n) const
    {
        if (k_.bandlimit == std::numeric_limits<double>::infinity()) return false;
        const double turns = k_.delta_im(h_, n) * std::abs(system_.A.im[n]) / (2 * std::numbers::pi);
        return turns >= k_.bandlimit / 2;
    }

    bool growing(index n) const { return system_.A.re[n] > 0; }

    /// The part of w whose powers count from this end.
    void keep(planar<const double> w, bool grow, planar<double> to) const
    {
        for (index n = 0; n < pitch_; ++n) {
            to.re[n] = growing(n) == grow ? w.re[n] : 0;
            to.im[n] = growing(n) == grow ? w.im[n] : 0;
        }
    }

    const diagonal_kernel<T>& k_;
    index pitch_, h_ = 0;
    channel_system system_;
    planar<double> B_, input_, C_, w_, other_;
    bool any_growing_ = false;
};

template <class T, class Arch>
class diagonal_kernel_forward : diagonal_channel<T, Arch> {
public:
    diagonal_kernel_forward(arena& memory, const diagonal_kernel<T>& k)
        : diagonal_channel<T, Arch>(memory, k), sums_(memory, k.state(), length(k), false),
          streaming_(streams_around_caches<Arch>(k.K)), state_streaming_(streams_around_caches<Arch>(k.K_state))
    {
    }

    void run(index h)
    {
        this->load_channel(h);
        sums_.prepare(this->system_.poles);
        const diagonal_kernel<T>& k = this->k_;
        for (index c = 0; c < k.C.extent(0); ++c) {
            this->load_output(c);
            if (k.K.data()) {
                multiply_poles<Arch>(this->pitch_, this->w_, this->C_, this->input_, k.factor);
                write(k.K[c][h], streaming_);
            }
            for (index b = 0; k.K_state.data() && b < k.K_state.extent(0); ++b) {
                load_planar(k.initial_state[b][h], this->other_, this->pitch_);
                multiply_poles<Arch>(this->pitch_, this->w_, this->other_, this->system_.poles.value);
                multiply_poles<Arch>(this->pitch_, this->w_, this->w_, this->C_, k.factor);
                write(k.K_state[b][c][h], state_streaming_);
            }
        }
        if (streaming_ || state_streaming_) streaming_fence();
    }

private:
    static index length(const diagonal_kernel<T>& k) { return k.K_state.data() ? k.K_state.extent(3) : k.K.extent(2); }

    void write(const view<T, 1>& K, bool streaming)
    {
        if (!this->any_growing_) return sums_.write(this->w_, K, streaming);
        this->keep(this->w_, false, this->other_);
        sums_.write(this->other_, K, false);
        this->keep(this->w_, true, this->other_);
        sums_.write(this->other_, K.reversed(0), false, true);
    }

    vandermonde_sums<T, Arch> sums_;
    bool streaming_, state_streaming_;
};

template <class T, class Arch>
class diagonal_kernel_backward : diagonal_channel<T, Arch> {
public:
    using gradients = diagonal_kernel_gradients<T>;

    diagonal_kernel_backward(arena& memory, const diagonal_kernel<T>& k, const gradients& g)
        : diagonal_channel<T, Arch>(memory, k), g_(g), moments_(memory, k.state(), length(g), false),
          powers_(take_planar(memory, this->pitch_)), derivative_(take_planar(memory, this->pitch_)),
          dC_(take_planar(memory, this->pitch_)), dinput_(take_planar(memory, this->pitch_)),
          dpole_(take_planar(memory, this->pitch_)), start_(take_planar(memory, this->pitch_)),
          ddelta_(take_planar(memory, this->pitch_)),
          dstart_(take_planar(memory, this->pitch_ * (g.dinitial_state.data() ? g.dinitial_state.extent(0) : 0)))
    {
    }

    /// dA and dB are those of this channel alone.
    void run(index h, planar<double> dA, planar<double> dB)
    {
        this->load_channel(h);
        const diagonal_kernel<T>& k = this->k_;
        const index pitch = this->pitch_;
        moments_.prepare(this->system_.poles);
        clear_planar(dinput_, pitch);
        clear_planar(dpole_, pitch);
        if (g_.dinitial_state.data()) clear_planar(dstart_, pitch * g_.dinitial_state.extent(0));
        for (index c = 0; c < k.C.extent(0); ++c) {
            this->load_output(c);
            clear_planar(dC_, pitch);
            if (g_.dK.data()) {
                sum_row(g_.dK[c][h]);
                multiply_poles<Arch>(pitch, this->w_, this->C_, this->input_);
                add_conj_product<Arch>(pitch, dpole_, derivative_, this->w_, k.factor);
                add_conj_product<Arch>(pitch, dC_, powers_, this->input_, k.factor);
                add_conj_product<Arch>(pitch, dinput_, powers_, this->C_, k.factor);
            }
            for (index b = 0; g_.dK_state.data() && b < g_.dK_state.extent(0); ++b) add_state_row(b, c);
            if (g_.dC.data()) store_output(g_.dC[c][h]);
        }
        for (index b = 0; g_.dinitial_state.data() && b < g_.dinitial_state.extent(0); ++b) {
            store_planar(dstart_ + b * pitch, g_.dinitial_state[b][h]);
        }
        // dinput is the gradient of B β.
        planar<double> dgain = dinput_;
        if (k.B.data()) {
            clear_planar(dB, pitch);
            add_conj_product<Arch>(pitch, dB, dinput_, this->system_.gain);
            clear_planar(this->w_, pitch);
            add_conj_product<Arch>(pitch, this->w_, dinput_, this->B_);
            dgain = this->w_;
        }
        discretise_poles_backward<Arch>(this->system_, k.rule, pitch, dpole_, dgain, dA, ddelta_);
        if (g_.ddelta_re.data()) store_steps(h);
    }

private:
    static index length(const gradients& g) { return g.dK_state.data() ? g.dK_state.extent(3) : g.dK.extent(2); }

    /// powers_ and derivative_: conj of Σ u_l λ^l and of Σ l u_l λ^{l-1}, l counted from where the pole's powers are.
    void sum_row(const view<const T, 1>& u)
    {
        sum_directed(u);
        if (!this->any_growing_) return;
        this->keep(powers_, false, this->w_);
        this->keep(derivative_, false, this->other_);
        sum_directed(u.reversed(0));
        this->keep(powers_, true, powers_);
        this->keep(derivative_, true, derivative_);
        for (index n = 0; n < this->pitch_; ++n) {
            powers_.re[n] += this->w_.re[n];
            powers_.im[n] += this->w_.im[n];
            derivative_.re[n] += this->other_.re[n];
            derivative_.im[n] += this->other_.im[n];
        }
    }

    /// By S0 and S1 of u_1, u_2, ...: u_0 + λ S0 and S0 + S1, where a division by λ would fail at a pole of zero.
    [[gnu::flatten]] void sum_directed(const view<const T, 1>& u)
    {
        using c = complex_vec<double, Arch>;
        if (u.extent(0) <= 1) {  // no power but the first, which is 1 whatever the pole
            clear_planar(powers_, this->pitch_);
            if (u.extent(0) == 1) std::fill_n(powers_.re, this->pitch_, static_cast<double>(u[0]));
            return clear_planar(derivative_, this->pitch_);
        }
        moments_.of(u.slice(0, 1, u.extent(0) - 1));
        const vec<double, Arch> first(static_cast<double>(u[0]));
        for_poles<Arch>(
            this->pitch_, powers_,
            [&](const c& pole, const c& sum) __attribute__((always_inline)) {
                const c later = pole * sum;
                return c{first + later.re, -later.im};
            },
            planar<const double>(this->system_.poles.value), moments_.sum());
        for_poles<Arch>(
            this->pitch_, derivative_,
            [](const c& sum, const c& weighted) __attribute__((always_inline)) { return conj(sum + weighted); }, moments_.sum(),
            moments_.weighted());
    }

    /// The row of K_state, whose weights are C λ s.
    void add_state_row(index b, index c)
    {
        const index pitch = this->pitch_;
        const planar<const double> pole = this->system_.poles.value, C = this->C_;
        const double f = this->k_.factor;
        sum_row(g_.dK_state[b][c][this->h_]);
        load_planar(this->k_.initial_state[b][this->h_], start_, pitch);
        multiply_poles<Arch>(pitch, this->other_, C, start_);  // C s
        add_conj_product<Arch>(pitch, dpole_, powers_, this->other_, f);
        multiply_poles<Arch>(pitch, this->w_, this->other_, pole);
        add_conj_product<Arch>(pitch, dpole_, derivative_, this->w_, f);
        multiply_poles<Arch>(pitch, this->w_, start_, pole);
        add_conj_product<Arch>(pitch, dC_, powers_, this->w_, f);
        if (!g_.dinitial_state.data()) return;
        multiply_poles<Arch>(pitch, this->w_, C, pole);
        add_conj_product<Arch>(pitch, dstart_ + b * pitch, powers_, this->w_, f);
    }

    void store_output(const view<std::complex<T>, 1>& dC) const
    {
        store_planar(dC_, dC);
        for (index n = 0; n < dC.extent(0); ++n) {
            if (this->beyond_band(n)) dC[n] = 0;
        }
    }

    /// Of step sizes, one a pole, or their sum where they are tied.
    void store_steps(index h) const
    {
        const index state = this->k_.state();
        const double rate = this->k_.rate;
        const auto store_one = [&](const view<double, 2>& to, auto gradient) {
            const bool tied = to.stride(1) == 0;
            double sum = 0;
            for (index n = 0; n < state; ++n) {
                if (tied) sum += gradient(n);
                else to(h, n) = rate * gradient(n);
            }
            if (tied && state > 0) to(h, 0) = rate * sum;
        };
        if (!g_.ddelta_im.data()) return store_one(g_.ddelta_re, [&](index n) { return ddelta_.re[n] + ddelta_.im[n]; });
        store_one(g_.ddelta_re, [&](index n) { return ddelta_.re[n]; });
        store_one(g_.ddelta_im, [&](index n) { return ddelta_.im[n]; });
    }

    const gradients& g_;
    vandermonde_moments<T, Arch> moments_;
    planar<double> powers_, derivative_, dC_, dinput_, dpole_, start_, ddelta_, dstart_;
};

template <class Arch, class T>
std::size_t diagonal_kernel_bytes(const diagonal_kernel<T>& k)
{
    arena sizes;
    const diagonal_kernel_forward<T, Arch> one(sizes, k);
    return sizes.size();
}

template <class Arch, class T, class Exec>
void run_diagonal_kernel(const char* op, const diagonal_kernel<T>& k, workspace memory, Exec& exec)
{
    if (k.K.empty() && k.K_state.empty()) return;
    const std::size_t each = diagonal_kernel_bytes<Arch>(k);
    const scratch own(op, memory, concurrency(exec) * each);
    run_tasks(exec, static_cast<std::size_t>(k.dim()), [&](std::size_t h, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(slot * each, each));
        diagonal_kernel_forward<T, Arch>(part, k).run(static_cast<index>(h));
    });
}

/// Scratch memory: of each task, and gradients of A and B, one row a channel, that are added up over the channels of a copy.
struct diagonal_backward_bytes {
    std::size_t each = 0, shared = 0;

    template <class Arch, class T>
    static diagonal_backward_bytes of(const diagonal_kernel<T>& k, const diagonal_kernel_gradients<T>& g)
    {
        arena task, all;
        const diagonal_kernel_backward<T, Arch> one(task, k, g);
        const index numbers = 4 * pole_pitch<Arch>(k.state());
        all.take<double>(static_cast<std::size_t>(numbers * k.dim()));
        return {task.size(), all.size()};
    }
};

/// The gradient of a parameter, (copies, state), from those of each channel's use of it, row_of(h), added up over the channels of a
/// copy. Writes nothing if it is not asked for.
template <class E, class Row>
void sum_over_channels(const view<std::complex<E>, 2>& to, index dim, Row&& row_of)
{
    const index copies = to.extent(0);
    for (index s = 0; to.data() && s < copies; ++s) {
        for (index n = 0; n < to.extent(1); ++n) {
            double re = 0, im = 0;
            for (index h = s; h < dim; h += copies) {
                re += row_of(h).re[n];
                im += row_of(h).im[n];
            }
            to(s, n) = {static_cast<E>(re), static_cast<E>(im)};
        }
    }
}

template <class Arch, class T, class Exec>
void run_diagonal_kernel_backward(const char* op, const diagonal_kernel<T>& k, const diagonal_kernel_gradients<T>& g,
                                  workspace memory, Exec& exec)
{
    const auto bytes = diagonal_backward_bytes::of<Arch>(k, g);
    const scratch own(op, memory, bytes.shared + concurrency(exec) * bytes.each);
    const index pitch = pole_pitch<Arch>(k.state()), dim = k.dim();
    arena all(own.memory().subspan(0, bytes.shared));
    double* const rows = all.take<double>(static_cast<std::size_t>(4 * pitch * dim));
    const auto row = [&](index h, index which) {
        return planar<double>{rows + (4 * h + 2 * which) * pitch, rows + (4 * h + 2 * which + 1) * pitch};
    };
    run_tasks(exec, static_cast<std::size_t>(dim), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        const auto h = static_cast<index>(task);
        arena part(own.memory().subspan(bytes.shared + slot * bytes.each, bytes.each));
        diagonal_kernel_backward<T, Arch>(part, k, g).run(h, row(h, 0), row(h, 1));
    });
    sum_over_channels(g.dA, dim, [&](index h) { return row(h, 0); });
    sum_over_channels(g.dB, dim, [&](index h) { return row(h, 1); });
}

}  // namespace ssmkit::detail
