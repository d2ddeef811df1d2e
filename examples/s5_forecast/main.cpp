// Five years of carbon dioxide over Mauna Loa, forecast month by month by an S5 layer that has been fitted to the years before.
//
//     s5_forecast [forecast.svg]
//
// co2.csv holds weekly means in ppm, March 1958 to December 2001: C. D. Keeling and T. P. Whorf, Scripps Institution of
// Oceanography, by way of the U.S. Department of Energy's CDIAC; in the public domain. The copy is that of the Python package
// statsmodels (datasets/co2), unchanged.
//
// The layer sees the changes from month to month, ten years of them, and then nothing but that there is nothing to see: its
// states, oscillators with a year's period and its fractions among them, have to carry on. It is fitted by Adam on every window
// of ten and five years that ends before 1997; the error is that of the levels, sums of changes, so that it does not drift.

#include <array>
#include <cmath>
#include <cstdio>
#include <exception>
#include <vector>

#include "model.hpp"
#include "plot.hpp"
#include "series.hpp"

namespace s5_forecast {
namespace {

constexpr index history = 120, horizon = 60, window = history + horizon, dim = 3, state = 14;

/// Inputs of a window that begins with the change number `first`: the change in units of `scale`, 1, and the level above that of
/// the time before industry, which growth goes with; zeros where nothing is known.
void fill_window(const std::vector<double>& level, index first, double mean, double scale, const view<double, 2>& u)
{
    for (index t = 0; t < window; ++t) {
        const auto i = static_cast<std::size_t>(first + t);
        const bool known = t < history;
        u(t, 0) = known ? (level[i + 1] - level[i] - mean) / scale : 0;
        u(t, 1) = known ? 1 : 0;
        u(t, 2) = known ? (level[i + 1] - 280) / 50 : 0;
    }
}

/// What one would say without a model, from month `start` of the series on: the last value, the same month of the last year, and
/// the same plus the last year's growth.
std::array<std::vector<double>, 3> naive_forecasts(const std::vector<double>& level, std::size_t start)
{
    std::array<std::vector<double>, 3> all;
    const double growth = level[start - 1] - level[start - 13];
    for (std::size_t i = 0; i < static_cast<std::size_t>(horizon); ++i) {
        all[0].push_back(level[start - 1]);
        all[1].push_back(level[start - 12 + i % 12]);
        all[2].push_back(all[1].back() + growth * static_cast<double>(i / 12 + 1));
    }
    return all;
}

double root_mean_square(const std::vector<double>& forecast, const std::vector<double>& truth)
{
    double sum = 0;
    for (std::size_t i = 0; i < truth.size(); ++i) sum += (forecast[i] - truth[i]) * (forecast[i] - truth[i]);
    return std::sqrt(sum / static_cast<double>(truth.size()));
}

int run(int argc, char** argv)
{
    const series co2 = read_monthly(SSMKIT_SOURCE_DIR "/examples/s5_forecast/co2.csv");
    const std::vector<double>& level = co2.values;
    std::vector<double> changes;
    for (std::size_t i = 1; i < level.size(); ++i) changes.push_back(level[i] - level[i - 1]);
    const index known = static_cast<index>(changes.size()) - horizon;  // what comes behind is not looked at until the end
    double mean = 0, square = 0;
    for (index i = 0; i < known; ++i) mean += changes[static_cast<std::size_t>(i)] / static_cast<double>(known);
    for (index i = 0; i < known; ++i)
        square += std::pow(changes[static_cast<std::size_t>(i)] - mean, 2) / static_cast<double>(known);
    const double scale = std::sqrt(square);

    const index batch = known - window + 1;
    std::vector<double> u(static_cast<std::size_t>(batch * window * dim)), y(static_cast<std::size_t>(batch * window)),
        dy(y.size());
    const view<double, 3> inputs(u.data(), batch, window, dim), outputs(y.data(), batch, window, 1),
        upstream(dy.data(), batch, window, 1);
    for (index b = 0; b < batch; ++b) fill_window(level, b, mean, scale, inputs[b]);

    layer model(dim, state);
    adam optimiser(model.parameters.size());
    constexpr int steps = 400;
    double fitted = 0;
    for (int step = 0; step < steps; ++step) {
        model.forward(inputs, outputs);
        double loss = 0;
        for (index b = 0; b < batch; ++b) {
            // Errors of the levels, and what each change has to do with them: those of its own month and of all later ones.
            double error = 0, errors[horizon];
            for (index t = 0; t < horizon; ++t) {
                error += outputs(b, history + t, 0) - (changes[static_cast<std::size_t>(b + history + t)] - mean) / scale;
                errors[t] = error;
                loss += error * error;
            }
            double later = 0;
            for (index t = window - 1; t >= 0; --t) {
                if (t >= history) later += 2 * errors[t - history] / static_cast<double>(batch * horizon);
                upstream(b, t, 0) = t >= history ? later : 0;
            }
        }
        fitted = scale * std::sqrt(loss / static_cast<double>(batch * horizon));
        if (step % 100 == 0 || step + 1 == steps) std::printf("step %3d: levels are off by %.3f ppm\n", step, fitted);
        model.backward(inputs, upstream);
        optimiser.step(model.parameters, model.gradients, 0.01 * (1 + std::cos(std::acos(-1.0) * step / steps)) / 2);
    }

    // The ten years that end with 1996, and the five behind them.
    std::vector<double> last_inputs(static_cast<std::size_t>(window * dim)), last_outputs(static_cast<std::size_t>(window));
    fill_window(level, known - history, mean, scale, {last_inputs.data(), window, dim});
    model.forward({last_inputs, 1, window, dim}, {last_outputs, 1, window, 1});
    const std::size_t start = static_cast<std::size_t>(known) + 1;
    const std::vector<double> truth(level.begin() + static_cast<std::ptrdiff_t>(start), level.end());
    std::vector<double> forecast, when;
    for (std::size_t i = 0; i < static_cast<std::size_t>(horizon); ++i) {
        forecast.push_back((i ? forecast.back() : level[start - 1]) + mean +
                           scale * last_outputs[static_cast<std::size_t>(history) + i]);
        when.push_back(co2.year(start + i));
    }
    const auto naive = naive_forecasts(level, start);
    const double ours = root_mean_square(forecast, truth);
    double before[3] = {};  // the naive ones over the windows that the layer was fitted to
    for (index b = 0; b < batch; ++b) {
        const auto first = level.begin() + static_cast<std::ptrdiff_t>(b + history) + 1;
        const auto each = naive_forecasts(level, static_cast<std::size_t>(b + history) + 1);
        for (std::size_t i = 0; i < 3; ++i)
            before[i] += std::pow(root_mean_square(each[i], {first, first + horizon}), 2) / static_cast<double>(batch);
    }
    std::printf("\nroot mean square error in ppm         1997 to 2001   the years before\n");
    std::printf("S5                                          %6.2f      %6.2f, fitted\n", ours, fitted);
    const char* const names[] = {"last value", "same month of the last year", "the same plus the last year's growth"};
    for (std::size_t i = 0; i < 3; ++i)
        std::printf("%-38s      %6.2f      %6.2f\n", names[i], root_mean_square(naive[i], truth), std::sqrt(before[i]));

    if (argc > 1) {
        curve past{"measured", "#333", {}, {}};
        for (std::size_t i = start - 48; i < level.size(); ++i) past.x.push_back(co2.year(i)), past.y.push_back(level[i]);
        plot(argv[1], "Carbon dioxide over Mauna Loa, ppm: measured, and forecast from the end of 1996",
             {past, {"same month of 1996", "#7aa6c2", when, naive[1]}, {"S5", "#d1495b", when, forecast}});
        std::printf("\nThe picture is in %s.\n", argv[1]);
    }
    return ours < root_mean_square(naive[0], truth) && ours < root_mean_square(naive[1], truth) ? 0 : 1;
}

}  // namespace
}  // namespace s5_forecast

int main(int argc, char** argv)
{
    try {
        return s5_forecast::run(argc, argv);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "s5_forecast: %s\n", e.what());
        return 2;
    }
}
