#pragma once

// Counts what the program takes from the heap, whichever way: operator new, malloc and their aligned siblings. All are
// replaced here, weakly, so that several test files of one program may include this.

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if defined(__has_feature)
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer) && !__has_feature(memory_sanitizer)
#define SSMKIT_TEST_COUNTS_MALLOC 1
#endif
#else
#define SSMKIT_TEST_COUNTS_MALLOC 1
#endif
#endif

namespace ssmkit::testing {

inline std::atomic<std::size_t> allocation_count{0};

/// How many blocks f() takes from the heap.
template <class F>
std::size_t allocations_during(F&& f)
{
    const std::size_t before = allocation_count.load();
    f();
    return allocation_count.load() - before;
}

inline void* counted_allocation(std::size_t size, std::size_t alignment)
{
    ++allocation_count;
    void* p = nullptr;
    if (posix_memalign(&p, alignment, size ? size : 1) != 0) throw std::bad_alloc();
    return p;
}

}  // namespace ssmkit::testing

[[gnu::weak]] void* operator new(std::size_t size)
{
    return ssmkit::testing::counted_allocation(size, alignof(std::max_align_t));
}

[[gnu::weak]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept
{
    return ssmkit::testing::counted_allocation(size, alignof(std::max_align_t));
}

[[gnu::weak]] void* operator new(std::size_t size, std::align_val_t alignment)
{
    return ssmkit::testing::counted_allocation(size, static_cast<std::size_t>(alignment));
}

[[gnu::weak]] void operator delete(void* p) noexcept
{
    std::free(p);
}

[[gnu::weak]] void operator delete(void* p, std::size_t) noexcept
{
    std::free(p);
}

[[gnu::weak]] void operator delete(void* p, std::align_val_t) noexcept
{
    std::free(p);
}

[[gnu::weak]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept
{
    std::free(p);
}

#ifdef SSMKIT_TEST_COUNTS_MALLOC
#undef SSMKIT_TEST_COUNTS_MALLOC
extern "C" void* __libc_malloc(std::size_t size);

extern "C" [[gnu::weak]] void* malloc(std::size_t size)
{
    ++ssmkit::testing::allocation_count;
    return __libc_malloc(size);
}
#endif
