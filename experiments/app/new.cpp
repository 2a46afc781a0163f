// The skeleton of a method: it builds, passes `kvlab check`, and is to be filled in.
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "core/base/error.hpp"
#include "core/base/text.hpp"
#include "experiments/app/commands.hpp"

namespace kvlab {
namespace {

constexpr const char* codec_source = R"(// TITLE
#include <kvlab/plugin.hpp>

#include <algorithm>
#include <array>
#include <cmath>

namespace {

struct CLASS : kvlab::Codec {
  double step;

  static constexpr kvlab::Info info{
      .id = "NAME",
      .version = "0.1.0",
      .summary = "rounds to multiples of a step, 16 bits each: a start",
  };
  static constexpr auto parameters() {
    return std::tuple{
        kvlab::real(&CLASS::step, "step", 0.001, kvlab::Range{1e-6, 1.0}, "1", "distance of two levels"),
    };
  }

  std::uint64_t block_tokens() const { return 128; }
  std::uint64_t bound(std::uint64_t tokens) const { return tokens * head_dim() * 2; }
  std::uint64_t encode_scratch() const { return kvlab::Scratch::size<float>(head_dim()); }

  // Bytes: [token][channel] int16 codes. What is returned (payload, scales, indices, bases) adds up to them.
  kvlab_parts encode(const kvlab::EncodeIn& in, std::span<std::uint8_t> out) const {
    kvlab::Scratch scratch = in.scratch;
    const auto row = scratch.take<float>(head_dim());
    for (std::uint64_t t = 0; t < in.tokens.tokens; ++t) {
      in.tokens.read(t, row);
      for (std::uint64_t c = 0; c < row.size(); ++c) {
        const auto code = static_cast<std::int16_t>(std::clamp(std::nearbyint(row[c] / step), -32767.0, 32767.0));
        std::memcpy(out.data() + (t * row.size() + c) * 2, &code, 2);
      }
    }
    return {.payload = bound(in.tokens.tokens), .scales = 0, .indices = 0, .bases = 0};
  }

  void decode(const kvlab::Block& block, std::uint64_t first, std::uint64_t count, kvlab::Rows rows,
              kvlab::Scratch /*scratch*/) const {
    for (std::uint64_t t = 0; t < count; ++t) {
      for (std::uint64_t c = 0; c < head_dim(); ++c) {
        std::int16_t code = 0;
        std::memcpy(&code, block.bytes + ((first + t) * head_dim() + c) * 2, 2);
        rows[t][c] = static_cast<float>(code * step);
      }
    }
  }
};

}  // namespace

KVLAB_PLUGIN(CLASS)
)";

constexpr const char* selector_source = R"(// TITLE
#include <kvlab/plugin.hpp>

#include <cmath>

namespace {

struct CLASS : kvlab::Selector {
  static constexpr kvlab::Info info{
      .id = "NAME",
      .version = "0.1.0",
      .summary = "keeps the tokens with the smallest keys: a start",
  };

  unsigned reads() const { return KVLAB_READS_KEYS; }
  // A score depends on its own token alone. Without this line: on all that are present.
  unsigned scope() const { return KVLAB_SCOPE_TOKEN; }
  std::uint64_t scratch(std::uint64_t /*tokens*/, std::uint64_t /*observed*/) const {
    return kvlab::Scratch::size<float>(layer.head_dim_keys);
  }

  // One score per token; the highest stay.
  void scores(const kvlab::HeadView& head, std::span<float> out) const {
    kvlab::Scratch scratch = head.scratch;
    const auto row = scratch.take<float>(layer.head_dim_keys);
    for (std::size_t t = 0; t < out.size(); ++t) {
      head.keys.read(t, row);
      float sum = 0;
      for (const float x : row) sum += x * x;
      out[t] = -std::sqrt(sum);
    }
  }
};

}  // namespace

KVLAB_PLUGIN(CLASS)
)";

constexpr const char* readme = R"(# NAME
What it does, in two sentences.

- Paper: title, arXiv id, equation.
- Bytes: draw the layout of a block (a codec), and what it counts as: payload, scales, indices, bases.
- Cost: operations per token.
- Known answers: numbers that a test can check.
)";

std::string fill(std::string text, const std::string& name) {
  std::string type;
  bool upper = true;
  for (const char c : name) {
    if (c != '_') type += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    upper = c == '_';
  }
  const auto replace = [&](const std::string& from, const std::string& to) {
    for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
      text.replace(at, from.size(), to);
    }
  };
  replace("TITLE", "What " + name + " does and the paper it is from.");
  replace("CLASS", type);
  replace("NAME", name);
  return text;
}

void write_new(const std::filesystem::path& file, const std::string& text) {
  std::ofstream out(file);
  out << text;
  out.close();
  if (!out) throw InputError(file.string() + ": cannot be written");
}

void make_method(const std::string& name, const std::string& kind) {
  namespace fs = std::filesystem;
  if (kind != "codec" && kind != "selector") throw InputError("new: --kind '" + kind + "'; valid: codec, selector");
  const char* root = std::getenv("KVLAB_ROOT");  // set by the script at the root of a checkout
  const fs::path methods = fs::path(root != nullptr ? root : ".") / "methods";
  if (!fs::is_directory(methods)) {
    throw InputError("new: there is no folder methods here; go to a kvlab checkout, or make the folder first");
  }
  const auto lower = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  if (name.front() < 'a' || name.front() > 'z' || !std::all_of(name.begin(), name.end(), lower)) {
    throw InputError("new: '" + name + "' is not of the form [a-z][a-z0-9_]*");
  }
  constexpr std::size_t longest = 64;
  if (name.size() > longest) throw InputError("new: '" + name + "' is longer than 64 letters");
  const fs::path folder = methods / name;
  if (fs::exists(folder)) throw InputError("new: " + folder.string() + " is there already");
  fs::create_directory(folder);
  write_new(folder / (name + ".cpp"), fill(kind == "codec" ? codec_source : selector_source, name));
  write_new(folder / "README.md", fill(readme, name));
  std::cerr << "made " << printable(folder.string()) << "; the next start of ./kvlab builds it\n";
}

}  // namespace

void add_new(CLI::App& cli, App& /*app*/) {
  auto* command = cli.add_subcommand("new", "the skeleton of a method in methods/NAME");
  auto name = std::make_shared<std::string>();
  auto kind = std::make_shared<std::string>();
  command->add_option("NAME", *name, "[a-z][a-z0-9_]*")->required();
  command->add_option("--kind", *kind, "codec or selector")->required();
  command->callback([name, kind] { make_method(*name, *kind); });
}

}  // namespace kvlab
