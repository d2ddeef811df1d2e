#pragma once

// Nodes beside a pole, which float kernels of S4 compute in double. There a single pole outweighs the others in every Cauchy sum,
// by g = Δ |P_n|² / |z - w_n| in Q·P, and the low-rank correction takes all but 1/g of that away again: in float it loses g roundings
// with one row of P, up to g² with more.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include <ssmkit/detail/s4_nodes.hpp>

namespace ssmkit::detail {

/// g from which on a node is near.
inline constexpr double s4_near = 64;

/// The near nodes of a channel, up to s4_chunk at a time.
class s4_near_nodes {
public:
    s4_near_nodes(const s4_sizes& s, arena& memory)
        : sums(s, memory),
          near_(memory.take<std::uint8_t>(static_cast<std::size_t>(s.padded))),
          bins_(memory.take<index>(static_cast<std::size_t>(s4_chunk))),
          y_(memory.take<double>(static_cast<std::size_t>(s4_chunk)))
    {
    }

    /// Finds the nodes of a channel and fills the tables of its sums.
    void prepare(const s4_sizes& s, const s4_system& m)
    {
        std::fill_n(near_, s.padded, std::uint8_t(0));
        bool any = false;
        for (index n = 0; n < s.state; ++n) {
            double weight = 0;  // Δ |P_n|²
            for (index r = 0; r < s.rank; ++r)
                weight += std::abs(m.left[(s.channels + r) * s.state + n] * m.right[(s.columns + r) * s.state + n]);
            const double reach = weight / s4_near, re = m.pole[n].real(), im = std::abs(m.pole[n].imag());
            if (!(reach > std::abs(re))) continue;
            const double half = std::sqrt(reach * reach - re * re);
            const auto place = [&](double y) { return static_cast<double>(s.transform) / std::numbers::pi * std::atan(y / 2); };
            const auto first = static_cast<index>(std::ceil(std::max(place(im - half), 0.0)));
            const auto last = std::min(static_cast<index>(place(im + half)), (s.transform - 1) / 2);
            for (index j = first; j <= last; ++j) near_[j] = 1;
            any = any || first <= last;
        }
        next_ = any ? 0 : s.bins;
        if (any) sums.prepare(s, m);
    }

    /// The sums at the next nodes, which bin(0) to bin(count - 1) name; 0 after the last.
    template <class Arch, class T>
    index compute(const s4_sizes& s, const s4_nodes<T>& nodes)
    {
        index count = 0;
        for (; next_ < s.bins && count < s4_chunk; ++next_) {
            if (!near_[next_]) continue;
            bins_[count] = next_;
            y_[count++] = static_cast<double>(nodes.y[next_]) + static_cast<double>(nodes.y_low[next_]);
        }
        if (count == 0) return 0;
        constexpr index padding = cauchy_padding<double, Arch>;
        const index padded = (count + padding - 1) / padding * padding;
        std::fill(y_ + count, y_ + padded, y_[count - 1]);
        sums.template compute<Arch>(s, gathered(), 0, padded);
        return count;
    }

    bool holds(index j) const { return near_[j] != 0; }
    index bin(index i) const { return bins_[i]; }
    const double* y() const { return y_; }
    imaginary_nodes<double> gathered() const { return {y_, nullptr}; }

    s4_sums<double> sums;

private:
    std::uint8_t* near_;
    index* bins_;
    double* y_;
    index next_ = 0;
};

}  // namespace ssmkit::detail
