#pragma once

// What gated_norm, add_norm and their backward passes share: which elements a register holds, and the statistics of a
// group of channels.
//
// Lanes run along the channels of one token where those are contiguous, and along neighbouring tokens of one channel
// where time is; then a token's sums stay in its lane. A kernel is written once, on cells: a cell is a register's worth
// of elements, the same ones of every tensor. Values that are needed again are kept in scratch memory as numbers to
// calculate with, so that every element of the inputs is fetched and converted once.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

#include <ssmkit/detail/math.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/view.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit::detail {

/// What lanes run along: channels of any stride, channels that are contiguous in all tensors and parameters, or tokens
/// that are contiguous in all tensors.
enum class lane_axis { strided_channels, channels, tokens };

/// The best for the tensors, (batch, length, dim), and parameters, (dim), that are given.
template <class... Views>
lane_axis lane_axis_of(const Views&... views)
{
    const auto contiguous_channels = []<class E, std::size_t Rank>(const view<E, Rank>& v) {
        return v.data() == nullptr || v.stride(Rank - 1) == 1;
    };
    const auto contiguous_tokens = []<class E, std::size_t Rank>(const view<E, Rank>& v) {
        return Rank == 1 || v.data() == nullptr || v.stride(Rank == 1 ? 0 : 1) == 1;
    };
    if ((contiguous_channels(views) && ...)) return lane_axis::channels;
    return (contiguous_tokens(views) && ...) ? lane_axis::tokens : lane_axis::strided_channels;
}

/// Elements that a task keeps of each tensor.
template <class R, class Arch>
std::size_t kept_elements(index dim, lane_axis axis)
{
    return static_cast<std::size_t>(axis == lane_axis::tokens ? dim * lanes<R, Arch> : dim);
}

/// The channels of one token, or of the first of neighbouring ones. Without data: of a tensor that is not given.
template <class E>
struct token_row {
    E* data = nullptr;
    index stride = 0;
};

template <class E>
token_row<E> row_of(const view<E, 3>& v, index b, index t)
{
    if (v.data() == nullptr) return {};
    return {v.pointer(b, t), v.stride(2)};
}

/// Neighbouring channels of one token. Scratch memory: (dim).
template <class R, class Arch, bool Contiguous, bool Full>
struct channel_cell {
    using v = vec<R, Arch>;
    lane_range<R, Arch, Full> channels;

    template <class E>
    v load(const token_row<E>& row) const
    {
        if constexpr (Contiguous) {
            return channels.load(row.data);
        } else {
            return channels.load(row.data, row.stride);
        }
    }

    template <class E>
    void store(const v& x, const token_row<E>& row) const
    {
        if constexpr (Contiguous) {
            channels.store(x, row.data);
        } else {
            channels.store(x, row.data, row.stride);
        }
    }

    v load(const view<const R, 1>& parameter) const
    {
        return load(token_row<const R>{parameter.data(), parameter.stride(0)});
    }

    v kept(const R* scratch) const { return channels.load(scratch); }
    void keep(const v& x, R* scratch) const { channels.store(x, scratch); }

    /// Adds x to sums over the tokens, one a channel.
    void add_to(R* sums, const v& x) const { channels.store(channels.load(sums) + x, sums); }

    /// x with zeros in the lanes that only fill up a short register.
    v counted(const v& x) const
    {
        if constexpr (Full) {
            return x;
        } else {
            alignas(64) R buffer[static_cast<std::size_t>(lanes<R, Arch>)];
            x.store_aligned(buffer);
            return native::load_first<R, Arch>(buffer, channels.count);
        }
    }
};

/// One channel of neighbouring tokens. Scratch memory: (dim, lanes).
template <class R, class Arch, bool Full>
struct token_cell {
    using v = vec<R, Arch>;
    lane_range<R, Arch, Full> tokens;
    index channel;

    template <class E>
    v load(const token_row<E>& row) const
    {
        return tokens.load(row.data + channel * row.stride);
    }

    template <class E>
    void store(const v& x, const token_row<E>& row) const
    {
        tokens.store(x, row.data + channel * row.stride);
    }

    v load(const view<const R, 1>& parameter) const { return v(parameter[channel]); }

    v kept(const R* scratch) const { return v::load_aligned(scratch + channel * lanes<R, Arch>); }
    void keep(const v& x, R* scratch) const { x.store_aligned(scratch + channel * lanes<R, Arch>); }

    void add_to(R* sums, const v& x) const
    {
        if constexpr (Full) {
            sums[channel] += sum(x);
        } else {
            alignas(64) R buffer[static_cast<std::size_t>(lanes<R, Arch>)];
            x.store_aligned(buffer);
            for (index i = 0; i < tokens.count; ++i) sums[channel] += buffer[i];
        }
    }

    /// A token's sum never meets another lane.
    v counted(const v& x) const { return x; }
};

/// A sum in this many parts hides the latency of additions and shortens the chain of their rounding errors.
inline constexpr index norm_parts = 4;

/// Calls f(i, part) for i = 0 ... n - 1, with parts 0, 1, 2, 3 in turn as constants.
template <class F>
[[gnu::always_inline]] inline void for_each_in_turn(index n, F&& f)
{
    using std::integral_constant;
    index i = 0;
    for (; i + norm_parts <= n; i += norm_parts) {
        f(i, integral_constant<index, 0>{});
        f(i + 1, integral_constant<index, 1>{});
        f(i + 2, integral_constant<index, 2>{});
        f(i + 3, integral_constant<index, 3>{});
    }
    for (; i < n; ++i) f(i, integral_constant<index, 0>{});
}

/// One token with lanes along its channels.
template <class R, class Arch, bool Contiguous>
struct lanes_along_channels {
    using v = vec<R, Arch>;

    template <class F>
    [[gnu::always_inline]] void for_each_cell(index first, index count, F&& f) const
    {
        for_each_lanes<R, Arch>(count, [&](auto range) {
            range.first += first;
            f(channel_cell<R, Arch, Contiguous, decltype(range)::full>{range});
        });
    }

    /// The same with a part number for sums.
    template <class F>
    [[gnu::always_inline]] void for_each_cell_in_turn(index first, index count, F&& f) const
    {
        constexpr index n = lanes<R, Arch>;
        for_each_in_turn(count / n, [&](index i, auto part) {
            f(channel_cell<R, Arch, Contiguous, true>{{first + i * n}}, part);
        });
        if (const index rest = count % n) {
            f(channel_cell<R, Arch, Contiguous, false>{{first + count - rest, rest}},
              std::integral_constant<index, 0>{});
        }
    }

    /// What holds for each token, in all lanes that belong to it.
    static v per_token(const v& sums) { return v(sum(sums)); }

    static v largest_per_token(const v& x)
    {
        alignas(64) R buffer[static_cast<std::size_t>(lanes<R, Arch>)];
        x.store_aligned(buffer);
        return v(*std::max_element(buffer, buffer + lanes<R, Arch>));
    }
};

/// At most a register's worth of neighbouring tokens, a lane each.
template <class R, class Arch, bool Full>
struct lanes_along_tokens {
    using v = vec<R, Arch>;
    lane_range<R, Arch, Full> tokens;

    template <class F>
    [[gnu::always_inline]] void for_each_cell(index first, index count, F&& f) const
    {
        for (index c = first; c < first + count; ++c) f(token_cell<R, Arch, Full>{tokens, c});
    }

    template <class F>
    [[gnu::always_inline]] void for_each_cell_in_turn(index first, index count, F&& f) const
    {
        for_each_in_turn(count, [&](index i, auto part) { f(token_cell<R, Arch, Full>{tokens, first + i}, part); });
    }

    static v per_token(const v& sums) { return sums; }
    static v largest_per_token(const v& x) { return x; }
};

/// Calls f(layout, b, t) for tokens first ... last - 1 of all batches, counted in their order: once a token, or once
/// for every register of neighbouring tokens of which t is the first.
template <class R, class Arch, class F>
void for_each_token(index first, index last, index length, lane_axis axis, F&& f)
{
    while (first < last) {
        const index b = first / length, t = first % length, count = std::min(last - first, length - t);
        if (axis == lane_axis::tokens) {
            for_each_lanes<R, Arch>(count, [&](auto tokens) {
                f(lanes_along_tokens<R, Arch, decltype(tokens)::full>{tokens}, b, t);
            });
        } else if (axis == lane_axis::channels) {
            for (index i = 0; i < count; ++i) f(lanes_along_channels<R, Arch, true>{}, b, t + i);
        } else {
            for (index i = 0; i < count; ++i) f(lanes_along_channels<R, Arch, false>{}, b, t + i);
        }
        first += count;
    }
}

/// Sums over a group in parts, one value a token each.
template <class Layout>
struct group_sum {
    using v = typename Layout::v;
    v parts[static_cast<std::size_t>(norm_parts)] = {v(0), v(0), v(0), v(0)};

    template <class Part>
    v& operator[](Part)
    {
        return parts[static_cast<std::size_t>(Part::value)];
    }

    v mean(index count) const
    {
        using R = typename v::value_type;
        return Layout::per_token((parts[0] + parts[1]) + (parts[2] + parts[3])) * v(R(1) / static_cast<R>(count));
    }
};

/// Mean and mean square of a group's values about centre; all zero but the square in the RMS form, which is about 0.
template <class V>
struct group_moments {
    V centre = V(0), mean = V(0), square = V(0);
};

/// In the layer form a second pass takes the deviations from the mean as it was rounded; their own mean, small as it
/// is, corrects it (Chan, Golub & LeVeque, "Algorithms for computing the sample variance", 1983, eq. 1.7). The
/// difference of E[x²] and E[x]² would be noise where the mean is large.
template <class Layout, class R>
group_moments<typename Layout::v> moments_of_group(const Layout& along, const R* values, index first, index count,
                                                   bool layer)
{
    using v = typename Layout::v;
    group_moments<v> m;
    group_sum<Layout> sum, squares;
    if (layer) {
        along.for_each_cell_in_turn(first, count, [&](auto cell, auto part) { sum[part] += cell.kept(values); });
        m.centre = sum.mean(count);
        sum = {};
        along.for_each_cell_in_turn(first, count, [&](auto cell, auto part) {
            const v x = cell.counted(cell.kept(values) - m.centre);
            sum[part] += x;
            squares[part] = multiply_add(x, x, squares[part]);
        });
        m.mean = sum.mean(count);
    } else {
        along.for_each_cell_in_turn(first, count, [&](auto cell, auto part) {
            const v x = cell.kept(values);
            squares[part] = multiply_add(x, x, squares[part]);
        });
    }
    m.square = squares.mean(count);
    return m;
}

/// How a group is normalised: (kept value - centre) * r + shift.
template <class V>
struct group_norm {
    V centre, r, shift;
    V scale = V(1);  ///< what the kept values were multiplied with, a power of 2

    template <class Cell, class R>
    V operator()(const Cell& cell, const R* values) const
    {
        return multiply_add(cell.kept(values) - centre, r, shift);
    }
};

/// The powers of 2 that bring the larger of the group's largest magnitude and sqrt(eps) near 1: squares of the scaled
/// values neither overflow nor vanish, and eps does not either. 1 where there is none (zero, infinity).
template <class Layout, class R>
typename Layout::v scale_of_group(const Layout& along, const R* values, index first, index count, R eps)
{
    using v = typename Layout::v;
    constexpr int largest_exponent = std::numeric_limits<R>::max_exponent - 2;
    v largest(std::sqrt(eps));
    along.for_each_cell(first, count,
                        [&](auto cell) { largest = xsimd::max(largest, xsimd::abs(cell.kept(values))); });
    alignas(64) R buffer[v::size];
    Layout::largest_per_token(largest).store_aligned(buffer);
    for (R& m : buffer) {
        const bool scalable = m > R(0) && m <= std::numeric_limits<R>::max();
        m = scalable ? std::ldexp(R(1), -std::clamp(std::ilogb(m), -largest_exponent, largest_exponent)) : R(1);
    }
    return v::load_aligned(buffer);
}

/// The norm of a group whose values are kept in scratch memory. Where their squares leave the range of R, they are
/// scaled.
template <class Layout, class R>
group_norm<typename Layout::v> norm_of_group(const Layout& along, R* values, index first, index count, R eps,
                                              bool layer)
{
    using v = typename Layout::v;
    using limits = std::numeric_limits<R>;
    const auto denominator = [&](const group_moments<v>& m, const v& scale) {
        return m.square - m.mean * m.mean + v(eps) * scale * scale;
    };
    group_moments<v> m = moments_of_group(along, values, first, count, layer);
    v scale(R(1)), square = denominator(m, scale);
    // Below the lower bound, squares flushed to zero could have counted: half an ulp of it is 2^22 of the smallest
    // number.
    const v low(limits::min() / (limits::epsilon() * limits::epsilon())), high(limits::max());
    if (!xsimd::all(square >= low && square <= high)) [[unlikely]] {
        scale = scale_of_group(along, static_cast<const R*>(values), first, count, eps);
        along.for_each_cell(first, count, [&](auto cell) { cell.keep(cell.kept(values) * scale, values); });
        m = moments_of_group(along, values, first, count, layer);
        square = denominator(m, scale);
    }
    const v r = v(R(1)) / xsimd::sqrt(square);
    return {m.centre, r, -m.mean * r, scale};
}

/// The gradient of a group's values for the normalised values n and their gradient w: (w - n mean(n w) - mean(w)) r,
/// the last mean in the layer form only.
template <class V>
struct group_gradient {
    V mean_nw, mean_w, r;

    V operator()(const V& n, const V& w) const { return (multiply_add(-n, mean_nw, w) - mean_w) * r; }
};

/// d: scratch memory, the gradient of the normalised values before the weight is applied.
template <class Layout, class R>
group_gradient<typename Layout::v> gradient_of_group(const Layout& along, const group_norm<typename Layout::v>& norm,
                                                     const R* values, const R* d, const view<const R, 1>& weight,
                                                     index first, index count, bool layer)
{
    using v = typename Layout::v;
    group_sum<Layout> nw, w;
    along.for_each_cell_in_turn(first, count, [&](auto cell, auto part) {
        const v x = cell.kept(d) * cell.load(weight);
        nw[part] = multiply_add(cell.counted(norm(cell, values)), x, nw[part]);
        w[part] += x;
    });
    return {nw.mean(count), layer ? w.mean(count) : v(R(0)), norm.r * norm.scale};
}

/// The tokens of all batches in blocks of about the square root of their number, each a task: gradients of parameters
/// are summed within each block and then over the blocks, in this order for any number of threads, and no chain of
/// additions becomes long.
struct token_blocks {
    index tokens, each, count;

    token_blocks(index batch, index length) : tokens(batch * length)
    {
        constexpr index multiple = 16;  // keeps registers of neighbouring tokens full
        const auto root = static_cast<index>(std::sqrt(static_cast<double>(tokens)));
        each = (root / multiple + 1) * multiple;
        count = (tokens + each - 1) / each;
    }

    index begin(std::size_t task) const { return static_cast<index>(task) * each; }
    index end(std::size_t task) const { return std::min(begin(task) + each, tokens); }
};

/// Sums over the tokens for the gradient of a parameter, one row a block: (blocks, dim).
template <class R>
class parameter_gradient {
public:
    parameter_gradient(arena& memory, const view<R, 1>& gradient, const token_blocks& blocks)
        : gradient_(gradient), blocks_(blocks.count)
    {
        if (gradient.data()) sums_ = memory.take<R>(static_cast<std::size_t>(blocks.count * gradient.extent(0)));
    }

    /// The sums of a block, set to zero; null if the gradient is not asked for.
    R* begin_block(std::size_t block) const
    {
        if (!sums_) return nullptr;
        R* const sums = sums_ + static_cast<index>(block) * gradient_.extent(0);
        std::fill_n(sums, gradient_.extent(0), R(0));
        return sums;
    }

    void write() const
    {
        for (index c = 0; c < gradient_.extent(0) && gradient_.data(); ++c) {
            R sum(0);
            for (index block = 0; block < blocks_; ++block) sum += sums_[block * gradient_.extent(0) + c];
            gradient_[c] = sum;
        }
    }

private:
    view<R, 1> gradient_;
    index blocks_;
    R* sums_ = nullptr;
};

}  // namespace ssmkit::detail
