// Reading a segment: what the ABI calls a block, and its rows.
#pragma once

#include "core/backend/cpu/workspace.hpp"
#include "core/backend/work.hpp"

namespace kvlab::cpu {

// How many tokens of a segment are decoded or attended to at a time: aligned to the codec's granule, small enough
// for the f32 rows to stay in the first-level cache.
std::uint64_t tile_tokens(const Role& role, const Segment& segment);

// The block as the ABI describes it; `range`: the positions of its tokens.
kvlab_block block_of(std::uint32_t kv_head, const Segment& segment, const PositionsView::Range& range);

// f32 rows of the tokens [first, first + count) of an encoded segment, contiguous. Aligned to the codec's granule.
void decode_block(const Role& role, const Segment& segment, const kvlab_block& block, std::uint64_t first,
                  std::uint64_t count, float* rows, Workspace& workspace);
// The same of any segment. `positions`: of all slots of its head.
void decode(const Role& role, std::uint32_t kv_head, const Segment& segment, const PositionsView& positions,
            std::uint64_t first, std::uint64_t count, float* rows, Workspace& workspace);

}  // namespace kvlab::cpu
