#pragma once

// What the benchmarks of the forward and the backward linear scan run on.

#include <complex>
#include <cstring>
#include <string>

#include <ssmkit/args/linear_scan_backward.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index, ssmkit::view;

struct linear_shape {
    index batch, length, state;
    bool varying = false, time_contiguous = false, in_place = false, silent = false;

    template <class T>
    std::string name() const
    {
        std::string text = std::to_string(batch) + "x" + std::to_string(length) + "x" + std::to_string(state);
        if (ssmkit::detail::is_complex<T>) text += "-complex";
        if (varying) text += "-varying";
        if (time_contiguous) text += "-time_contiguous";
        if (in_place) text += "-in_place";
        if (silent) text += "-silence_after_burst";
        return text;
    }
    index elements() const { return batch * length * state; }
};

/// All arrays hold real numbers: pairs of them for complex T.
template <class T>
struct linear_data {
    using state_type = ssmkit::linear_scan_state_t<T>;
    static constexpr index unit = ssmkit::detail::is_complex<T> ? 2 : 1;
    using R = typename std::conditional_t<unit == 2, T, std::complex<T>>::value_type;

    linear_shape s;
    array<R> a, b, h, copy, dh, da, db;

    explicit linear_data(const linear_shape& shape, bool backward = false) : s(shape)
    {
        const auto n = static_cast<std::size_t>(s.elements() * unit);
        // A long memory in the real case, 1 / (1 - a) = 2 to 100 tokens; in the complex one |a| from 0.5 to 0.98.
        const auto factors = s.varying ? n : static_cast<std::size_t>(s.state * unit);
        a = unit == 2 ? fill<R>(factors, 0.35, 0.69, 1) : fill<R>(factors, 0.5, 0.99, 1);
        b = s.silent ? fill<R>(n, 1e-41, 1e-39, 2) : fill<R>(n, -1, 1, 2);
        h.resize(n);
        copy.resize(s.varying ? n + n / 2 : n);  // what moves as many bytes as the scan, if a copy does it
        if (!backward) return;
        dh = fill<R>(n, -1, 1, 3);
        da.resize(factors);
        db.resize(n);
    }

    template <class E, class P>
    view<E, 3> tokens(P* p) const
    {
        E* const first = reinterpret_cast<E*>(p);
        if (s.time_contiguous) return view<E, 3>(first, s.batch, s.state, s.length).transposed(1, 2);
        return {first, s.batch, s.length, s.state};
    }

    view<const state_type, 3> factor() const
    {
        if (s.varying) return tokens<const state_type>(a.data());
        return ssmkit::constant_over_time(view<const state_type, 1>(reinterpret_cast<const state_type*>(a.data()), s.state),
                                          s.batch, s.length);
    }

    ssmkit::linear_scan_args<T> args(R* out)
    {
        return {.a = factor(), .b = tokens<const T>(s.in_place ? static_cast<const R*>(out) : b.data()), .h = tokens<T>(out)};
    }

    ssmkit::linear_scan_backward_args<T> backward_args()
    {
        ssmkit::linear_scan_backward_args<T> x{.forward = args(h.data()), .dh = tokens<const T>(dh.data()), .db = tokens<T>(db.data())};
        x.da = s.varying ? tokens<state_type>(da.data())
                         : ssmkit::summed_over_time(view<state_type, 1>(reinterpret_cast<state_type*>(da.data()), s.state), s.batch,
                                                    s.length);
        return x;
    }

    view<const R, 1> numbers(const array<R>& x) const { return {x.data(), static_cast<index>(x.size())}; }

    /// `arrays` arrays of the outputs' size are read or written. In place, one is read and written.
    work needs(double arrays) const
    {
        const double n = static_cast<double>(s.elements());
        const double each = n * unit * sizeof(R);
        return {.updates = n, .token_channels = n, .fmas = n * unit * unit, .bytes = arrays * each,
                .working_set = (s.in_place ? arrays - 1 : arrays) * each, .kind = s.in_place ? traffic::update : traffic::copy};
    }
};

}  // namespace bench
