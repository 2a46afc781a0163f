// The tasks of a Work, each by one thread.
#pragma once

#include "core/backend/cpu/workspace.hpp"
#include "core/backend/work.hpp"

namespace kvlab::cpu {

void check(const CheckTask& task);
void copy(const CopyTask& task, const Work& work, Workspace& workspace);
void encode(EncodeTask& task, const Work& work, Arena& arena, Workspace& workspace);
void gather(GatherTask& task, const Work& work, Arena& arena, Workspace& workspace);
void score(const ScoreTask& task, const Work& work, Workspace& workspace);

}  // namespace kvlab::cpu
