#pragma once

#include <vector>

#include <ssmkit/args/companion_rollout.hpp>
#include <ssmkit/reference/companion_kernel.hpp>

namespace ssmkit::reference {

namespace parts {

/// One channel's model with its matrices written out.
struct companion_model {
    companion_vector a, b, c, k;
    std::vector<double> A, loop, open, closed;  // loop, open: what stands for k̂ in either; closed: A + b̂ k̂ᵀ

    template <class T>
    companion_model(const companion_rollout_args<T>& f, index h)
        : a(f.a, h, f.norm_order), b(f.b, h, f.norm_order), c(f.c, h, f.norm_order), k(f.k, h, f.norm_order),
          A(companion_matrix(a.used)), loop(f.norm_order == 0 ? b.raw : k.used), open(k.used), closed(A)
    {
        if (f.norm_order == 0) {
            double count = 0;
            for (const double x : k.raw) count += x != 0 ? 1 : 0;
            for (double& x : open) x /= count;
        }
        const std::size_t n = loop.size();
        for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t j = 0; j < n; ++j) closed[i * n + j] += b.used[i] * loop[j];
        }
    }

    /// x_0 = Σ_t A^{lag-1-t} b u_t
    std::vector<double> read(const std::vector<double>& u) const
    {
        std::vector<double> x(b.raw.size());
        const auto columns = krylov_columns(A, b.raw, u.size());
        for (std::size_t t = 0; t < u.size(); ++t) {
            for (std::size_t n = 0; n < x.size(); ++n) x[n] += columns[u.size() - 1 - t][n] * u[t];
        }
        return x;
    }
};

/// Row (i, :, h) in double.
template <class T>
std::vector<double> rollout_row(const view<const T, 3>& v, index i, index h)
{
    std::vector<double> row;
    for (index t = 0; t < v.extent(1); ++t) row.push_back(static_cast<double>(v(i, t, h)));
    return row;
}

}  // namespace parts

/// SpaceTime's forecasts (args/companion_rollout.hpp): Krylov sequences of both matrices written out, and the open loop as a
/// convolution. The oracle of the tests; double inside.
template <class T>
void companion_rollout(const companion_rollout_args<T>& a)
{
    check(a);
    for (index h = 0; h < a.a.extent(0); ++h) {
        const parts::companion_model m(a, h);
        for (index i = 0; i < a.u.extent(0); ++i) {
            const std::vector<double> u = parts::rollout_row(a.u, i, h), x = m.read(u);
            const auto closed = [&](const view<T, 3>& out, const std::vector<double>& map) {
                const auto values = parts::krylov_kernel(m.closed, x, map, parts::at(out.extent(1)));
                for (index j = 0; j < out.extent(1) && out.data(); ++j) out(i, j, h) = static_cast<T>(values[parts::at(j)]);
            };
            const auto open = [&](const view<T, 3>& out, const std::vector<double>& map) {
                const auto kernel = parts::krylov_kernel(m.A, m.b.used, map, u.size());
                for (std::size_t t = 0; t < u.size() && out.data(); ++t) {
                    double sum = 0;
                    for (std::size_t l = 0; l <= t; ++l) sum += kernel[l] * u[t - l];
                    out(i, static_cast<index>(t), h) = static_cast<T>(sum);
                }
            };
            closed(a.y, m.c.used);
            closed(a.u_next, m.k.raw);
            open(a.y_open, m.c.used);
            open(a.u_next_open, m.open);
        }
    }
}

/// The gradients of companion_rollout (args/companion_rollout.hpp): the oracle of the tests.
template <class T>
void companion_rollout_backward(const companion_rollout_backward_args<T>& a)
{
    check(a);
    const companion_rollout_args<T>& f = a.forward;
    for (index h = 0; h < f.a.extent(0); ++h) {
        const parts::companion_model m(f, h);
        const std::size_t n = m.b.raw.size();
        const auto add = [](std::vector<double>& to, const std::vector<double>& g) {
            for (std::size_t i = 0; i < g.size(); ++i) to[i] += g[i];
        };
        // Of vectors as they are used, and of those that are used as they are.
        std::vector<double> da(n), db(n), dc(n), dk(n), db_raw(n), dk_raw(n);
        for (index i = 0; i < f.u.extent(0); ++i) {
            const std::vector<double> u = parts::rollout_row(f.u, i, h), x = m.read(u);
            std::vector<double> dx(n), dclosed(n * n);
            const parts::krylov_gradients of_y(m.closed, x, m.c.used, parts::rollout_row(a.dy, i, h));
            add(dx, of_y.b), add(dclosed, of_y.A), add(dc, of_y.c);
            if (a.du_next.data()) {
                const parts::krylov_gradients of_input(m.closed, x, m.k.raw, parts::rollout_row(a.du_next, i, h));
                add(dx, of_input.b), add(dclosed, of_input.A), add(dk_raw, of_input.c);
            }
            add(da, parts::last_column(dclosed, n));
            for (std::size_t r = 0; r < n; ++r) {
                for (std::size_t s = 0; s < n; ++s) {
                    db[r] += dclosed[r * n + s] * m.loop[s];
                    (f.norm_order == 0 ? db : dk)[s] += dclosed[r * n + s] * m.b.used[r];
                }
            }
            // dx·x_0 = Σ_l u_{lag-1-l} dx·A^l b
            const std::vector<double> backwards(u.rbegin(), u.rend());
            const parts::krylov_gradients of_history(m.A, m.b.raw, dx, backwards);
            add(da, parts::last_column(of_history.A, n));
            add(db_raw, of_history.b);
            const auto du = parts::krylov_kernel(m.A, m.b.raw, dx, u.size());
            for (std::size_t t = 0; t < u.size() && a.du.data(); ++t)
                a.du(i, static_cast<index>(t), h) = static_cast<T>(du[u.size() - 1 - t]);
        }
        add(db_raw, m.b.backward(db));
        add(dk_raw, m.k.backward(dk));
        da = m.a.backward(da);
        dc = m.c.backward(dc);
        for (std::size_t r = 0; r < n; ++r) {
            const auto k = static_cast<index>(r);
            if (a.da.data()) a.da(h, k) = static_cast<T>(da[r]);
            if (a.db.data()) a.db(h, k) = static_cast<T>(db_raw[r]);
            if (a.dc.data()) a.dc(h, k) = static_cast<T>(dc[r]);
            if (a.dk.data()) a.dk(h, k) = static_cast<T>(dk_raw[r]);
        }
    }
}

}  // namespace ssmkit::reference
