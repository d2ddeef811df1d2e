#pragma once

// Diagonal systems that training starts from: S4D's, DSS's and S5's.

#include <cmath>
#include <complex>
#include <cstdint>
#include <numbers>
#include <span>
#include <string>
#include <vector>

#include <ssmkit/hippo/dplr.hpp>
#include <ssmkit/parameters.hpp>

namespace ssmkit {

/// The spectra of S4D (arXiv:2206.11893, section 4): A_n = -re_n - i im_n for the pairs n < M = state / 2.
enum class s4d_spectrum {
    lin,   ///< re ½, im π n
    inv,   ///< re ½, im (state / π) (state / (2n + 1) - 1)
    inv2,  ///< re ½, im (state / π) (state / (n + 1) - 1)
    quad,  ///< re ½, im (2n + 1)² / π
    real,  ///< re n + 1, im 0
    legs,  ///< re ½, im those of hippo_nplr(legs): S4D-LegS
    rand,  ///< re ½, im e^normal
};

/// What may be random in a spectrum, from the caller's numbers, and factors of both parts.
struct s4d_options {
    std::span<const double> real_numbers{};  ///< (pairs) uniform on [0, 1): re becomes the number, for `real` M times it
    std::span<const double> imag_numbers{};  ///< (pairs) uniform: M times the number replaces n; for `rand` normal, required
    double real_scale = 1, imag_scale = 1;
};

/// A (pairs) of a spectrum, as values, before they are stored (see from_positive, which has a floor). Throws shape_error unless
/// the state is even and the numbers are as many as the pairs.
template <class Lazy = void>
Eigen::VectorXcd s4d_A(s4d_spectrum spectrum, index state, const s4d_options& options = {})
{
    constexpr const char* op = "s4d_A";
    detail::require(state >= 0 && state % 2 == 0, op, "state", "is " + std::to_string(state) + ", expected an even size");
    const index pairs = state / 2;
    const auto fits = [&](std::span<const double> numbers) {
        return numbers.empty() || static_cast<index>(numbers.size()) == pairs;
    };
    detail::require(fits(options.real_numbers), op, "real_numbers", "are not one a pair");
    detail::require(fits(options.imag_numbers), op, "imag_numbers", "are not one a pair");
    detail::require(spectrum != s4d_spectrum::rand || !options.imag_numbers.empty() || pairs == 0, op, "imag_numbers",
                    "are missing");
    Eigen::VectorXcd legs;
    if (spectrum == s4d_spectrum::legs) legs = hippo_nplr(hippo_measure::legs, state).Lambda;
    const double size = static_cast<double>(state), M = static_cast<double>(pairs), pi = std::numbers::pi;
    Eigen::VectorXcd A(pairs);
    for (index k = 0; k < pairs; ++k) {
        const auto i = static_cast<std::size_t>(k);
        const double n = options.imag_numbers.empty() ? static_cast<double>(k) : M * options.imag_numbers[i];
        double re = 0.5, im = 0;
        switch (spectrum) {
            case s4d_spectrum::lin: im = pi * n; break;
            case s4d_spectrum::inv: im = size / pi * (size / (2 * n + 1) - 1); break;
            case s4d_spectrum::inv2: im = size / pi * (size / (n + 1) - 1); break;
            case s4d_spectrum::quad: im = (2 * n + 1) * (2 * n + 1) / pi; break;
            case s4d_spectrum::real: re = static_cast<double>(k + 1); break;
            case s4d_spectrum::legs: im = -legs[k].imag(); break;
            case s4d_spectrum::rand: im = std::exp(options.imag_numbers[i]); break;
        }
        if (!options.real_numbers.empty()) re = options.real_numbers[i] * (spectrum == s4d_spectrum::real ? M : 1);
        A[k] = {-options.real_scale * re, -options.imag_scale * im};
    }
    return A;
}

/// The input maps of S4D.
enum class s4d_input {
    constant,     ///< 1
    alternating,  ///< 1, -1, 1, ...: needs an even number of pairs
    unit_cw,      ///< e^(-2 π i n / state)
    unit_ccw,     ///< e^(+2 π i n / state)
    legs,         ///< B of hippo_nplr(legs), clipped at 2 and, as in the authors' code, not halved: goes with the legs spectrum
};

/// B (pairs). Throws shape_error unless the state is even, for alternating a multiple of 4.
template <class Lazy = void>
Eigen::VectorXcd s4d_B(s4d_input input, index state)
{
    constexpr const char* op = "s4d_B";
    detail::require(state >= 0 && state % 2 == 0, op, "state", "is " + std::to_string(state) + ", expected an even size");
    detail::require(input != s4d_input::alternating || state % 4 == 0, op, "state",
                    "has an odd number of pairs, which cannot alternate");
    if (input == s4d_input::legs) return clip_imaginary(hippo_nplr(hippo_measure::legs, state).B);
    Eigen::VectorXcd B(state / 2);
    for (index n = 0; n < B.size(); ++n) {
        const double angle = 2 * std::numbers::pi * static_cast<double>(n) / static_cast<double>(state);
        switch (input) {
            case s4d_input::alternating: B[n] = n % 2 ? -1 : 1; break;
            case s4d_input::unit_cw: B[n] = std::polar(1.0, -angle); break;
            case s4d_input::unit_ccw: B[n] = std::polar(1.0, angle); break;
            default: B[n] = 1;
        }
    }
    return B;
}

/// B (pairs) over (2 Σ |B_n / A_n|²)^½, so that the state has unit energy whatever A (pairs) is. Throws shape_error unless
/// they are equally many.
template <class Lazy = void>
Eigen::VectorXcd s4d_normalize(const Eigen::VectorXcd& B, const Eigen::VectorXcd& A)
{
    detail::require(A.size() == B.size(), "s4d_normalize", "A", "is not as long as B");
    return B / std::sqrt(2 * B.cwiseQuotient(A).squaredNorm());
}

/// Mixtures that S4 and S4D start from: the copies of a layer's systems in equal blocks, one for each start.
enum class s4_mixture {
    hippo,  ///< legs, fourier
    diag,   ///< inv, lin
    all,    ///< legs, fourier, inv, lin
};

/// Systems of several copies: what S4 takes, or without P S4D.
struct s4_copies {
    Eigen::MatrixXcd A;               ///< (copies, pairs)
    Eigen::MatrixXcd B;               ///< (copies, pairs)  of HiPPO starts clipped at 2, otherwise 1
    std::vector<Eigen::MatrixXcd> P;  ///< rank of (copies, pairs); zero for diagonal starts
};

/// A mixture (arXiv:2206.11893's code). The real part of fourier's A is 0: S4 stores the floor of from_positive in its place. Throws
/// shape_error unless the state is even, the rank at least 1 and the copies divide into as many blocks as the mixture has starts.
template <class Lazy = void>
s4_copies s4_mixture_init(s4_mixture mixture, index state, index copies, index rank = 1)
{
    constexpr const char* op = "s4_mixture_init";
    detail::require(state >= 0 && state % 2 == 0, op, "state", "is " + std::to_string(state) + ", expected an even size");
    detail::require(rank >= 1, op, "rank", "is less than 1");
    const index starts = mixture == s4_mixture::all ? 4 : 2, pairs = state / 2;
    detail::require(copies >= 0 && copies % starts == 0, op, "copies",
                    "are " + std::to_string(copies) + ", expected " + std::to_string(starts) + " equal blocks");
    const auto zeros = [&] { return Eigen::MatrixXcd(Eigen::MatrixXcd::Zero(copies, pairs)); };
    s4_copies all{zeros(), zeros(), {}};
    for (index r = 0; r < rank; ++r) all.P.push_back(zeros());
    const index block = copies / starts;
    index first = 0;
    const auto put = [&](const Eigen::VectorXcd& A, const Eigen::VectorXcd& B) {
        all.A.middleRows(first, block).rowwise() = A.transpose();
        all.B.middleRows(first, block).rowwise() = B.transpose();
    };
    if (mixture != s4_mixture::diag) {
        for (const hippo_measure measure : {hippo_measure::legs, hippo_measure::fout}) {
            const diagonal_plus_low_rank d = hippo_nplr(measure, state, rank);
            put(d.Lambda, clip_imaginary(d.B));
            for (index r = 0; r < rank; ++r) all.P[static_cast<std::size_t>(r)].middleRows(first, block).rowwise() = d.P.row(r);
            first += block;
        }
    }
    if (mixture != s4_mixture::hippo) {
        for (const s4d_spectrum spectrum : {s4d_spectrum::inv, s4d_spectrum::lin}) {
            put(s4d_A(spectrum, state), s4d_B(s4d_input::constant, state));
            first += block;
        }
    }
    return all;
}

/// The spectrum of DSS (state), complex numbers that are no halves of pairs: Λ = -½ + iω with the `state` positive frequencies of
/// the normal part of LegT at twice the size, falling (arXiv:2203.14343, section 4.1, "skew-HiPPO"). Throws shape_error for
/// a negative state.
template <class Lazy = void>
Eigen::VectorXcd dss_init(index state)
{
    detail::require(state >= 0, "dss_init", "state", "is negative");
    Eigen::MatrixXd K = Eigen::MatrixXd::Zero(2 * state, 2 * state);
    for (index n = 0; n < K.rows(); ++n) {
        for (index k = 0; k < n; ++k) {
            K(n, k) = 0.5 * std::sqrt(static_cast<double>(2 * n + 1) * static_cast<double>(2 * k + 1));
            K(k, n) = -K(n, k);
        }
    }
    Eigen::VectorXcd Lambda(state);
    Lambda.real().setConstant(-0.5);
    Lambda.imag() = detail::skew_eigen(K).omega;
    return Lambda;
}

/// S5's start: `blocks` copies of the normal part of LegS along the diagonal.
struct s5_parameters {
    Eigen::VectorXcd Lambda;    ///< (state)            of one block after the other, by increasing imaginary part
    Eigen::MatrixXcd V;         ///< (ssm_size, state)  block-diagonal; C̃ = C V
    Eigen::MatrixXcd V_inverse; ///< (state, ssm_size)  V*; B̃ = V_inverse B
    Eigen::VectorXcd P_block;   ///< (block)            V* P and
    Eigen::VectorXcd B_block;   ///< (block)            V* B of LegS itself, for one block with both halves of its pairs
};

/// S5's initialisation (arXiv:2208.04933, sections 3.3 and 4.3): state = ssm_size / 2 with conjugate symmetry, where one of
/// each pair is kept, otherwise ssm_size. Throws shape_error unless the blocks divide ssm_size into even sizes.
template <class Lazy = void>
s5_parameters s5_init(index ssm_size, index blocks, bool conj_sym = true)
{
    constexpr const char* op = "s5_init";
    detail::require(blocks >= 1, op, "blocks", "is " + std::to_string(blocks) + ", expected at least one");
    detail::require(ssm_size >= 0 && ssm_size % (2 * blocks) == 0, op, "ssm_size",
                    "is " + std::to_string(ssm_size) + ", expected " + std::to_string(blocks) + " blocks of even size");
    const index block = ssm_size / blocks, kept = conj_sym ? block / 2 : block;
    const diagonal_plus_low_rank d = hippo_nplr(hippo_measure::legs, block);
    const auto both = [](const Eigen::MatrixXcd& half) {  // by increasing imaginary part, along the columns
        Eigen::MatrixXcd full(half.rows(), 2 * half.cols());
        full << half, half.conjugate().rowwise().reverse();
        return full;
    };
    const Eigen::MatrixXcd V = both(d.V).leftCols(kept);
    const Eigen::VectorXcd Lambda = both(d.Lambda.transpose()).leftCols(kept).transpose();
    s5_parameters p{Lambda.replicate(blocks, 1), Eigen::MatrixXcd::Zero(ssm_size, kept * blocks), {},
                    both(d.P).transpose(), both(d.B.transpose()).transpose()};
    for (index b = 0; b < blocks; ++b) p.V.block(b * block, b * kept, block, kept) = V;
    p.V_inverse = p.V.adjoint();
    return p;
}

/// Where S5's C comes from.
enum class s5_output {
    eigenvectors,    ///< C V of a random complex C, (dim, ssm_size), truncated normal, 1 / ssm_size in each part
    flat,            ///< the same with 1 / (dim ssm_size)
    complex_normal,  ///< random in eigenvectors, 1/2 in each part
};

/// What of S5's parameters is random at the start.
struct s5_random_parameters {
    Eigen::MatrixXcd B;        ///< (state, dim)       V^-1 B of a real B, (ssm_size, dim), truncated normal with 1 / ssm_size
    Eigen::MatrixXcd C;        ///< (dim, state)       (dim, 2 state) for both directions
    Eigen::VectorXd D;         ///< (dim)              standard normal
    Eigen::VectorXd log_step;  ///< (state)            ln Δ, log-uniform over the range
};

/// S5's random start for `dim` channels (arXiv:2208.04933, section 4.3 and the authors' code), the same for a seed on every machine.
/// Throws shape_error for a negative dim or a range that is none.
template <class Lazy = void>
s5_random_parameters s5_random_init(const s5_parameters& start, index dim, std::uint64_t seed,
                                    s5_output output = s5_output::eigenvectors, bool bidirectional = false,
                                    const delta_range& range = {})
{
    detail::require(dim >= 0, "s5_random_init", "dim", "is negative");
    const index ssm_size = start.V.rows(), state = start.V.cols(), directions = bidirectional ? 2 : 1;
    const double size = static_cast<double>(ssm_size);
    std::uint64_t draw = seed;
    const auto next = [&] { return draw += 0x9e3779b97f4a7c15; };  // seeds apart
    const auto truncated = [&](index rows, index columns, double variance) {
        const std::vector<double> x = truncated_normal_numbers(rows * columns, next(), variance);
        return Eigen::MatrixXd(as_eigen(view<const double, 2>(x, rows, columns)));
    };
    s5_random_parameters p;
    const Eigen::MatrixXd B = truncated(ssm_size, dim, ssm_size > 0 ? 1 / size : 0);
    p.B.resize(state, dim);
    p.B.real() = start.V_inverse.real() * B;
    p.B.imag() = start.V_inverse.imag() * B;
    p.C.resize(dim, directions * state);
    for (index i = 0; i < directions; ++i) {
        if (output == s5_output::complex_normal) {
            const std::vector<std::complex<double>> c = complex_normal_numbers(dim * state, next(), 0.5);
            p.C.middleCols(i * state, state) = as_eigen(view<const std::complex<double>, 2>(c, dim, state));
            continue;
        }
        const double entries = output == s5_output::flat ? size * static_cast<double>(dim) : size;
        const double variance = entries > 0 ? 1 / entries : 0;
        Eigen::MatrixXcd C(dim, ssm_size);
        C.real() = truncated(dim, ssm_size, variance);
        C.imag() = truncated(dim, ssm_size, variance);
        p.C.middleCols(i * state, state) = C * start.V;
    }
    const auto vector = [](const std::vector<double>& x) {
        return Eigen::VectorXd(as_eigen(view<const double, 1>(x, static_cast<index>(x.size()))));
    };
    p.D = vector(normal_numbers(dim, next()));
    p.log_step = vector(delta_init(uniform_numbers(state, next()), positive_transform::exp, range));
    return p;
}

}  // namespace ssmkit
