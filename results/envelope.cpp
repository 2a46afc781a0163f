#include "results/envelope.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>

#include "core/base/hash.hpp"

namespace kvlab {
namespace {

static_assert(std::endian::native == std::endian::little);

struct Head {
  std::array<char, 8> kind;
  std::uint32_t version;
  std::uint32_t zero;
  std::uint64_t length;
};
constexpr std::size_t digest_bytes = 16;
constexpr std::size_t head_bytes = sizeof(Head) + digest_bytes;
static_assert(head_bytes == 40);

// Over the head and the payload. Two digests in a row, so that the payload is not copied.
std::array<char, digest_bytes> digest(const Head& head, std::string_view payload) {
  const auto of_payload = digest_of(payload);
  std::array<char, sizeof(Head) + digest_bytes> both{};
  std::memcpy(both.data(), &head, sizeof(Head));
  std::memcpy(both.data() + sizeof(Head), of_payload.data(), digest_bytes);
  return digest_of({both.data(), both.size()});
}

Head head_of(const Seal& seal, std::size_t length) {
  Head head{{}, seal.version, 0, length};
  std::memcpy(head.kind.data(), seal.kind.data(), std::min(seal.kind.size(), head.kind.size()));
  return head;
}

class File {
 public:
  explicit File(const std::filesystem::path& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_;
};

[[noreturn]] void cannot_read() { throw InputError(std::string("it cannot be read: ") + std::strerror(errno)); }

}  // namespace

std::string seal(const Seal& seal, std::string_view payload) {
  const Head head = head_of(seal, payload.size());
  const auto checksum = digest(head, payload);
  std::string bytes;
  bytes.reserve(head_bytes + payload.size());
  bytes.append(reinterpret_cast<const char*>(&head), sizeof(head));
  bytes.append(checksum.data(), checksum.size());
  bytes += payload;
  return bytes;
}

std::string_view unseal(const Seal& seal, std::string_view bytes) {
  if (bytes.size() < head_bytes) throw DamagedError("it is damaged: " + std::to_string(bytes.size()) + " bytes long");
  Head head{};
  std::memcpy(&head, bytes.data(), sizeof(head));
  if (head.kind != head_of(seal, 0).kind) throw DamagedError("it is damaged, or no file of kvlab");
  const std::string_view payload = bytes.substr(head_bytes);
  if (head.length != payload.size()) throw DamagedError("it is damaged: bytes are missing, or too many");
  const auto checksum = digest(head, payload);
  if (std::memcmp(checksum.data(), bytes.data() + sizeof(head), checksum.size()) != 0) {
    throw DamagedError("it is damaged: its checksum is another");
  }
  if (head.version != seal.version) {
    throw InputError("its format's version is " + std::to_string(head.version) + "; this kvlab reads version " +
                     std::to_string(seal.version));
  }
  return payload;
}

std::string bytes_of_file(const std::filesystem::path& path) {
  const File file(path);
  struct stat about{};
  if (file.fd() < 0 || fstat(file.fd(), &about) != 0) cannot_read();
  if (!S_ISREG(about.st_mode)) throw InputError("it is no file that can be read");
  constexpr off_t most = off_t{4} << 30;  // far above what is ever sealed; a file may claim to be endless
  if (about.st_size > most) throw DamagedError("it is damaged: longer than 4 GiB");
  std::string bytes(static_cast<std::size_t>(about.st_size), '\0');
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = read(file.fd(), bytes.data() + done, bytes.size() - done);
    if (count < 0) cannot_read();
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  bytes.resize(done);
  return bytes;
}

}  // namespace kvlab
