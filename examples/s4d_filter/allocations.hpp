#pragma once

#include <atomic>

namespace s4d_filter {

/// How often the program has called operator new, which allocations.cpp replaces to count it: an audio thread must not.
extern std::atomic<long> allocations;

}  // namespace s4d_filter
