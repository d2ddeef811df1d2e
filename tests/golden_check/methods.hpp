#pragma once

#include <map>
#include <string>

#include <ssmkit/args/s4d_kernel.hpp>
#include <ssmkit/discretize.hpp>
#include <ssmkit/parameters.hpp>

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

/// The same for the kernel of S4D and its relatives.
inline ssmkit::s4d_discretization s4d_discretization_named(const std::string& name)
{
    using enum ssmkit::s4d_discretization;
    static const std::map<std::string, ssmkit::s4d_discretization> methods{{"zoh", zoh}, {"bilinear", bilinear}, {"dss", dss}};
    const auto found = methods.find(name);
    if (found == methods.end()) throw unknown("the discretisation " + name + " is unknown");
    return found->second;
}

inline ssmkit::positive_transform transform_named(const std::string& name)
{
    using enum ssmkit::positive_transform;
    static const std::map<std::string, ssmkit::positive_transform> transforms{
        {"none", none}, {"exp", exp}, {"relu", relu}, {"sigmoid", sigmoid}, {"softplus", softplus}};
    const auto found = transforms.find(name);
    if (found == transforms.end()) throw unknown("the transform " + name + " is unknown");
    return found->second;
}

}  // namespace golden
