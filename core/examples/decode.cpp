// How a decode loop uses the cache: prefill a prompt, then for each new token append its keys and values in every layer
// and attend to all that came before. Here the model is a random one, two layers with grouped queries; what it would
// compute is drawn. Beside the compressed cache runs an uncompressed twin, and what the two differ by is printed.
//
//   kvlab_decode                          4 bits, keys per channel (KIVI's shape)
//   kvlab_decode bits=2 group=32          other parameters of the same codec; `kvlab describe quantize` lists them
//
// How to build it in a folder of your own: README.md beside this file.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/backend/cpu/cpu_backend.hpp"
#include "core/cache/manager.hpp"
#include "core/method/spec.hpp"
#include "core/registry/registry.hpp"

namespace {

constexpr std::uint64_t batch = 2;
constexpr std::uint32_t kv_heads = 2;
constexpr std::uint32_t query_heads = 8;
constexpr std::uint32_t head_dim = 64;
constexpr std::uint64_t prompt = 1000;
constexpr std::uint64_t steps = 300;

std::vector<kvlab::LayerShape> model() {
  std::vector<kvlab::LayerShape> layers(2);
  for (std::uint32_t i = 0; i < layers.size(); ++i) {
    layers[i].layer = i;
    layers[i].batch = batch;
    layers[i].kv_heads = kv_heads;
    layers[i].query_heads = query_heads;
    layers[i].head_dim_keys = head_dim;
    layers[i].head_dim_values = head_dim;
    layers[i].dtype = kvlab::Dtype::bf16;
    layers[i].attention_scale = 1 / std::sqrt(static_cast<double>(head_dim));
  }
  return layers;
}

// What a model would have computed for `tokens` tokens: bf16 [batch, kv_head, token, channel].
std::vector<std::byte> draw_rows(std::mt19937_64& engine, std::uint64_t tokens) {
  std::normal_distribution<float> normal;
  std::vector<float> rows(batch * kv_heads * tokens * head_dim);
  for (auto& x : rows) x = normal(engine);
  std::vector<std::byte> stored(2 * rows.size());
  kvlab::from_f32(kvlab::Dtype::bf16, rows.data(), stored.data(), rows.size());
  return stored;
}

kvlab::KvTensor tensor(const kvlab::LayerShape& layer, std::uint32_t role, const std::vector<std::byte>& rows) {
  const std::uint64_t tokens = rows.size() / (2 * batch * kv_heads * head_dim);
  return kvlab::KvTensor::contiguous(layer, role, batch, tokens, rows.data());
}

// Parameters of the codec: NAME=VALUE.
std::vector<kvlab::Setting> settings(std::span<char*> arguments) {
  std::vector<kvlab::Setting> given;
  for (const std::string_view argument : arguments) {
    const auto equals = argument.find('=');
    if (equals == std::string_view::npos) {
      throw kvlab::InputError("'" + std::string(argument) + "' is not NAME=VALUE, a parameter of quantize like bits=2");
    }
    given.emplace_back(argument.substr(0, equals), argument.substr(equals + 1));
  }
  return given;
}

// The usual ones where the others say nothing of them.
std::vector<kvlab::Setting> filled(std::vector<kvlab::Setting> given, const std::vector<kvlab::Setting>& usual) {
  for (const auto& setting : usual) {
    const auto same = [&](const kvlab::Setting& other) { return other.name == setting.name; };
    if (std::none_of(given.begin(), given.end(), same)) given.push_back(setting);
  }
  return given;
}

void run(const std::vector<kvlab::Setting>& given) {
  const kvlab::Registry registry(kvlab::plugin_search_path());
  kvlab::Pipeline pipeline;  // KIVI's shape, with 4 sinks and the last 64 tokens raw
  pipeline.sinks = 4;
  pipeline.tail = 64;
  const auto codec = [&](const std::vector<kvlab::Setting>& usual) {
    return kvlab::method_spec(registry, kvlab::MethodKind::codec, "quantize", filled(given, usual));
  };
  pipeline.keys = codec({{"bits", 4}, {"symmetric", false}, {"scales", "per_channel"}});
  pipeline.values = codec({{"bits", 4}, {"symmetric", false}});

  const std::vector<kvlab::LayerShape> layers = model();
  kvlab::CpuBackend backend;
  kvlab::CacheManager cache(pipeline, layers, backend, {.budget = std::uint64_t{64} << 20});
  kvlab::CacheManager twin(kvlab::Pipeline{}, layers, backend);
  std::mt19937_64 engine(1);

  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const kvlab::LayerShape& shape = layers[layer];
    const auto keys = draw_rows(engine, prompt);
    const auto values = draw_rows(engine, prompt);
    const kvlab::Prefill input{tensor(shape, KVLAB_ROLE_KEYS, keys), tensor(shape, KVLAB_ROLE_VALUES, values), {}};
    cache.prefill(layer, input);
    twin.prefill(layer, input);
  }

  const std::vector<std::uint32_t> sequences{0, 1};
  std::vector<float> queries(batch * query_heads * head_dim);
  std::vector<float> out(queries.size());
  std::vector<float> exact(queries.size());
  double error = 0;
  double norm = 0;
  for (std::uint64_t step = 0; step < steps; ++step) {
    // The new token attends to itself and to all before it.
    const std::vector<std::uint32_t> position{static_cast<std::uint32_t>(prompt + step)};
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      const kvlab::LayerShape& shape = layers[layer];
      const auto key_rows = draw_rows(engine, 1);
      const auto value_rows = draw_rows(engine, 1);
      const auto keys = tensor(shape, KVLAB_ROLE_KEYS, key_rows);
      const auto values = tensor(shape, KVLAB_ROLE_VALUES, value_rows);
      std::normal_distribution<float> normal;
      for (auto& x : queries) x = normal(engine);
      const auto asked = kvlab::QueryTensor::contiguous(shape, batch, 1, queries.data(), position);
      for (auto* each : {&cache, &twin}) {
        each->append(layer, sequences, keys, values);
        each->attend(layer, sequences, asked, each == &cache ? out.data() : exact.data());
      }
      for (std::size_t i = 0; i < out.size(); ++i) {
        error += (out[i] - exact[i]) * (out[i] - exact[i]);
        norm += exact[i] * exact[i];
      }
    }
  }

  const kvlab::Bytes bytes = cache.bytes();
  std::printf("%llu tokens per sequence, %zu layers\n", static_cast<unsigned long long>(cache.layer(0).tokens(0)),
              cache.layers());
  std::printf("uncompressed   %8llu bytes\n", static_cast<unsigned long long>(twin.bytes().total()));
  std::printf("compressed     %8llu bytes: codes %llu, scales %llu, raw sinks and tail %llu\n",
              static_cast<unsigned long long>(bytes.total()), static_cast<unsigned long long>(bytes.payload),
              static_cast<unsigned long long>(bytes.scales), static_cast<unsigned long long>(bytes.uncompressed));
  std::printf("output error   %.4f of the uncompressed outputs' norm\n", std::sqrt(error / norm));
}

}  // namespace

int main(int count, char** arguments) {
  try {
    run(settings({arguments + 1, arguments + count}));
  } catch (const kvlab::InputError& error) {
    std::fprintf(stderr, "kvlab_decode: %s\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kvlab_decode: %s\n", error.what());
    return 1;
  }
  return 0;
}
