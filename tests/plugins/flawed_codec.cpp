// A codec that is right (f32 rows as they are, their number before them) but for the flaw that the environment's
// KVLAB_TEST_FLAW names.
#include <kvlab/plugin.hpp>

#include <unistd.h>

#include <atomic>
#include <cfenv>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>

namespace {

bool flaw(std::string_view name) {
  const char* wanted = std::getenv("KVLAB_TEST_FLAW");
  return wanted != nullptr && name == wanted;
}

struct FlawedCodec : kvlab::Codec {
  static constexpr kvlab::Info info{.id = "flawed_codec", .version = "1", .summary = "a codec for tests"};
  static constexpr std::uint64_t head = 72;  // bytes before the rows: how many they are

  void start() {
    if (flaw("refuses_all")) throw kvlab::Unsupported("not for me");
    if (flaw("exits")) _exit(0);
  }
  ~FlawedCodec() {
    if (flaw("dies_at_the_end")) std::abort();
  }
  [[nodiscard]] std::uint64_t state_bytes() const { return flaw("huge_state") ? ~std::uint64_t{0} : 0; }
  [[nodiscard]] std::uint64_t row() const { return head_dim() * sizeof(float); }
  [[nodiscard]] static std::uint64_t block_tokens() { return 64; }
  [[nodiscard]] std::uint64_t bound(std::uint64_t tokens) const { return head + tokens * row(); }

  kvlab_parts encode(const kvlab::EncodeIn& in, std::span<std::uint8_t> out) const {
    std::memset(out.data(), 0, head);
    std::memcpy(out.data(), &in.tokens.tokens, sizeof(in.tokens.tokens));
    kvlab::TokenView tokens = in.tokens;
    if (flaw("ignores_strides")) tokens.token_stride = static_cast<std::int64_t>(tokens.channels);
    if (flaw("reads_beyond_its_input")) tokens.tokens += 1 + 4096 / row();
    std::vector<float> rows(tokens.tokens * head_dim());
    tokens.read_all(rows);
    if (flaw("counts")) {
      static std::atomic<int> calls{0};
      rows[0] = static_cast<float>(++calls);
    }
    if (flaw("knows_its_thread")) {
      rows[0] = static_cast<float>(std::hash<std::thread::id>()(std::this_thread::get_id()) % 1000);
    }
    if (flaw("writes_its_input")) *static_cast<std::uint8_t*>(const_cast<void*>(in.tokens.base)) = 1;
    std::memcpy(out.data() + head, rows.data(), in.tokens.tokens * row());
    if (flaw("rounds_otherwise")) std::fesetround(FE_TOWARDZERO);
    if (flaw("writes_beyond")) out.data()[out.size()] = 1;
    if (flaw("hangs")) {
      for (const volatile bool forever = true; forever;) {
      }
    }
    return {.payload = in.tokens.tokens * row() + head, .scales = 0, .indices = 0, .bases = 0};
  }

  void decode(const kvlab::Block& block, std::uint64_t first, std::uint64_t count, kvlab::Rows rows,
              kvlab::Scratch /*scratch*/) const {
    std::uint64_t tokens = block.tokens;
    if (flaw("trusts_its_bytes")) std::memcpy(&tokens, block.bytes, sizeof(tokens));
    if (flaw("reads_beyond_its_block")) tokens += 1 + 4096 / row();
    std::vector<float> all(tokens * head_dim());
    std::memcpy(all.data(), block.bytes + head, tokens * row());
    if (flaw("decodes_the_first")) first = 0;
    for (std::uint64_t t = 0; t < count; ++t) std::memcpy(rows[t], all.data() + (first + t) * head_dim(), row());
    if (flaw("decodes_infinity")) rows[0][0] *= 2;
  }

  [[nodiscard]] std::uint64_t prepared_bytes(std::uint64_t queries) const { return queries * row(); }
  void prepare(std::uint32_t /*kv_head*/, const float* queries, std::uint64_t count, void* prepared,
               kvlab::Scratch /*scratch*/) const {
    std::memcpy(prepared, queries, count * row());
  }
  void scores(const void* prepared, std::uint64_t queries, const kvlab::Block& block, std::uint64_t first,
              std::uint64_t count, kvlab::Rows out, kvlab::Scratch /*scratch*/) const {
    const auto* query = static_cast<const float*>(prepared);
    const auto* rows = reinterpret_cast<const float*>(block.bytes + head);
    for (std::uint64_t i = 0; i < queries; ++i) {
      for (std::uint64_t t = 0; t < count; ++t) {
        float sum = 0;
        for (std::uint64_t c = 0; c < head_dim(); ++c)
          sum += query[i * head_dim() + c] * rows[(first + t) * head_dim() + c];
        out[i][t] = flaw("scores_are_off") ? sum * 1.01F : sum;
      }
    }
  }

  kvlab_parts gather(const kvlab::Block& block, std::span<const std::uint32_t> keep, std::span<std::uint8_t> out,
                     kvlab::Scratch /*scratch*/) const {
    const std::uint64_t tokens = keep.size();
    std::memset(out.data(), 0, head);
    std::memcpy(out.data(), &tokens, sizeof(tokens));
    for (std::uint64_t i = 0; i < tokens; ++i) {
      const std::uint64_t token = flaw("gathers_the_first") ? i : keep[i];
      std::memcpy(out.data() + head + i * row(), block.bytes + head + token * row(), row());
    }
    return {.payload = tokens * row() + head, .scales = 0, .indices = 0, .bases = 0};
  }
};

}  // namespace

KVLAB_PLUGIN(FlawedCodec)
