#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>

#include <ssmkit/check.hpp>

namespace ssmkit {

/// Scratch memory that the caller lends to a call: at least `<op>_workspace_size(args, concurrency)` bytes, of any
/// alignment, with any content. A call that is lent none allocates and frees its own.
using workspace = std::span<std::byte>;

namespace detail {

/// Cuts a workspace into arrays aligned for the widest vector. Constructed without memory it only adds up sizes, so that
/// <op>_workspace_size and the operation share one description of what is needed.
class arena {
public:
    static constexpr std::size_t alignment = 64;

    arena() = default;

    explicit arena(workspace memory)
    {
        const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
        base_ = memory.data() + (alignment - address % alignment) % alignment;
    }

    template <class T>
    T* take(std::size_t count)
    {
        T* const block = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
        used_ += (count * sizeof(T) + alignment - 1) / alignment * alignment;
        return block;
    }

    /// Bytes taken so far, a multiple of the alignment.
    std::size_t taken() const { return used_; }

    /// Bytes needed for all that was taken, wherever the memory starts.
    std::size_t size() const { return used_ == 0 ? 0 : used_ + alignment; }

private:
    std::byte* base_ = nullptr;
    std::size_t used_ = 0;
};

/// The caller's workspace, checked, or memory of our own when the caller lent none.
class scratch {
public:
    scratch(const char* op, workspace lent, std::size_t need) : memory_(lent)
    {
        if (need == 0) return;
        if (lent.empty()) {
            own_.reset(new std::byte[need]);
            memory_ = {own_.get(), need};
        } else if (lent.size() < need) [[unlikely]] {
            fail(std::string(op) + ": workspace has " + std::to_string(lent.size()) + " bytes, expected " +
                 std::to_string(need));
        }
    }

    workspace memory() const { return memory_; }

private:
    std::unique_ptr<std::byte[]> own_;
    workspace memory_;
};

}  // namespace detail
}  // namespace ssmkit
