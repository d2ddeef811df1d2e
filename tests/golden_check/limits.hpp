#pragma once

#include <limits>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>

namespace golden {

/// The pair of limits of a step, dt_limit; an infinite one is a string.
inline std::pair<double, double> limits(const nlohmann::json& stored)
{
    if (!stored.is_array() || stored.size() != 2) throw std::runtime_error("dt_limit is not a pair");
    const auto number = [](const nlohmann::json& limit) {
        if (!limit.is_string()) return limit.get<double>();
        if (limit == "inf") return std::numeric_limits<double>::infinity();
        if (limit == "-inf") return -std::numeric_limits<double>::infinity();
        throw std::runtime_error("dt_limit holds a word that is no number");
    };
    return {number(stored[0]), number(stored[1])};
}

}  // namespace golden
