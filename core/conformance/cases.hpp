// What a check runs over: settings, dtypes, head sizes, roles, numbers of tokens. Where it is now stands in memory that
// outlives the process, for a crash to be told with its place.
#pragma once

#include <functional>
#include <string>

#include "core/conformance/settings.hpp"
#include "core/conformance/subject.hpp"

namespace kvlab::conformance {

// One line of text that forks share.
class Place {
 public:
  Place();
  void set(const std::string& text) const;  // cut where it is too long
  [[nodiscard]] std::string text() const;

 private:
  Mapping page_;
};

// Every codec case: the defaults with all of them, other settings with three. What the method refuses
// (KVLAB_UNSUPPORTED, KVLAB_INVALID_ARGUMENT) is left out; any other error of the method is a Failure. Returns how many
// cases ran to their end.
std::size_t for_codec_cases(const Method& method, const Place& place,
                            const std::function<void(const CodecSubject&, std::uint64_t tokens)>& body);

// Runs it, and returns false where the method refused; any other error of the method is a Failure.
bool unless_refused(const std::function<void()>& body);

}  // namespace kvlab::conformance
