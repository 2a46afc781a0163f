#include "results/places.hpp"

#include "core/base/error.hpp"

namespace kvlab {

std::filesystem::path followed(const std::filesystem::path& output) {
  constexpr int most_links = 40;  // as the kernel has it
  std::filesystem::path path = output;
  std::error_code failure;
  for (int i = 0; std::filesystem::is_symlink(path, failure); ++i) {
    if (i == most_links) throw InputError(output.string() + ": its links lead nowhere");
    path = path.parent_path() / std::filesystem::read_symlink(path, failure);  // an absolute one replaces the folder
    if (failure) throw InputError(output.string() + ": the link cannot be read: " + failure.message());
  }
  return path;
}

std::filesystem::path cells_folder(const std::filesystem::path& output) {
  std::filesystem::path folder = output;
  if (folder.extension() == ".h5") return folder.replace_extension(".cells");
  return folder += ".cells";  // x.hdf5 and x.h5 are two results
}

std::filesystem::path cell_file(const std::filesystem::path& folder, const std::string& id) {
  return folder / (id + ".cell");
}
bool lies_there(const std::filesystem::path& path) {
  std::error_code failure;
  return std::filesystem::exists(std::filesystem::symlink_status(path, failure));
}

std::filesystem::path plan_file(const std::filesystem::path& folder) { return folder / "plan"; }
std::filesystem::path lock_file(const std::filesystem::path& folder) { return folder / "lock"; }

std::filesystem::path set_aside(const std::filesystem::path& path, const std::string& what) {
  for (int i = 1;; ++i) {
    std::filesystem::path aside = path;
    aside += "." + what + (i == 1 ? "" : "." + std::to_string(i));
    if (lies_there(aside)) continue;
    std::error_code failure;
    std::filesystem::rename(path, aside, failure);
    if (failure) throw Error(path.string() + ": cannot be renamed: " + failure.message());
    return aside;
  }
}

}  // namespace kvlab
