#include "results/atomic.hpp"

#include <fcntl.h>
#include <unistd.h>

#include "core/base/error.hpp"

namespace kvlab {
namespace {

void sync(const std::filesystem::path& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0 || fsync(fd) != 0) {
    if (fd >= 0) close(fd);
    throw Error(path.string() + ": cannot be written to the disk");
  }
  close(fd);
}

}  // namespace

void write_atomically(const std::filesystem::path& path,
                      const std::function<void(const std::filesystem::path&)>& write) {
  std::filesystem::path aside = path;
  aside += ".tmp." + std::to_string(getpid());
  try {
    write(aside);
    sync(aside, O_RDWR);
    std::filesystem::rename(aside, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(aside, ignored);
    throw;
  }
  sync(path.has_parent_path() ? path.parent_path() : ".", O_RDONLY | O_DIRECTORY);
}

}  // namespace kvlab
