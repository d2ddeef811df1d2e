#include <ssmkit/hippo.hpp>
#include <ssmkit/parameters.hpp>

#include <cmath>
#include <complex>
#include <limits>
#include <vector>

#include "catch.hpp"

namespace ssmkit::testing {
namespace {

using complex = std::complex<double>;
using matrix = Eigen::MatrixXd;
using complex_matrix = Eigen::MatrixXcd;

constexpr hippo_measure measures[] = {
    hippo_measure::legs,  hippo_measure::legsd, hippo_measure::legt, hippo_measure::lmu,           hippo_measure::lagt,    hippo_measure::tlagt,
    hippo_measure::glagt, hippo_measure::fout,  hippo_measure::foud, hippo_measure::fourier_decay, hippo_measure::fourier2};

constexpr hippo_measure corrected[] = {hippo_measure::legs, hippo_measure::legsd, hippo_measure::legt,          hippo_measure::lagt,
                                       hippo_measure::fout, hippo_measure::foud,  hippo_measure::fourier_decay, hippo_measure::fourier2};

double largest(const auto& m) { return m.size() == 0 ? 0.0 : static_cast<double>(m.cwiseAbs().maxCoeff()); }

/// (half, conj half), along the columns.
complex_matrix full(const complex_matrix& half)
{
    complex_matrix both(half.rows(), 2 * half.cols());
    both << half, half.conjugate();
    return both;
}

TEST_CASE("hippo: small operators by hand")
{
    const double r3 = std::sqrt(3.0), r5 = std::sqrt(5.0), r15 = std::sqrt(15.0), pi = std::numbers::pi, r2 = std::sqrt(2.0);
    const auto equals = [](const dense_system<double>& s, std::initializer_list<double> A, std::initializer_list<double> B) {
        const auto n = static_cast<Eigen::Index>(B.size());
        const Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>> a(A.begin(), n, n);
        const Eigen::Map<const Eigen::VectorXd> b(B.begin(), n);
        return s.A.rows() == n && s.B.cols() == 1 && largest(s.A - a) < 2e-15 && largest(s.B - b) < 2e-15;
    };
    CHECK(equals(hippo_transition(hippo_measure::legs, 3), {-1, 0, 0, -r3, -2, 0, -r5, -r15, -3}, {1, r3, r5}));
    CHECK(equals(hippo_transition(hippo_measure::legsd, 2), {-0.5, r3 / 2, -r3 / 2, -0.5}, {0.5, r3 / 2}));
    CHECK(equals(hippo_transition(hippo_measure::legt, 2), {-0.5, r3 / 2, -r3 / 2, -1.5}, {0.5, r3 / 2}));
    CHECK(equals(hippo_transition(hippo_measure::lmu, 3), {-1, -1, -1, 3, -3, -3, -5, 5, -5}, {1, -3, 5}));
    CHECK(equals(hippo_transition(hippo_measure::lagt, 2), {-0.5, 0, -1, -0.5}, {1, 1}));
    CHECK(equals(hippo_transition(hippo_measure::lagt, 2, {.beta = 3}), {-0.5, 0, -1, -0.5}, {3, 3}));
    CHECK(equals(hippo_transition(hippo_measure::tlagt, 2, {.beta = 3}), {-2, 0, -1, -2}, {3, 3}));
    CHECK(equals(hippo_transition(hippo_measure::glagt, 2), {-0.505, 0, -1, -0.505}, {0.1, 0.1}));
    // α = ½: λ² = Γ(1.5) (1, 1.5), Γ(½) Γ(1.5) = π/2
    CHECK(equals(hippo_transition(hippo_measure::glagt, 2, {.alpha = 0.5, .beta = 1}), {-1, 0, -1 / std::sqrt(1.5), -1},
                 {std::sqrt(2 / pi), std::sqrt(3 / pi)}));
    CHECK(equals(hippo_transition(hippo_measure::fout, 4), {-1, 0, -r2, 0, 0, 0, 0, 0, -r2, 0, -2, -pi, 0, 0, pi, 0}, {1, 0, r2, 0}));
    CHECK(equals(hippo_transition(hippo_measure::foud, 4), {-.5, 0, 0, 0, 0, -.5, 0, 0, 0, 0, -.5, -2 * pi, 0, 0, 2 * pi, -.5}, {1, 0, r2, 0}));
    CHECK(equals(hippo_transition(hippo_measure::fourier_decay, 2), {-0.5, 0, 0, 0}, {0.5, 0}));
    // At twice the frequencies of fout: its window is 1 / delta steps.
    CHECK(equals(hippo_transition(hippo_measure::fourier2, 4), {-2, 0, -2 * r2, 0, 0, 0, 0, 0, -2 * r2, 0, -4, -2 * pi, 0, 0, 2 * pi, 0}, {2, 0, 2 * r2, 0}));
    const double one[] = {-1, -0.5, -0.5, -2}, in[] = {1, 1, 0.5, 2};
    for (int i = 0; i < 4; ++i) CHECK(equals(hippo_transition(corrected[4 + i], 1), {one[i]}, {in[i]}));
}

TEST_CASE("hippo: the low-rank correction leaves σ I plus a skew-symmetric matrix")
{
    for (const hippo_measure measure : corrected) {
        const double sigma = measure == hippo_measure::legs || measure == hippo_measure::legsd || measure == hippo_measure::foud ? -0.5 : 0;
        for (const index state : {1, 2, 6, 20}) {
            CAPTURE(static_cast<int>(measure), state);
            const matrix A = hippo_transition(measure, state).A, P = hippo_low_rank(measure, state);
            const matrix S = A + P.transpose() * P - sigma * matrix::Identity(state, state);
            CHECK(largest(S + S.transpose()) < 1e-15 * (1 + largest(A)));
            const matrix wider = hippo_low_rank(measure, state, 3);
            CHECK(wider.rows() == 3);
            CHECK(wider.topRows(P.rows()) == P);
            CHECK(wider.bottomRows(3 - P.rows()).isZero(0));
        }
    }
}

TEST_CASE("hippo: basis functions are the operator's impulse responses")
{
    const auto compare = [](hippo_measure measure, index state, const hippo_options& options, double tolerance) {
        for (const double t : {0.0, 0.1, 0.7, 1.9, 4.0}) {
            CAPTURE(static_cast<int>(measure), t);
            const dense_system<double> s = hippo_transition(measure, state, options);
            const matrix response = matrix_exponential(matrix(t * s.A)) * s.B;
            CHECK(largest(response - hippo_basis(measure, state, t, options)) < tolerance);
        }
    };
    compare(hippo_measure::legs, 6, {}, 1e-12);
    compare(hippo_measure::lagt, 6, {.beta = 2}, 1e-12);
    compare(hippo_measure::tlagt, 6, {.beta = 0.3}, 1e-12);
    compare(hippo_measure::glagt, 6, {}, 1e-12);
    compare(hippo_measure::glagt, 6, {.alpha = 0.25, .beta = 0.5}, 1e-12);
    compare(hippo_measure::glagt, 6, {.alpha = -0.5, .beta = 2}, 1e-12);
    compare(hippo_measure::foud, 6, {}, 1e-12);
    // The others in the limit of a large state, away from the window's ends.
    for (const auto& [measure, window] : {std::pair(hippo_measure::legt, 2.0), std::pair(hippo_measure::fout, 2.0), std::pair(hippo_measure::fourier2, 1.0)}) {
        const dense_system<double> s = hippo_transition(measure, 128);
        for (const double t : {0.3 * window, 0.6 * window, 1.5 * window}) {
            CAPTURE(static_cast<int>(measure), t);
            const matrix response = matrix_exponential(matrix(t * s.A)) * s.B;
            CHECK(largest(response.topRows(4) - hippo_basis(measure, 4, t)) < 0.05);
        }
    }
}

/// How well the form rebuilds the operator, relative to its norm: A, B, and V's columns' orthogonality.
double rebuild_error(const diagonal_plus_low_rank& d, const dense_system<double>& s)
{
    const complex_matrix V = full(d.V), P = full(d.P);
    const complex_matrix Lambda = full(d.Lambda.transpose()).transpose();
    complex_matrix middle = -(P.transpose() * P.conjugate());
    middle.diagonal() += Lambda;
    const double size = s.A.norm();
    return std::max({(V * middle * V.adjoint() - s.A).norm() / size, (V * full(d.B.transpose()).transpose() - s.B).norm() / s.B.norm(),
                     largest(V.adjoint() * V - complex_matrix::Identity(V.rows(), V.cols()))});
}

TEST_CASE("hippo: the diagonal-plus-low-rank form rebuilds A and B, its eigenvectors are unitary, its order and phases fixed")
{
    for (const hippo_measure measure : corrected) {
        for (const index state : {2, 4, 6, 16, 34, 64, 130}) {
            CAPTURE(static_cast<int>(measure), state);
            const diagonal_plus_low_rank d = hippo_nplr(measure, state);
            CHECK(rebuild_error(d, hippo_transition(measure, state)) < 2e-14);
            for (index k = 0; k < d.Lambda.size(); ++k) {
                CHECK(d.Lambda[k].imag() <= 0);
                CHECK(d.Lambda[k].real() <= 0);
                if (k > 0) CHECK(d.Lambda[k - 1].imag() < d.Lambda[k].imag());
                index first = 0;
                while (std::abs(d.V(first, k)) <= 1e-6) ++first;
                CHECK(d.V(first, k).imag() == 0);
                CHECK(d.V(first, k).real() > 0);
            }
        }
    }
    const diagonal_plus_low_rank legs = hippo_nplr(hippo_measure::legs, 2);
    CHECK(std::abs(legs.Lambda[0] - complex(-0.5, -std::sqrt(0.75))) < 1e-15);
    CHECK(std::abs(legs.V(0, 0) - std::sqrt(0.5)) < 1e-15);
    CHECK(std::abs(legs.V(1, 0) - complex(0, -std::sqrt(0.5))) < 1e-15);
    CHECK(std::abs(hippo_nplr(hippo_measure::legs, 64).Lambda[31].imag() + 0.2638569311) < 1e-9);
    CHECK(hippo_nplr(hippo_measure::legs, 0).Lambda.size() == 0);
}

TEST_CASE("hippo: a state of 1024 is as exact as its norm allows")
{
    const index state = SSMKIT_SAMPLED_TESTS ? 512 : 1024;
    for (const hippo_measure measure : {hippo_measure::legs, hippo_measure::legt, hippo_measure::lagt}) {
        const diagonal_plus_low_rank d = hippo_nplr(measure, state);
        CHECK(rebuild_error(d, hippo_transition(measure, state)) < 1e-13);
    }
    // Those of lagt are known: ½ cot((2k + 1) π / (2 N)), relative to the largest.
    const diagonal_plus_low_rank lagt = hippo_nplr(hippo_measure::lagt, state);
    for (index k = 0; k < state / 2; ++k) {
        const double omega = 0.5 / std::tan(static_cast<double>(2 * k + 1) * std::numbers::pi / (2 * static_cast<double>(state)));
        CHECK(std::abs(lagt.Lambda[k].imag() + omega) < 1e-14 * static_cast<double>(state));
    }
}

TEST_CASE("hippo: clipping touches imaginary parts alone")
{
    const complex_matrix B = hippo_nplr(hippo_measure::legs, 64).B, clipped = clip_imaginary(B);
    CHECK(std::abs(largest(B.imag()) - 40.8) < 0.1);
    CHECK(B.real() == clipped.real());
    CHECK(largest(clipped.imag()) == 2);
    CHECK(clip_imaginary(B, 100) == B);
    complex_matrix lost = B;
    lost(3) = {1, std::nan("")};
    CHECK(std::isnan(clip_imaginary(lost)(3).imag()));
}

TEST_CASE("hippo: the user's own normal-plus-low-rank system, with a zero eigenvalue twice")
{
    matrix K = matrix::Zero(6, 6);
    K(0, 3) = 2;
    K(1, 4) = -5;
    K -= matrix(K.transpose());
    const matrix P = matrix::Random(2, 6), B = matrix::Random(6, 3);
    const matrix A = K - 0.25 * matrix::Identity(6, 6) - P.transpose() * P;
    const diagonal_plus_low_rank d = nplr_to_dplr(A, B, P);
    CHECK(rebuild_error(d, {A, B}) < 1e-14);
    CHECK(std::abs(d.Lambda[0] - complex(-0.25, -5)) < 1e-14);
    CHECK(std::abs(d.Lambda[2] - complex(-0.25, 0)) < 1e-14);
    CHECK_THROWS_AS(nplr_to_dplr(A, B, matrix(P * 1.01)), shape_error);
    CHECK_THROWS_AS(nplr_to_dplr(A, B, matrix(P * std::nan(""))), shape_error);
    CHECK_THROWS_AS(nplr_to_dplr(matrix(A * std::nan("")), B, P), shape_error);
    CHECK_THROWS_AS(nplr_to_dplr(A, B, matrix(matrix::Zero(1, 5))), shape_error);
    CHECK_THROWS_AS(nplr_to_dplr(matrix(matrix::Zero(3, 3)), matrix(matrix::Zero(3, 1)), matrix(matrix::Zero(1, 3))), shape_error);
}

TEST_CASE("hippo: sizes and options that do not exist are named")
{
    for (const hippo_measure measure : measures) CHECK_THROWS_AS(hippo_transition(measure, -1), shape_error);
    for (const hippo_measure measure : corrected) {
        CHECK_THROWS_AS(hippo_low_rank(measure, -1), shape_error);
        CHECK_THROWS_AS(hippo_nplr(measure, 5), shape_error);
        CHECK_THROWS_AS(hippo_nplr(measure, -2), shape_error);
    }
    for (int i = 4; i < 8; ++i) CHECK_THROWS_AS(hippo_transition(corrected[i], 3), shape_error);
    for (const hippo_measure measure : {hippo_measure::lmu, hippo_measure::tlagt, hippo_measure::glagt}) {
        CHECK_THROWS_AS(hippo_low_rank(measure, 4), shape_error);
        CHECK_THROWS_AS(hippo_nplr(measure, 4), shape_error);
    }
    CHECK_THROWS_AS(hippo_low_rank(hippo_measure::legt, 4, 1), shape_error);
    CHECK_THROWS_AS(hippo_low_rank(hippo_measure::legs, 4, -1), shape_error);
    for (const double alpha : {1.0, -1.0, std::nan("")}) CHECK_THROWS_AS(hippo_transition(hippo_measure::glagt, 4, {.alpha = alpha}), shape_error);
    CHECK_THROWS_AS(hippo_transition(hippo_measure::glagt, 4, {.beta = 0}), shape_error);
    CHECK_THROWS_AS(hippo_basis(hippo_measure::lmu, 4, 1), shape_error);
    CHECK_THROWS_AS(hippo_basis(hippo_measure::legs, 4, -1), shape_error);
    CHECK_THROWS_AS(legs_ltv(4, 0, discretization::bilinear), shape_error);
    CHECK_THROWS_AS(legs_ltv(4, 1, discretization::async), shape_error);
    CHECK_THROWS_AS(legs_memory(std::vector<double>(3), -1), shape_error);
    for (const hippo_measure measure : measures) CHECK(hippo_transition(measure, 0).A.size() == 0);
}

TEST_CASE("hippo: LegS remembers a polynomial by its Legendre coefficients over the whole past")
{
    // f(s) = s over [0, 1] is ½ P_0 + ½ P_1(2s - 1): coefficients (½, 1 / (2√3)) in the orthonormal basis.
    for (const discretization method : {discretization::bilinear, discretization::backward_euler, discretization::zoh}) {
        std::vector<double> f;
        for (int k = 0; k < 4000; ++k) f.push_back((k + 0.5) / 4000);
        const matrix c = legs_memory(f, 4, method);
        CHECK(c.rows() == 4000);
        CHECK(std::abs(c(3999, 0) - 0.5) < 2e-3);
        CHECK(std::abs(c(3999, 1) - 0.5 / std::sqrt(3.0)) < 2e-3);
        CHECK(std::abs(c(3999, 2)) < 2e-3);
    }
    // Zero-order hold is exact for a constant, from the first step on: c = (f, 0, 0, ...) but for what was before time 1.
    const dense_system<double> s = hippo_transition(hippo_measure::legs, 4);
    for (const discretization method :
         {discretization::bilinear, discretization::backward_euler, discretization::forward_euler, discretization::zoh}) {
        const dense_system<double> step = legs_ltv(4, 3, method), dense_step = discretize(s.A, s.B, method == discretization::zoh ? std::log(4.0 / 3) : 1.0 / 3, method);
        CHECK(largest(step.A - dense_step.A) < 1e-14);
        CHECK(largest(step.B - dense_step.B) < 1e-14);
    }
    CHECK(legs_memory({}, 4).rows() == 0);
}

TEST_CASE("hippo: LegT remembers the last window and forgets what was before")
{
    std::vector<double> f(3000, 7.0);  // a window is 1000 steps: of the sevens nothing is left at the end
    for (std::size_t k = 1000; k < f.size(); ++k) f[k] = 1;
    const matrix c = legt_memory(f, 6, 1e-3);
    CHECK(std::abs(c(2999, 0) - 1) < 0.02);
    for (index n = 1; n < 6; ++n) CHECK(std::abs(c(2999, n)) < 0.1);
    CHECK(std::abs(c(999, 0) - 7) < 0.5);
}

TEST_CASE("hippo: S4D's spectra and input maps")
{
    const double pi = std::numbers::pi;
    CHECK(s4d_A(s4d_spectrum::lin, 8)[3] == complex(-0.5, -3 * pi));
    CHECK(std::abs(s4d_A(s4d_spectrum::inv, 8)[1] - complex(-0.5, -8 / pi * (8.0 / 3 - 1))) < 1e-15);
    CHECK(std::abs(s4d_A(s4d_spectrum::inv2, 8)[1] - complex(-0.5, -8 / pi * 3)) < 1e-14);
    CHECK(std::abs(s4d_A(s4d_spectrum::quad, 8)[2] - complex(-0.5, -25 / pi)) < 1e-14);
    CHECK(s4d_A(s4d_spectrum::real, 8)[2] == complex(-3, 0));
    CHECK(s4d_A(s4d_spectrum::legs, 8).imag() == hippo_nplr(hippo_measure::legs, 8).Lambda.imag());
    const std::vector<double> numbers{0.25, 0.5, 0.75, 0};
    CHECK(s4d_A(s4d_spectrum::rand, 8, {.imag_numbers = numbers})[1] == complex(-0.5, -std::exp(0.5)));
    CHECK(s4d_A(s4d_spectrum::real, 8, {.real_numbers = numbers})[1] == complex(-2, 0));
    CHECK(s4d_A(s4d_spectrum::lin, 8, {.real_numbers = numbers, .imag_numbers = numbers, .real_scale = 2, .imag_scale = 3})[0] == complex(-0.5, -3 * pi));
    CHECK(s4d_B(s4d_input::constant, 8) == Eigen::VectorXcd::Ones(4));
    CHECK(s4d_B(s4d_input::alternating, 8)[3] == complex(-1));
    CHECK(std::abs(s4d_B(s4d_input::unit_cw, 12)[3] - complex(0, -1)) < 1e-15);
    CHECK(std::abs(s4d_B(s4d_input::unit_ccw, 12)[3] - complex(0, 1)) < 1e-15);
    CHECK(largest(s4d_B(s4d_input::legs, 64).imag()) == 2);
    // Normalised, 2 Σ |B / A|² = 1.
    const Eigen::VectorXcd A = s4d_A(s4d_spectrum::inv, 16), B = s4d_normalize(s4d_B(s4d_input::unit_cw, 16), A);
    CHECK(std::abs(2 * B.cwiseQuotient(A).squaredNorm() - 1) < 1e-15);
    CHECK_THROWS_AS(s4d_A(s4d_spectrum::lin, 7), shape_error);
    CHECK_THROWS_AS(s4d_A(s4d_spectrum::lin, -2), shape_error);
    CHECK_THROWS_AS(s4d_A(s4d_spectrum::rand, 8), shape_error);
    CHECK_THROWS_AS(s4d_A(s4d_spectrum::lin, 6, {.real_numbers = numbers}), shape_error);
    CHECK_THROWS_AS(s4d_B(s4d_input::alternating, 6), shape_error);
    CHECK_THROWS_AS(s4d_B(s4d_input::constant, 5), shape_error);
    CHECK_THROWS_AS(s4d_normalize(B, A.head(3)), shape_error);
}

TEST_CASE("hippo: DSS's frequencies are the upper half of a skew-symmetric matrix's")
{
    const Eigen::VectorXcd Lambda = dss_init(6);
    CHECK(largest(Lambda.real().array() + 0.5) == 0);
    for (index k = 1; k < 6; ++k) CHECK(Lambda[k - 1].imag() > Lambda[k].imag());
    // Σ ω² over the whole spectrum is the squared Frobenius norm: ½ Σ_{n>k} (2n+1)(2k+1) over 12 states.
    double norm = 0;
    for (int n = 0; n < 12; ++n) {
        for (int k = 0; k < n; ++k) norm += 0.5 * (2 * n + 1) * (2 * k + 1);
    }
    CHECK(std::abs(2 * Lambda.imag().squaredNorm() / norm - 1) < 1e-14);
    CHECK(std::abs(dss_init(1)[0] - complex(-0.5, std::sqrt(0.75))) < 1e-15);
    CHECK(dss_init(0).size() == 0);
    CHECK_THROWS_AS(dss_init(-1), shape_error);
}

TEST_CASE("hippo: S5's blocks diagonalise a block-diagonal normal LegS, with one or both of each pair")
{
    const matrix P = hippo_low_rank(hippo_measure::legs, 8), normal = hippo_transition(hippo_measure::legs, 8).A + P.transpose() * P;
    matrix blocks = matrix::Zero(24, 24);
    for (index b = 0; b < 3; ++b) blocks.block(8 * b, 8 * b, 8, 8) = normal;
    const s5_parameters all = s5_init(24, 3, false), half = s5_init(24, 3, true);
    CHECK(largest(all.V * all.Lambda.asDiagonal() * all.V_inverse - blocks) < 1e-13);
    CHECK(largest(all.V_inverse * all.V - complex_matrix::Identity(24, 24)) < 1e-14);
    CHECK(largest(2 * (half.V * half.Lambda.asDiagonal() * half.V_inverse).real() - blocks) < 1e-13);
    CHECK(half.Lambda.size() == 12);
    for (index k = 1; k < 8; ++k) CHECK(all.Lambda[k - 1].imag() < all.Lambda[k].imag());
    CHECK(half.Lambda.head(4) == all.Lambda.head(4));
    CHECK(largest(all.V.topLeftCorner(8, 8) * all.B_block - hippo_transition(hippo_measure::legs, 8).B) < 1e-14);
    CHECK(largest(all.V.topLeftCorner(8, 8) * all.P_block - P.transpose()) < 1e-14);
    CHECK_THROWS_AS(s5_init(24, 5), shape_error);
    CHECK_THROWS_AS(s5_init(9, 3), shape_error);
    CHECK_THROWS_AS(s5_init(24, 0), shape_error);
    CHECK_THROWS_AS(s5_init(-24, 3), shape_error);
}

TEST_CASE("hippo: mixtures are blocks of their starts")
{
    const index state = 12, pairs = 6;
    const s4_copies all = s4_mixture_init(s4_mixture::all, state, 8, 2);
    REQUIRE(all.A.rows() == 8);
    REQUIRE(all.P.size() == 2);
    const auto equals = [&](index copy, const Eigen::VectorXcd& A, const Eigen::VectorXcd& B, const complex_matrix& P) {
        CHECK(largest(all.A.row(copy) - A.transpose()) == 0);
        CHECK(largest(all.B.row(copy) - B.transpose()) == 0);
        for (index r = 0; r < 2; ++r) CHECK(largest(all.P[static_cast<std::size_t>(r)].row(copy) - P.row(r)) == 0);
    };
    const auto legs = hippo_nplr(hippo_measure::legs, state, 2), fourier = hippo_nplr(hippo_measure::fout, state, 2);
    const complex_matrix none = complex_matrix::Zero(2, pairs);
    for (index i = 0; i < 2; ++i) {
        equals(i, legs.Lambda, clip_imaginary(legs.B), legs.P);
        equals(2 + i, fourier.Lambda, clip_imaginary(fourier.B), fourier.P);
        equals(4 + i, s4d_A(s4d_spectrum::inv, state), Eigen::VectorXcd::Ones(pairs), none);
        equals(6 + i, s4d_A(s4d_spectrum::lin, state), Eigen::VectorXcd::Ones(pairs), none);
    }
    CHECK(largest(s4_mixture_init(s4_mixture::hippo, state, 4).A - all.A.topRows(4)) == 0);
    CHECK(largest(s4_mixture_init(s4_mixture::diag, state, 4).A - all.A.bottomRows(4)) == 0);
    CHECK(s4_mixture_init(s4_mixture::diag, 0, 0).A.size() == 0);
    CHECK_THROWS_AS(s4_mixture_init(s4_mixture::all, state, 6), shape_error);
    CHECK_THROWS_AS(s4_mixture_init(s4_mixture::hippo, 5, 2), shape_error);
    CHECK_THROWS_AS(s4_mixture_init(s4_mixture::hippo, state, 2, 0), shape_error);
}

TEST_CASE("hippo: S5's random start has the variances asked for, B and C in the basis of eigenvectors")
{
    const index dim = 400;
    for (const bool conj_sym : {true, false}) {
        const s5_parameters start = s5_init(16, 2, conj_sym);
        const index state = start.Lambda.size();
        const auto mean_square = [](const auto& m) { return m.squaredNorm() / static_cast<double>(m.size()); };
        for (const s5_output output : {s5_output::eigenvectors, s5_output::flat, s5_output::complex_normal}) {
            const s5_random_parameters p = s5_random_init(start, dim, 5, output);
            REQUIRE(p.C.rows() == dim);
            REQUIRE(p.C.cols() == state);
            REQUIRE(p.log_step.size() == state);
            // Columns of V have unit length: a state's weights have the variance of both parts together.
            const double expected = output == s5_output::complex_normal ? 1 : output == s5_output::flat ? 2.0 / (16 * dim) : 2.0 / 16;
            CHECK(mean_square(p.C) == Approx(expected).epsilon(0.1));
            CHECK(p.log_step.minCoeff() >= std::log(1e-3));
            CHECK(p.log_step.maxCoeff() < std::log(1e-1));
            CHECK(mean_square(p.D) == Approx(1).epsilon(0.4));
        }
        const s5_random_parameters p = s5_random_init(start, dim, 5), again = s5_random_init(start, dim, 5);
        CHECK(largest(p.B - again.B) == 0);
        CHECK(largest(p.C - again.C) == 0);
        CHECK(largest(p.B - s5_random_init(start, dim, 6).B) > 0.01);
        // V B̃, or with one of each pair twice its real part, is a real B with rows of variance 1 / ssm_size, cut off at two
        // deviations of the normal distribution.
        const complex_matrix back = start.V * p.B * (conj_sym ? 2.0 : 1.0);
        CHECK((conj_sym ? 0.0 : largest(back.imag())) < 1e-13);
        CHECK(mean_square(back.real()) == Approx(1.0 / 16).epsilon(0.05));
        CHECK(largest(back.real()) <= 2 / 0.8796 / 4);
        CHECK(largest(back.real()) > 1.9 / 0.8796 / 4);
        CHECK(s5_random_init(start, 3, 1, s5_output::eigenvectors, true).C.cols() == 2 * state);
        CHECK(s5_random_init(start, 0, 1, s5_output::flat).B.size() == 0);
        CHECK_THROWS_AS(s5_random_init(start, -1, 1), shape_error);
    }
}

TEST_CASE("hippo: the half of a perturbed system has its impulse response, real eigenvalues included")
{
    for (const index state : {1, 2, 7, 16}) {
        for (const double norm : {0.0, 1e-3, 0.5}) {
            if (norm == 0 && state > 7) continue;  // eigenvectors of LegS itself
            const dense_system<double> s = hippo_transition(hippo_measure::legs, state);
            const std::vector<double> normals = normal_numbers(state * state, 3), c = normal_numbers(2 * state, 4);
            const matrix E = perturbation(state, norm, normals), C = as_eigen(view<const double, 2>(c, 2, state));
            const perturbed_diagonal d = perturb_then_diagonalize(s.A, E, s.B, C);
            const perturbed_half half = conjugate_half(d);
            INFO(state << " " << norm << " kept " << half.Lambda.size());
            CHECK(2 * half.Lambda.size() >= state);
            if (norm == 0) CHECK(half.Lambda.size() == state);  // all real
            matrix power = matrix::Identity(state, state);  // C (A + E)^k B, the response's derivatives
            for (int k = 0; k < 3; ++k) {
                const matrix expected = C * power * s.B;
                const complex_matrix sum = half.C * half.Lambda.array().pow(k).matrix().asDiagonal() * half.B;
                const double scale = (d.C.cwiseAbs() * d.Lambda.cwiseAbs().array().pow(k).matrix().asDiagonal() * d.B.cwiseAbs()).maxCoeff();
                CHECK(largest(2 * sum.real() - expected) <= 1e-13 * scale * d.condition);
                power = (s.A + E) * power;
            }
        }
    }
    perturbed_diagonal broken = perturb_then_diagonalize(matrix::Identity(2, 2), matrix::Zero(2, 2), matrix::Ones(2, 1), matrix::Ones(1, 2));
    broken.Lambda[0] = complex(0, -1);
    CHECK_THROWS_AS(conjugate_half(broken), shape_error);
}

TEST_CASE("hippo: perturbed, LegS diagonalises with a moderate condition, to its backward error")
{
    const index state = 16;
    const dense_system<double> s = hippo_transition(hippo_measure::legs, state);
    const std::vector<double> normals = normal_numbers(state * state, 11);
    const matrix C = matrix::Ones(2, state), E = perturbation(state, 0.1, normals);
    CHECK(std::abs(std::sqrt(Eigen::SelfAdjointEigenSolver<matrix>(E.transpose() * E).eigenvalues()[state - 1]) - 0.1) < 1e-15);
    CHECK(std::abs(E(0, 1) / E(0, 0) - normals[1] / normals[0]) < 1e-14);
    const perturbed_diagonal d = perturb_then_diagonalize(s.A, E, s.B, C);
    CHECK(d.condition > 10);
    CHECK(d.condition < 1e5);
    CHECK(largest(d.V * d.Lambda.asDiagonal() - (s.A + E) * d.V) < 1e-12);
    CHECK(largest(d.V * d.B - s.B) < 1e-14 * d.condition);
    CHECK(largest(d.C - C * d.V) < 1e-14);
    const Eigen::VectorXd squares = Eigen::SelfAdjointEigenSolver<complex_matrix>(d.V.adjoint() * d.V).eigenvalues();
    CHECK(std::abs(std::sqrt(squares[state - 1] / squares[0]) / d.condition - 1) < 1e-4);
    for (index k = 0; k < state; ++k) {
        CHECK(std::abs(d.V.col(k).norm() - 1) < 1e-14);
        if (k > 0) CHECK(d.Lambda[k - 1].imag() <= d.Lambda[k].imag());
        CHECK(std::abs(d.Lambda[k].imag() + d.Lambda[state - 1 - k].imag()) < 1e-12);  // closed under conjugation
    }
    // The impulse response is that of the system it came from, but for the perturbation.
    const complex response = (d.C * (0.3 * d.Lambda.array()).exp().matrix().asDiagonal() * d.B)(0, 0);
    CHECK(std::abs(response - (C * matrix_exponential(matrix(0.3 * (s.A + E))) * s.B)(0, 0)) < 1e-12 * d.condition);
    CHECK_THROWS_AS(perturb_then_diagonalize(s.A, matrix(matrix::Zero(3, 3)), s.B, C), shape_error);
    CHECK_THROWS_AS(perturb_then_diagonalize(s.A, E, s.B, matrix(matrix::Zero(1, 3))), shape_error);
    CHECK_THROWS_AS(perturb_then_diagonalize(s.A, matrix(E * std::nan("")), s.B, C), shape_error);
    CHECK_THROWS_AS(perturbation(state, 0.1, std::vector<double>(3)), shape_error);
    CHECK_THROWS_AS(perturbation(2, -1, std::vector<double>{1, 2, 3, 4}), shape_error);
    CHECK_THROWS_AS(perturbation(2, 1, std::vector<double>(4)), shape_error);
}

}  // namespace
}  // namespace ssmkit::testing
