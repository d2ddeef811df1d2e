#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <iomanip>
#include <stdexcept>
#include <string>
#include <vector>

namespace s5_forecast {

struct curve {
    std::string name, colour;
    std::vector<double> x, y;
};

/// Writes curves as an SVG picture with axes and a legend.
inline void plot(const std::string& path, const std::string& title, const std::vector<curve>& curves)
{
    constexpr double width = 900, height = 420, left = 60, right = 20, top = 40, bottom = 40;
    double x0 = 1e300, x1 = -1e300, y0 = 1e300, y1 = -1e300;
    for (const curve& c : curves) {
        for (const double x : c.x) x0 = std::min(x0, x), x1 = std::max(x1, x);
        for (const double y : c.y) y0 = std::min(y0, y), y1 = std::max(y1, y);
    }
    const auto across = [&](double x) { return left + (x - x0) / (x1 - x0) * (width - left - right); };
    const auto down = [&](double y) { return height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom); };

    std::ofstream svg(path);
    if (!svg) throw std::runtime_error(path + ": cannot be written");
    svg << std::fixed << std::setprecision(1) << "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 " << width << ' ' << height
        << "' font-family='sans-serif' font-size='13'>\n<rect width='100%' height='100%' fill='white'/>\n<text x='" << left
        << "' y='24' font-size='16'>" << title << "</text>\n";
    const auto line = [&](double xa, double ya, double xb, double yb) {
        svg << "<line x1='" << xa << "' y1='" << ya << "' x2='" << xb << "' y2='" << yb << "' stroke='#ddd'/>\n";
    };
    const auto text = [&](double x, double y, const char* anchor, const std::string& what) {
        svg << "<text x='" << x << "' y='" << y << "' text-anchor='" << anchor << "'>" << what << "</text>\n";
    };
    for (double x = std::ceil(x0); x <= x1; ++x) {
        line(across(x), top, across(x), height - bottom);
        text(across(x), height - bottom + 18, "middle", std::to_string(static_cast<int>(x)));
    }
    const double step = y1 - y0 > 8 ? 5 : 1;
    for (double y = std::ceil(y0 / step) * step; y <= y1; y += step) {
        line(left, down(y), width - right, down(y));
        text(left - 6, down(y) + 4, "end", std::to_string(static_cast<int>(y)));
    }
    double legend = top + 8;
    for (const curve& c : curves) {
        svg << "<polyline fill='none' stroke='" << c.colour << "' stroke-width='2' points='";
        for (std::size_t i = 0; i < c.x.size(); ++i) svg << across(c.x[i]) << ',' << down(c.y[i]) << ' ';
        svg << "'/>\n<rect x='" << left + 12 << "' y='" << legend - 4 << "' width='24' height='3' fill='" << c.colour << "'/>\n";
        text(left + 42, legend + 3, "start", c.name);
        legend += 18;
    }
    svg << "</svg>\n";
    if (!svg.flush()) throw std::runtime_error(path + ": cannot be written");
}

}  // namespace s5_forecast
