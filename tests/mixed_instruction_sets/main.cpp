// One program from translation units for three instruction sets: each must compute with its own, whatever the linker makes of
// functions that it finds three times.

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "part.hpp"

namespace {

int failures = 0;

void compare(const char* name, const part_result& baseline, const part_result& other, std::size_t lanes)
{
    float largest = 0, difference = 0;
    for (std::size_t i = 0; i < baseline.scan.size(); ++i) {
        largest = std::max(largest, std::abs(baseline.scan[i]));
        difference = std::max(difference, std::abs(baseline.scan[i] - other.scan[i]));
    }
    const bool right = largest > 0 && difference <= 2e-6f * largest;  // false for NaN
    const bool same_types = baseline.sizes == other.sizes, own_lanes = other.lanes == lanes;
    std::printf("%s: difference %g of %g%s%s%s\n", name, static_cast<double>(difference), static_cast<double>(largest),
                right ? "" : ": WRONG", same_types ? "" : ", A PUBLIC TYPE HAS ANOTHER SIZE",
                own_lanes ? "" : ", NOT ITS OWN INSTRUCTION SET");
    failures += !(right && same_types && own_lanes);
}

}  // namespace

int main()
{
    const part_result baseline = part_x86_64();
    compare("x86-64", baseline, baseline, 4);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        compare("x86-64-v3", baseline, part_x86_64_v3(), 8);
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        compare("x86-64-v4", baseline, part_x86_64_v4(), 16);
    }
    return failures;
}
