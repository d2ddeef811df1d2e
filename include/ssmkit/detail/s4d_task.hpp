#pragma once

// A layer of linear systems over a few channels: their tables, and their sequences through them. What the systems are, a model
// says: S4D's is here, S4's in s4_model.hpp.

#include <algorithm>
#include <complex>
#include <memory>
#include <type_traits>

#include <ssmkit/args/s4d.hpp>
#include <ssmkit/detail/s4d_chunks.hpp>
#include <ssmkit/detail/s4d_discretisation.hpp>

namespace ssmkit::detail {

/// How the work is cut: channels side by side, of all sequences or of one.
template <class Arch, class T>
struct s4d_partition {
    static constexpr index n = lanes<compute_t<T>, Arch>;
    index group, groups, sequences, parts;

    /// Where channels are neighbours in memory, whole registers of them are turned together.
    explicit s4d_partition(const view<const T, 3>& u, std::size_t concurrency)
    {
        const index batch = u.extent(0), dim = u.extent(2);
        const bool turned = u.stride(1) != 1 && u.stride(1) != -1;
        group = turned ? std::min(n, std::max(index{1}, dim)) : 1;
        groups = (dim + group - 1) / group;
        // A group's tables serve all its sequences, unless that would leave a thread without work.
        const bool few = groups < 2 * static_cast<index>(concurrency) && concurrency > 1;
        sequences = few ? 1 : std::max(index{1}, batch);
        parts = (batch + sequences - 1) / sequences;
    }

    std::size_t tasks() const { return static_cast<std::size_t>(groups * parts); }
};

/// False if an input is infinite or no number: a transform would spread it over its row.
template <class Arch, class T>
[[gnu::flatten]] bool all_finite(const view<const T, 3>& u)
{
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    const bool turned = u.stride(2) != 1;
    const view<const T, 3> rows = turned ? u.transposed(1, 2) : u;
    v zeros(R(0));
    for (index b = 0; b < rows.extent(0); ++b) {
        for (index i = 0; i < rows.extent(1); ++i) {
            const T* const row = rows.pointer(b, i);
            for_each_lanes<R, Arch>(rows.extent(2), [&](auto range) __attribute__((always_inline)) {
                zeros = multiply_add(range.load(row, rows.stride(2)), v(R(0)), zeros);
            });
        }
    }
    return sum<R, Arch>(zeros) == R(0);
}

/// S4D: how a channel's tables are made, with the memory for that.
template <class Arch, class T>
struct s4d_model {
    using R = compute_t<T>;
    using args = s4d_args<T>;
    using tables = s4d_tables<Arch, R>;

    index pitch;
    channel_system system;
    planar<double> input, output, power;
    R* turned;

    s4d_model(arena& memory, const args& a)
        : pitch(pole_pitch<Arch>(a.A.extent(1))), system(memory, pitch), input(take_planar(memory, pitch)),
          output(take_planar(memory, pitch)), power(take_planar(memory, pitch)),
          turned(memory.take<R>(static_cast<std::size_t>(s4d_chunk * 2 * pitch)))
    {
    }

    static index channels(const args& a) { return a.C.extent(0); }
    static tables make_tables(arena& memory, const args& a) { return {memory, a.A.extent(1), a.C.extent(0)}; }

    void build(const args& a, index h, tables& table) const
    {
        const index copy = h % a.A.extent(0);
        load_system(a.delta[h], a.delta[h], a.rate, a.A[copy], system, pitch);
        discretise_poles<Arch>(system, {a.method == s4d_discretization::zoh ? pole_gain::zoh : pole_gain::bilinear}, pitch);
        load_planar(a.B[copy], input, pitch);
        multiply(system.gain, input, pitch);
        // Behind the last pole there is nothing, whatever became of the zeros there.
        for (planar<double> p : {system.poles.value, input}) {
            std::fill_n(p.re + a.A.extent(1), pitch - a.A.extent(1), 0.0);
            std::fill_n(p.im + a.A.extent(1), pitch - a.A.extent(1), 0.0);
        }
        table.build(system.poles.value, input, power, a.u.extent(1) % s4d_chunk);
        for (index c = 0; c < channels(a); ++c) {
            load_planar(a.C[c][h], output, pitch, a.conjugate_pairs ? 2 : 1);
            table.build_output(c, system.poles.value, input, output, a.D.data() ? static_cast<double>(a.D(c, h)) : 0, turned);
        }
    }

private:
    [[gnu::flatten]] static void multiply(planar<const double> factor, planar<double> x, index pitch)
    {
        for (index k = 0; k < pitch; k += lanes<double, Arch>) {
            store_complex(load_complex<Arch>(planar<const double>(x + k)) * load_complex<Arch>(factor + k), x + k);
        }
    }
};

/// What a task works with; taken from an arena without memory, it measures.
template <class Arch, class T, class Model = s4d_model<Arch, T>>
struct s4d_scratch {
    using R = compute_t<T>;
    using tables_type = typename Model::tables;
    static constexpr index n = lanes<R, Arch>, span = 4 * s4d_block;  ///< tokens that are turned at a time

    tables_type* tables;  // [group]
    Model model;
    R *u, *y, *x, *state;  // state: [group][2 pitch]

    s4d_scratch(arena& memory, const typename Model::args& a, index group)
        : tables(memory.take<tables_type>(static_cast<std::size_t>(group))), model(memory, a)
    {
        const index channels = Model::channels(a), pitch = pole_pitch<Arch>(a.A.extent(1));
        for (index g = 0; g < group; ++g) {
            const tables_type table = Model::make_tables(memory, a);
            if (tables) std::construct_at(tables + g, table);
        }
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count)); };
        u = take(span * group);
        y = take(span * group * channels);
        x = take(s4d_block_chunks * 2 * pitch);
        state = take(group * 2 * pitch);
    }

    static std::size_t size(const typename Model::args& a, index group)
    {
        arena measure;
        s4d_scratch(measure, a, group);
        return measure.size();
    }
};

/// Channels h0 ... h0 + group - 1 of sequences b0 ... b1 - 1.
template <class Arch, class T, class Model = s4d_model<Arch, T>>
class s4d_task {
    using args = typename Model::args;
    using scratch = s4d_scratch<Arch, T, Model>;
    using tables = typename Model::tables;
    using R = compute_t<T>;
    using complex = std::complex<R>;
    static constexpr index n = lanes<R, Arch>, span = scratch::span;

public:
    s4d_task(const args& a, const scratch& m, index h0, index group)
        : a_(a), m_(m), h0_(h0), group_(group), length_(a.u.extent(1)), dim_(a.u.extent(2)), channels_(Model::channels(a)),
          u_(a.reverse ? a.u.reversed(1) : a.u), y_(a.reverse ? a.y.reversed(1) : a.y)
    {
    }

    void run(index b0, index b1) const
    {
        for (index g = 0; g < group_; ++g) m_.model.build(a_, h0_ + g, m_.tables[g]);
        for (index b = b0; b < b1; ++b) {
            for (index g = 0; g < group_; ++g) read_state(b, g);
            for (index t = 0; t < length_; t += span) tokens(b, t, std::min(span, length_ - t));
            if (!a_.final_state.data()) continue;
            for (index g = 0; g < group_; ++g) write_state(b, g);
        }
    }

private:
    R* state(index g) const { return m_.state + g * m_.tables[g].width(); }

    void read_state(index b, index g) const
    {
        const tables& table = m_.tables[g];
        std::fill_n(state(g), table.width(), R(0));
        if (!a_.initial_state.data()) return;
        for (index k = 0; k < table.state; ++k) {
            const complex x = a_.initial_state(b, h0_ + g, k);
            state(g)[k] = x.real();
            state(g)[table.padded + k] = x.imag();
        }
    }

    void write_state(index b, index g) const
    {
        const tables& table = m_.tables[g];
        for (index k = 0; k < table.state; ++k) {
            a_.final_state(b, h0_ + g, k) = complex(state(g)[k], state(g)[table.padded + k]);
        }
    }

    /// Token t of channel g is at [t / lanes][g][t % lanes]: turned so, or in the caller's memory where it lies like that.
    void tokens(index b, index first, index count) const
    {
        const index tile = group_ * n, y_channel = span * group_, whole = count / s4d_chunk * s4d_chunk;
        const bool read_there = there(u_), write_there = there(y_);
        if (whole < count) std::fill_n(m_.u + whole * group_, s4d_chunk * group_, R(0));  // the last chunk is read to its end
        const index copied = read_there ? whole : 0, kept = write_there ? whole : 0;
        const rectangle<const T> rest{u_.pointer(b, first + copied, h0_), u_.stride(2), u_.stride(1), group_, count - copied};
        load_tiles<Arch, R, T>(rest, m_.u + copied * group_, tile);
        for (index g = 0; g < group_; ++g) {
            if (group_ > 1) expect(b, first, g);
            for (index t = 0; t < count;) {
                const index some = t < whole ? std::min(s4d_block, whole - t) : count - t;
                s4d_tokens<const R> u{m_.u + t * group_ + g * n, tile};
                s4d_tokens<R> y{m_.y + t * group_ + g * n, tile};
                index next_channel = y_channel;
                if constexpr (std::is_same_v<T, R>) {
                    if (read_there && t < whole) u.data = u_.pointer(b, first + t, h0_);
                    if (write_there && t < whole) {
                        y.data = y_.pointer(b, first + t, h0_);
                        next_channel = dim_ * y_.stride(2);
                    }
                }
                if (group_ == 1) {  // the next block's lines
                    for (index i = 0; i < s4d_block; i += n) {
                        prefetch(u.data + s4d_block + i);
                        prefetch(y.data + s4d_block + i);
                    }
                }
                if (finite(u, some)) {
                    s4d_run_chunks<Arch>(m_.tables[g], some, u, y, next_channel, m_.x, state(g));
                } else {
                    s4d_run_tokens<Arch>(m_.tables[g], some, u, y, next_channel, state(g));
                }
                t += some;
            }
        }
        for (index c = 0; c < channels_; ++c) {
            T* const to = y_.pointer(b, first + kept, c * dim_ + h0_);
            store_tiles<Arch, R, T>(m_.y + c * y_channel + kept * group_, tile,
                                    rectangle<T>{to, y_.stride(2), y_.stride(1), group_, count - kept});
        }
    }

    /// Rows that are far apart in memory are asked for ahead, a part of them with every channel: outputs of these tokens, inputs of
    /// the next.
    void expect(index b, index first, index g) const
    {
        const index part = span / group_, begin = first + g * part;
        for (index t = begin; t < std::min(begin + part, length_); ++t) prefetch(y_.pointer(b, t, h0_));
        for (index t = begin + span; t < std::min(begin + span + part, length_); ++t) prefetch(u_.pointer(b, t, h0_));
    }

    /// True if the kernels can work on the memory itself.
    template <class E>
    bool there(const view<E, 3>& v) const
    {
        return std::is_same_v<std::remove_const_t<E>, R> && group_ == 1 && v.stride(1) == 1;
    }

    /// False if a token is infinite or no number.
    [[gnu::flatten]] static bool finite(s4d_tokens<const R> u, index count)
    {
        using v = vec<R, Arch>;
        v zeros(R(0));
        for (index t = 0; t < count; t += n, u.data += u.tile) zeros = multiply_add(load<R, Arch>(u.data), v(R(0)), zeros);
        return sum<R, Arch>(zeros) == R(0);
    }

    const args& a_;
    const scratch& m_;
    index h0_, group_, length_, dim_, channels_;
    view<const T, 3> u_;
    view<T, 3> y_;
};

}  // namespace ssmkit::detail
