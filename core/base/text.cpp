#include "core/base/text.hpp"

#include <array>
#include <cstdint>
#include <cstdio>

namespace kvlab {
namespace {

constexpr std::string_view ellipsis = "…";

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U; }

// The character at the beginning of `text`, which is not empty; length 0: it is no UTF-8.
struct Character {
  std::size_t length;
  std::uint32_t code;
};
Character first_of(std::string_view text) {
  const auto byte = static_cast<unsigned char>(text[0]);
  if (byte < 0x80U) return {1, byte};
  const std::size_t length = byte >= 0xF0U ? 4 : byte >= 0xE0U ? 3 : 2;
  if (byte < 0xC2U || byte > 0xF4U || length > text.size()) return {0, 0};
  std::uint32_t code = byte & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if (!continues(text[i])) return {0, 0};
    code = code << 6U | (static_cast<unsigned char>(text[i]) & 0x3FU);
  }
  const bool overlong = (length == 3 && code < 0x800U) || (length == 4 && code < 0x10000U);
  const bool surrogate = code >= 0xD800U && code < 0xE000U;
  if (overlong || surrogate || code > 0x10FFFFU) return {0, 0};
  return {length, code};
}

// What a terminal acts upon, or shows in another order than it stands.
bool is_control(std::uint32_t code) {
  return code < 0x20U || (code >= 0x7FU && code < 0xA0U) || code == 0x061CU || (code >= 0x200EU && code <= 0x200FU) ||
         (code >= 0x2028U && code <= 0x202EU) || (code >= 0x2066U && code <= 0x2069U) || code == 0xFEFFU ||
         (code >= 0xFFF9U && code <= 0xFFFBU);
}

std::string escaped(std::uint32_t code) {
  if (code == '\n') return "\\n";
  if (code == '\t') return "\\t";
  if (code == '\r') return "\\r";
  std::array<char, 8> text{};
  std::snprintf(text.data(), text.size(), code < 0x100U ? "\\x%02x" : "\\u%04x", code & 0xFFFFU);
  return text.data();
}

std::string with_short_words(std::string_view text) {
  constexpr std::size_t most = 300;  // of a name or a path
  std::string out;
  while (!text.empty()) {
    const std::size_t end = text.find(' ');
    out += shortened(text.substr(0, end), most);
    if (end == std::string_view::npos) break;
    out += ' ';
    text.remove_prefix(end + 1);
  }
  return out;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Character character = first_of(text);
    if (character.length == 0) {
      out += escaped(static_cast<unsigned char>(text[0]));
    } else if (is_control(character.code)) {
      out += escaped(character.code);
    } else {
      out += text.substr(0, character.length);
    }
    text.remove_prefix(character.length == 0 ? 1 : character.length);
  }
  return out;
}

std::string shortened(std::string_view text, std::size_t most) {
  if (text.size() <= most) return std::string(text);
  const std::size_t kept = most > ellipsis.size() ? most - ellipsis.size() : 0;
  std::size_t begin = kept - kept / 2;  // how much is left of the beginning
  while (begin > 0 && continues(text[begin])) --begin;
  std::size_t end = text.size() - kept / 2;
  while (end < text.size() && continues(text[end])) ++end;
  return std::string(text.substr(0, begin)).append(ellipsis).append(text.substr(end));
}

std::string message(std::string_view text) {
  constexpr std::size_t most = 2000;
  return printable(shortened(with_short_words(text), most));
}

std::string size_text(std::uint64_t bytes) {
  constexpr std::array units{"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024) return std::to_string(bytes) + " B";
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < units.size(); ++unit) value /= 1024;
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.2f %s", value, units.at(unit));
  return text.data();
}

}  // namespace kvlab
