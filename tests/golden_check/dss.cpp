#include <algorithm>
#include <complex>
#include <cstddef>
#include <string>
#include <vector>

#include <ssmkit/args/dss_kernel.hpp>
#include <ssmkit/args/dss_kernel_backward.hpp>
#include <ssmkit/args/s4d_kernel.hpp>
#include <ssmkit/args/s4d_kernel_backward.hpp>

#include "golden.hpp"

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

/// GSS's layer on normalised inputs: the zero-order hold with Δ = 1, whose poles all channels share, and a causal convolution.
const golden::handler gss_dss(
    "gss_dss",
    []<class T>(golden::element<T>, problem& p) {
        using R = ssmkit::compute_t<T>;
        using E = std::complex<R>;
        const auto u = p.input<R>("u", 0, 1, 2);
        const auto re = p.input<double>("Lambda_real", 0), im = p.input<double>("Lambda_imag", 0);
        const auto C_re = p.input<R>("C_real", 0, 1), C_im = p.input<R>("C_imag", 0, 1);
        const auto D = p.input<R>("param_D", 0);
        const auto y = p.output<R>("y", 0, 1, 2);
        const bool exponential = p.flag<bool>("lambda_imag_exp", true);
        const index batch = u.extent(0), length = u.extent(1), dim = u.extent(2), state = re.extent(0);

        const double one = 1;
        std::vector<complex> A, dA(static_cast<std::size_t>(state));
        std::vector<E> B(static_cast<std::size_t>(state), E(1)), C, dC(static_cast<std::size_t>(dim * state));
        for (index n = 0; n < state; ++n) A.emplace_back(-std::exp(re[n]), exponential ? std::exp(im[n]) : im[n]);
        for (index h = 0; h < dim; ++h) {
            for (index n = 0; n < state; ++n) C.emplace_back(C_re(h, n), C_im(h, n));
        }
        std::vector<R> K(static_cast<std::size_t>(dim * length)), dK(K.size());
        const ssmkit::s4d_kernel_args<R> forward{.delta = {&one, {dim, state}, {0, 0}},
                                                 .A = {A, 1, state},
                                                 .B = {B, 1, state},
                                                 .C = {C, 1, dim, state},
                                                 .conjugate_pairs = false,
                                                 .K = {K, 1, dim, length}};
        p.run(forward);
        const auto at = [&](index h, index l) { return static_cast<std::size_t>(h * length + l); };
        for (index b = 0; b < batch; ++b) {
            for (index h = 0; h < dim; ++h) {
                for (index t = 0; t < length; ++t) {
                    R sum = D[h] * u(b, t, h);
                    for (index l = 0; l <= t; ++l) sum += K[at(h, l)] * u(b, t - l, h);
                    y(b, t, h) = sum;
                }
            }
        }
        if (!p.has("dout")) return;

        const auto dy = p.input<R>("dout", 0, 1, 2);
        const auto du = p.output<R>("d_u", 0, 1, 2);
        const auto dD = p.output<R>("d_param_D", 0);
        for (index h = 0; h < dim; ++h) {
            dD[h] = 0;
            for (index b = 0; b < batch; ++b) {
                for (index t = 0; t < length; ++t) {
                    dD[h] += dy(b, t, h) * u(b, t, h);
                    R sum = D[h] * dy(b, t, h);
                    for (index l = 0; t + l < length; ++l) sum += K[at(h, l)] * dy(b, t + l, h);
                    du(b, t, h) = sum;
                    for (index l = 0; l <= t; ++l) dK[at(h, l)] += dy(b, t, h) * u(b, t - l, h);
                }
            }
        }
        const ssmkit::s4d_kernel_backward_args<R> backward{
            .forward = forward, .dK = {dK, 1, dim, length}, .dA = {dA, 1, state}, .dC = {dC, 1, dim, state}};
        p.run(backward);
        const auto d_re = p.output<double>("d_Lambda_real", 0), d_im = p.output<double>("d_Lambda_imag", 0);
        const auto dC_re = p.output<R>("d_C_real", 0, 1), dC_im = p.output<R>("d_C_imag", 0, 1);
        for (std::size_t i = 0; i < A.size(); ++i) {
            d_re[static_cast<index>(i)] = A[i].real() * dA[i].real();
            d_im[static_cast<index>(i)] = (exponential ? A[i].imag() : 1.0) * dA[i].imag();
        }
        for (index h = 0; h < dim; ++h) {
            for (index n = 0; n < state; ++n) {
                dC_re(h, n) = dC[static_cast<std::size_t>(h * state + n)].real();
                dC_im(h, n) = dC[static_cast<std::size_t>(h * state + n)].imag();
            }
        }
    },
    golden::tolerance{.f64 = 1e-10, .f32 = 1e-5});

}  // namespace
