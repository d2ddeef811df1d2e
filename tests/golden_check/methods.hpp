#pragma once

#include <map>
#include <string>

#include <ssmkit/discretize.hpp>

#include "golden.hpp"

namespace golden {

/// The method that a flag names.
inline ssmkit::discretization discretization_named(const std::string& name)
{
    using enum ssmkit::discretization;
    static const std::map<std::string, ssmkit::discretization> methods{
        {"zoh", zoh},     {"bilinear", bilinear}, {"forward", forward_euler}, {"backward", backward_euler},
        {"dirac", dirac}, {"async", async}};
    const auto found = methods.find(name);
    if (found == methods.end()) throw unknown("the discretisation " + name + " is unknown");
    return found->second;
}

}  // namespace golden
