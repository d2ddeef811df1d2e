#pragma once

// Data of the selective scan's benchmarks, forward and backward.

#include <memory>
#include <string>
#include <type_traits>

#include <ssmkit/reference/selective_scan.hpp>

#include "harness.hpp"

namespace plain {  // plain/selective_scan.cpp

void selective_scan(std::size_t batch, std::size_t length, std::size_t dim, std::size_t state, const float* u,
                    const float* delta, const float* A, const float* B, const float* C, const float* D, const float* z,
                    float* step, float* x, float* h, float* y);

}  // namespace plain

namespace bench {

struct scan_shape {
    ssmkit::index batch, length, dim, state;
    bool gated = false;            ///< with z and D
    bool time_contiguous = false;  ///< memory as (batch, dim, length)
    ssmkit::index burst = 0;       ///< if not 0: u is zero from this token on

    std::string name(bool complex = false) const
    {
        std::string text = std::to_string(batch) + "x" + std::to_string(length) + "x" + std::to_string(dim) + "x" +
                           std::to_string(state);
        if (complex) text += "-complex";
        if (gated) text += "-zD";
        if (time_contiguous) text += "-time_contiguous";
        if (burst) text += "-silence_after_" + std::to_string(burst);
        return text;
    }

    bool operator==(const scan_shape&) const = default;
};

/// Inputs as Mamba has them: softplus, A = -1 ... -state, step sizes from 0.002 to 0.3.
template <class T, class Param = ssmkit::compute_t<T>>
struct scan_problem {
    using real = ssmkit::compute_t<T>;
    using element = ssmkit::selective_element_t<T, Param>;
    static constexpr bool complex = ssmkit::detail::is_complex<Param>;

    scan_shape shape;
    array<T> u, delta, z;
    array<Param> A;
    array<element> B, C;
    array<real> D;

    /// The last problem is kept: neighbouring rows share it and its answer.
    static std::shared_ptr<scan_problem> get(const scan_shape& shape)
    {
        static std::shared_ptr<scan_problem> last;
        if (!last || !(last->shape == shape)) {
            last.reset();
            last = std::make_shared<scan_problem>(shape);
        }
        return last;
    }

    explicit scan_problem(const scan_shape& s) : shape(s)
    {
        const auto tokens = static_cast<std::size_t>(s.batch * s.length), dim = static_cast<std::size_t>(s.dim);
        const auto state = static_cast<std::size_t>(s.state);
        u = fill<T>(tokens * dim, -1, 1, 1);
        delta = fill<T>(tokens * dim, -6, -1, 2);
        if (s.gated) z = fill<T>(tokens * dim, -3, 3, 3);
        D = fill<real>(dim, -1, 1, 4);
        B = elements(tokens * state, 5);
        C = elements(tokens * state, 7);
        for (std::size_t i = 0; i < dim * state; ++i) {
            const real rate = -static_cast<real>(i % state + 1);
            if constexpr (complex) {
                A.push_back({real(-0.5), -rate});  // S4D-Lin
            } else {
                A.push_back(rate);
            }
        }
        if (s.burst) {
            for (ssmkit::index t = s.burst; t < s.length; ++t) {
                for (ssmkit::index c = 0; c < s.dim; ++c) along_layout(u)(0, t, c) = T(0);
            }
        }
    }

    template <class E>
    ssmkit::view<E, 3> along_layout(array<E>& data) const
    {
        const auto [batch, length, dim] = std::tuple(shape.batch, shape.length, shape.dim);
        if (shape.time_contiguous) return ssmkit::view<E, 3>(data.data(), batch, dim, length).transposed(1, 2);
        return {data.data(), batch, length, dim};
    }

    ssmkit::selective_scan_args<T, Param> args(const ssmkit::view<T, 3>& y)
    {
        ssmkit::selective_scan_args<T, Param> a{.u = along_layout(u),
                                                .delta = along_layout(delta),
                                                .A = {A.data(), shape.dim, shape.state},
                                                .B = {B.data(), shape.batch, shape.length, 1, shape.state},
                                                .C = {C.data(), shape.batch, shape.length, 1, shape.state},
                                                .delta_softplus = true,
                                                .y = y};
        if (shape.gated) {
            a.D = {D.data(), shape.dim};
            a.z = along_layout(z);
        }
        return a;
    }

    /// The reference's y.
    array<T>& expected()
    {
        if (expected_.empty()) {
            expected_.resize(u.size());
            ssmkit::reference::selective_scan(args(along_layout(expected_)));
        }
        return expected_;
    }

    /// Per update the exponent's product, exp2, B x, h and y; for complex states the cosine and sine (16), their
    /// products with the size, and complex products. Per token and channel softplus (28), u delta and y; with a gate
    /// silu (16).
    work needs() const
    {
        const double tokens = static_cast<double>(shape.batch * shape.length);
        work w;
        w.token_channels = tokens * static_cast<double>(shape.dim);
        w.updates = w.token_channels * static_cast<double>(shape.state);
        w.exps = w.updates;
        w.fmas = (complex ? 27 : 4) * w.updates + (shape.gated ? 46 : 30) * w.token_channels;
        w.bytes = (shape.gated ? 4 : 3) * w.token_channels * sizeof(T) +
                  2 * tokens * static_cast<double>(shape.state) * sizeof(element) +
                  static_cast<double>(A.size() * sizeof(Param));
        return w;
    }

private:
    static array<element> elements(std::size_t n, std::uint64_t seed)
    {
        if constexpr (complex) {
            const array<real> parts = fill<real>(2 * n, -1, 1, seed);
            array<element> values(n);
            for (std::size_t i = 0; i < n; ++i) values[i] = {parts[2 * i], parts[2 * i + 1]};
            return values;
        } else {
            return fill<element>(n, -1, 1, seed);
        }
    }

    array<T> expected_;
};

}  // namespace bench
