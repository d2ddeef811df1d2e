#pragma once

#include <cmath>

namespace mamba {

/// The step size that ssd makes of r = delta + delta_bias: softplus, then the limits; a NaN stays one. For decoding, where
/// selective_state_update knows no limits, so that steps give what the whole sequence gives. (The authors' step drops them.)
template <class R>
R limited_step(R r, R least, R most)
{
    const R step = r > 20 ? r : std::log1p(std::exp(r));
    return step < least ? least : step > most ? most : step;
}

}  // namespace mamba
