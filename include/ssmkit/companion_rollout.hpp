#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include <ssmkit/args/companion_rollout.hpp>
#include <ssmkit/detail/companion.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// Every vector as it is and divided by its norm; `loop` and `open` are what stands for k̂.
struct rollout_vectors {
    companion_rows a, b, c, k, b_raw, k_raw;
    bool plain;

    template <class T>
    explicit rollout_vectors(const companion_rollout_args<T>& f)
        : a(f.a, f.norm_order), b(f.b, f.norm_order), c(f.c, f.norm_order), k(f.k, f.norm_order), b_raw(f.b, 0), k_raw(f.k, 0),
          plain(f.norm_order == 0)
    {
    }

    const std::vector<double>& loop(std::size_t h) const { return plain ? b.rows[h] : k.rows[h]; }

    std::vector<double> open(std::size_t h) const
    {
        std::vector<double> row = k.rows[h];
        if (!plain) return row;
        const auto count = static_cast<double>(row.size()) - static_cast<double>(std::ranges::count(row, 0.0));
        for (double& x : row) x /= count;
        return row;
    }
};

}  // namespace detail

/// SpaceTime's forecasts: shapes and equations at companion_rollout_args. Throws shape_error before anything is written. Work
/// splits over dim.
template <class T, execution_resource Exec = in_place>
void companion_rollout(const companion_rollout_args<T>& args, Exec&& exec = {})
{
    using namespace detail;
    check(args);
    const rollout_vectors v(args);
    const index lag = args.u.extent(1), horizon = std::max(args.y.extent(1), args.u_next.extent(1));
    run_tasks(exec, v.a.rows.size(), [&](std::size_t h, std::size_t) {
        const flush_denormals guard;
        const auto d = static_cast<index>(h);
        const std::vector<double>& a = v.a.rows[h];
        const std::vector<double> open = v.open(h);
        std::vector<double> x(a.size());
        for (index i = 0; i < args.u.extent(0); ++i) {
            std::ranges::fill(x, 0.0);
            for (index t = 0; t < lag && (args.y_open.data() || args.u_next_open.data()); ++t) {
                companion_advance(a, x, &v.b.rows[h], static_cast<double>(args.u(i, t, d)));
                if (args.y_open.data()) args.y_open(i, t, d) = static_cast<T>(dot(v.c.rows[h], x));
                if (args.u_next_open.data()) args.u_next_open(i, t, d) = static_cast<T>(dot(open, x));
            }
            if (!args.y.data() && !args.u_next.data()) continue;
            std::ranges::fill(x, 0.0);
            for (index t = 0; t < lag; ++t) companion_advance(a, x, &v.b_raw.rows[h], static_cast<double>(args.u(i, t, d)));
            for (index j = 0; j < horizon; ++j) {
                if (args.y.data()) args.y(i, j, d) = static_cast<T>(dot(v.c.rows[h], x));
                if (args.u_next.data()) args.u_next(i, j, d) = static_cast<T>(dot(v.k_raw.rows[h], x));
                companion_advance(a, x, &v.b.rows[h], dot(v.loop(h), x));
            }
        }
    });
}

/// The gradients of companion_rollout: see companion_rollout_backward_args. Throws shape_error before anything is written. Keeps
/// horizon * state + lag doubles for each task that runs at once. Work splits over dim.
template <class T, execution_resource Exec = in_place>
void companion_rollout_backward(const companion_rollout_backward_args<T>& args, Exec&& exec = {})
{
    using namespace detail;
    check(args);
    const companion_rollout_args<T>& f = args.forward;
    const rollout_vectors v(f);
    const index lag = f.u.extent(1), horizon = args.dy.extent(1);
    run_tasks(exec, v.a.rows.size(), [&](std::size_t h, std::size_t) {
        const flush_denormals guard;
        const auto d = static_cast<index>(h);
        const std::vector<double>& a = v.a.rows[h];
        const std::vector<double>&b = v.b.rows[h], &loop = v.loop(h);
        const std::size_t state = a.size();
        std::vector<double> da(state), db(state), dc(state), dloop(state), db_raw(state), dk_raw(state), last, states;
        for (index i = 0; i < f.u.extent(0) && state > 0; ++i) {
            std::vector<double> x(state), psi(state);
            last.clear(), states.clear();
            for (index t = 0; t < lag; ++t) {
                last.push_back(x.back());
                companion_advance(a, x, &v.b_raw.rows[h], static_cast<double>(f.u(i, t, d)));
            }
            for (index j = 0; j < horizon; ++j) {
                states.insert(states.end(), x.begin(), x.end());
                companion_advance(a, x, &b, dot(loop, x));
            }
            for (index j = horizon - 1; j >= 0; --j) {  // psi: of x_{j+1} = A x_j + b̂ (k̂·x_j)
                x.assign(states.begin() + j * static_cast<index>(state), states.begin() + (j + 1) * static_cast<index>(state));
                const double input = dot(loop, x), of_input = dot(b, psi);
                const auto dy = static_cast<double>(args.dy(i, j, d)),
                           du_next = args.du_next.data() ? static_cast<double>(args.du_next(i, j, d)) : 0;
                for (std::size_t n = 0; n < state; ++n) {
                    da[n] += psi[n] * x.back();
                    db[n] += psi[n] * input;
                    dloop[n] += of_input * x[n];
                    dc[n] += dy * x[n];
                    dk_raw[n] += du_next * x[n];
                }
                companion_retreat(a, psi);
                for (std::size_t n = 0; n < state; ++n)
                    psi[n] += of_input * loop[n] + dy * v.c.rows[h][n] + du_next * v.k_raw.rows[h][n];
            }
            for (index t = lag - 1; t >= 0; --t) {
                if (args.du.data()) args.du(i, t, d) = static_cast<T>(dot(v.b_raw.rows[h], psi));
                for (std::size_t n = 0; n < state; ++n) {
                    db_raw[n] += psi[n] * static_cast<double>(f.u(i, t, d));
                    da[n] += psi[n] * last[static_cast<std::size_t>(t)];
                }
                companion_retreat(a, psi);
            }
        }
        if (v.plain) {  // b stood for k̂
            for (std::size_t n = 0; n < state; ++n) db[n] += dloop[n];
            std::ranges::fill(dloop, 0.0);
        }
        v.a.backward(h, da);
        v.b.backward(h, db);
        v.c.backward(h, dc);
        v.k.backward(h, dloop);
        for (std::size_t n = 0; n < state; ++n) {
            const auto k = static_cast<index>(n);
            if (args.da.data()) args.da(d, k) = static_cast<T>(da[n]);
            if (args.db.data()) args.db(d, k) = static_cast<T>(db[n] + db_raw[n]);
            if (args.dc.data()) args.dc(d, k) = static_cast<T>(dc[n]);
            if (args.dk.data()) args.dk(d, k) = static_cast<T>(dloop[n] + dk_raw[n]);
        }
        for (index i = 0; i < f.u.extent(0) && state == 0 && args.du.data(); ++i) {
            for (index t = 0; t < lag; ++t) args.du(i, t, d) = 0;
        }
    });
}

}  // namespace ssmkit
