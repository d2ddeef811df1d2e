#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include <ssmkit/args/s4_kernel.hpp>
#include <ssmkit/args/s4_setup.hpp>
#include <ssmkit/detail/s4_transition.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {

/// Which length an S4 layer's map is prepared for, as requests come in (arXiv:2111.00396's code): for the first need, or a known
/// maximum, then doubled until it suffices.
///
///     const s4_length_growth::work todo = growth.need(length, rate);
///     if (todo.prepare > 0)                   s4_setup: prepare for todo.prepare
///     for (index from : todo.doublings())     s4_setup: extend from that length
///     s4_kernel with prepared_length = growth.prepared
struct s4_length_growth {
    index prepared = 0;  ///< ℓ; 0: not prepared yet
    index maximum = 0;   ///< longest length that will be asked for; 0: unknown

    struct work {
        index prepare = 0;  ///< if not 0: prepare for this length first
        index from = 0;     ///< then double, beginning with this length,
        int doublings = 0;  ///< so many times
    };

    /// What has to be done before a kernel of `length` at `rate` can be computed; `prepared` is what it will be then.
    work need(index length, double rate = 1)
    {
        const auto wanted = static_cast<index>(std::nearbyint(rate * static_cast<double>(length)));
        work todo;
        if (prepared == 0) prepared = todo.prepare = maximum > 0 ? maximum : wanted;
        todo.from = prepared;
        for (; prepared > 0 && prepared < wanted; prepared *= 2) ++todo.doublings;
        return todo;
    }
};

namespace detail {

/// Real square matrices and rows of what multiplies (Re x, Im x), on plain memory: the compiler's loops do.
class s4_power {
public:
    explicit s4_power(const s4_transition& t) : size_(2 * t.state), power_(at(size_ * size_)), other_(at(size_ * size_))
    {
        for (index k = 0; k < size_; ++k) {  // column k: what becomes of the unit vector
            const index n = k % t.state;
            const bool imaginary = k >= t.state;
            const std::complex<double> unit = imaginary ? std::complex<double>(0, 1) : 1.0;
            for (index i = 0; i < t.state; ++i) {
                std::complex<double> value = i == n ? t.pole[at(n)] * unit : 0.0;
                for (index r = 0; r < t.rank; ++r)
                    value -= t.U[at(r * t.state + i)] * (2 * (t.V[at(r * t.state + n)] * unit).real());
                power_[at(i * size_ + k)] = value.real();
                power_[at((t.state + i) * size_ + k)] = value.imag();
            }
        }
    }

    index size() const { return size_; }

    /// Ā^length, by squaring.
    const std::vector<double>& raise(index length)
    {
        std::vector<double> result(at(size_ * size_));
        for (index k = 0; k < size_; ++k) result[at(k * size_ + k)] = 1;
        for (; length > 0; length /= 2) {
            if (length % 2 == 1) {
                multiply(result, power_);
                std::swap(result, other_);
            }
            if (length > 1) {
                multiply(power_, power_);
                std::swap(power_, other_);
            }
        }
        power_ = std::move(result);
        return power_;
    }

    /// row ← row Ā^length; destroys Ā.
    void apply(index length, std::vector<double>& rows, index count)
    {
        std::vector<double> next(rows.size());
        for (; length > 0; length /= 2) {
            if (length % 2 == 1) {
                product(rows, power_, next, count);
                std::swap(rows, next);
            }
            if (length > 1) {
                multiply(power_, power_);
                std::swap(power_, other_);
            }
        }
    }

private:
    static std::size_t at(index i) { return static_cast<std::size_t>(i); }

    void multiply(const std::vector<double>& a, const std::vector<double>& b) { product(a, b, other_, size_); }

    void product(const std::vector<double>& a, const std::vector<double>& b, std::vector<double>& out, index rows) const
    {
        std::fill(out.begin(), out.end(), 0.0);
        for (index i = 0; i < rows; ++i) {
            double* const to = out.data() + i * size_;
            for (index k = 0; k < size_; ++k) {
                const double factor = a[at(i * size_ + k)];
                const double* const from = b.data() + k * size_;
                for (index j = 0; j < size_; ++j) to[j] += factor * from[j];
            }
        }
    }

    index size_;
    std::vector<double> power_, other_;
};

/// Rows X with X M = Y, M (size, size); Y is overwritten. Elimination on the transposed system, with pivots.
inline void solve_rows(std::vector<double> M, index size, std::vector<double>& Y, index rows)
{
    const auto m = [&](index i, index k) -> double& { return M[static_cast<std::size_t>(i * size + k)]; };
    const auto y = [&](index i, index k) -> double& { return Y[static_cast<std::size_t>(i * size + k)]; };
    for (index k = 0; k < size; ++k) {  // columns of M are the equations
        index pivot = k;
        for (index j = k + 1; j < size; ++j) {
            if (std::abs(m(k, j)) > std::abs(m(k, pivot))) pivot = j;
        }
        for (index i = 0; i < size && pivot != k; ++i) std::swap(m(i, k), m(i, pivot));
        for (index i = 0; i < rows && pivot != k; ++i) std::swap(y(i, k), y(i, pivot));
        for (index j = 0; j < size; ++j) {
            if (j == k) continue;
            const double factor = m(k, j) / m(k, k);
            for (index i = k; i < size; ++i) m(i, j) -= factor * m(i, k);
            for (index i = 0; i < rows; ++i) y(i, j) -= factor * y(i, k);
        }
    }
    for (index k = 0; k < size; ++k) {
        for (index i = 0; i < rows; ++i) y(i, k) /= m(k, k);
    }
}

}  // namespace detail

/// Prepares, extends or recovers S4's output map: shapes and equations at s4_setup_args. Throws shape_error before anything is
/// written. Done once, not in a loop: 16 state³ log₂(length) double operations a channel of dim, in double whatever T is, with
/// memory of its own. Recovering loses 1 / min |1 - λ^length| over the eigenvalues λ of Ā. Work splits over dim.
template <class T, execution_resource Exec = in_place>
void s4_setup(const s4_setup_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index channels = a.C.extent(0), state = a.C.extent(2), full = 2 * state;
    run_tasks(exec, static_cast<std::size_t>(a.C.extent(1)), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const auto h = static_cast<index>(task);
        s4_power power(s4_transition(a.delta, 1, a.A, view<const std::complex<T>, 2>{}, a.P, h));
        // A map c acts on x as 2 Re c x: as a real row, (Re c, -Im c).
        std::vector<double> rows;
        for (index c = 0; c < channels; ++c) {
            for (index n = 0; n < state; ++n) rows.push_back(static_cast<double>(a.C(c, h, n).real()));
            for (index n = 0; n < state; ++n) rows.push_back(-static_cast<double>(a.C(c, h, n).imag()));
        }
        if (a.map == s4_map::recover) {
            std::vector<double> M = power.raise(a.length);
            for (double& x : M) x = -x;
            for (index k = 0; k < full; ++k) M[static_cast<std::size_t>(k * full + k)] += 1;
            solve_rows(std::move(M), full, rows, channels);
        } else {
            std::vector<double> advanced = rows;
            power.apply(a.length, advanced, channels);
            const double sign = a.map == s4_map::prepare ? -1 : 1;
            for (std::size_t i = 0; i < rows.size(); ++i) rows[i] += sign * advanced[i];
        }
        for (index c = 0; c < channels; ++c) {
            for (index n = 0; n < state; ++n) {
                const double* const row = rows.data() + c * full;
                a.out(c, h, n) = {static_cast<T>(row[n]), static_cast<T>(-row[state + n])};
            }
        }
    });
}

}  // namespace ssmkit
