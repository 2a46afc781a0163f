// Attention of one KV head's queries over what the cache holds of it, in parts that are merged (flash-decoding).
#pragma once

#include "core/backend/cpu/workspace.hpp"
#include "core/backend/work.hpp"

namespace kvlab::cpu {

// Floats that a part of so many query rows takes.
std::uint64_t part_size(const Role& values, std::uint64_t rows);

// Over the task's part of the slots, cut where tiles of values begin: those whose first token is in the range.
void attend_part(const AttendBatch& batch, const AttendTask& task, float* part, Workspace& workspace);

// The head's parts, of part_size floats one after another; they are overwritten. Writes task.out.
void merge_parts(const AttendBatch& batch, const AttendTask& task, float* parts, Workspace& workspace);

}  // namespace kvlab::cpu
