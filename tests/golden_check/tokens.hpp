#pragma once

#include <string>

#include "golden.hpp"

namespace golden {

/// An input over tokens, (batch, length, dim) or (tokens, dim) in the file.
template <class T>
view<const T, 3> tokens_of(problem& p, const std::string& name)
{
    if (!p.has(name)) return {};
    return p.shape(name).size() == 2 ? p.input<T>(name, new_axis, 0, 1) : p.input<T>(name, 0, 1, 2);
}

/// Memory for an output over tokens.
template <class T>
view<T, 3> tokens_for(problem& p, const std::string& name)
{
    if (!p.has(name)) return {};
    return p.shape(name).size() == 2 ? p.output<T>(name, new_axis, 0, 1) : p.output<T>(name, 0, 1, 2);
}

}  // namespace golden
