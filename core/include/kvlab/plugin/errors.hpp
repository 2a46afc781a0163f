// How a plugin says no: it throws, and the call returns the matching status with the sentence as its message.
#pragma once

#include <kvlab/abi.h>

#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>

namespace kvlab {

// The parameters do not fit together, or the call is wrong.
struct InvalidArgument : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Well formed, but this method cannot do it: the row says `unsupported`.
struct Unsupported : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {

inline kvlab_status fail(kvlab_status status, kvlab_message* message, const char* text) {
  if (message != nullptr && message->capacity > 0) std::snprintf(message->text, message->capacity, "%s", text);
  return status;
}

// Runs one call of the ABI; nothing that is thrown leaves it.
template <class Call>
kvlab_status guarded(kvlab_message* message, Call&& call) noexcept {
  try {
    call();
    return KVLAB_OK;
  } catch (const InvalidArgument& error) {
    return fail(KVLAB_INVALID_ARGUMENT, message, error.what());
  } catch (const Unsupported& error) {
    return fail(KVLAB_UNSUPPORTED, message, error.what());
  } catch (const std::bad_alloc&) {
    return fail(KVLAB_OUT_OF_MEMORY, message, "out of memory");
  } catch (const std::exception& error) {
    return fail(KVLAB_INTERNAL, message, error.what());
  } catch (...) {
    return fail(KVLAB_INTERNAL, message, "an exception that is not a std::exception");
  }
}

}  // namespace detail
}  // namespace kvlab
