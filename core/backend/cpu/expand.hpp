// A head's rows of one role at their positions, as a dense tensor has them.
#pragma once

#include "core/backend/cpu/workspace.hpp"
#include "core/backend/work.hpp"

namespace kvlab::cpu {

void expand(const ExpandTask& task, Workspace& workspace);

}  // namespace kvlab::cpu
