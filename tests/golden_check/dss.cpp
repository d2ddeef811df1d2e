#include <cmath>
#include <complex>
#include <cstddef>
#include <string>
#include <vector>

#include <ssmkit/args/dss_kernel.hpp>
#include <ssmkit/args/dss_kernel_backward.hpp>

#include <common/gss_dss.hpp>

#include "matrices.hpp"

namespace {

using golden::index, golden::new_axis, golden::problem, golden::view;
using complex = std::complex<double>;

/// Λ of a version as the files store it, and its gradient's way back.
class stored_poles {
public:
    stored_poles(problem& p, const std::string& version, double largest_real_part)
    {
        const auto has = [&](const char* word) { return version.find(word) != std::string::npos; };
        if (version != "softmax" && !has("exp") && !has("clip")) throw golden::unknown("the version " + version + " is unknown");
        if (has("exp")) {
            log_neg_re_ = p.input<double>("Lambda_log_neg_re", 0);
            im_ = p.input<double>("Lambda_im", 0);
            log_im_ = p.input<double>("Lambda_log_im", 0);
            for (index n = 0; n < log_neg_re_.extent(0); ++n) {
                values.emplace_back(-std::exp(log_neg_re_[n]), im_.data() ? im_[n] : std::exp(log_im_[n]));
            }
            return;
        }
        stored_ = p.input<complex>("Lambda", 0);
        for (index n = 0; n < stored_.extent(0); ++n) {
            clipped_.push_back(has("clip") && stored_[n].real() > largest_real_part);
            values.emplace_back(clipped_.back() ? largest_real_part : stored_[n].real(), stored_[n].imag());
        }
    }

    void store_gradient(problem& p, const std::vector<complex>& g) const
    {
        const auto d_re = p.output<double>("d_Lambda_log_neg_re", 0), d_im = p.output<double>("d_Lambda_im", 0),
                   d_log_im = p.output<double>("d_Lambda_log_im", 0);
        const auto d = p.output<complex>("d_Lambda", 0);
        for (std::size_t i = 0; i < g.size(); ++i) {
            const auto n = static_cast<index>(i);
            if (d_re.data()) d_re[n] = values[i].real() * g[i].real();
            if (d_im.data()) d_im[n] = g[i].imag();
            if (d_log_im.data()) d_log_im[n] = values[i].imag() * g[i].imag();
            if (d.data()) d[n] = {clipped_[i] ? 0.0 : g[i].real(), g[i].imag()};
        }
    }

    std::vector<complex> values;

private:
    view<const double, 1> log_neg_re_, im_, log_im_;
    view<const complex, 1> stored_;
    std::vector<bool> clipped_;
};

const golden::handler dss_kernel(
    "dss_kernel",
    []<class T>(golden::element<T>, problem& p) {
        using R = ssmkit::compute_t<T>;
        using E = std::complex<R>;
        p.descriptive("L");
        const auto version = p.flag<std::string>("version");
        const bool two_steps = p.flag<bool>("sep_dt_re_im", p.shape("log_dt").size() == 2);
        const stored_poles poles(p, version, p.flag<double>("max_real_Lambda", 1e-4));
        // (dim) or (dim, 2)
        const auto log_delta = two_steps ? p.input<double>("log_dt", 0, 1) : p.input<double>("log_dt", 0, new_axis);
        const index dim = log_delta.extent(0), state = static_cast<index>(poles.values.size());
        std::vector<double> delta, ddelta(static_cast<std::size_t>(2 * dim));
        for (index h = 0; h < dim; ++h) {
            for (index i = 0; i < log_delta.extent(1); ++i) delta.push_back(std::exp(log_delta(h, i)));
        }
        const auto pairs = [&]<class D>(D* values) {
            return two_steps ? view<D, 2>(values, dim, 2) : view<D, 2>(values, {dim, 2}, {1, 0});
        };
        using ssmkit::dss_scaling;
        const bool scaled = version.find("no-scale") == std::string::npos;
        const ssmkit::dss_kernel_args<R> forward{
            .delta = pairs(static_cast<const double*>(delta.data())),
            .A = {poles.values, state},
            .W = p.input<E>("W", 0, 1, 2),
            .scaling = version == "softmax" ? dss_scaling::softmax : scaled ? dss_scaling::exponential : dss_scaling::none,
            .epsilon = p.flag<double>("epsilon", 1e-7),
            .K = p.output<R>("K", 0, 1, 2)};
        p.run(forward);
        if (!p.has("dout")) return;
        // What an automatic differentiation that leaves out the shift returns: for information.
        for (const char* name : {"dref_log_dt", "dref_W", "dref_Lambda"}) p.ignored(name);
        std::vector<complex> dA(poles.values.size());
        const ssmkit::dss_kernel_backward_args<R> backward{.forward = forward,
                                                           .dK = p.input<R>("dout", 0, 1, 2),
                                                           .ddelta = pairs(ddelta.data()),
                                                           .dA = {dA, state},
                                                           .dW = p.output<E>("d_W", 0, 1, 2)};
        p.run(backward);
        poles.store_gradient(p, dA);
        const auto d_log_delta = two_steps ? p.output<double>("d_log_dt", 0, 1) : p.output<double>("d_log_dt", 0, new_axis);
        for (index h = 0; h < d_log_delta.extent(0); ++h) {
            for (index i = 0; i < d_log_delta.extent(1); ++i) {
                d_log_delta(h, i) = forward.delta(h, i) * backward.ddelta(h, i);
            }
        }
    },
    golden::tolerance{.f64 = 1e-10, .f32 = 1e-5});

/// GSS on normalised inputs; the files hold complex parameters as two tensors.
const golden::handler gss_dss(
    "gss_dss",
    []<class T>(golden::element<T>, problem& p) {
        using R = ssmkit::compute_t<T>;
        const auto tokens = p.input<R>("u", 0, 1, 2);
        const mamba::matrix<R> u = golden::tokens_of(tokens);
        const auto re = p.input<double>("Lambda_real", 0), im = p.input<double>("Lambda_imag", 0);
        const bool exponential = p.flag<bool>("lambda_imag_exp", true);
        const mamba::matrix<R> C_re = golden::matrix_of<R>(p, "C_real", 0, 1), C_im = golden::matrix_of<R>(p, "C_imag", 0, 1);
        const index state = re.extent(0), batch = tokens.extent(0);
        layers::gss_weights<R> weights{.A = mamba::row<complex>(state),
                                       .C = mamba::matrix<std::complex<R>>(C_re.rows(), C_re.cols()),
                                       .D = golden::row_of<R>(p, "param_D")};
        for (index n = 0; n < state; ++n) weights.A[n] = {-std::exp(re[n]), exponential ? std::exp(im[n]) : im[n]};
        weights.C.real() = C_re;
        weights.C.imag() = C_im;
        layers::gss_activations<R> kept;
        golden::hand_in(p.output<R>("y", 0, 1, 2), layers::gss_dss(weights, u, batch, p.operations(), kept));
        if (!p.has("dout")) return;
        const mamba::matrix<R> dy = golden::tokens_of(p.input<R>("dout", 0, 1, 2));
        const auto d = layers::gss_dss_backward(weights, u, batch, dy, p.operations(), kept);
        golden::hand_in(p.output<R>("d_u", 0, 1, 2), d.u);
        golden::hand_in<R>(p.output<R>("d_C_real", 0, 1), d.weights.C.real());
        golden::hand_in<R>(p.output<R>("d_C_imag", 0, 1), d.weights.C.imag());
        golden::hand_in(p.output<R>("d_param_D", 0), d.weights.D);
        const auto d_re = p.output<double>("d_Lambda_real", 0), d_im = p.output<double>("d_Lambda_imag", 0);
        for (index n = 0; n < state; ++n) {
            if (d_re.data()) d_re[n] = weights.A[n].real() * d.weights.A[n].real();
            if (d_im.data()) d_im[n] = (exponential ? weights.A[n].imag() : 1.0) * d.weights.A[n].imag();
        }
    },
    golden::tolerance{.f64 = 1e-10, .f32 = 1e-5});

}  // namespace
