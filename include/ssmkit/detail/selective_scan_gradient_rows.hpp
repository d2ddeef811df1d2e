#pragma once

// What the backward pass of the selective scan does row by row, before and after the recurrence of a tile: from delta, u, dy
// and z to step sizes, inputs and the gradient before the gate, and from the sums over the states to ddelta, du and dz.

#include <ssmkit/args/selective_scan_backward.hpp>
#include <ssmkit/detail/selective_scan_partials.hpp>

namespace ssmkit::detail {

/// Rows of one tile of channels, `lanes` wide.
template <class R>
struct tile_rows {
    R* data;
    index step;  // elements from a row to the next
};

/// The rows of one batch row, a tile and a block of steps at a time. `at` says which of the tiles taken together is meant.
template <class Arch, class T, class Param>
class gradient_rows {
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    static constexpr index n = lanes<R, Arch>, rows = n * scan_steps;

public:
    gradient_rows(const selective_scan_backward_args<T, Param>& a, const visiting_order& visit, index b,
                  const backward_scratch<Arch, T, Param>& m)
        : a_(a), f_(a.forward), visit_(visit), m_(m), b_(b)
    {
    }

    void enter_block(index first, index steps)
    {
        first_ = first;
        steps_ = steps;
    }

    /// Fills delta and x of the tile with the `channels` channels from c, for the way forward.
    void prepare_inputs(index c, index channels, const R* bias)
    {
        const tile_rows<const R> delta = rows_of(f_.delta, c, channels, m_.raw.delta);
        const tile_rows<const R> u = rows_of(f_.u, c, channels, m_.raw.u);
        f_.delta_softplus ? prepare_input_rows<true>(delta, u, bias) : prepare_input_rows<false>(delta, u, bias);
    }

    /// Fills delta, x and dp of the tile with the `channels` channels from c.
    void prepare(index at, index c, index channels, const R* bias)
    {
        tile_rows<const R> delta = rows_of(f_.delta, c, channels, m_.raw.delta + at * rows);
        tile_rows<const R> dy = rows_of(a_.dy, c, channels, m_.raw.dy + at * rows);
        u_[at] = rows_of(f_.u, c, channels, m_.raw.u + at * rows);
        tile_rows<const R> z{};
        if (f_.z.data()) z = rows_of(f_.z, c, channels, m_.raw.z + at * rows);
        with_constants(f_.delta_softplus, f_.z.data() != nullptr, [&](auto softplus, auto gated) {
            prepare_rows<decltype(softplus)::value, decltype(gated)::value>(at * rows, delta, u_[at], dy, z, load<R, Arch>(bias));
        });
    }

    /// Writes ddelta, du and dz, and adds to the sums over time of dD and ddelta_bias.
    void finish(index at, index c, index channels, v D, R* dD, R* ddelta_bias)
    {
        const tile_rows<R> du = place_for(a_.du, c, channels, m_.raw.u + at * rows);
        const tile_rows<R> ddelta = place_for(a_.ddelta, c, channels, m_.raw.delta + at * rows);
        const tile_rows<R> dz = place_for(a_.dz, c, channels, m_.raw.z + at * rows);
        if (f_.A.extent(1) == 0) {
            finish_without_state(at, D, dD, du, ddelta, dz);
        } else {
            finish_rows(at, D, dD, ddelta_bias, du, ddelta, dz);
        }
        if (du.data == m_.raw.u + at * rows) put(du, a_.du, c, channels);
        if (ddelta.data == m_.raw.delta + at * rows) put(ddelta, a_.ddelta, c, channels);
        if (dz.data == m_.raw.z + at * rows) put(dz, a_.dz, c, channels);
    }

    /// Appends the memory of a tile's rows from step `first`, to be asked for: lines a step apart, or a channel.
    lines_ahead* ahead(index first, index c, index channels, lines_ahead* to) const
    {
        const auto append = [&](const auto& array) {
            if (array.data() == nullptr) return;
            const prefetch_rows lines = rows_ahead(array, b_, visit_, first, c, channels);
            if (lines.next) *to++ = {lines.next, lines.stride};
        };
        for (const auto* array : {&f_.delta, &f_.u, &a_.dy, &f_.z}) append(*array);
        for (const auto* array : {&a_.du, &a_.ddelta, &a_.dz}) append(*array);
        return to;
    }

private:
    /// Whether a tile's rows can be read and written where they lie.
    template <class E>
    bool in_place(const view<E, 3>& array, index channels) const
    {
        const bool together = array.data() && array.stride(2) == 1 && !visit_.order.data();
        return std::is_same_v<std::remove_const_t<E>, R> && together && channels == n;
    }

    template <class E>
    auto place(const view<E, 3>& array, index c) const
    {
        using element = std::conditional_t<std::is_const_v<E>, const R, R>;
        return tile_rows<element>{reinterpret_cast<element*>(array.pointer(b_, visit_.position(first_), c)),
                                  (visit_.reverse ? -1 : 1) * array.stride(1)};
    }

    tile_rows<const R> rows_of(const view<const T, 3>& from, index c, index channels, R* copy) const
    {
        if (in_place(from, channels)) return place(from, c);
        load_steps<Arch, R>(from, b_, visit_, first_, steps_, c, channels, copy, 0);
        return {copy, n};
    }

    tile_rows<R> place_for(const view<T, 3>& to, index c, index channels, R* copy) const
    {
        if (in_place(to, channels)) return place(to, c);
        return {copy, n};
    }

    void put(const tile_rows<R>& from, const view<T, 3>& to, index c, index channels) const
    {
        if (to.data()) store_steps<Arch, R>(from.data, 0, to, b_, visit_, first_, steps_, c, channels);
    }

    template <bool Softplus>
    [[gnu::flatten]] void prepare_input_rows(tile_rows<const R> delta, tile_rows<const R> u, const R* bias) const
    {
        for (index s = 0, i = 0; s < steps_; ++s, i += n) {
            const v raw = load<R, Arch>(delta.data + s * delta.step), input = load<R, Arch>(u.data + s * u.step);
            prepare_lanes<Arch, R, Softplus, false>(raw, input, bias, nullptr, m_.tile.delta + i, m_.tile.x + i, nullptr);
        }
    }

    template <bool Softplus, bool Gated>
    [[gnu::flatten]] void prepare_rows(index row, tile_rows<const R> delta, tile_rows<const R> u, tile_rows<const R> dy,
                                       tile_rows<const R> z, v bias) const
    {
        for (index s = 0, i = row; s < steps_; ++s, i += n) {
            const v raw = load<R, Arch>(delta.data + s * delta.step) + bias;
            const auto step = Softplus ? softplus_with_derivative(raw) : value_and_derivative<R, Arch>{raw, v(R(1))};
            store(step.value, m_.tile.delta + i);
            store(step.value * load<R, Arch>(u.data + s * u.step), m_.tile.x + i);
            store(step.derivative, m_.raw.delta + i);
            v dp = load<R, Arch>(dy.data + s * dy.step);
            if constexpr (Gated) {
                const auto gate = silu_with_derivative(load<R, Arch>(z.data + s * z.step));
                store(dp * gate.derivative, m_.raw.z + i);
                dp *= gate.value;
            }
            store(dp, m_.tile.dp + i);
        }
    }

    /// raw.delta and raw.z hold the derivatives of the step size and, times dy, of the gate.
    [[gnu::flatten]] void finish_rows(index at, v D, R* to_dD, R* to_bias, tile_rows<R> to_u, tile_rows<R> to_delta,
                                      tile_rows<R> to_z) const
    {
        const v rates(is_complex<Param> ? R(1) : R(1 / log2_e));
        v dD = load<R, Arch>(to_dD), dbias = load<R, Arch>(to_bias);
        for (index s = 0, i = at * rows; s < steps_; ++s, i += n) {
            const v u = load<R, Arch>(u_[at].data + s * u_[at].step), dp = load<R, Arch>(m_.tile.dp + i);
            const v input = load<R, Arch>(m_.tile.input + i), decay = load<R, Arch>(m_.tile.decay + i) * rates;
            const v ddelta = multiply_add(u, input, decay) * load<R, Arch>(m_.raw.delta + i);
            if (a_.dz.data()) {
                store(multiply_add(D, u, load<R, Arch>(m_.tile.y + i)) * load<R, Arch>(m_.raw.z + i), to_z.data + s * to_z.step);
            }
            store(multiply_add(D, dp, load<R, Arch>(m_.tile.delta + i) * input), to_u.data + s * to_u.step);
            store(ddelta, to_delta.data + s * to_delta.step);
            dD = multiply_add(dp, u, dD);
            dbias += ddelta;
        }
        store(dD, to_dD);
        store(dbias, to_bias);
    }

    /// What remains without any state: y = D u silu(z), or zero. Its sums are empty, and an empty sum is not to meet a NaN.
    void finish_without_state(index at, v D, R* to_dD, tile_rows<R> to_u, tile_rows<R> to_delta, tile_rows<R> to_z) const
    {
        const bool skip = f_.D.data() != nullptr;
        const v zero(R(0));
        v dD = load<R, Arch>(to_dD);
        for (index s = 0, i = at * rows; s < steps_; ++s, i += n) {
            const v u = load<R, Arch>(u_[at].data + s * u_[at].step), dp = load<R, Arch>(m_.tile.dp + i);
            if (a_.dz.data()) store((skip ? v(D * u) : zero) * load<R, Arch>(m_.raw.z + i), to_z.data + s * to_z.step);
            store(skip ? v(D * dp) : zero, to_u.data + s * to_u.step);
            store(zero, to_delta.data + s * to_delta.step);
            dD = multiply_add(dp, u, dD);
        }
        store(dD, to_dD);
    }

    const selective_scan_backward_args<T, Param>& a_;
    const selective_scan_args<T, Param>& f_;
    const visiting_order& visit_;
    const backward_scratch<Arch, T, Param>& m_;
    index b_, first_ = 0, steps_ = 0;
    tile_rows<const R> u_[adjoint_tiles<Arch, Param>];
};

}  // namespace ssmkit::detail
