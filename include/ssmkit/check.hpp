#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <stdexcept>
#include <string>
#include <string_view>

namespace ssmkit {

template <class T, std::size_t Rank>
class view;

/// An argument that does not fit: the message names the operation, the argument, what it got and what was expected.
class shape_error : public std::invalid_argument {
public:
    using std::invalid_argument::invalid_argument;
};

/// What is told of a mistake where exceptions are off (-fno-exceptions). The handler must not return to the caller; if it
/// does, the program is aborted.
using error_handler = void (*)(const char* message);

namespace detail {

/// Where the elements of views lie: values can be checked on the host only.
enum class memory { host, device };

inline void print_and_abort(const char* message)
{
    std::fprintf(stderr, "%s\n", message);
    std::abort();
}

inline error_handler& current_error_handler()
{
    static error_handler handler = print_and_abort;
    return handler;
}

[[noreturn, gnu::cold, gnu::noinline]] inline void fail(const std::string& message)
{
#if defined(__cpp_exceptions)
    throw shape_error(message);
#else
    current_error_handler()(message.c_str());
    std::abort();
#endif
}

}  // namespace detail

/// Replaces the handler used where exceptions are off and returns the one that was in place. Not thread-safe: set it once.
inline error_handler set_error_handler(error_handler handler)
{
    error_handler& current = detail::current_error_handler();
    const error_handler before = current;
    current = handler;
    return before;
}

namespace detail {

[[gnu::cold, gnu::noinline]] inline std::string shape_text(const std::int64_t* extents, std::size_t rank)
{
    std::string text = "(";
    for (std::size_t axis = 0; axis < rank; ++axis) {
        if (axis) text += ", ";
        text += std::to_string(extents[axis]);
    }
    return text + ")";
}

inline void require_elements(std::int64_t have, std::int64_t need)
{
    if (have < need) [[unlikely]] {
        fail("view: the memory holds " + std::to_string(have) + " elements, the extents ask for " + std::to_string(need));
    }
}

/// An axis by name, with the extent it must have; `any` accepts what is there.
struct axis {
    static constexpr std::int64_t any = -1;
    const char* name;
    std::int64_t extent = any;
};

[[noreturn, gnu::cold, gnu::noinline]] inline void fail_shape(const char* op, const char* argument,
                                                              const std::int64_t* extents, std::size_t rank,
                                                              const axis* expected)
{
    std::string text = std::string(op) + ": " + argument + " has shape " + shape_text(extents, rank) + ", expected (";
    for (std::size_t i = 0; i < rank; ++i) {
        if (i) text += ", ";
        text += expected[i].name;
        if (expected[i].extent != axis::any) text += " = " + std::to_string(expected[i].extent);
    }
    fail(text + ")");
}

/// Throws shape_error unless every axis of `v` has the extent asked for.
template <class T, std::size_t Rank>
void require_shape(const char* op, const char* argument, const view<T, Rank>& v, const axis (&expected)[Rank])
{
    for (std::size_t i = 0; i < Rank; ++i) {
        const bool fits = expected[i].extent == axis::any ? v.extent(i) >= 0 : v.extent(i) == expected[i].extent;
        if (!fits) [[unlikely]] fail_shape(op, argument, v.extents().data(), Rank, expected);
    }
}

/// The same for an argument that may be left out.
template <class T, std::size_t Rank>
void require_shape_if_given(const char* op, const char* argument, const view<T, Rank>& v, const axis (&expected)[Rank])
{
    if (v.data() != nullptr) require_shape(op, argument, v, expected);
}

inline void require(bool holds, const char* op, const char* argument, std::string_view complaint)
{
    if (!holds) [[unlikely]] fail(std::string(op) + ": " + argument + " " + std::string(complaint));
}

/// Throws unless the groups divide the channels evenly, as the interleaved group map demands.
inline void require_groups(const char* op, const char* argument, std::int64_t channels, std::int64_t ngroups)
{
    if (channels == 0 && ngroups >= 0) return;
    if (ngroups <= 0 || channels % ngroups != 0) [[unlikely]] {
        fail(std::string(op) + ": " + argument + " has " + std::to_string(ngroups) + " groups, expected a divisor of " +
             std::to_string(channels) + " channels");
    }
}

/// A block of memory with holes: what remains of a view for the overlap test, bytes throughout.
struct footprint {
    static constexpr std::size_t max_rank = 8;
    std::uintptr_t first = 0;  // lowest byte
    std::uint64_t span = 0;    // lowest to one past the highest byte
    std::size_t rank = 0;
    struct {
        std::uint64_t stride, reach;  // reach = (extent - 1) * stride
    } axes[max_rank] = {};            // by falling stride
};

template <class T, std::size_t Rank>
footprint footprint_of(const view<T, Rank>& v)
{
    static_assert(Rank <= footprint::max_rank);
    footprint f;
    if (v.empty()) return f;
    f.first = reinterpret_cast<std::uintptr_t>(v.data());
    f.span = sizeof(T);
    for (std::size_t i = 0; i < Rank; ++i) {
        const std::int64_t step = v.stride(i) * static_cast<std::int64_t>(sizeof(T));
        const auto stride = static_cast<std::uint64_t>(step < 0 ? -step : step);
        const std::uint64_t length = stride * static_cast<std::uint64_t>(v.extent(i) - 1);
        if (length == 0) continue;
        if (step < 0) f.first -= length;
        f.span += length;
        std::size_t k = f.rank++;
        for (; k > 0 && f.axes[k - 1].stride < stride; --k) f.axes[k] = f.axes[k - 1];
        f.axes[k] = {stride, length};
    }
    return f;
}

/// True if the address ranges have a byte in common: the quick test, which settles nearly every pair.
inline bool ranges_meet(const footprint& a, const footprint& b)
{
    return a.span != 0 && b.span != 0 && a.first < b.first + b.span && b.first < a.first + a.span;
}

/// True unless the two are certainly disjoint. Decides exactly where both step through memory by common outer strides, as
/// the slices of one buffer do; otherwise overlapping address ranges count as overlap.
inline bool may_overlap(footprint a, footprint b, std::size_t outer = 0)
{
    if (!ranges_meet(a, b)) return false;
    if (outer >= a.rank || outer >= b.rank || a.axes[outer].stride != b.axes[outer].stride) return true;
    const std::uint64_t stride = a.axes[outer].stride;
    a.span -= a.axes[outer].reach;
    b.span -= b.axes[outer].reach;
    if (a.span > stride || b.span > stride) return true;
    // Both repeat with this stride and fit into one period: what remains is a at 0 (or, seen from its end, at one period)
    // against b at its phase.
    const std::uint64_t phase =
        b.first >= a.first ? (b.first - a.first) % stride : (stride - (a.first - b.first) % stride) % stride;
    b.first = phase;
    a.first = 0;
    if (may_overlap(a, b, outer + 1)) return true;
    a.first = stride;
    return may_overlap(a, b, outer + 1);
}

/// True if steps along two axes, of one or both, lead back to an element: k steps of one are m of the other.
inline bool axes_meet(std::int64_t extent, std::int64_t stride, std::int64_t other_extent, std::int64_t other_stride)
{
    const std::int64_t a = stride < 0 ? -stride : stride, b = other_stride < 0 ? -other_stride : other_stride;
    if (extent <= 1 || other_extent <= 1 || b * (other_extent - 1) < a || a * (extent - 1) < b) return false;
    const std::int64_t common = std::gcd(a, b);
    return b / common < extent && a / common < other_extent;
}

/// Throws if two indices of an output that differ in one axis or two name the same element.
template <class T, std::size_t Rank>
void require_distinct_elements(const char* op, const char* argument, const view<T, Rank>& out)
{
    if (out.empty()) return;
    for (std::size_t i = 0; i < Rank; ++i) {
        require(out.extent(i) <= 1 || out.stride(i) != 0, op, argument, "is written but has stride 0 along an axis");
        for (std::size_t k = 0; k < i; ++k) {
            require(!axes_meet(out.extent(i), out.stride(i), out.extent(k), out.stride(k)), op, argument,
                    "is written but has strides by which two indices name one element");
        }
    }
}

/// True if both name the same elements by the same indices.
template <class T, class U, std::size_t Rank>
bool same_elements(const view<T, Rank>& x, const view<U, Rank>& y)
{
    if (static_cast<const void*>(x.data()) != static_cast<const void*>(y.data()) || x.extents() != y.extents()) return false;
    for (std::size_t i = 0; i < Rank; ++i) {
        if (x.extent(i) > 1 && x.stride(i) != y.stride(i)) return false;
    }
    return true;
}

/// A footprint with the argument's name.
struct named_footprint {
    const char* name;
    footprint memory;
};

template <class T, std::size_t Rank>
named_footprint named(const char* name, const view<T, Rank>& v)
{
    return {name, footprint_of(v)};
}

/// Throws if an output shares memory with an input or with another output.
template <std::size_t Outputs, std::size_t Inputs>
void require_disjoint(const char* op, const named_footprint (&outputs)[Outputs], const named_footprint (&inputs)[Inputs])
{
    const auto compare = [op](const named_footprint& out, const named_footprint& other) {
        if (ranges_meet(out.memory, other.memory) && may_overlap(out.memory, other.memory)) [[unlikely]] {
            fail(std::string(op) + ": " + out.name + " overlaps " + other.name + " in memory");
        }
    };
    for (std::size_t i = 0; i < Outputs; ++i) {
        for (std::size_t k = 0; k < i; ++k) compare(outputs[i], outputs[k]);
        for (const named_footprint& input : inputs) compare(outputs[i], input);
    }
}

}  // namespace detail
}  // namespace ssmkit
