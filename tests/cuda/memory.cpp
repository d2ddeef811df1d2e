// Memory that the device can read: whatever operator new returns lies in pinned blocks, so that views of host arrays serve as
// arguments. Slow, and enough to see whether results are right.

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <new>

#include <cuda_runtime.h>

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
            if (cudaMallocHost(reinterpret_cast<void**>(&at_), left_) != cudaSuccess) {  // no device: tests will be skipped
                at_ = static_cast<char*>(std::aligned_alloc(64, left_));
                if (!at_) throw std::bad_alloc();
            }
        }
        block* const b = reinterpret_cast<block*>(at_);
        at_ += need;
        left_ -= need;
        b->order = order;
        return reinterpret_cast<char*>(b) + header;
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
