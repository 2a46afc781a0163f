// The keeper: a process between the runner and a worker. Whatever the worker starts, however it detaches itself, is a
// descendant of its keeper, and ends with the worker.
#pragma once

#include <sys/types.h>

namespace kvlab {

// Makes this process, which must have one thread, a keeper, and returns in a child of it: the worker. The keeper
// ends as the worker did, by the same signal or exit code, once nothing of what that started is left. On SIGTERM, or
// when `runner` (its parent) dies, it ends all of it at once.
void start_under_keeper(pid_t runner);

}  // namespace kvlab
