// Instances of methods: the C tables of the ABI as C++ objects. What a plugin refuses is thrown as MethodError; what
// it says of itself is checked here, so that nothing after this trusts a plugin's arithmetic.
#pragma once

#include <kvlab/abi.h>
#include <kvlab/isa.hpp>

#include <memory>
#include <span>
#include <string>

#include "core/base/error.hpp"
#include "core/method/calls.hpp"
#include "core/method/spec.hpp"

namespace kvlab {

// A method failed, or did what it must not. `status` is one of KVLAB_*.
struct MethodError : Error {
  MethodError(kvlab_status status_, const std::string& sentence) : Error(sentence), status(status_) {}
  kvlab_status status;
};

// What plugins are given of the host, for an instruction set: its kernels, and leave for their own. It lasts.
const kvlab_host& host_with(Isa isa);

// Ends an instance of a plugin by its own function.
template <typename Instance>
struct Destroy {
  void (*function)(Instance*);
  std::uint32_t label;  // of call_label
  void operator()(Instance* instance) const {
    const InCall in(label, Call::destroy);
    function(instance);
  }
};

class CodecInstance {
 public:
  // InputError for a spec that is none.
  CodecInstance(const MethodSpec& spec, const kvlab_layer& layer, const kvlab_host& host = host_with(chosen_isa()));

  [[nodiscard]] const Method& method() const { return *method_; }
  [[nodiscard]] const kvlab_codec_traits& traits() const { return traits_; }
  [[nodiscard]] bool attends_keys() const { return method_->attend_keys != nullptr; }
  [[nodiscard]] bool attends_values() const { return method_->attend_values != nullptr; }

  [[nodiscard]] std::uint64_t bound(std::uint64_t tokens) const;
  // Fills in out.size and out.parts, which were checked to fit the capacity and to add up.
  void encode(const kvlab_encode_in& in, kvlab_encode_out& out) const;
  void decode(const kvlab_block& block, std::uint64_t first, std::uint64_t count, float* rows, std::uint64_t row_stride,
              void* scratch) const;

  // Only where gathers(). False where these tokens cannot be a block of their own.
  [[nodiscard]] bool gathers() const { return method_->gather != nullptr; }
  bool gather(const kvlab_block& block, std::span<const std::uint32_t> keep, kvlab_encode_out& out,
              void* scratch) const;

  // Only where attends_keys().
  [[nodiscard]] std::uint64_t prepared_bytes(std::uint64_t queries) const;
  void prepare(std::uint32_t kv_head, const float* queries, std::uint64_t count, void* prepared, void* scratch) const;
  void scores(const void* prepared, std::uint64_t queries, const kvlab_block& block, std::uint64_t first,
              std::uint64_t count, float* scores, std::uint64_t score_stride, void* scratch) const;
  // Only where attends_values().
  [[nodiscard]] std::uint64_t width() const;
  void accumulate(const float* weights, std::uint64_t queries, std::uint64_t weight_stride, const kvlab_block& block,
                  std::uint64_t first, std::uint64_t count, float* accumulator, void* scratch) const;
  void finish(std::uint32_t kv_head, const float* accumulator, std::uint64_t queries, float* rows, void* scratch) const;

 private:
  void check_encoded(const kvlab_encode_out& out) const;

  const Method* method_;
  const kvlab_codec_functions* functions_;
  std::uint32_t label_;  // of call_label
  std::unique_ptr<kvlab_codec, Destroy<kvlab_codec>> codec_;
  kvlab_codec_traits traits_{};
};

class SelectorInstance {
 public:
  SelectorInstance(const MethodSpec& spec, const kvlab_layer& layer);  // InputError for a spec that is none

  [[nodiscard]] std::uint32_t reads() const { return reads_; }
  [[nodiscard]] std::uint32_t scope() const { return scope_; }
  // A token's score is kept as long as the token: it cannot be had again from positions alone.
  [[nodiscard]] bool keeps_scores() const { return scope_ == KVLAB_SCOPE_TOKEN && reads_ != 0; }
  [[nodiscard]] std::uint64_t scratch(std::uint64_t tokens, std::uint64_t observed) const;
  // A NaN among the scores is a MethodError.
  void scores(const kvlab_selector_in& in, std::span<float> scores) const;

 private:
  const Method* method_;
  const kvlab_selector_functions* functions_;
  std::uint32_t label_;  // of call_label
  std::unique_ptr<kvlab_selector, Destroy<kvlab_selector>> selector_;
  std::uint32_t reads_ = 0;
  std::uint32_t scope_ = KVLAB_SCOPE_PRESENT;
};

}  // namespace kvlab
