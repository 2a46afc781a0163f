#include "experiments/run/progress.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <iostream>

#include "core/base/text.hpp"

namespace kvlab {
namespace {

std::string clock_text(double seconds) {
  std::array<char, 32> text{};
  const long whole = std::lround(seconds);
  if (whole >= 3600) {
    std::snprintf(text.data(), text.size(), "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
  } else {
    std::snprintf(text.data(), text.size(), "%02ld:%02ld", whole / 60, whole % 60);
  }
  return text.data();
}

// Columns of the terminal; a longer line would wrap and could not be drawn over.
std::size_t terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

constexpr const char* erase_line = "\r\033[K";

}  // namespace

Progress::Progress(std::size_t total)
    : total_(total), terminal_(isatty(STDERR_FILENO) != 0), start_(std::chrono::steady_clock::now()) {}

Progress::~Progress() {
  if (terminal_) std::cerr << erase_line << std::flush;
}

void Progress::started(const std::string& cell) {
  current_ = cell;
  if (terminal_) draw();
}

void Progress::finished(const std::string& cell, const std::string& status, const std::string& reason) {
  ++done_;
  if (terminal_ && status != "ok") std::cerr << erase_line << cell << ": " << status << ": " << message(reason) << '\n';
  if (terminal_) {
    draw();
    return;
  }
  std::cerr << '[' << done_ << '/' << total_ << "] " << clock_text(elapsed()) << ' ' << cell << ": " << status
            << (reason.empty() ? "" : ": " + message(reason)) << '\n';
}

void Progress::tick() {
  constexpr std::chrono::milliseconds pause{200};
  if (terminal_ && std::chrono::steady_clock::now() - drawn_ > pause) draw();
}

void Progress::draw() {
  constexpr std::size_t width = 24;
  const std::size_t filled = total_ == 0 ? width : done_ * width / total_;
  const double left = done_ == 0 ? 0 : elapsed() / static_cast<double>(done_) * static_cast<double>(total_ - done_);
  std::string line = "[" + std::string(filled, '#') + std::string(width - filled, '.') + "] " + std::to_string(done_) +
                     "/" + std::to_string(total_) + "  " + clock_text(elapsed()) + " elapsed";
  if (done_ > 0 && done_ < total_) line += ", about " + clock_text(left) + " left";
  line += "  " + current_;
  std::cerr << erase_line << line.substr(0, terminal_width() - 1) << std::flush;
  drawn_ = std::chrono::steady_clock::now();
}

double Progress::elapsed() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

}  // namespace kvlab
