// The device's operations for golden_check, and memory that the device can read: whatever operator new returns lies in pinned
// blocks, so that views of host arrays serve as arguments. Slow, and enough to see whether results are right.

#include <array>
#include <bit>
#include <complex>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>

#include <ssmkit/cuda/selective_scan.cuh>

#include "../operations/operations.hpp"

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

namespace {

using namespace ssmkit;

/// Registers operations whose arguments are of these types; each runs to its end before it returns.
template <class... Args, class Run>
void add(Run run)
{
    ((testing::device_operations()[typeid(Args)] = [run](const void* a) {
         run(*static_cast<const Args*>(a));
         cuda::detail::require_success("the device", cudaDeviceSynchronize());
     }),
     ...);
}

const bool registered = [] {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return false;
    add<selective_scan_args<float>, selective_scan_args<bfloat16>, selective_scan_args<float16>,
        selective_scan_args<float, std::complex<float>>, selective_scan_args<bfloat16, std::complex<float>>>(
        [](const auto& a) { cuda::selective_scan(a, nullptr); });
    return true;
}();

}  // namespace
