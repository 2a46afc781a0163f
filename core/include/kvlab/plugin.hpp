// The C++ face of the plugin ABI (abi.h). A method is one struct, one line says that it is a plugin, and nothing is
// linked:
//
//   #include <kvlab/plugin.hpp>
//
//   struct Newest : kvlab::Selector {
//     static constexpr kvlab::Info info{.id = "newest", .version = "1.0.0", .summary = "keeps the newest tokens"};
//     void scores(const kvlab::HeadView& head, std::span<float> out) const {
//       for (std::size_t t = 0; t < out.size(); ++t) out[t] = static_cast<float>(head.positions[t]);
//     }
//   };
//   KVLAB_PLUGIN(Newest)
//
// kvlab/plugin/selector.hpp and kvlab/plugin/codec.hpp say what each kind defines, kvlab/plugin/parameters.hpp how
// parameters are declared. Throw kvlab::InvalidArgument or kvlab::Unsupported to refuse.
#pragma once

#include <kvlab/abi.h>
#include <kvlab/plugin/codec.hpp>
#include <kvlab/plugin/parameters.hpp>
#include <kvlab/plugin/selector.hpp>

#include <type_traits>

namespace kvlab::detail {

#if defined(__clang__)
inline constexpr const char* compiler = "clang " __clang_version__;
#elif defined(__GNUC__)
inline constexpr const char* compiler = "g++ " __VERSION__;
#else
inline constexpr const char* compiler = "";
#endif
#if defined(__OPTIMIZE__)
inline constexpr std::uint32_t optimized = 1;
#else
inline constexpr std::uint32_t optimized = 0;
#endif

template <class Method>
constexpr kvlab_descriptor describe() {
  static_assert(std::is_base_of_v<Codec, Method> != std::is_base_of_v<Selector, Method>,
                "a method derives from kvlab::Codec or from kvlab::Selector");
  kvlab_descriptor descriptor{};
  descriptor.magic = KVLAB_ABI_MAGIC;
  descriptor.abi_version = KVLAB_ABI_VERSION;
  descriptor.struct_size = sizeof(kvlab_descriptor);
  descriptor.parameter_count = static_cast<std::uint32_t>(parameter_table<Method>.size());
  descriptor.parameters = parameter_table<Method>.data();
  descriptor.id = Method::info.id;
  descriptor.version = Method::info.version;
  descriptor.summary = Method::info.summary;
  descriptor.paper_title = Method::info.paper_title;
  descriptor.paper_arxiv = Method::info.paper_arxiv;
  descriptor.license = Method::info.license;
  descriptor.compiler = compiler;
  descriptor.optimized = optimized;
  if constexpr (std::is_base_of_v<Codec, Method>) {
    descriptor.kind = KVLAB_CODEC;
    descriptor.codec = &CodecTable<Method>::functions;
    descriptor.ability = &codec_ability<Method>;
  } else {
    descriptor.kind = KVLAB_SELECTOR;
    descriptor.selector = &SelectorTable<Method>::functions;
  }
  return descriptor;
}

}  // namespace kvlab::detail

// Once a library, outside any namespace.
#define KVLAB_PLUGIN(Method) \
  extern "C" KVLAB_EXPORT constexpr kvlab_descriptor kvlab_plugin = kvlab::detail::describe<Method>();
