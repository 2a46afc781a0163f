// The positions of the tokens in one head's slots. The words that a backend reads (core/backend/positions_view.hpp) are
// the cache's memory: they are counted. Beside them the host keeps the runs of neighbours, for its bookkeeping: like
// the table of segments they are not counted.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/head/backend_array.hpp"

namespace kvlab {

class Positions {
 public:
  Positions() = default;
  // `kept` of 0 .. total - 1, ascending but for evicted ones. Words come out of `promise`, and are written by `work`.
  Positions(std::span<const std::uint32_t> kept, std::uint64_t total, Arena& arena, Promise& promise, Work& work);
  // All of 0 .. total - 1: none is stored.
  explicit Positions(std::uint64_t total) : tokens_(total) {}
  // Words that storing these takes; 0 where they are 0 .. total - 1.
  static std::uint64_t words_for(std::span<const std::uint32_t> kept, std::uint64_t total);

  // The neighbours first .. first + count - 1, beyond all that are there.
  void append(std::uint32_t first, std::uint64_t count, Arena& arena, Promise& promise, Work& work);
  // Padded bytes that this append takes.
  [[nodiscard]] std::uint64_t append_needs(std::uint32_t first, std::uint64_t count) const;

  [[nodiscard]] std::uint64_t tokens() const { return tokens_; }
  [[nodiscard]] const std::shared_ptr<Piece>& piece() const { return words_.piece(); }  // null where none is stored
  [[nodiscard]] PositionsView view() const { return {form_, words_.data(), 0}; }
  void write_out(std::vector<std::uint32_t>& all) const;
  // Of the slots [slot, slot + count), count >= 1. Returns the first; `list` is empty where they are neighbours.
  std::uint32_t slice(std::uint64_t slot, std::uint64_t count, std::vector<std::uint32_t>& list) const;

 private:
  struct Run {
    std::uint32_t first;
    std::uint32_t count;
  };
  using Form = PositionsView::Form;

  [[nodiscard]] std::vector<Run>& own_runs();
  [[nodiscard]] bool is_neighbour(std::uint32_t first) const;
  [[nodiscard]] std::uint64_t words_after(std::uint32_t first, std::uint64_t count) const;

  std::uint64_t tokens_ = 0;
  Form form_ = Form::all;
  BackendArray<std::uint32_t> words_;
  std::shared_ptr<std::vector<Run>> runs_;  // null: 0 .. tokens - 1; forks share it until one of them grows
};

}  // namespace kvlab
