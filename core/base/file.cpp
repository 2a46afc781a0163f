#include "core/base/file.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/base/error.hpp"

namespace kvlab {

void require_file(const std::filesystem::path& path) {
  struct stat about{};
  const auto refuse = [&](const std::string& why) { throw InputError(path.string() + ": " + why); };
  const bool is_there = stat(path.c_str(), &about) == 0;
  if (!is_there && (errno == ENOENT || errno == ENOTDIR)) refuse("there is no such file");
  if (is_there && S_ISDIR(about.st_mode)) refuse("it is a folder");
  if (!is_there || access(path.c_str(), R_OK) != 0) refuse(std::string("it cannot be read: ") + std::strerror(errno));
}

}  // namespace kvlab
