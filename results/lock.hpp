// One writer per output. The lock is the kernel's (fcntl, of an open file), on OUT.cells/lock: it ends with the process
// that holds it, however that ends, and it works over NFS. The file's text says who; it means something only while the
// lock is held, and the file stays.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace kvlab {

class OutputLock {
 public:
  // Takes it, in a folder that is there. Throws InputError where another process holds it, with its host, pid and since
  // when, or where the file cannot be made.
  explicit OutputLock(const std::filesystem::path& folder);
  ~OutputLock();
  OutputLock(const OutputLock&) = delete;
  OutputLock& operator=(const OutputLock&) = delete;

  // Why the file system gave no lock; "" where it is held.
  [[nodiscard]] const std::string& missing() const { return missing_; }

 private:
  int fd_;
  std::string missing_;
};

// "host H, pid P, since T" of the process that holds the folder's lock now; nothing where none does.
std::optional<std::string> writer_of(const std::filesystem::path& folder);

}  // namespace kvlab
