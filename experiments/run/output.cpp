#include "experiments/run/output.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

#include "core/base/text.hpp"

namespace kvlab {
namespace {

constexpr std::size_t most_bytes = std::size_t{16} << 10;
constexpr std::size_t most_of_a_line = 2000;

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (end > 0) lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::string for_people(std::string_view line) { return shortened(printable(line), most_of_a_line); }

}  // namespace

WorkerOutput::WorkerOutput(int pipe) : pipe_(pipe) { fcntl(pipe_, F_SETFL, O_NONBLOCK); }

WorkerOutput::~WorkerOutput() { close(pipe_); }

void WorkerOutput::read() {
  std::array<char, 4096> buffer{};
  ssize_t count = 0;
  for (int i = 0; i < 64 && (count = ::read(pipe_, buffer.data(), buffer.size())) > 0; ++i) {
    end_.append(buffer.data(), static_cast<std::size_t>(count));
    if (end_.size() <= most_bytes) continue;
    // A line that is cut stays with its end.
    const auto cut = end_.begin() + static_cast<std::ptrdiff_t>(end_.size() - most_bytes);
    dropped_ += static_cast<std::size_t>(std::count(end_.begin(), cut, '\n'));
    end_.erase(end_.begin(), cut);
  }
}

std::string WorkerOutput::text() const {
  std::vector<std::string> kept;
  std::size_t bytes = 0;
  const std::vector<std::string_view> lines = lines_of(end_);
  for (auto line = lines.rbegin(); line != lines.rend(); ++line) {
    std::string text = for_people(*line) + '\n';
    bytes += text.size();
    if (bytes > most_bytes) break;
    kept.push_back(std::move(text));
  }
  const std::size_t dropped = dropped_ + lines.size() - kept.size();
  std::string text;
  if (dropped > 0) text = "(" + std::to_string(dropped) + " lines before these were dropped)\n";
  for (auto line = kept.rbegin(); line != kept.rend(); ++line) text += *line;
  return text;
}

std::string WorkerOutput::last_line() const {
  const std::vector<std::string_view> lines = lines_of(end_);
  return lines.empty() ? "" : for_people(lines.back());
}

}  // namespace kvlab
