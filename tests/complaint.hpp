#pragma once

#include <string>

#include <ssmkit/check.hpp>

namespace ssmkit::testing {

/// What a call complains of; empty if it does not.
template <class F>
std::string complaint_of(F&& call)
{
    try {
        call();
    } catch (const shape_error& e) {
        return e.what();
    }
    return "";
}

}  // namespace ssmkit::testing
