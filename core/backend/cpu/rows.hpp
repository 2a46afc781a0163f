// The rows that a task reads, where they lie if that is one place, else gathered and decoded side by side; and looking
// at a caller's rows.
#pragma once

#include <span>

#include "core/backend/cpu/workspace.hpp"
#include "core/backend/work.hpp"

namespace kvlab::cpu {

// Of these sources of one role. `dtype`: the role's, which blocks are rounded to, or f32.
TokenRows rows_of(const Role& role, std::span<const Source> sources, Dtype dtype, Buffer& into, Workspace& workspace);

// Throws InputError for the first number of these rows that is not finite. `source`: whose tokens they are.
void check_rows(const Origin& origin, const TokenRows& rows, const Source& source);

}  // namespace kvlab::cpu
