#include "core/method/instance.hpp"

#include <spdlog/spdlog.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#else
#include <cfenv>
#endif

#include <array>
#include <cmath>

#include "core/base/text.hpp"
#include "core/kernels/kernels.hpp"

namespace kvlab {
namespace {

// A line, which names the method where that is known.
void log_line(std::uint32_t level, const char* text) {
  constexpr std::array levels{spdlog::level::debug, spdlog::level::info, spdlog::level::warn, spdlog::level::err};
  const std::string method = calling_method();
  spdlog::log(levels.at(level < levels.size() ? level : levels.size() - 1), "{}{}", method.empty() ? "" : method + ": ",
              message(text == nullptr ? "" : text));
}

// Where a call writes why it failed.
class Message {
 public:
  kvlab_message* out() { return &message_; }
  [[nodiscard]] std::string text() const { return {buffer_.data()}; }

 private:
  std::array<char, 512> buffer_{};
  kvlab_message message_{buffer_.data(), buffer_.size()};
};

[[noreturn]] void misbehaved(const Method& method, const std::string& what) {
  throw MethodError(KVLAB_INTERNAL, method.id + ": " + what);
}

void check(kvlab_status status, const Method& method, const char* call, const Message& message) {
  if (status == KVLAB_OK) return;
  if (status > KVLAB_INTERNAL)
    misbehaved(method, std::string(call) + " returned the unknown status " + std::to_string(status));
  const std::string text = message.text();
  throw MethodError(status, method.id + ": " + (text.empty() ? std::string(call) + " failed without a reason" : text));
}

// How this thread rounds, and whether it keeps denormals: what a call leaves otherwise changes all that comes after it.
class FloatingMode {
 public:
  // Puts it back where it has changed, and says so.
  [[nodiscard]] bool restore() const {
    if (now() == before_) return false;
#if defined(__x86_64__)
    _mm_setcsr((_mm_getcsr() & ~control) | before_);
#else
    std::fesetround(static_cast<int>(before_));
#endif
    return true;
  }

 private:
#if defined(__x86_64__)
  static constexpr unsigned control = 0xFFC0;  // masks, rounding, flush to zero, denormals are zero; not what happened
  static unsigned now() { return _mm_getcsr() & control; }
#else
  static unsigned now() { return static_cast<unsigned>(std::fegetround()); }
#endif
  unsigned before_ = now();
};

// A call of the plugin, noted; what it refuses is thrown.
template <typename Function>
void checked(const Method& method, std::uint32_t label, Call call, const Function& function) {
  Message message;
  kvlab_status status = KVLAB_OK;
  const FloatingMode mode;
  {
    const InCall in(label, call);
    status = function(message.out());
  }
  if (mode.restore()) misbehaved(method, std::string(name_of(call)) + " leaves another rounding mode behind");
  check(status, method, name_of(call), message);
}

// Of those that answer with a number.
template <typename Function>
auto noted(std::uint32_t label, Call call, const Function& function) {
  const InCall in(label, call);
  return function();
}

constexpr std::uint64_t scratch_limit = std::uint64_t{1} << 32;

// Sizes that a method asks for: what is multiplied with them must not overflow.
std::uint64_t bounded(std::uint64_t bytes, const Method& method, const char* what) {
  if (bytes > scratch_limit) misbehaved(method, std::string(what) + " is above 4 GiB");
  return bytes;
}

constexpr std::uint64_t state_limit = std::uint64_t{1} << 40;

void check_traits(const Method& method, const kvlab_codec_traits& traits) {
  if (traits.struct_size < sizeof traits) misbehaved(method, "its traits have the wrong struct_size");
  if (traits.block_tokens == 0 || traits.block_tokens > UINT32_MAX) {
    misbehaved(method, "block_tokens is " + std::to_string(traits.block_tokens) + "; valid: 1 .. 4294967295");
  }
  if (traits.decode_granule == 0) misbehaved(method, "decode_granule is 0; valid: from 1");
  if (traits.state_bytes > state_limit) misbehaved(method, "its state_bytes are above 1 TiB");
  if (traits.append_granule != 0) misbehaved(method, "append_granule above 0 is reserved");
  if (traits.heads != 1) misbehaved(method, "coding several KV heads together is reserved");
  if (traits.reserved != 0) misbehaved(method, "traits.reserved is " + std::to_string(traits.reserved) + "; valid: 0");
  if (traits.needs != 0) misbehaved(method, "needing a peer, queries or scores in encode is reserved");
  if (traits.encode_scratch > scratch_limit || traits.decode_scratch > scratch_limit ||
      traits.attend_scratch > scratch_limit) {
    misbehaved(method, "it asks for more than 4 GiB of scratch");
  }
}

void check_selector(const Method& method, std::uint32_t reads, std::uint32_t scope) {
  constexpr std::uint32_t known = KVLAB_READS_KEYS | KVLAB_READS_VALUES | KVLAB_READS_QUERIES;
  if ((reads & ~known) != 0) misbehaved(method, "reads is " + std::to_string(reads) + "; valid: KVLAB_READS_*");
  if (scope > KVLAB_SCOPE_OBSERVED) misbehaved(method, "scope is " + std::to_string(scope) + "; valid: KVLAB_SCOPE_*");
  if (((reads & KVLAB_READS_QUERIES) != 0) != (scope == KVLAB_SCOPE_OBSERVED)) {
    misbehaved(method, "it reads queries without the scope OBSERVED, or has that scope and reads none");
  }
}

}  // namespace

const kvlab_host& host_with(Isa isa) {
  const auto table = [](Isa of) {
    return kvlab_host{sizeof(kvlab_host),
                      KVLAB_ABI_VERSION,
                      kernels(of).dots,
                      kernels(of).sums,
                      &log_line,
                      nullptr,
                      static_cast<std::uint32_t>(of),
                      0};
  };
  static const std::array tables{table(Isa::scalar), table(Isa::avx2), table(Isa::avx512), table(Isa::avx512vnni)};
  return tables.at(static_cast<std::size_t>(isa));
}

CodecInstance::CodecInstance(const MethodSpec& spec, const kvlab_layer& layer, const kvlab_host& host)
    : method_((kvlab::check(spec, MethodKind::codec), spec.method)),
      functions_(method_->descriptor->codec),
      label_(call_label(method_->id)),
      codec_(nullptr, {functions_->destroy, label_}) {
  kvlab_codec* codec = nullptr;
  checked(*method_, label_, Call::create, [&](kvlab_message* message) {
    return functions_->create(&host, &layer, spec.values.data(), &codec, message);
  });
  if (codec == nullptr) misbehaved(*method_, "create returned no instance");
  codec_.reset(codec);
  checked(*method_, label_, Call::traits,
          [&](kvlab_message* /*message*/) { return functions_->traits(codec, &traits_); });
  check_traits(*method_, traits_);
}

std::uint64_t CodecInstance::bound(std::uint64_t tokens) const {
  const std::uint64_t bytes = noted(label_, Call::bound, [&] { return functions_->bound(codec_.get(), tokens); });
  constexpr std::uint64_t limit = std::uint64_t{1} << 40;
  if (bytes > limit) misbehaved(*method_, "bound(" + std::to_string(tokens) + ") is above 1 TiB");
  return bytes;
}

void CodecInstance::encode(const kvlab_encode_in& in, kvlab_encode_out& out) const {
  checked(*method_, label_, Call::encode,
          [&](kvlab_message* message) { return functions_->encode(codec_.get(), &in, &out, message); });
  check_encoded(out);
  if (traits_.fills_bound != 0 && out.size != bound(in.view.tokens)) {
    misbehaved(*method_, "encode did not fill bound(), and its traits say that it always does");
  }
}

bool CodecInstance::gather(const kvlab_block& block, std::span<const std::uint32_t> keep, kvlab_encode_out& out,
                           void* scratch) const {
  bool unsupported = false;
  checked(*method_, label_, Call::gather, [&](kvlab_message* message) {
    const kvlab_status status =
        method_->gather->gather(codec_.get(), &block, keep.data(), keep.size(), &out, scratch, message);
    unsupported = status == KVLAB_UNSUPPORTED;
    return unsupported ? KVLAB_OK : status;
  });
  if (unsupported) return false;
  check_encoded(out);
  return true;
}

void CodecInstance::check_encoded(const kvlab_encode_out& out) const {
  if (out.size > out.capacity) misbehaved(*method_, "encode wrote more than bound() said");
  const kvlab_parts& parts = out.parts;
  const bool wraps =
      parts.payload > out.size || parts.scales > out.size || parts.indices > out.size || parts.bases > out.size;
  if (wraps || out.parts.payload + out.parts.scales + out.parts.indices + out.parts.bases != out.size) {
    misbehaved(*method_, "encode's parts do not add up to its size");
  }
}

void CodecInstance::decode(const kvlab_block& block, std::uint64_t first, std::uint64_t count, float* rows,
                           std::uint64_t row_stride, void* scratch) const {
  checked(*method_, label_, Call::decode, [&](kvlab_message* message) {
    return functions_->decode(codec_.get(), &block, first, count, rows, row_stride, scratch, message);
  });
}

std::uint64_t CodecInstance::prepared_bytes(std::uint64_t queries) const {
  return bounded(
      noted(label_, Call::prepared_bytes, [&] { return method_->attend_keys->prepared_bytes(codec_.get(), queries); }),
      *method_, "prepared_bytes");
}

void CodecInstance::prepare(std::uint32_t kv_head, const float* queries, std::uint64_t count, void* prepared,
                            void* scratch) const {
  checked(*method_, label_, Call::prepare, [&](kvlab_message* message) {
    return method_->attend_keys->prepare(codec_.get(), kv_head, queries, count, prepared, scratch, message);
  });
}

void CodecInstance::scores(const void* prepared, std::uint64_t queries, const kvlab_block& block, std::uint64_t first,
                           std::uint64_t count, float* scores, std::uint64_t score_stride, void* scratch) const {
  checked(*method_, label_, Call::scores, [&](kvlab_message* message) {
    return method_->attend_keys->scores(codec_.get(), prepared, queries, &block, first, count, scores, score_stride,
                                        scratch, message);
  });
}

std::uint64_t CodecInstance::width() const {
  return bounded(noted(label_, Call::width, [&] { return method_->attend_values->width(codec_.get()); }), *method_,
                 "width");
}

void CodecInstance::accumulate(const float* weights, std::uint64_t queries, std::uint64_t weight_stride,
                               const kvlab_block& block, std::uint64_t first, std::uint64_t count, float* accumulator,
                               void* scratch) const {
  checked(*method_, label_, Call::accumulate, [&](kvlab_message* message) {
    return method_->attend_values->accumulate(codec_.get(), weights, queries, weight_stride, &block, first, count,
                                              accumulator, scratch, message);
  });
}

void CodecInstance::finish(std::uint32_t kv_head, const float* accumulator, std::uint64_t queries, float* rows,
                           void* scratch) const {
  checked(*method_, label_, Call::finish, [&](kvlab_message* message) {
    return method_->attend_values->finish(codec_.get(), kv_head, accumulator, queries, rows, scratch, message);
  });
}

SelectorInstance::SelectorInstance(const MethodSpec& spec, const kvlab_layer& layer)
    : method_((kvlab::check(spec, MethodKind::selector), spec.method)),
      functions_(method_->descriptor->selector),
      label_(call_label(method_->id)),
      selector_(nullptr, {functions_->destroy, label_}) {
  kvlab_selector* selector = nullptr;
  checked(*method_, label_, Call::create, [&](kvlab_message* message) {
    return functions_->create(&host_with(chosen_isa()), &layer, spec.values.data(), &selector, message);
  });
  if (selector == nullptr) misbehaved(*method_, "create returned no instance");
  selector_.reset(selector);
  reads_ = noted(label_, Call::reads, [&] { return functions_->reads(selector); });
  scope_ = noted(label_, Call::scope, [&] { return functions_->scope(selector); });
  check_selector(*method_, reads_, scope_);
}

std::uint64_t SelectorInstance::scratch(std::uint64_t tokens, std::uint64_t observed) const {
  return bounded(noted(label_, Call::scratch, [&] { return functions_->scratch(selector_.get(), tokens, observed); }),
                 *method_, "scratch");
}

void SelectorInstance::scores(const kvlab_selector_in& in, std::span<float> scores) const {
  checked(*method_, label_, Call::scores,
          [&](kvlab_message* message) { return functions_->scores(selector_.get(), &in, scores.data(), message); });
  for (std::size_t t = 0; t < scores.size(); ++t) {
    if (std::isnan(scores[t])) misbehaved(*method_, "the score of token " + std::to_string(t) + " is NaN");
  }
}

}  // namespace kvlab
