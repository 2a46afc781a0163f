// Text of strangers (names, attributes, reasons, paths) on its way to a terminal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kvlab {

// One line of valid UTF-8 that moves no cursor: control characters (those of Unicode and the marks that turn the
// direction of writing included) and bytes that are no UTF-8 become \n, \t, \r, \x1b or \u202e. A backslash stays, so
// that text which was made printable stays as it is.
std::string printable(std::string_view text);

// The same text if it is short, else its beginning and its end with "…" between them: at most `most` bytes, whole
// characters.
std::string shortened(std::string_view text, std::size_t most);

// A sentence for people: printable, its long names shortened, and as a whole some 2,000 bytes at most.
std::string message(std::string_view text);

// "1.10 TiB", "512 B": in the largest unit of which it is one or more.
std::string size_text(std::uint64_t bytes);

}  // namespace kvlab
