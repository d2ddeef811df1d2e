#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace bench {

/// How an operation meets memory: it only reads; reads here and writes there; reads and writes in place.
enum class traffic { read, copy, update };

/// The most that some cores of this machine do, measured in this process by code of our own with the instruction set
/// that the kernels are built for: the best of many samples, each a millisecond or longer.
struct ceilings {
    struct arithmetic {
        double fma;  ///< fused multiply-adds per second, counted by elements
        double exp;  ///< detail::fast_exp2 per second, by elements, in L1
    };
    struct memory {
        double capacity;                  ///< bytes that this level holds
        std::array<double, 3> bandwidth;  ///< bytes per second by traffic; a copy and an update count both directions
    };

    arithmetic f32, f64;
    std::array<memory, 4> levels;  ///< L1, L2, L3, DRAM

    /// Bytes per second for data of `working_set` bytes that is used again and again.
    double bandwidth(traffic kind, double working_set) const;
};

/// The ceilings of that many cores together; measured at the first call.
const ceilings& machine(std::size_t threads);

/// One ceiling as a row of its own: `ceiling/fma`, `ceiling/l2_copy`, ... with "/threads:n" behind it for n > 1 cores.
struct ceiling_row {
    std::string name;
    const char* counter;                             ///< elements_per_second or bytes_per_second
    double ceiling;                                  ///< as measured at start-up
    std::function<std::function<void()>()> prepare;  ///< makes the code that was timed
};
std::vector<ceiling_row> ceiling_rows(std::size_t threads);

/// Seconds that a fixed burst of multiply-adds takes, about 40 us. It brings the core up to speed before a sample, and
/// it takes longer than usual when somebody else uses the core.
double burst();

}  // namespace bench
