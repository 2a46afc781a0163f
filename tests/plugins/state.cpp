// A codec (f32 rows) with a state of as many bytes as `bytes` says, under the key that `key` says. Built under two
// names.
#include <kvlab/plugin.hpp>

#include <cstring>
#include <tuple>
#include <vector>

namespace {

struct State : kvlab::Codec {
  std::int64_t bytes;
  std::int64_t key;
  static constexpr kvlab::Info info{.id = STATE_ID, .version = "1", .summary = "a codec for tests"};
  static constexpr auto parameters() {
    return std::tuple{kvlab::integer(&State::bytes, "bytes", 72, {0, 1 << 30}, "bytes", "of its state"),
                      kvlab::integer(&State::key, "key", 1, {0, 100}, "", "of its state")};
  }

  [[nodiscard]] std::uint64_t state_bytes() const { return static_cast<std::uint64_t>(bytes); }
  [[nodiscard]] std::uint64_t state_key() const { return static_cast<std::uint64_t>(key); }
  [[nodiscard]] std::uint64_t block_tokens() const { return 32; }
  [[nodiscard]] std::uint64_t bound(std::uint64_t tokens) const { return tokens * head_dim() * sizeof(float); }
  kvlab_parts encode(const kvlab::EncodeIn& in, std::span<std::uint8_t> out) const {
    std::vector<float> rows(in.tokens.tokens * head_dim());
    in.tokens.read_all(rows);
    std::memcpy(out.data(), rows.data(), rows.size() * sizeof(float));
    return {rows.size() * sizeof(float), 0, 0, 0};
  }
  void decode(const kvlab::Block& block, std::uint64_t first, std::uint64_t count, kvlab::Rows rows,
              kvlab::Scratch /*scratch*/) const {
    const std::uint64_t row = head_dim() * sizeof(float);
    for (std::uint64_t t = 0; t < count; ++t) std::memcpy(rows[t], block.bytes + (first + t) * row, row);
  }
};

}  // namespace

KVLAB_PLUGIN(State)
