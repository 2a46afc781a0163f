// Rows of the tokens of a head that are present, as f32: what a selector reads whose scores depend on all of them.
#pragma once

#include <span>
#include <vector>

#include "core/cache/cache.hpp"
#include "core/cache/encoder.hpp"

namespace kvlab {

// Of these slots, ascending, of one role: [slots, channels], contiguous, in `rows`. Raw rows are exact, those of blocks
// as their codec decodes them.
TokenRows present_rows(const Role& role, const Head& head, std::uint32_t kv_head, const std::vector<Segment>& segments,
                       std::span<const std::uint32_t> slots, Buffer& rows, Workspace& workspace);

}  // namespace kvlab
