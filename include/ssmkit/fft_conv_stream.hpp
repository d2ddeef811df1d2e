#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include <ssmkit/args/fft_conv.hpp>
#include <ssmkit/detail/negacyclic.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {

/// The causal long convolution of fft_conv for samples that arrive a few at a time, without any delay:
///
///     y_t = D u_t + Σ_m k_m u_{t-m}                        m = 0 ... width - 1
///
/// Time is cut into parts of part() samples. Within a part every sample is added to what is to come of it as it arrives; what
/// earlier parts contribute comes from their spectra, all at once when a part is full (Gardner, "Efficient convolution without
/// input-output delay", 1995, with parts of one size). Every output is summed in the same order however the samples are cut into
/// calls: any sizes give the same bits. They differ from fft_conv's by rounding only.
///
/// The constructor allocates everything, 2 width * (channels + batch) * dim numbers and some parts; calls allocate nothing, take no
/// lock, throw nothing once their arguments fit, and don't slow down on subnormal numbers. A call that fills a part takes longer
/// than others: about as long as part() samples' share of the whole convolution.
template <class T, class Arch = xsimd::default_arch>
class fft_conv_stream {
public:
    using R = compute_t<T>;

    /// k: (channels, dim, width), D: (channels, dim), optional; both are copied. `part` is rounded up to a size that the transform
    /// has; 0 chooses the one of least cost. `workers`: how many threads a call may use.
    fft_conv_stream(index batch, const view<const R, 3>& k, const view<const R, 2>& D = {}, index part = 0, std::size_t workers = 1)
        : batch_(batch), channels_(k.extent(0)), dim_(k.extent(1)), width_(std::max<index>(k.extent(2), 1)),
          workers_(std::max<std::size_t>(workers, 1)),
          part_(size_for(part > 0 ? part : best_part(width_)))
    {
        using namespace detail;
        constexpr const char* op = "fft_conv_stream";
        require(batch >= 0, op, "batch", "is negative");
        require_shape(op, "k", k, {{"channels"}, {"dim"}, {"width"}});
        require_shape_if_given(op, "D", D, {{"channels", channels_}, {"dim", dim_}});
        parts_ = (width_ - 1 + part_ - 1) / part_;
        arena sizes;
        take(sizes);
        ring(part_, sizes);
        memory_.reset(new std::byte[sizes.size()]);
        arena all(workspace{memory_.get(), sizes.size()});
        take(all);
        ring_.reset(new ring(part_, all));
        const auto tap = [&](index c, index h, index m) {
            const R value = m < k.extent(2) ? k(c, h, m) : R(0);
            return m == 0 && D.data() ? value + D(c, h) : value;
        };
        const flush_denormals guard;
        const R scale = R(1) / static_cast<R>(part_);
        for (index row = 0; row < channels_ * dim_; ++row) {
            const index c = row / dim_, h = row % dim_;
            for (index m = 0; m < padded(); ++m) heads_[row * padded() + m] = m < std::min(part_, width_) ? tap(c, h, m) : R(0);
            for (index q = 1; q <= parts_; ++q) {  // taps of input r of q parts ago for output s: number q part + s - r
                R* const taps = scratch_;
                for (index e = -part_; e < part_; ++e) {
                    const index m = q * part_ + e;
                    const R value = m > 0 && m < width_ ? scale * tap(c, h, m) : R(0);
                    taps[e >= 0 ? e : 2 * part_ + e] = e >= 0 ? value : -value;
                }
                ring_->template forward<false>([&](index j) { return load<R, Arch>(taps + j); }, kernel(row, q),
                                               [](index, const number& z) { return z; });
            }
        }
        reset();
    }

    /// Samples of a part.
    index part() const { return part_; }

    /// Samples since the beginning.
    index position() const { return position_; }

    /// Forgets everything that it has heard.
    void reset()
    {
        std::fill_n(state_, state_numbers(), R(0));
        position_ = 0;
    }

    /// The next u.extent(2) samples, any number: u (batch, dim, samples), y (batch, channels, dim, samples), any strides. Throws
    /// shape_error before anything is written.
    template <execution_resource Exec = in_place>
    void operator()(const view<const T, 3>& u, const view<T, 4>& y, Exec&& exec = {})
    {
        using namespace detail;
        constexpr const char* op = "fft_conv_stream";
        require_shape(op, "u", u, {{"batch", batch_}, {"dim", dim_}, {"samples"}});
        require_shape(op, "y", y, {{"batch", batch_}, {"channels", channels_}, {"dim", dim_}, {"samples", u.extent(2)}});
        require_distinct_elements(op, "y", y);
        const named_footprint outputs[] = {named("y", y)}, inputs[] = {named("u", u)};
        require_disjoint(op, outputs, inputs);
        require(workers_ >= std::min(concurrency(exec), static_cast<std::size_t>(batch_ * dim_)), op, "exec",
                "runs more threads at once than the constructor was told of");
        run_tasks(exec, static_cast<std::size_t>(batch_ * dim_), [&](std::size_t task, std::size_t slot) {
            const flush_denormals guard;
            advance(static_cast<index>(task), u, y, scratch_ + static_cast<index>(slot) * 2 * part_);
        });
        position_ += u.extent(2);
    }

    /// Bytes of a saved state.
    std::size_t state_size() const { return sizeof(position_) + static_cast<std::size_t>(state_numbers()) * sizeof(R); }

    /// What it has heard, in state_size() bytes: the position, then for every (batch, dim) what the part under way has gathered for
    /// its outputs, its inputs, and the spectra of the parts before. For streams of the same shape, kernel and build only.
    void save(std::span<std::byte> to) const
    {
        require_bytes(to.size());
        std::memcpy(to.data(), &position_, sizeof(position_));
        std::memcpy(to.data() + sizeof(position_), state_, to.size() - sizeof(position_));
    }

    void restore(std::span<const std::byte> from)
    {
        require_bytes(from.size());
        std::memcpy(&position_, from.data(), sizeof(position_));
        std::memcpy(state_, from.data() + sizeof(position_), from.size() - sizeof(position_));
    }

private:
    using ring = detail::negacyclic<R, Arch>;
    using number = typename ring::number;
    static constexpr index n = detail::lanes<R, Arch>;

    /// N numbers of the ring hold a part; another N, what wraps around.
    static index size_for(index part) { return ring::size_for(2 * part); }

    /// Per sample, adding it to what remains of its part costs 0.03 ns for each sample of the part, the spectra of the earlier
    /// parts 0.3 ns each (Zen 4, float): equal at √(10 width). Parts are rounded up, which the factor here leaves room for.
    static index best_part(index width) { return static_cast<index>(std::sqrt(3.0 * static_cast<double>(width))); }

    index padded() const { return part_ + n; }
    index row_numbers() const { return channels_ * padded() + part_ + parts_ * 2 * part_; }
    index state_numbers() const { return batch_ * dim_ * row_numbers(); }
    R* kernel(index row, index q) { return kernels_ + (row * parts_ + q - 1) * 2 * part_; }

    void take(detail::arena& memory)
    {
        heads_ = memory.take<R>(static_cast<std::size_t>(channels_ * dim_ * padded()));
        kernels_ = memory.take<R>(static_cast<std::size_t>(channels_ * dim_ * parts_ * 2 * part_));
        state_ = memory.take<R>(static_cast<std::size_t>(state_numbers()));
        scratch_ = memory.take<R>(workers_ * static_cast<std::size_t>(2 * part_));
    }

    void require_bytes(std::size_t have) const
    {
        if (have == state_size()) return;
        detail::fail("fft_conv_stream: the state has " + std::to_string(have) + " bytes, expected " + std::to_string(state_size()));
    }

    /// Row number b * dim + h.
    void advance(index row, const view<const T, 3>& u, const view<T, 4>& y, R* scratch)
    {
        const index b = row / dim_, h = row % dim_;
        R* const pending = state_ + row * row_numbers();
        R *const inputs = pending + channels_ * padded(), *const spectra = inputs + part_;
        index position = position_;
        for (index t = 0; t < u.extent(2); ++t) {
            const index s = position % part_;
            const R x = static_cast<R>(u(b, h, t));
            inputs[s] = x;
            for (index c = 0; c < channels_; ++c) {
                R* const sums = pending + c * padded();
                add(heads_ + (c * dim_ + h) * padded(), x, std::min(part_ - s, width_), sums + s);
                y(b, c, h, t) = static_cast<T>(sums[s]);
            }
            if (++position % part_ == 0) finish(h, position / part_ - 1, inputs, spectra, pending, scratch);
        }
    }

    /// sums += x taps. The last register may reach beyond count, where both arrays have room and nobody reads.
    [[gnu::noinline]] static void add(const R* taps, R x, index count, R* sums)
    {
        using namespace detail;
        const vec<R, Arch> factor(x);
        for (index m = 0; m < count; m += n)
            store(multiply_add(factor, load<R, Arch>(taps + m), load<R, Arch>(sums + m)), sums + m);
    }

    /// Part `number` is full: its spectrum joins the others, and they all give what the next part begins with.
    void finish(index h, index number_of_part, const R* inputs, R* spectra, R* pending, R* scratch)
    {
        using namespace detail;
        if (parts_ == 0) {
            std::fill_n(pending, channels_ * padded(), R(0));
            return;
        }
        const auto slot = [&](index p) { return spectra + (p % parts_) * 2 * part_; };
        ring_->template forward<true>([&](index j) { return load<R, Arch>(inputs + j); }, slot(number_of_part),
                                      [](index, const number& z) { return z; });
        const index heard = std::min(parts_, number_of_part + 1);
        for (index c = 0; c < channels_; ++c) {
            R* const sums = pending + c * padded();
            const R* const k = kernel(c * dim_ + h, 1);
            ring_->template inverse<true>([&](index o) {
                number sum{vec<R, Arch>(R(0)), vec<R, Arch>(R(0))};
                for (index q = 0; q < heard; ++q) {
                    const number w = number::load(k + q * 2 * part_ + o);
                    sum = sum + number::load(slot(number_of_part - q) + o).times(w.re, w.im);
                }
                return sum;
            }, scratch, [&](index j, const vec<R, Arch>& z) { store(z, sums + j); });
            std::fill_n(sums + part_, n, R(0));
        }
    }

    index batch_, channels_, dim_, width_;
    std::size_t workers_;
    index part_, parts_ = 0, position_ = 0;
    std::unique_ptr<std::byte[]> memory_;
    std::unique_ptr<ring> ring_;
    R *heads_ = nullptr, *kernels_ = nullptr, *state_ = nullptr, *scratch_ = nullptr;
};

}  // namespace ssmkit
