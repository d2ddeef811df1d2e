#include "allocations.hpp"

#include <cstddef>
#include <cstdlib>
#include <new>

std::atomic<long> s4d_filter::allocations{0};

void* operator new(std::size_t size)
{
    ++s4d_filter::allocations;
    if (void* const p = std::malloc(size ? size : 1)) return p;
    throw std::bad_alloc();
}

void* operator new(std::size_t size, std::align_val_t alignment)
{
    ++s4d_filter::allocations;
    const auto a = static_cast<std::size_t>(alignment);
    if (void* const p = std::aligned_alloc(a, (size + a - 1) / a * a)) return p;
    throw std::bad_alloc();
}

void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
