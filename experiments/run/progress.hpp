// How far a run is, on stderr: a bar in a terminal, one line per cell elsewhere.
#pragma once

#include <chrono>
#include <string>

namespace kvlab {

class Progress {
 public:
  explicit Progress(std::size_t total);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void started(const std::string& cell);
  void finished(const std::string& cell, const std::string& status, const std::string& reason);
  void tick();  // now and then, while waiting

 private:
  void draw();
  [[nodiscard]] double elapsed() const;

  std::size_t total_;
  std::size_t done_ = 0;
  bool terminal_;
  std::string current_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point drawn_;
};

}  // namespace kvlab
