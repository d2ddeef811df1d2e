// Memory that the device can read: whatever operator new returns lies in pinned blocks, and while heap_for_device() is set what
// malloc returns too (Eigen's matrices), so that views of host arrays serve as arguments. Slow, and enough to see whether results
// are right.

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include <cuda_runtime.h>

#include "../operations/operations.hpp"

// The C library's own: malloc and free are replaced below.
extern "C" void* __libc_malloc(std::size_t);
extern "C" void* __libc_calloc(std::size_t, std::size_t);
extern "C" void* __libc_realloc(void*, std::size_t);
extern "C" void __libc_free(void*);

namespace {

/// Blocks of powers of two, cut from pinned memory and kept for the next of their size.
class pinned_memory {
public:
    void* take(std::size_t size)
    {
        const std::lock_guard lock(mutex_);
        const int order = std::bit_width(std::max(size + header, std::size_t{64}) - 1);
        block*& free = free_[static_cast<std::size_t>(order)];
        if (free) {
            block* const b = free;
            free = b->next;
            b->order = order;
            return reinterpret_cast<char*>(b) + header;
        }
        const std::size_t need = std::size_t{1} << order;
        if (need > left_) {
            left_ = std::max(need, std::size_t{1} << 28);
            // What the runtime itself allocates meanwhile is its own affair.
            const bool for_device = std::exchange(ssmkit::testing::heap_for_device(), false);
            if (cudaMallocHost(reinterpret_cast<void**>(&at_), left_) != cudaSuccess) {  // no device: tests will be skipped
                at_ = static_cast<char*>(std::aligned_alloc(64, left_));
                if (!at_) throw std::bad_alloc();
            }
            ssmkit::testing::heap_for_device() = for_device;
            if (regions_ == std::size(region_)) throw std::bad_alloc();
            region_[regions_++] = {at_, at_ + left_};
        }
        block* const b = reinterpret_cast<block*>(at_);
        at_ += need;
        left_ -= need;
        b->order = order;
        return reinterpret_cast<char*>(b) + header;
    }

    bool has(const void* p) const
    {
        return std::any_of(region_, region_ + regions_, [&](const region& r) { return p >= r.first && p < r.last; });
    }

    static std::size_t size_of(const void* p)
    {
        return (std::size_t{1} << reinterpret_cast<const block*>(static_cast<const char*>(p) - header)->order) - header;
    }

    void give(void* p)
    {
        if (!p) return;
        const std::lock_guard lock(mutex_);
        block* const b = reinterpret_cast<block*>(static_cast<char*>(p) - header);
        block*& free = free_[static_cast<std::size_t>(b->order)];
        b->next = free;
        free = b;
    }

private:
    static constexpr std::size_t header = 64;
    union block {
        long order;
        block* next;
    };
    std::mutex mutex_;
    std::array<block*, 64> free_{};
    char* at_ = nullptr;
    std::size_t left_ = 0;
    struct region {
        const void *first, *last;
    };
    region region_[1000]{};
    std::atomic<std::size_t> regions_ = 0;
};

pinned_memory& pinned()
{
    alignas(pinned_memory) static char place[sizeof(pinned_memory)];
    static pinned_memory* const memory = ::new (static_cast<void*>(place)) pinned_memory;  // outlives all users
    return *memory;
}

}  // namespace

void* operator new(std::size_t size) { return pinned().take(size); }
void operator delete(void* p) noexcept { pinned().give(p); }
void operator delete(void* p, std::size_t) noexcept { pinned().give(p); }

extern "C" {

void* malloc(std::size_t size) { return ssmkit::testing::heap_for_device() ? pinned().take(size) : __libc_malloc(size); }

void* calloc(std::size_t count, std::size_t size)
{
    if (!ssmkit::testing::heap_for_device()) return __libc_calloc(count, size);
    return std::memset(pinned().take(count * size), 0, count * size);
}

void* realloc(void* p, std::size_t size)
{
    if (!pinned().has(p)) return __libc_realloc(p, size);
    void* const to = malloc(size);
    std::memcpy(to, p, std::min(size, pinned_memory::size_of(p)));
    pinned().give(p);
    return to;
}

void free(void* p) { pinned().has(p) ? pinned().give(p) : __libc_free(p); }

}
