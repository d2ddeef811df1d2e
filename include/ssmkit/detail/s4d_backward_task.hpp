#pragma once

// The gradients of S4D's layer over a few channels and all sequences, through states and their gradients, chunk by chunk.

#include <algorithm>
#include <complex>
#include <memory>

#include <ssmkit/args/s4d_backward.hpp>
#include <ssmkit/detail/fft_conv_rows.hpp>
#include <ssmkit/detail/s4d_adjoint.hpp>
#include <ssmkit/detail/s4d_discretisation.hpp>

namespace ssmkit::detail {

/// Chunks whose gradients are computed together, and after how many the tables' gradients go into double sums.
inline constexpr index s4d_adjoint_block = 32, s4d_adjoint_fold = 128;

/// How the work is cut: whole registers of channels where they are neighbours in memory, which turns them.
template <class Arch, class T>
index s4d_backward_group(const s4d_backward_args<T>& a)
{
    const auto turned = [](const auto& v) { return v.data() && v.stride(2) == 1 && v.stride(1) != 1; };
    const bool any = turned(a.forward.u) || turned(a.dy) || turned(a.du);
    return any ? std::min(lanes<compute_t<T>, Arch>, std::max(index{1}, a.forward.u.extent(2))) : 1;
}

/// Whether gradients of the system are asked for.
template <class T>
bool s4d_wants_system(const s4d_backward_args<T>& a)
{
    return a.ddelta.data() || a.dA.data() || a.dB.data() || a.dC.data();
}

/// What a task works with; taken from an arena without memory, it measures.
template <class Arch, class T>
struct s4d_backward_scratch {
    using R = compute_t<T>;
    static constexpr index chunk = s4d_chunk;

    index pitch, row;                      // poles, and tokens of a sequence, padded
    s4d_adjoint_tables<Arch, R>* tables;   // [group]
    channel_system system;
    planar<double> B, power, dgain, dB, ddelta;
    s4d_discrete_system discrete, gradients;
    R *u, *dy, *du;                        // u, du: [group][row], dy: [channels][group][row]
    R *x, *p, *state, *gradient;           // x: [chunks of a sequence][2 pitch], p: [block][2 pitch]
    R *tail_u, *tail_dy, *tail_du;         // a short chunk with zeros before its first token; dy: [channels][chunk]

    s4d_backward_scratch(arena& memory, const s4d_backward_args<T>& a, index group)
        : pitch(pole_pitch<Arch>(a.forward.A.extent(1))), row((a.forward.u.extent(1) + chunk - 1) / chunk * chunk),
          tables(memory.take<s4d_adjoint_tables<Arch, R>>(static_cast<std::size_t>(group))), system(memory, pitch),
          B(take_planar(memory, pitch)), power(take_planar(memory, pitch)), dgain(take_planar(memory, pitch)),
          dB(take_planar(memory, pitch)), ddelta(take_planar(memory, pitch))
    {
        const index channels = a.forward.C.extent(0);
        for (s4d_discrete_system* s : {&discrete, &gradients}) {
            *s = {take_planar(memory, pitch), take_planar(memory, pitch), take_planar(memory, pitch * channels)};
        }
        for (index g = 0; g < group; ++g) {
            const s4d_adjoint_tables<Arch, R> table(memory, a.forward.A.extent(1), channels);
            if (tables) std::construct_at(tables + g, table);
        }
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count)); };
        u = take(group * row);
        dy = take(channels * group * row);
        du = take(group * row);
        x = take(row / chunk * 2 * pitch);
        p = take(s4d_adjoint_block * 2 * pitch);
        state = take(2 * pitch);
        gradient = take(4 * pitch);
        tail_u = take(chunk);
        tail_dy = take(channels * chunk);
        tail_du = take(chunk);
    }

    static std::size_t size(const s4d_backward_args<T>& a)
    {
        arena measure;
        s4d_backward_scratch(measure, a, s4d_backward_group<Arch>(a));
        return measure.size();
    }
};

/// Channels h0 ... h0 + group - 1. dA and dB, one row a channel, are those of a channel alone.
template <class Arch, class T>
class s4d_backward_task {
    using R = compute_t<T>;
    using complex = std::complex<R>;
    using tables = s4d_adjoint_tables<Arch, R>;
    static constexpr index chunk = s4d_chunk;

public:
    s4d_backward_task(const s4d_backward_args<T>& a, const s4d_backward_scratch<Arch, T>& m, index h0, index group)
        : a_(a), f_(a.forward), m_(m), h0_(h0), group_(group), length_(f_.u.extent(1)), dim_(f_.u.extent(2)),
          channels_(f_.C.extent(0)), width_(2 * m.pitch), whole_(length_ / chunk), rest_(length_ % chunk), 
          learns_(s4d_wants_system(a) || a.dD.data())
    {
    }

    template <class Row>
    void run(Row&& row_of) const
    {
        for (index g = 0; g < group_; ++g) build(g);
        index held = 0;
        for (index b = 0; b < f_.u.extent(0); ++b) {
            if (length_ > 0) read(b);
            for (index g = 0; g < group_; ++g) sequence(b, g);
            if (length_ > 0 && a_.du.data()) unpack_rows<Arch, T, R>(m_.du, m_.row, {}, rows(a_.du, b, 0));
            held += whole_ + 1;
            if (!learns_ || held < s4d_adjoint_fold) continue;
            for (index g = 0; g < group_; ++g) m_.tables[g].fold();
            held = 0;
        }
        for (index g = 0; learns_ && g < group_; ++g) parameters(g, row_of(h0_ + g, 0), row_of(h0_ + g, 1));
    }

private:
    static constexpr index row_step = chunk;

    /// Chunks that are treated together. Where a chunk is short, what inputs meet has its tokens at the chunk's end, as the input's
    /// table has; what outputs meet, at the beginning.
    struct piece {
        const R *u, *dy, *ending_dy;
        index channel, ending_channel;  // from one output map's dy to the next
        R* du;
        const R* power;
        R* dpower;
        index first, rows, tokens;  // chunks, and tokens of dy
    };

    /// Channels of a sequence, as visited in time.
    template <class E>
    view<E, 2> rows(const view<E, 3>& v, index b, index c) const
    {
        return (f_.reverse ? v.reversed(1) : v)[b].transposed(0, 1).slice(0, c * dim_ + h0_, group_);
    }

    /// The discrete system of a channel.
    void discretise(index h) const
    {
        const index copy = h % f_.A.extent(0), pitch = m_.pitch, state = f_.A.extent(1);
        load_system(f_.delta[h], f_.delta[h], f_.rate, f_.A[copy], m_.system, pitch);
        discretise_poles<Arch>(m_.system, rule(), pitch);
        load_planar(f_.B[copy], m_.B, pitch);
        multiply_poles<Arch>(pitch, m_.discrete.input, m_.B, m_.system.gain);
        std::copy_n(m_.system.poles.value.re, pitch, m_.discrete.pole.re);
        std::copy_n(m_.system.poles.value.im, pitch, m_.discrete.pole.im);
        for (planar<double> p : {m_.discrete.pole, m_.discrete.input}) {  // behind the last pole there is nothing
            std::fill_n(p.re + state, pitch - state, 0.0);
            std::fill_n(p.im + state, pitch - state, 0.0);
        }
        for (index c = 0; c < channels_; ++c) load_planar(f_.C[c][h], m_.discrete.output + c * pitch, pitch, factor());
    }

    pole_gain_rule rule() const { return {f_.method == s4d_discretization::zoh ? pole_gain::zoh : pole_gain::bilinear}; }
    double factor() const { return f_.conjugate_pairs ? 2 : 1; }

    void build(index g) const
    {
        const index h = h0_ + g;
        discretise(h);
        tables& t = m_.tables[g];
        t.forward.build(m_.discrete.pole, m_.discrete.input, m_.power, rest_);
        for (index c = 0; c < channels_; ++c) {
            t.forward.build_output(c, m_.discrete.pole, m_.discrete.input, m_.discrete.output + c * m_.pitch,
                                   f_.D.data() ? static_cast<double>(f_.D(c, h)) : 0, t.back + c * chunk * width_);
        }
        t.turn();
    }

    void read(index b) const
    {
        const auto load = [&](const view<const T, 2>& from, R* to) {
            pack_rows<Arch, T, R>(from, {}, to, m_.row);
            for (index g = 0; g < group_; ++g) std::fill(to + g * m_.row + length_, to + (g + 1) * m_.row, R(0));
        };
        if (learns_) load(rows(f_.u, b, 0), m_.u);
        for (index c = 0; c < channels_; ++c) load(rows(a_.dy, b, c), m_.dy + c * group_ * m_.row);
    }

    void load_state(const view<const complex, 3>& from, index b, index h, R* to) const
    {
        std::fill_n(to, width_, R(0));
        for (index k = 0; from.data() && k < f_.A.extent(1); ++k) {
            const complex x = from(b, h, k);
            to[k] = x.real();
            to[m_.pitch + k] = x.imag();
        }
    }

    void sequence(index b, index g) const
    {
        const tables& t = m_.tables[g];
        const R *const u = m_.u + g * m_.row, *const dy = m_.dy + g * m_.row;
        const index channel = group_ * m_.row;
        if (rest_ > 0) {
            const index offset = whole_ * chunk, zeros = chunk - rest_;
            std::fill_n(m_.tail_u, zeros, R(0));
            if (learns_) std::copy_n(u + offset, rest_, m_.tail_u + zeros);
            for (index c = 0; c < channels_; ++c) {
                std::fill_n(m_.tail_dy + c * chunk, zeros, R(0));
                std::copy_n(dy + c * channel + offset, rest_, m_.tail_dy + c * chunk + zeros);
            }
        }
        if (learns_) states(b, g, u);
        load_state(a_.dfinal_state, b, h0_ + g, m_.gradient);
        R *const du = m_.du + g * m_.row;
        R *const dcarry = t.gradients + t.carry_offset(), *const dtail = t.gradients + t.tail_offset();
        if (rest_ > 0) {
            back(t, {m_.tail_u, dy + whole_ * chunk, m_.tail_dy, channel, chunk, m_.tail_du, t.forward.tail, dtail, whole_, 1,
                     rest_});
            if (a_.du.data()) std::copy_n(m_.tail_du + chunk - rest_, rest_, du + whole_ * chunk);
        }
        for (index end = whole_; end > 0;) {
            const index first = (end - 1) / s4d_adjoint_block * s4d_adjoint_block, offset = first * chunk;
            const index count = end - first;
            back(t, {u + offset, dy + offset, dy + offset, channel, channel, du + offset, t.forward.carry, dcarry, first, count,
                     count * chunk});
            end = first;
        }
        for (index k = 0; a_.dinitial_state.data() && k < f_.A.extent(1); ++k) {
            a_.dinitial_state(b, h0_ + g, k) = complex(m_.gradient[k], m_.gradient[m_.pitch + k]);
        }
    }

    /// States before every chunk.
    void states(index b, index g, const R* u) const
    {
        const s4d_tables<Arch, R>& f = m_.tables[g].forward;
        const s4d_table<R> input{f.input, width_, width_};
        load_state(f_.initial_state, b, h0_ + g, m_.state);
        R* const last = m_.x + whole_ * width_;
        s4d_product<Arch>(broadcast_rows<R>{u, row_step, 1}, chunk, input, whole_, m_.x, width_, false);
        s4d_carry<Arch>(f.carry, m_.pitch, whole_, m_.x, m_.state);
        if (rest_ > 0) std::copy_n(m_.state, width_, last);
    }

    void back(const tables& t, const piece& now) const
    {
        const bool numbers = !a_.du.data() || finite(now);
        if (!numbers) std::copy_n(m_.gradient, width_, m_.gradient + width_);
        if (channels_ == 0) std::fill_n(m_.p, now.rows * width_, R(0));
        for (index c = 0; c < channels_; ++c) {
            s4d_product<Arch>(broadcast_rows<R>{now.dy + c * now.channel, row_step, 1}, chunk,
                              s4d_table<R>{t.back + c * chunk * width_, width_, width_}, now.rows, m_.p, width_, c > 0);
        }
        const R* const x = learns_ ? m_.x + now.first * width_ : nullptr;
        s4d_carry_back<Arch>(now.power, m_.pitch, now.rows, x, m_.p, m_.gradient, now.dpower);
        if (learns_) {
            s4d_add_outer<Arch>(now.u, s4d_table<R>{m_.p, width_, width_}, now.rows, t.gradients);
            for (index c = 0; c < channels_; ++c) {
                s4d_add_outer<Arch>(now.dy + c * now.channel, s4d_table<R>{x, width_, width_}, now.rows,
                                    t.gradients + t.output_offset(c));
                s4d_add_outer<Arch, true>(now.u, s4d_table<R>{now.ending_dy + c * now.ending_channel, chunk, chunk}, now.rows,
                                          t.dmixing + c * chunk * chunk);
            }
        }
        if (!a_.du.data()) return;
        if (numbers) return inputs(t, now);
        R* const du = now.du + now.rows * chunk - now.tokens;
        s4d_input_gradients_by_token(t, now.tokens, now.dy, now.channel, m_.gradient + width_, du);
    }

    /// du of the chunks, from the gradients of the states behind them and of the outputs within.
    void inputs(const tables& t, const piece& now) const
    {
        constexpr index strip = std::max(index{16}, lanes<R, Arch>);  // of the mixing table, half of which is zero
        const index state = f_.A.extent(1), imaginary = m_.pitch;
        const s4d_table<R> re{t.input, chunk, chunk}, im{t.input + imaginary * chunk, chunk, chunk};
        s4d_product<Arch>(broadcast_rows<R>{m_.p, width_, 1}, state, re, now.rows, now.du, chunk, false);
        s4d_product<Arch>(broadcast_rows<R>{m_.p + imaginary, width_, 1}, state, im, now.rows, now.du, chunk, true);
        for (index c = 0; c < channels_; ++c) {
            const R* const dy = now.ending_dy + c * now.ending_channel;
            for (index j = 0; j < chunk; j += strip) {
                const s4d_table<R> mixing{t.mixing + (c * chunk + j) * chunk + j, chunk, strip};
                s4d_product<Arch>(broadcast_rows<R>{dy + j, row_step, 1}, chunk - j, mixing, now.rows, now.du + j, chunk, true);
            }
        }
    }

    /// False if a gradient of an output is infinite or no number.
    [[gnu::flatten]] bool finite(const piece& now) const
    {
        using v = vec<R, Arch>;
        v zeros(R(0));
        for (index c = 0; c < channels_; ++c) {
            const R* const dy = now.dy + c * now.channel;
            for (index t = 0; t < now.rows * chunk; t += lanes<R, Arch>) {
                zeros = multiply_add(load<R, Arch>(dy + t), v(R(0)), zeros);
            }
        }
        return sum<R, Arch>(zeros) == R(0);
    }

    void parameters(index g, planar<double> dA, planar<double> dB) const
    {
        const index h = h0_ + g, pitch = m_.pitch, state = f_.A.extent(1);
        tables& t = m_.tables[g];
        t.fold();
        discretise(h);
        s4d_system_gradients(t, rest_, m_.discrete, m_.gradients);
        clear_planar(m_.dgain, pitch);
        clear_planar(dB, pitch);
        add_conj_product<Arch>(pitch, m_.dgain, m_.gradients.input, m_.B);
        add_conj_product<Arch>(pitch, dB, m_.gradients.input, m_.system.gain);
        discretise_poles_backward<Arch>(m_.system, rule(), pitch, m_.gradients.pole, m_.dgain, dA, m_.ddelta);
        for (index c = 0; c < channels_; ++c) {
            const planar<double> dC = m_.gradients.output + c * pitch;
            for (index k = 0; a_.dC.data() && k < state; ++k) {
                a_.dC(c, h, k) = complex(static_cast<R>(factor() * dC.re[k]), static_cast<R>(factor() * dC.im[k]));
            }
            if (a_.dD.data()) a_.dD(c, h) = static_cast<R>(t.dkernel[c * chunk]);
        }
        if (!a_.ddelta.data()) return;
        const bool tied = a_.ddelta.stride(1) == 0;
        double sum = 0;
        for (index k = 0; k < state; ++k) {
            const double one = f_.rate * (m_.ddelta.re[k] + m_.ddelta.im[k]);
            sum = tied ? sum + one : one;
            a_.ddelta(h, k) = sum;
        }
    }

    const s4d_backward_args<T>& a_;
    const s4d_args<T>& f_;
    const s4d_backward_scratch<Arch, T>& m_;
    index h0_, group_, length_, dim_, channels_, width_, whole_, rest_;
    bool learns_;
};

}  // namespace ssmkit::detail
