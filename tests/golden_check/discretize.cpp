#include <complex>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <ssmkit/discretize.hpp>
#include <ssmkit/discretize_dense.hpp>

#include "golden.hpp"
#include "methods.hpp"

namespace {

using golden::index, golden::problem, golden::view;

/// Λ arrives and its gradient leaves as two real tensors.
template <class T>
void diagonal(problem& p)
{
    using real = ssmkit::compute_t<T>;
    using complex = std::complex<real>;
    const auto re = p.input<real>("Lambda_re", 0), im = p.input<real>("Lambda_im", 0);
    std::vector<complex> A, dA(static_cast<std::size_t>(re.extent(0)));
    for (index n = 0; n < re.extent(0); ++n) A.emplace_back(re[n], im[n]);
    const ssmkit::discretize_args<complex> forward{
        .A = {A, re.extent(0)},
        .B = p.input<complex>("B", 0, 1),
        .delta = p.input<real>("Delta", 0),
        .interval = p.input<real>("delta_k", 0),
        .method = golden::discretization_named(p.flag<std::string>("method")),
        .A_bar = p.output<complex>("Lambda_bar", 0),
        .B_bar = p.output<complex>("B_bar", 0, 1),
    };
    ssmkit::discretize(forward);
    if (!p.has("dout") && !p.has("dout_B_bar")) return;
    ssmkit::discretize_backward(ssmkit::discretize_backward_args<complex>{
        .forward = forward,
        .dA_bar = p.input<complex>("dout", 0),
        .dB_bar = p.input<complex>("dout_B_bar", 0, 1),
        .dA = {dA, re.extent(0)},
        .dB = p.output<complex>("d_B", 0, 1),
        .ddelta = p.output<real>("d_Delta", 0),
        .dinterval = p.output<real>("d_delta_k", 0),
    });
    const auto d_re = p.output<real>("d_Lambda_re", 0), d_im = p.output<real>("d_Lambda_im", 0);
    for (index n = 0; n < d_re.extent(0); ++n) d_re[n] = dA[static_cast<std::size_t>(n)].real();
    for (index n = 0; n < d_im.extent(0); ++n) d_im[n] = dA[static_cast<std::size_t>(n)].imag();
}

const golden::handler discretize_diag("discretize_diag",
                                      []<class T>(golden::element<T>, problem& p) { diagonal<T>(p); });

/// Ad.<method> and Bd.<method> for every step in dt.
const golden::handler discretize_dense("discretize_dense", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    using matrix = ssmkit::dense<real>;
    const matrix A = ssmkit::as_eigen(p.input<real>("A", 0, 1)), B = ssmkit::as_eigen(p.input<real>("B", 0));
    const auto delta = p.input<real>("dt", 0);
    const auto store = [&](const std::string& method, auto discretize) {
        const auto Ad = p.output<real>("Ad." + method, 0, 1, 2);
        const auto Bd = p.output<real>("Bd." + method, 0, 1);
        for (index k = 0; k < delta.extent(0); ++k) {
            const ssmkit::dense_system<real> d = discretize(delta[k]);
            if (!Ad.empty()) ssmkit::as_eigen(Ad[k]) = d.A;
            if (!Bd.empty()) ssmkit::as_eigen(Bd[k]) = d.B;
        }
    };
    for (const nlohmann::json& alpha : p.flag<nlohmann::json>("alphas", nlohmann::json::array())) {
        store("gbt" + alpha.dump(),
              [&](real step) { return ssmkit::generalized_bilinear(A, B, step, static_cast<real>(alpha.get<double>())); });
    }
    store("zoh", [&](real step) { return ssmkit::zero_order_hold(A, B, step); });
});

}  // namespace
