// A codec as a C++ struct. It derives from kvlab::Codec, has `static constexpr kvlab::Info info`, may declare
// `parameters()`, and defines
//
//   std::uint64_t block_tokens() const;               the most tokens of a block
//   std::uint64_t bound(std::uint64_t tokens) const;  the most bytes they take
//   kvlab_parts encode(const EncodeIn&, std::span<std::uint8_t> out) const;   parts add up to the bytes written
//   void decode(const Block&, std::uint64_t first, std::uint64_t count, Rows rows, Scratch) const;
//
// It may define start() (after the parameters are set: check them against each other, build tables), and any of
// the functions that Codec gives a default, under the same name. With prepared_bytes, prepare and scores it offers
// the ability attend_keys; with width, accumulate and finish attend_values; with
//
//   kvlab_parts gather(const Block&, std::span<const std::uint32_t> keep, std::span<std::uint8_t> out, Scratch) const;
//
// gather: abi.h says what each does. All are const
// and are called from many threads at once.
#pragma once

#include <kvlab/abi.h>
#include <kvlab/plugin/errors.hpp>
#include <kvlab/plugin/parameters.hpp>
#include <kvlab/plugin/views.hpp>

#include <cstring>
#include <memory>

namespace kvlab {

struct EncodeIn {
  TokenView tokens;
  const kvlab_encode_in& call;  // positions and what is reserved
  Scratch scratch;
  bool past_caches;  // KVLAB_PAST_CACHES: non-temporal stores pay, and must be fenced
};

struct Codec {
  Layer layer;
  const kvlab_host* host = nullptr;  // kernels of the host: abi.h

  void start() {}
  [[nodiscard]] std::uint64_t head_dim() const { return layer.head_dim(); }
  [[nodiscard]] std::uint64_t decode_granule() const { return 1; }
  [[nodiscard]] std::uint64_t encode_scratch() const { return 0; }
  [[nodiscard]] std::uint64_t decode_scratch() const { return 0; }
  [[nodiscard]] std::uint64_t attend_scratch() const { return 0; }
  [[nodiscard]] std::uint64_t state_bytes() const { return 0; }
  [[nodiscard]] std::uint64_t state_key() const { return 0; }
  [[nodiscard]] bool whole_blocks() const { return false; }
  [[nodiscard]] bool fills_bound() const { return false; }  // a promise: encode that breaks it is an error
};

namespace detail {

template <class Method, class Handle>
kvlab_status create_method(const kvlab_host* host, const kvlab_layer* layer, const kvlab_value* values, Handle** out,
                           kvlab_message* message) {
  return guarded(message, [&] {
    auto method = std::make_unique<Method>();
    method->host = host;
    method->layer = Layer(*layer);
    assign_all(*method, values);
    method->start();
    *out = reinterpret_cast<Handle*>(method.release());
  });
}

template <class Method>
struct CodecTable {
  static const Method& self(const kvlab_codec* codec) { return *reinterpret_cast<const Method*>(codec); }

  static kvlab_status create(const kvlab_host* host, const kvlab_layer* layer, const kvlab_value* values,
                             kvlab_codec** out, kvlab_message* message) {
    return create_method<Method>(host, layer, values, out, message);
  }
  static void destroy(kvlab_codec* codec) { delete reinterpret_cast<Method*>(codec); }
  static kvlab_status traits(const kvlab_codec* codec, kvlab_codec_traits* out) {
    return guarded(nullptr, [&] {
      const Method& method = self(codec);
      *out = {.struct_size = sizeof(kvlab_codec_traits),
              .needs = 0,
              .block_tokens = method.block_tokens(),
              .decode_granule = method.decode_granule(),
              .append_granule = 0,
              .encode_scratch = method.encode_scratch(),
              .decode_scratch = method.decode_scratch(),
              .attend_scratch = method.attend_scratch(),
              .state_bytes = method.state_bytes(),
              .state_key = method.state_key(),
              .heads = 1,
              .whole_blocks = method.whole_blocks() ? 1U : 0U,
              .fills_bound = method.fills_bound() ? 1U : 0U,
              .reserved = 0};
    });
  }
  static std::uint64_t bound(const kvlab_codec* codec, std::uint64_t tokens) { return self(codec).bound(tokens); }
  static kvlab_status encode(const kvlab_codec* codec, const kvlab_encode_in* in, kvlab_encode_out* out,
                             kvlab_message* message) {
    return guarded(message, [&] {
      const EncodeIn call{{in->view}, *in, Scratch(in->scratch), (out->flags & KVLAB_PAST_CACHES) != 0};
      out->parts = self(codec).encode(call, std::span(out->bytes, out->capacity));
      out->size = out->parts.payload + out->parts.scales + out->parts.indices + out->parts.bases;
    });
  }
  static kvlab_status decode(const kvlab_codec* codec, const kvlab_block* block, std::uint64_t first,
                             std::uint64_t count, float* rows, std::uint64_t row_stride, void* scratch,
                             kvlab_message* message) {
    return guarded(message,
                   [&] { self(codec).decode(Block{*block}, first, count, Rows{rows, row_stride}, Scratch(scratch)); });
  }

  static constexpr kvlab_codec_functions functions{
      sizeof(kvlab_codec_functions), 0, &create, &destroy, &traits, &bound, &encode, &decode};
};

template <class Method>
struct AttendKeysTable : CodecTable<Method> {
  using CodecTable<Method>::self;
  static std::uint64_t prepared_bytes(const kvlab_codec* codec, std::uint64_t queries) {
    return self(codec).prepared_bytes(queries);
  }
  static kvlab_status prepare(const kvlab_codec* codec, std::uint32_t kv_head, const float* queries,
                              std::uint64_t count, void* prepared, void* scratch, kvlab_message* message) {
    return guarded(message, [&] { self(codec).prepare(kv_head, queries, count, prepared, Scratch(scratch)); });
  }
  static kvlab_status scores(const kvlab_codec* codec, const void* prepared, std::uint64_t queries,
                             const kvlab_block* block, std::uint64_t first, std::uint64_t count, float* scores,
                             std::uint64_t score_stride, void* scratch, kvlab_message* message) {
    return guarded(message, [&] {
      self(codec).scores(prepared, queries, Block{*block}, first, count, Rows{scores, score_stride}, Scratch(scratch));
    });
  }
  static constexpr kvlab_attend_keys functions{sizeof(kvlab_attend_keys), 0, &prepared_bytes, &prepare, &scores};
};

template <class Method>
struct AttendValuesTable : CodecTable<Method> {
  using CodecTable<Method>::self;
  static std::uint64_t width(const kvlab_codec* codec) { return self(codec).width(); }
  static kvlab_status accumulate(const kvlab_codec* codec, const float* weights, std::uint64_t queries,
                                 std::uint64_t weight_stride, const kvlab_block* block, std::uint64_t first,
                                 std::uint64_t count, float* accumulator, void* scratch, kvlab_message* message) {
    return guarded(message, [&] {
      self(codec).accumulate(weights, queries, weight_stride, Block{*block}, first, count, accumulator,
                             Scratch(scratch));
    });
  }
  static kvlab_status finish(const kvlab_codec* codec, std::uint32_t kv_head, const float* accumulator,
                             std::uint64_t queries, float* rows, void* scratch, kvlab_message* message) {
    return guarded(message, [&] { self(codec).finish(kv_head, accumulator, queries, rows, Scratch(scratch)); });
  }
  static constexpr kvlab_attend_values functions{sizeof(kvlab_attend_values), 0, &width, &accumulate, &finish};
};

template <class Method>
struct GatherTable : CodecTable<Method> {
  using CodecTable<Method>::self;
  static kvlab_status gather(const kvlab_codec* codec, const kvlab_block* block, const std::uint32_t* keep,
                             std::uint64_t count, kvlab_encode_out* out, void* scratch, kvlab_message* message) {
    return guarded(message, [&] {
      out->parts = self(codec).gather(Block{*block}, std::span(keep, count), std::span(out->bytes, out->capacity),
                                      Scratch(scratch));
      out->size = out->parts.payload + out->parts.scales + out->parts.indices + out->parts.bases;
    });
  }
  static constexpr kvlab_gather functions{sizeof(kvlab_gather), 0, &gather};
};

template <class Method>
const void* codec_ability(const char* id) {
  if constexpr (requires { &Method::gather; }) {
    if (std::strcmp(id, KVLAB_ABILITY_GATHER) == 0) return &GatherTable<Method>::functions;
  }
  if constexpr (requires { &Method::prepare; }) {
    if (std::strcmp(id, KVLAB_ABILITY_ATTEND_KEYS) == 0) return &AttendKeysTable<Method>::functions;
  }
  if constexpr (requires { &Method::accumulate; }) {
    if (std::strcmp(id, KVLAB_ABILITY_ATTEND_VALUES) == 0) return &AttendValuesTable<Method>::functions;
  }
  return nullptr;
}

}  // namespace detail
}  // namespace kvlab
