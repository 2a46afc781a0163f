// What a worker printed, what its plugins logged included: the end of it.
#pragma once

#include <string>

namespace kvlab {

class WorkerOutput {
 public:
  explicit WorkerOutput(int pipe);  // takes it; its other end is the worker's
  ~WorkerOutput();
  WorkerOutput(const WorkerOutput&) = delete;
  WorkerOutput& operator=(const WorkerOutput&) = delete;

  // Never waits, and returns also where the worker never stops writing.
  void read();

  // Whole lines of printable UTF-8, each with its newline, some 16 KiB at most; a first line says how many were
  // dropped.
  [[nodiscard]] std::string text() const;
  [[nodiscard]] std::string last_line() const;  // "" where it printed nothing

 private:
  int pipe_;
  std::string end_;          // of what was printed
  std::size_t dropped_ = 0;  // newlines before that
};

}  // namespace kvlab
