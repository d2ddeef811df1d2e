#pragma once

// What the tests of all operations share: tensors with random content in any memory layout, in memory whose neighbourhood is
// watched, and the error measure.

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit::testing {

/// A small generator with the same numbers on every platform (splitmix64).
class random {
public:
    explicit random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}

    std::uint64_t bits()
    {
        std::uint64_t x = state_ += 0x9e3779b97f4a7c15u;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        return x ^ (x >> 31);
    }

    double uniform(double low, double high) { return low + (high - low) * static_cast<double>(bits() >> 11) * 0x1p-53; }

    index below(index n) { return static_cast<index>(bits() % static_cast<std::uint64_t>(n)); }

private:
    std::uint64_t state_;
};

/// How a tensor lies in memory.
enum class layout {
    row_major,        ///< the last axis contiguous
    time_contiguous,  ///< axis 1 contiguous, the others in their order
    column_major,     ///< the first axis contiguous
    strided,          ///< gaps along every axis, the last one included
    negative,         ///< every axis from its end to its beginning
    unaligned,        ///< row-major, one element behind an aligned address
};

inline constexpr layout all_layouts[] = {layout::row_major, layout::time_contiguous, layout::column_major,
                                         layout::strided,   layout::negative,        layout::unaligned};

/// Where a tensor's memory meets pages that must not be touched: a read or a write one element beyond that edge is a fault.
enum class guard { none, below, above };

/// Numbers in [low, high], in both parts of a complex one the same; the imaginary part can have bounds of its own.
struct range {
    double low, high;
    double imaginary_low = low, imaginary_high = high;
};

template <class T>
T quiet_nan()
{
    if constexpr (detail::is_complex<T>) {
        return T(quiet_nan<typename T::value_type>(), quiet_nan<typename T::value_type>());
    } else if constexpr (std::is_integral_v<T>) {
        return static_cast<T>(~T(0));
    } else {
        return static_cast<T>(std::numeric_limits<float>::quiet_NaN());
    }
}

/// T as its 64-bit cousin: what the oracle computes in.
template <class T>
struct wide_type {
    using type = std::conditional_t<std::is_integral_v<T>, T, double>;
};
template <class T>
struct wide_type<std::complex<T>> {
    using type = std::complex<double>;
};
template <class T>
using wide_t = typename wide_type<T>::type;

template <class To, class From>
To convert(const From& x)
{
    if constexpr (detail::is_complex<From>) {
        return To(static_cast<typename To::value_type>(x.real()), static_cast<typename To::value_type>(x.imag()));
    } else if constexpr (detail::is_complex<To>) {
        return To(convert<typename To::value_type>(x));
    } else if constexpr (std::is_same_v<To, bfloat16> || std::is_same_v<To, float16>) {
        return static_cast<To>(static_cast<float>(x));
    } else if constexpr (std::is_same_v<From, bfloat16> || std::is_same_v<From, float16>) {
        return static_cast<To>(static_cast<float>(x));
    } else {
        return static_cast<To>(x);
    }
}

/// Calls f(i, j, ...) for all indices of a view.
template <class T, std::size_t Rank, class F, class... Indices>
void for_each_index(const view<T, Rank>& v, F&& f, Indices... indices)
{
    if constexpr (sizeof...(Indices) == Rank) {
        f(indices...);
    } else {
        for (index i = 0; i < v.extent(sizeof...(Indices)); ++i) for_each_index(v, f, indices..., i);
    }
}

/// Owns `count` elements of raw memory, between two pages without access if guarded.
class raw_memory {
public:
    raw_memory() = default;

    raw_memory(std::size_t bytes, guard where)
    {
        if (where == guard::none) {
            heap_.reset(new std::byte[bytes + 64]);
            const auto address = reinterpret_cast<std::uintptr_t>(heap_.get());
            first_ = heap_.get() + (64 - address % 64) % 64;
            return;
        }
        const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        const std::size_t body = (bytes + page - 1) / page * page;
        mapped_ = body + 2 * page;
        void* const p = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) throw std::runtime_error("mmap refused");
        base_ = static_cast<std::byte*>(p);
        if (body > 0 && mprotect(base_ + page, body, PROT_READ | PROT_WRITE) != 0) {
            throw std::runtime_error("mprotect refused");
        }
        first_ = where == guard::below ? base_ + page : base_ + page + body - bytes;
    }

    raw_memory(raw_memory&& other) noexcept { swap(other); }
    raw_memory& operator=(raw_memory&& other) noexcept
    {
        swap(other);
        return *this;
    }
    ~raw_memory()
    {
        if (base_) munmap(base_, mapped_);
    }

    std::byte* data() const { return first_; }

private:
    void swap(raw_memory& other)
    {
        std::swap(heap_, other.heap_);
        std::swap(base_, other.base_);
        std::swap(mapped_, other.mapped_);
        std::swap(first_, other.first_);
    }

    std::unique_ptr<std::byte[]> heap_;
    std::byte* base_ = nullptr;
    std::size_t mapped_ = 0;
    std::byte* first_ = nullptr;
};

/// A tensor that owns its memory. Elements and the gaps between them start as NaN (as -1 for integers).
template <class T, std::size_t Rank>
class tensor {
public:
    tensor() = default;

    tensor(const std::array<index, Rank>& extents, layout form = layout::row_major, guard where = guard::none)
    {
        std::array<std::size_t, Rank> order{};  // of the axes, from the outermost in memory to the innermost
        for (std::size_t i = 0; i < Rank; ++i) order[i] = form == layout::column_major ? Rank - 1 - i : i;
        if (form == layout::time_contiguous && Rank > 2) std::rotate(order.begin() + 1, order.begin() + 2, order.end());
        std::array<index, Rank> strides{};
        index stride = form == layout::strided ? 2 : 1, offset = form == layout::unaligned ? 1 : 0;
        count_ = static_cast<std::size_t>(offset) + 1;
        for (std::size_t i = Rank; i-- > 0;) {
            const std::size_t axis = order[i];
            strides[axis] = stride;
            if (extents[axis] > 0) {
                count_ += static_cast<std::size_t>((extents[axis] - 1) * stride);
                if (form == layout::negative) {
                    offset += (extents[axis] - 1) * stride;
                    strides[axis] = -stride;
                }
            }
            stride *= std::max<index>(extents[axis], 1);
            if (form == layout::strided) stride += 3;
        }
        if (std::find(extents.begin(), extents.end(), 0) != extents.end()) count_ = 0;
        memory_ = raw_memory(count_ * sizeof(T), where);
        first_ = reinterpret_cast<T*>(memory_.data());
        std::uninitialized_fill_n(first_, count_, quiet_nan<T>());
        view_ = {count_ ? first_ + offset : first_, extents, strides};
    }

    const ssmkit::view<T, Rank>& view() const { return view_; }
    operator ssmkit::view<T, Rank>() const { return view_; }
    operator ssmkit::view<const T, Rank>() const { return view_; }

    template <class... Indices>
    T& operator()(Indices... indices) const
    {
        return view_(indices...);
    }

    index extent(std::size_t axis) const { return view_.extent(axis); }
    bool given() const { return view_.data() != nullptr; }

    /// Every element set to f(i, j, ...).
    template <class F>
    tensor& fill(F&& f)
    {
        for_each_index(view_, [&](auto... i) { view_(i...) = f(i...); });
        return *this;
    }

    tensor& fill(random& numbers, const range& r)
    {
        return fill([&](auto...) {
            const double x = numbers.uniform(r.low, r.high);
            if constexpr (detail::is_complex<T>) {
                return convert<T>(std::complex<double>(x, numbers.uniform(r.imaginary_low, r.imaginary_high)));
            } else {
                return convert<T>(x);
            }
        });
    }

    /// The same numbers in another type and layout.
    template <class U>
    tensor<U, Rank> as(layout form = layout::row_major, guard where = guard::none) const
    {
        if (!given()) return {};
        tensor<U, Rank> other(view_.extents(), form, where);
        other.fill([&](auto... i) { return convert<U>(view_(i...)); });
        return other;
    }

    /// All bytes, those of the gaps included.
    std::vector<std::byte> bytes() const
    {
        std::vector<std::byte> copy(count_ * sizeof(T));
        if (count_) std::memcpy(copy.data(), first_, copy.size());
        return copy;
    }

    /// True while nothing was written between the elements.
    bool gaps_untouched() const
    {
        std::vector<bool> element(count_, false);
        for_each_index(view_, [&](auto... i) { element[static_cast<std::size_t>(view_.pointer(i...) - first_)] = true; });
        const T nan = quiet_nan<T>();
        for (std::size_t i = 0; i < count_; ++i) {
            if (!element[i] && std::memcmp(first_ + i, &nan, sizeof(T)) != 0) return false;
        }
        return true;
    }

private:
    raw_memory memory_;
    T* first_ = nullptr;
    std::size_t count_ = 0;
    ssmkit::view<T, Rank> view_;
};

template <class T>
bool is_nan(const T& x)
{
    if constexpr (detail::is_complex<T>) {
        return std::isnan(x.real()) || std::isnan(x.imag());
    } else {
        return std::isnan(convert<double>(x));
    }
}

/// max|x - expected| / max|expected|, the error measure of the golden data. Infinite if one of the two is NaN and the other
/// is not, or if they differ while all that is expected is zero; elements that are equal, infinities among them, do not count.
template <class T, class U, std::size_t Rank>
double relative_error(const view<T, Rank>& x, const view<U, Rank>& expected)
{
    constexpr double infinity = std::numeric_limits<double>::infinity();
    if (x.extents() != expected.extents()) return infinity;
    using wide = wide_t<std::remove_const_t<U>>;
    double difference = 0, largest = 0;
    for_each_index(x, [&](auto... i) {
        const wide a = convert<wide>(x(i...)), b = convert<wide>(expected(i...));
        if (is_nan(a) || is_nan(b)) {
            if (is_nan(a) != is_nan(b)) difference = infinity;
            return;
        }
        if (a != b) difference = std::max(difference, static_cast<double>(std::abs(a - b)));
        if (std::isfinite(std::abs(b))) largest = std::max(largest, static_cast<double>(std::abs(b)));
    });
    if (difference == 0) return 0;
    return largest > 0 ? difference / largest : infinity;
}

template <class T, class U, std::size_t Rank>
double relative_error(const tensor<T, Rank>& x, const tensor<U, Rank>& expected)
{
    if (x.given() != expected.given()) return std::numeric_limits<double>::infinity();
    return x.given() ? relative_error(x.view(), expected.view()) : 0;
}

/// The worst error of anything in units of its budget, and what that was: at most 1 is wanted.
struct worst_error {
    double error = 0;
    const char* name = "none";

    void add(const char* which, double of_budget)
    {
        if (!(of_budget <= error)) *this = {of_budget, which};
    }
};

/// The same bits in every element.
template <class T, class U, std::size_t Rank>
bool same_bits(const view<T, Rank>& a, const view<U, Rank>& b)
{
    static_assert(std::is_same_v<std::remove_const_t<T>, std::remove_const_t<U>>);
    if (a.extents() != b.extents()) return false;
    bool same = true;
    for_each_index(a, [&](auto... i) { same &= std::memcmp(a.pointer(i...), b.pointer(i...), sizeof(T)) == 0; });
    return same;
}

template <class T, std::size_t Rank>
bool same_bits(const tensor<T, Rank>& a, const tensor<T, Rank>& b)
{
    return same_bits(a.view(), b.view());
}

/// NaN at exactly the same indices.
template <class T, class U, std::size_t Rank>
bool same_nans(const tensor<T, Rank>& a, const tensor<U, Rank>& b)
{
    bool same = a.view().extents() == b.view().extents();
    if (same) for_each_index(a.view(), [&](auto... i) { same &= is_nan(a(i...)) == is_nan(b(i...)); });
    return same;
}

/// An execution resource as a user might bring one.
struct last_task_first {
    static constexpr std::size_t concurrency() { return 4; }

    template <class F>
    void operator()(std::size_t tasks, F&& f) const
    {
        while (tasks-- > 0) f(tasks);
    }
};

/// The worst error that one rounding to T leaves, relative to the number.
template <class T>
inline constexpr double rounding = std::is_same_v<T, double>     ? 0x1p-53
                                   : std::is_same_v<T, bfloat16> ? 0x1p-8
                                   : std::is_same_v<T, float16>  ? 0x1p-11
                                                                 : 0x1p-24;

}  // namespace ssmkit::testing
