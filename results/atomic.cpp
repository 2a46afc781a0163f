#include "results/atomic.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <utility>

#include "core/base/error.hpp"

namespace kvlab {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view mark = ".tmp.";
constexpr std::size_t digits = 16;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void cannot_write(const fs::path& path) {
  throw Error(path.string() + ": cannot be written: " + std::strerror(errno));
}

fs::path new_name(const fs::path& path) {
  std::uint64_t number = 0;
  if (getrandom(&number, sizeof(number), 0) != sizeof(number)) cannot_write(path);
  std::array<char, digits + 1> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(number));
  fs::path name = path;
  return name += std::string(mark) + text.data();
}

struct NewFile {
  fs::path name;
  Descriptor file;
};

// Locked as long as it is written, so that whoever removes what was left behind leaves this. False: they were faster.
bool hold(const Descriptor& file) {
  struct stat about{};
  if (flock(file.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return false;
  return fstat(file.get(), &about) == 0 && about.st_nlink > 0;
}

NewFile create_beside(const fs::path& path) {
  constexpr int attempts = 100;
  for (int i = 0; i < attempts; ++i) {
    fs::path name = new_name(path);
    Descriptor file(open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
    if (file.get() < 0 && errno != EEXIST) cannot_write(path);
    if (file.get() >= 0 && hold(file)) return {std::move(name), std::move(file)};
  }
  errno = EEXIST;
  cannot_write(path);
}

bool write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

bool is_new_name(std::string_view name, std::string_view stem) {
  if (!name.starts_with(stem) || name.size() < stem.size() + mark.size() + digits) return false;
  const std::string_view end = name.substr(name.size() - mark.size() - digits);
  return end.starts_with(mark) &&
         end.substr(mark.size()).find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Where there are no locks nobody can know, and it stays.
void remove_unless_held(const fs::path& path) {
  const Descriptor file(open(path.c_str(), O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (file.get() >= 0 && flock(file.get(), LOCK_EX | LOCK_NB) == 0) unlink(path.c_str());
}

}  // namespace

void write_atomically(const fs::path& path, std::string_view bytes) {
  const NewFile aside = create_beside(path);
  if (!write_all(aside.file.get(), bytes) || fsync(aside.file.get()) != 0 ||
      std::rename(aside.name.c_str(), path.c_str()) != 0) {
    const int why = errno;
    unlink(aside.name.c_str());
    errno = why;
    cannot_write(path);
  }
  const fs::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const Descriptor entry(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (entry.get() < 0 || fsync(entry.get()) != 0) cannot_write(path);
}

void remove_left_behind(const fs::path& folder, std::string_view stem) {
  std::error_code failure;
  for (fs::directory_iterator entry(folder.empty() ? "." : folder, failure), end; !failure && entry != end;
       entry.increment(failure)) {
    if (is_new_name(entry->path().filename().string(), stem)) remove_unless_held(entry->path());
  }
}

}  // namespace kvlab
