#pragma once

// How ssd walks through a sequence: pieces of a few tokens whose positions follow each other, between which the state may be
// set to zero, padding may lie or a chunk of the caller's may begin.

#include <algorithm>
#include <cstdint>

#include <ssmkit/args/ssd.hpp>

namespace ssmkit::detail {

/// Parts that a backward pass cuts the heads of a group into, whatever the number of threads: four tasks at least, where there
/// are as many heads, so that sums over the parts have one order.
struct ssd_parts {
    index heads, count;  // of a part, of a group

    ssd_parts(index sequences, index groups, index heads_per_group)
    {
        const index tasks = sequences * groups, wanted = tasks > 0 ? (3 + tasks) / tasks : 1;
        heads = std::max(index{1}, (heads_per_group + wanted - 1) / wanted);
        count = (heads_per_group + heads - 1) / heads;
    }
};

/// Tokens of the longest sequence: of a row, or of those that cu_seqlens cuts it into.
inline index longest_sequence(const view<const index, 1>& cu_seqlens, index length)
{
    if (cu_seqlens.data() == nullptr) return length;
    index longest = 0;
    for (index i = 0; i + 1 < cu_seqlens.extent(0); ++i) longest = std::max(longest, cu_seqlens[i + 1] - cu_seqlens[i]);
    return longest;
}

/// Tokens that are taken together.
struct ssd_piece {
    index visit;    // the number of its first token in the order of visiting
    index count;
    index offset;   // the first token's place among those of the block
    bool fresh;     // the state is zero before it
    bool padding;   // these tokens do not happen
};

/// The pieces of one sequence, a block of them at a time.
class ssd_walk {
public:
    ssd_walk(index begin, index end, bool reverse, const view<const std::int32_t, 1>& seq_idx, index piece, index chunk)
        : begin_(begin), end_(end), reverse_(reverse), seq_idx_(seq_idx), piece_(piece), chunk_(chunk)
    {
    }

    index length() const { return end_ - begin_; }
    index position(index visit) const { return reverse_ ? end_ - 1 - visit : begin_ + visit; }
    index step() const { return reverse_ ? -1 : 1; }

    /// Fills `pieces` with the next ones, at most `tokens` tokens in them, and returns how many there are.
    index next(ssd_piece* pieces, index tokens)
    {
        index count = 0;
        for (index offset = 0; offset < tokens && visit_ < length();) {
            ssd_piece p{visit_, 0, offset, false, false};
            const index room = std::min({piece_, tokens - offset, length() - visit_, chunk_ - visit_ % chunk_});
            const std::int32_t id = number(visit_);
            p.padding = id < 0;
            p.fresh = !p.padding && id != current_;
            if (!p.padding) current_ = id;
            while (p.count < room && (number(visit_ + p.count) == id || (p.padding && number(visit_ + p.count) < 0))) ++p.count;
            pieces[count++] = p;
            visit_ += p.count;
            offset += p.count;
        }
        return count;
    }

private:
    std::int32_t number(index visit) const { return seq_idx_.data() ? seq_idx_[position(visit)] : 0; }

    index begin_, end_;
    bool reverse_;
    view<const std::int32_t, 1> seq_idx_;
    index piece_, chunk_;
    index visit_ = 0;
    std::int32_t current_ = 0;  // whom the state belongs to: at first it is the initial state, that of sequence 0
};

}  // namespace ssmkit::detail
