#pragma once

// Data of ssd's benchmarks, forward and backward.

#include <memory>
#include <string>
#include <tuple>

#include <ssmkit/reference/ssd.hpp>
#include <ssmkit/ssd.hpp>

#include "harness.hpp"

namespace bench {

struct ssd_shape {
    ssmkit::index batch, length, nheads, headdim, state, groups = 1;
    bool gated = false;            ///< with z and D
    bool strong = false;           ///< decays of e^-1 to e^-100 a token
    ssmkit::index chunk = 256;
    ssmkit::ssd_form form = ssmkit::ssd_form::automatic;

    std::string name() const
    {
        std::string text;
        for (const ssmkit::index extent : {batch, length, nheads, headdim, state, groups}) {
            text += (text.empty() ? "" : "x") + std::to_string(extent);
        }
        if (gated) text += "-zD";
        if (strong) text += "-strong_decay";
        if (chunk != 256) text += "-chunk_" + std::to_string(chunk);
        if (form == ssmkit::ssd_form::recurrent) text += "-recurrent";
        if (form == ssmkit::ssd_form::chunked) text += "-chunked";
        return text;
    }

    bool operator==(const ssd_shape&) const = default;
};

/// Inputs as Mamba-2 has them: softplus, A from -1 to -16, step sizes from 0.002 to 0.3.
template <class T>
struct ssd_problem {
    using real = ssmkit::compute_t<T>;

    ssd_shape shape;
    array<T> u, delta, z, B, C;
    array<real> A, D;

    explicit ssd_problem(const ssd_shape& s) : shape(s)
    {
        const auto tokens = static_cast<std::size_t>(s.batch * s.length), heads = static_cast<std::size_t>(s.nheads);
        const auto wide = tokens * heads * static_cast<std::size_t>(s.headdim);
        const auto maps = tokens * static_cast<std::size_t>(s.groups * s.state);
        u = fill<T>(wide, -1, 1, 1);
        delta = fill<T>(tokens * heads, -6, -1, 2);
        if (s.gated) z = fill<T>(wide, -3, 3, 3);
        B = fill<T>(maps, -1, 1, 5);
        C = fill<T>(maps, -1, 1, 6);
        A = fill<real>(heads, s.strong ? -400 : -16, s.strong ? -300 : -1, 7);
        D = fill<real>(heads, -1, 1, 4);
    }

    ssmkit::ssd_args<T> args(array<T>& y)
    {
        const auto [batch, length, nheads, headdim, state, groups] =
            std::tuple(shape.batch, shape.length, shape.nheads, shape.headdim, shape.state, shape.groups);
        ssmkit::ssd_args<T> a{.u = {u.data(), batch, length, nheads, headdim},
                              .delta = {delta.data(), batch, length, nheads},
                              .A = {A.data(), nheads},
                              .B = {B.data(), batch, length, groups, state},
                              .C = {C.data(), batch, length, groups, state},
                              .delta_softplus = true,
                              .chunk = shape.chunk,
                              .form = shape.form,
                              .y = {y.data(), batch, length, nheads, headdim}};
        if (shape.gated) {
            a.D = ssmkit::tied_over_head(ssmkit::view<const real, 1>(D.data(), nheads), headdim);
            a.z = {z.data(), batch, length, nheads, headdim};
        }
        return a;
    }

    /// What the answer is to be: the reference's, or where that takes minutes the other form's.
    array<T> expected()
    {
        array<T> y(u.size());
        auto a = args(y);
        if (needs().updates < 2e9) {
            ssmkit::reference::ssd(a);
        } else {
            a.form = ssmkit::ssd_form::recurrent;
            ssmkit::ssd(a);
        }
        return y;
    }

    /// The chunked form in pieces of 32 tokens: states to outputs and inputs to states, one product each an update; half of
    /// the pairs of a piece, for C·B, the mixing matrix and its product with u; and the decay of the state a piece.
    work needs() const
    {
        constexpr double piece = 32;
        const double heads = static_cast<double>(shape.batch * shape.length * shape.nheads);
        const double headdim = static_cast<double>(shape.headdim), state = static_cast<double>(shape.state);
        work w;
        w.token_channels = heads * headdim;
        w.updates = w.token_channels * state;
        w.exps = heads * piece / 2;
        w.fmas = 2 * w.updates + w.token_channels * piece / 2 + w.updates / piece +
                 heads * piece * state * static_cast<double>(shape.groups) / static_cast<double>(shape.nheads) +
                 (shape.gated ? 18 : 1) * w.token_channels;
        w.bytes = ((shape.gated ? 3 : 2) * w.token_channels + heads) * sizeof(T) +
                  2 * static_cast<double>(B.size()) * sizeof(T);
        return w;
    }
};

/// ssd at as many updates.
struct ssd_call {
    std::shared_ptr<ssd_problem<float>> problem;
    std::shared_ptr<array<float>> y = std::make_shared<array<float>>(problem->u.size());
    ssmkit::ssd_args<float> a = problem->args(*y);
    std::shared_ptr<array<std::byte>> memory = std::make_shared<array<std::byte>>(ssmkit::ssd_workspace_size(a));

    void operator()() const { ssmkit::ssd(a, ssmkit::workspace(*memory)); }
};

inline rival times_ssd(const ssd_shape& s)
{
    return {"times_ssd", ssd_call{std::make_shared<ssd_problem<float>>(s)}, true};
}

}  // namespace bench
