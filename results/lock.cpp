#include "results/lock.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <sstream>

#include "core/base/clock.hpp"
#include "core/base/error.hpp"
#include "results/places.hpp"

namespace kvlab {
namespace {

struct flock whole_file() {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

// Of another process, which may be writing it just now.
std::string holder(int fd) {
  std::array<char, 256> text{};
  const ssize_t count = pread(fd, text.data(), text.size(), 0);
  std::istringstream words(std::string(text.data(), count > 0 ? static_cast<std::size_t>(count) : 0));
  std::string host;
  std::string pid;
  std::string since;
  if (!(words >> host >> pid >> since)) return "it does not say who it is";
  return "host " + host + ", pid " + pid + ", since " + since;
}

std::string own_words() {
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0 || host.front() == '\0') host = {"?"};
  return std::string(host.data()) + ' ' + std::to_string(getpid()) + ' ' + utc_now() + '\n';
}

}  // namespace

OutputLock::OutputLock(const std::filesystem::path& folder)
    : fd_(open(lock_file(folder).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666)) {
  const std::string place = lock_file(folder).string();
  if (fd_ < 0 && (errno == ENOSPC || errno == EDQUOT))
    throw Error(place + ": cannot be written: " + std::strerror(errno));
  if (fd_ < 0) throw InputError(place + ": cannot be opened: " + std::strerror(errno));
  struct stat about{};
  if (fstat(fd_, &about) != 0 || !S_ISREG(about.st_mode)) {
    close(fd_);
    throw InputError(place + ": it is no plain file; remove it");
  }
  struct flock lock = whole_file();
  if (fcntl(fd_, F_OFD_SETLK, &lock) != 0) {
    if (errno == EAGAIN || errno == EACCES) {
      const std::string who = holder(fd_);
      close(fd_);
      throw InputError(folder.string() + ": another run writes here (" + who +
                       "); wait for it, stop it, or name another file with -o");
    }
    missing_ = std::strerror(errno);
    return;
  }
  const std::string words = own_words();
  if (ftruncate(fd_, 0) != 0 || pwrite(fd_, words.data(), words.size(), 0) != static_cast<ssize_t>(words.size())) {
    const std::string why = std::strerror(errno);
    close(fd_);
    throw Error(place + ": cannot be written: " + why);
  }
}

OutputLock::~OutputLock() { close(fd_); }

std::optional<std::string> writer_of(const std::filesystem::path& folder) {
  const int fd = open(lock_file(folder).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return std::nullopt;
  struct flock lock = whole_file();
  std::optional<std::string> who;
  if (fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK) who = holder(fd);
  close(fd);
  return who;
}

}  // namespace kvlab
