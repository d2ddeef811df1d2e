#pragma once

#include <cstddef>
#include <vector>

/// What a translation unit computed with the instruction set that it was compiled for, and how large it takes the public
/// types to be.
struct part_result {
    std::vector<float> scan;      // y, then the final state
    std::vector<std::size_t> sizes;  // size and alignment by turns
    std::size_t lanes;
};

part_result part_x86_64();
part_result part_x86_64_v3();
part_result part_x86_64_v4();
