#include <map>
#include <numbers>
#include <string>
#include <vector>

#include <ssmkit/parameters.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::problem, golden::view;
using ssmkit::positive_transform;

const std::map<std::string, positive_transform> transforms{{"none", positive_transform::none},
                                                           {"exp", positive_transform::exp},
                                                           {"relu", positive_transform::relu},
                                                           {"sigmoid", positive_transform::sigmoid},
                                                           {"softplus", positive_transform::softplus}};

template <class T>
std::vector<double> numbers(const view<const T, 1>& v)
{
    std::vector<double> values;
    for (index i = 0; i < v.extent(0); ++i) values.push_back(static_cast<double>(v[i]));
    return values;
}

template <class T>
void store(const view<T, 1>& v, const std::vector<double>& values)
{
    for (index i = 0; i < v.extent(0); ++i) v[i] = static_cast<T>(values.at(static_cast<std::size_t>(i)));
}

const golden::handler param_transforms("param_transforms", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    const auto x = p.input<real>("x", 0), y = p.input<real>("y", 0);
    for (const auto& [name, transform] : transforms) {
        const auto inverse = p.output<real>("inv." + name, 0), forward = p.output<real>("fwd." + name, 0),
                   derivative = p.output<real>("dfwd." + name, 0);
        for (index i = 0; i < inverse.extent(0); ++i) inverse[i] = ssmkit::from_positive(transform, x[i]);
        for (index i = 0; i < forward.extent(0); ++i) forward[i] = ssmkit::to_positive(transform, y[i]);
        for (index i = 0; i < derivative.extent(0); ++i) derivative[i] = ssmkit::to_positive_derivative(transform, y[i]);
    }
});

/// u and what is stored are (H, 1), or (H, M) where every state has a step of its own.
const golden::handler dt_init("dt_init", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    const ssmkit::delta_range range{p.flag<double>("dt_min", 1e-3), p.flag<double>("dt_max", 1e-1)};
    const auto u = p.input<real>("u", 0, 1);
    for (const auto& [name, transform] : transforms) {
        const auto stored = p.output<real>("inv_dt." + name, 0, 1);
        for (index h = 0; h < stored.extent(0); ++h) {
            for (index n = 0; n < stored.extent(1); ++n) {
                stored(h, n) = static_cast<real>(ssmkit::delta_init(static_cast<double>(u(h, n)), transform, range));
            }
        }
    }
    const auto even = p.output<real>("inv_dt.deterministic", 0, 1);
    const std::vector<double> values = ssmkit::delta_init_deterministic(even.extent(0), range);
    for (index n = 0; n < even.extent(1); ++n) store(view<real, 1>(even.slice(1, n, 1).data(), {even.extent(0)}, {even.stride(0)}), values);
});

const golden::handler lru_init("lru_init", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    const ssmkit::lru_parameters start =
        ssmkit::lru_init(numbers(p.input<real>("u_nu", 0)), numbers(p.input<real>("u_theta", 0)), p.flag<double>("r_min", 0.0),
                         p.flag<double>("r_max", 1.0), p.flag<double>("max_phase", 2 * std::numbers::pi));
    store(p.output<real>("nu_log", 0), start.nu_log);
    store(p.output<real>("theta_log", 0), start.theta_log);
    store(p.output<real>("gamma_log", 0), start.gamma_log);
});

}  // namespace
