#include "core/conformance/cases.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace kvlab::conformance {
namespace {

struct CodecCase {
  Dtype dtype;
  std::uint32_t head_dim;
  std::uint32_t role;
};

const std::vector<CodecCase>& all_cases() {
  static const std::vector<CodecCase> cases = [] {
    std::vector<CodecCase> made;
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32}) {
      for (const std::uint32_t head_dim : {64U, 80U, 96U, 128U, 256U, 33U, 1U}) {
        for (const std::uint32_t role : {KVLAB_ROLE_KEYS, KVLAB_ROLE_VALUES}) made.push_back({dtype, head_dim, role});
      }
    }
    return made;
  }();
  return cases;
}

const std::vector<CodecCase>& few_cases() {
  static const std::vector<CodecCase> cases{{Dtype::bf16, 128, KVLAB_ROLE_KEYS},
                                            {Dtype::bf16, 64, KVLAB_ROLE_VALUES},
                                            {Dtype::f16, 33, KVLAB_ROLE_VALUES},
                                            {Dtype::f32, 80, KVLAB_ROLE_KEYS}};
  return cases;
}

std::string text_of(const CodecCase& each) {
  return std::string(name_of(each.dtype)) + (each.role == KVLAB_ROLE_KEYS ? " keys" : " values") + ", head_dim " +
         std::to_string(each.head_dim);
}

}  // namespace

Place::Place() : page_(4096) {
  // A mapping of one's own would be copied by a fork.
  if (mmap(page_.data(), page_.size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
      MAP_FAILED) {
    throw std::bad_alloc();
  }
}

void Place::set(const std::string& text) const {
  auto* to = reinterpret_cast<char*>(page_.data());
  const std::size_t length = std::min(text.size(), page_.size() - 1);
  std::memcpy(to, text.data(), length);
  to[length] = '\0';
}

std::string Place::text() const {
  const auto* from = reinterpret_cast<const char*>(page_.data());
  return {from, strnlen(from, page_.size())};
}

bool unless_refused(const std::function<void()>& body) {
  try {
    body();
    return true;
  } catch (const MethodError& error) {
    if (error.status == KVLAB_UNSUPPORTED || error.status == KVLAB_INVALID_ARGUMENT) return false;
    throw Failure(error.what());
  }
}

std::size_t for_codec_cases(const Method& method, const Place& place,
                            const std::function<void(const CodecSubject&, std::uint64_t tokens)>& body) {
  std::size_t ran = 0;
  const std::vector<MethodSpec> all = settings(method);
  for (const MethodSpec& spec : all) {
    const bool is_default = &spec == &all.front();
    for (const CodecCase& each : is_default ? all_cases() : few_cases()) {
      const std::string text = (spec.values.empty() ? "" : conformance::text_of(spec) + ", ") + text_of(each);
      place.set(text);
      ran += unless_refused([&] {
        const CodecSubject subject(spec, layer_shape(each.dtype, each.head_dim), each.role);
        const std::uint64_t block = std::min<std::uint64_t>(subject.codec().traits().block_tokens, 300);
        for (const std::uint64_t tokens : std::set<std::uint64_t>{1, std::min<std::uint64_t>(block, 37), block}) {
          place.set(text + ", " + std::to_string(tokens) + (tokens == 1 ? " token" : " tokens"));
          body(subject, tokens);
        }
      });
    }
  }
  place.set("");
  return ran;
}

}  // namespace kvlab::conformance
