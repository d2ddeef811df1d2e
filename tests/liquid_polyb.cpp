#include <ssmkit/liquid_polyb.hpp>

#include <cmath>
#include <complex>
#include <vector>

#include "catch.hpp"
#include "finite_differences.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct polyb_problem {
    using E = std::complex<T>;
    using W = std::complex<double>;
    int degree;
    bool all, both;
    tensor<T, 3> u, k, y, dy, du, dk;
    tensor<T, 1> D, dD;
    tensor<double, 1> delta, ddelta;
    tensor<W, 2> w, dw;
    tensor<E, 2> B, dB;
    tensor<E, 3> C, dC;

    polyb_problem(index batch, index dim, index length, index state, int p, bool combinations, bool bidirectional,
                  layout form = layout::row_major)
        : degree(p), all(combinations), both(bidirectional)
    {
        random numbers(14);
        const index directions = both ? 2 : 1;
        u = random_tensor<T, 3>(numbers, {batch, dim, length}, {-1, 1}, form);
        k = random_tensor<T, 3>(numbers, {directions, dim, length}, {-1, 1}, form);
        D = random_tensor<T, 1>(numbers, {dim}, {-1, 1}, form);
        delta = random_tensor<double, 1>(numbers, {dim}, {0.3, 0.6}, form);
        w = random_tensor<W, 2>(numbers, {dim, state}, {-1, -0.2, -2, 2}, form);
        B = random_tensor<E, 2>(numbers, {dim, state}, {0.2, 1}, form);
        C = random_tensor<E, 3>(numbers, {directions, dim, state}, {-1, 1}, form);
        dy = random_tensor<T, 3>(numbers, {batch, dim, length}, {-1, 1}, form);
        y = tensor<T, 3>({batch, dim, length}, form), du = tensor<T, 3>({batch, dim, length}, form),
        dk = tensor<T, 3>({directions, dim, length}, form);
        dD = tensor<T, 1>({dim}, form), ddelta = tensor<double, 1>({dim}, form), dw = tensor<W, 2>({dim, state}, form);
        dB = tensor<E, 2>({dim, state}, form), dC = tensor<E, 3>({directions, dim, state}, form);
    }

    liquid_polyb_args<T> args() const
    {
        return {.u = u,
                .k = k,
                .D = D,
                .delta = delta,
                .w = w,
                .B = B,
                .C = C,
                .degree = degree,
                .all_combinations = all,
                .bidirectional = both,
                .y = y};
    }
    liquid_polyb_backward_args<T> backward() const
    {
        return {.forward = args(), .dy = dy, .du = du, .dk = dk, .dD = dD, .ddelta = ddelta, .dw = dw, .dB = dB, .dC = dC};
    }
};

/// The specification's words: vectors over the full spectrum, all subsets in order, the last `length` of them.
template <class T>
void compare(const polyb_problem<T>& p)
{
    using W = std::complex<double>;
    liquid_polyb(p.args());
    const index length = p.u.extent(2), directions = p.k.extent(0);
    for (index h = 0; h < p.u.extent(1); ++h) {
        for (index b = 0; b < p.u.extent(0); ++b) {
            const auto u = [&](index t) { return t >= 0 && t < length ? static_cast<double>(p.u(b, h, t)) : 0; };
            std::vector<double> y;
            for (index t = 0; t < length; ++t) {
                double sum = static_cast<double>(p.D(h)) * u(t);
                for (index m = 0; m < length; ++m) {
                    sum += static_cast<double>(p.k(0, h, m)) * u(t - m);
                    if (directions > 1) sum += static_cast<double>(p.k(1, h, m)) * u(t + m + 1);
                }
                y.push_back(sum);
            }
            std::vector<W> beta;
            for (index n = 0; n < p.B.extent(1); ++n) {
                const W one = p.delta(h) * W(p.B(h, n)) / (1.0 - 0.5 * p.delta(h) * p.w(h, n));
                beta.insert(beta.end(), {one, std::conj(one)});
            }
            std::vector<double> product;
            for (index t = 0; t < length; ++t) product.push_back(u(t));
            for (int degree = 2; degree <= p.degree; ++degree) {
                W total = 0;
                for (const W& x : beta) total += x;
                for (W& x : beta) x *= total;
                std::vector<double> sequence;
                if (p.all) {
                    index m = 2;
                    const auto subsets = [&] {
                        std::vector<double> products;
                        const index count = index{1} << m;
                        // As words of the lexicographic order: smaller positions first, so the highest bit is position 0.
                        for (index bits = count - 1; bits >= 0; --bits) {
                            double value = 1;
                            int members = 0;
                            for (index i = 0; i < m; ++i) {
                                if (bits >> (m - 1 - i) & 1) {
                                    value *= u(length - m + i);
                                    ++members;
                                }
                            }
                            if (members == degree) products.push_back(value);
                        }
                        return products;
                    };
                    while (static_cast<index>(subsets().size()) < length) ++m;
                    sequence = subsets();
                    sequence.erase(sequence.begin(), sequence.end() - length);
                } else {
                    sequence.resize(static_cast<std::size_t>(length));
                    for (std::size_t t = 1; t < product.size(); ++t) sequence[t] = product[t] * product[t - 1];
                    product = sequence;
                }
                for (index c = 0; c < directions; ++c) {
                    W gain = 0;
                    for (std::size_t n = 0; n < beta.size(); ++n) {
                        const W map(p.C(c, h, static_cast<index>(n / 2)));
                        gain += (n % 2 ? std::conj(map) : map) * beta[n];
                    }
                    for (std::size_t t = 0; t < y.size(); ++t)
                        y[t] += gain.real() * (c == 0 ? sequence[y.size() - 1 - t] : sequence[t]);
                }
            }
            for (index t = 0; t < length; ++t) {
                CHECK(std::abs(static_cast<double>(p.y(b, h, t)) - y[static_cast<std::size_t>(t)]) <=
                      (std::is_same_v<T, float> ? 1e-5 : 1e-12));
            }
        }
    }
}

}  // namespace

TEMPLATE_TEST_CASE("liquid_polyb: the specification's words, for every degree and direction", "", float, double)
{
    for (const bool both : {false, true}) {
        for (const bool all : {false, true}) {
            for (const int degree : {1, 2, 3, 4}) compare(polyb_problem<TestType>(2, 2, 9, 3, degree, all, both));
            for (const layout form : all_layouts) compare(polyb_problem<TestType>(2, 3, 8, 2, 2, all, both, form));
            compare(polyb_problem<TestType>(1, 2, 5, 1, 2, all, both));  // the shortest with all combinations
            compare(polyb_problem<TestType>(1, 0, 6, 1, 2, all, both));
            compare(polyb_problem<TestType>(1, 2, 0, 1, 2, all, both));
        }
        for (const index length : {1, 2}) compare(polyb_problem<TestType>(1, 1, length, 1, 3, false, both));
    }
}

TEST_CASE("liquid_polyb_backward: finite differences")
{
    for (const bool both : {false, true}) {
        for (const bool all : {false, true}) {
            for (const int degree : {1, 2, 3}) {
                const polyb_problem<double> p(2, 2, 7, 2, degree, all, both);
                liquid_polyb_backward(p.backward());
                const auto loss = [&] {
                    liquid_polyb(p.args());
                    return inner_product(p.y, p.dy);
                };
                CHECK(gradient_error(p.u, p.du, loss) < 1e-8);
                CHECK(gradient_error(p.k, p.dk, loss) < 1e-8);
                CHECK(gradient_error(p.D, p.dD, loss) < 1e-8);
                CHECK(gradient_error(p.delta, p.ddelta, loss) < 1e-7);
                CHECK(gradient_error(p.w, p.dw, loss) < 1e-8);
                CHECK(gradient_error(p.B, p.dB, loss) < 1e-8);
                CHECK(gradient_error(p.C, p.dC, loss) < 1e-8);
            }
        }
    }
}

TEST_CASE("liquid_polyb: names the argument that does not fit")
{
    const polyb_problem<float> p(1, 2, 6, 2, 2, true, false), tiny(1, 2, 4, 2, 2, true, false);
    CHECK(complaint_of([&] { liquid_polyb(tiny.args()); }).find("liquid_polyb: u is too short") == 0);
    auto a = p.args();
    a.bidirectional = true;
    CHECK(complaint_of([&] { liquid_polyb(a); }).find("liquid_polyb: k has shape") == 0);
    a = p.args();
    a.degree = 0;
    CHECK(complaint_of([&] { liquid_polyb(a); }).find("liquid_polyb: degree is not") == 0);
    a = p.args();
    a.y = {const_cast<float*>(a.u.data()), a.y.extents()};
    CHECK(complaint_of([&] { liquid_polyb(a); }).find("liquid_polyb: y overlaps u") == 0);
    auto b = p.backward();
    b.dw = b.dw.slice(1, 0, 1);
    CHECK(complaint_of([&] { liquid_polyb_backward(b); }).find("liquid_polyb_backward: dw has shape") == 0);
}

}  // namespace ssmkit::testing
