#include <complex>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <ssmkit/hippo.hpp>

#include "golden.hpp"
#include "methods.hpp"

namespace {

using golden::index, golden::problem;

// Set-up is computed in double whatever the type of the case, from the file's own numbers, and rounded at the end.

template <class V>
const V& named(const std::map<std::string, V>& values, const std::string& name)
{
    const auto found = values.find(name);
    if (found == values.end()) throw golden::unknown(name + " is unknown");
    return found->second;
}

ssmkit::hippo_measure measure_named(const std::string& name)
{
    using enum ssmkit::hippo_measure;
    static const std::map<std::string, ssmkit::hippo_measure> measures{
        {"legs", legs},   {"legsd", legsd}, {"legt", legt},    {"lmu", lmu},   {"lagt", lagt},         {"tlagt", tlagt},
        {"glagt", glagt}, {"fout", fout},   {"fourier", fout}, {"foud", foud}, {"fourier_diag", foud}, {"fourier_decay", fourier_decay},
        {"fourier2", fourier2}};
    return named(measures, name);
}

/// Stores a matrix, rounded to E, as the output of this name, if the file has it. A tensor of one axis takes a matrix of one
/// row or column.
template <class E, class M>
void store(problem& p, const std::string& name, const M& computed)
{
    if (!p.has(name)) return;
    const std::size_t rank = p.shape(name).size() - (ssmkit::detail::is_complex<E> ? 1 : 0);
    const auto misfit = [&] { throw std::runtime_error(name + " is not of the size computed"); };
    if (rank == 1) {
        const auto out = p.output<E>(name, 0);
        if (out.extent(0) != computed.size() || (computed.rows() != 1 && computed.cols() != 1)) misfit();
        ssmkit::as_eigen(out) = computed.reshaped().template cast<E>();
    } else {
        const auto out = p.output<E>(name, 0, 1);
        if (out.extent(0) != computed.rows() || out.extent(1) != computed.cols()) misfit();
        ssmkit::as_eigen(out) = computed.template cast<E>();
    }
}

Eigen::MatrixXd matrix(problem& p, const std::string& name)
{
    if (p.shape(name).size() == 1) return ssmkit::as_eigen(p.input<double>(name, 0));
    return ssmkit::as_eigen(p.input<double>(name, 0, 1));
}

/// All of f, in double.
std::vector<double> samples(problem& p)
{
    const auto f = p.input<double>("f", 0);
    std::vector<double> values;
    for (index k = 0; k < f.extent(0); ++k) values.push_back(f[k]);
    return values;
}

const golden::handler hippo_transition("hippo_transition", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    for (const nlohmann::json& item : p.flag<nlohmann::json>("items")) {
        const ssmkit::hippo_measure measure = measure_named(item.at("measure").get<std::string>());
        ssmkit::hippo_options options{.alpha = item.value("alpha", 0.0)};
        if (item.contains("beta")) options.beta = item.at("beta").get<double>();
        for (const nlohmann::json& size : item.at("N")) {
            const auto state = size.get<index>();
            const std::string tag = "." + item.at("tag").get<std::string>() + ".N" + std::to_string(state);
            const ssmkit::dense_system<double> s = ssmkit::hippo_transition(measure, state, options);
            store<real>(p, "A" + tag, s.A);
            store<real>(p, "B" + tag, s.B);
            if (p.has("P" + tag)) store<real>(p, "P" + tag, ssmkit::hippo_low_rank(measure, state, p.shape("P" + tag).at(0)));
        }
    }
});

const golden::handler hippo_nplr("hippo_nplr", []<class T>(golden::element<T>, problem& p) {
    using complex = std::complex<ssmkit::compute_t<T>>;
    const auto clip = p.flag<nlohmann::json>("B_clip", 2.0);  // null: B stays as it is
    const double bound = clip.is_null() ? std::numeric_limits<double>::infinity() : clip.get<double>();
    for (const nlohmann::json& item : p.flag<nlohmann::json>("items")) {
        const auto measure = item.at(0).get<std::string>();
        const auto state = item.at(1).get<index>();
        const index rank = item.at(2).is_null() ? 0 : item.at(2).get<index>();
        const std::string tag = "." + measure + ".N" + std::to_string(state) + (rank ? ".R" + std::to_string(rank) : "");
        const ssmkit::diagonal_plus_low_rank d = ssmkit::hippo_nplr(measure_named(measure), state, rank);
        store<complex>(p, "Lambda" + tag, d.Lambda);
        store<complex>(p, "V" + tag, d.V);
        store<complex>(p, "P" + tag, d.P);
        store<complex>(p, "B_unclipped" + tag, d.B);
        store<complex>(p, "B" + tag, ssmkit::clip_imaginary(d.B, bound));
    }
});

const golden::handler legs_ltv("legs_ltv", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    p.descriptive("L");
    const auto method = golden::discretization_named(p.flag<std::string>("disc", "bilinear"));
    const auto state = p.flag<index>("N");
    const auto A = p.output<real>("A_stacked", 0, 1, 2);
    const auto B = p.output<real>("B_stacked", 0, 1);
    for (index k = 0; k < A.extent(0); ++k) ssmkit::as_eigen(A[k]) = ssmkit::legs_ltv(state, k + 1, method).A.cast<real>();
    for (index k = 0; k < B.extent(0); ++k) ssmkit::as_eigen(B[k]) = ssmkit::legs_ltv(state, k + 1, method).B.cast<real>();
    store<real>(p, "c", ssmkit::legs_memory(samples(p), state, method));
});

const golden::handler legt_lti("legt_lti", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    p.descriptive("L");
    const auto method = golden::discretization_named(p.flag<std::string>("disc", "bilinear"));
    const auto state = p.flag<index>("N");
    const double delta = p.flag<double>("dt");
    const ssmkit::dense_system<double> step = ssmkit::legt_lti(state, delta, method);
    store<real>(p, "A", step.A);
    store<real>(p, "B", step.B);
    store<real>(p, "c", ssmkit::legt_memory(samples(p), state, delta, method));
});

const golden::handler s4d_init("s4d_init", []<class T>(golden::element<T>, problem& p) {
    using complex = std::complex<ssmkit::compute_t<T>>;
    using enum ssmkit::s4d_spectrum;
    static const std::map<std::string, ssmkit::s4d_spectrum> spectra{{"lin", lin},   {"inv", inv},   {"inv2", inv2}, {"quad", quad},
                                                                     {"real", real}, {"legs", legs}, {"hippo", legs}};
    static const std::map<std::string, ssmkit::s4d_input> inputs{{"constant", ssmkit::s4d_input::constant},
                                                                 {"alternating", ssmkit::s4d_input::alternating},
                                                                 {"unit-cw", ssmkit::s4d_input::unit_cw},
                                                                 {"unit-ccw", ssmkit::s4d_input::unit_ccw},
                                                                 {"legs", ssmkit::s4d_input::legs}};
    for (const nlohmann::json& item : p.flag<nlohmann::json>("items")) {
        const auto spectrum = item.at(0).get<std::string>(), input = item.at(2).get<std::string>();
        const auto state = item.at(1).get<index>();
        const bool normalized = item.at(3).get<bool>();
        const std::string tag = "." + spectrum + ".N" + std::to_string(state) + "." + input + (normalized ? ".norm" : "");
        const Eigen::VectorXcd A = ssmkit::s4d_A(named(spectra, spectrum), state);
        // The legs spectrum brings a B of its own, whatever the item names (section 3.1).
        const bool own = named(spectra, spectrum) == legs;
        const Eigen::VectorXcd B = ssmkit::s4d_B(own ? ssmkit::s4d_input::legs : named(inputs, input), state);
        store<complex>(p, "A" + tag, A);
        store<complex>(p, "B" + tag, normalized ? ssmkit::s4d_normalize(B, A) : B);
    }
});

const golden::handler dss_init("dss_init", []<class T>(golden::element<T>, problem& p) {
    for (const nlohmann::json& size : p.flag<nlohmann::json>("N")) {
        const auto state = size.get<index>();
        store<std::complex<ssmkit::compute_t<T>>>(p, "Lambda.N" + std::to_string(state), ssmkit::dss_init(state));
    }
});

const golden::handler s5_init("s5_init", []<class T>(golden::element<T>, problem& p) {
    using complex = std::complex<ssmkit::compute_t<T>>;
    const ssmkit::s5_parameters start =
        ssmkit::s5_init(p.flag<index>("ssm_size"), p.flag<index>("blocks", 1), p.flag<bool>("conj_sym", true));
    store<complex>(p, "Lambda", start.Lambda);
    store<complex>(p, "V", start.V);
    store<complex>(p, "Vinv", start.V_inverse);
    store<complex>(p, "P_block", start.P_block);
    store<complex>(p, "B_block", start.B_block);
});

const golden::handler ptd_init("ptd_init", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    using complex = std::complex<real>;
    p.descriptive("N", "eps");
    const ssmkit::perturbed_diagonal d =
        ssmkit::perturb_then_diagonalize(matrix(p, "A"), matrix(p, "E"), matrix(p, "B"), matrix(p, "C"));
    store<complex>(p, "Lambda", d.Lambda);
    store<complex>(p, "V", d.V);
    store<complex>(p, "B_tilde", d.B);
    store<complex>(p, "C_tilde", d.C);
    store<real>(p, "cond_V", Eigen::Matrix<double, 1, 1>(d.condition));
});

}  // namespace
