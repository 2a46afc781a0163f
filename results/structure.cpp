#include "results/structure.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <set>

#include "core/base/child.hpp"
#include "core/base/error.hpp"
#include "core/base/file.hpp"

namespace kvlab::h5 {
namespace {

constexpr std::uint64_t most_of_deflate = 1032;

[[noreturn]] void refuse(const std::string& what) { throw InputError(what); }

Object owned(hid_t id, Object::Close close, const std::string& what) {
  if (id < 0) refuse(what + " is damaged");
  return {id, close};
}

// a * b, or the largest number.
std::uint64_t times(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? std::numeric_limits<std::uint64_t>::max() : product;
}

std::uint64_t sum(std::uint64_t a, std::uint64_t b) {
  std::uint64_t total = 0;
  return __builtin_add_overflow(a, b, &total) ? std::numeric_limits<std::uint64_t>::max() : total;
}

struct Link {
  std::string name;
  H5L_type_t type;
};

std::vector<Link> links_of(const Object& group, const std::string& path) {
  std::vector<Link> links;
  const auto collect = [](hid_t, const char* name, const H5L_info_t* info, void* out) -> herr_t {
    static_cast<std::vector<Link>*>(out)->push_back({name, info->type});
    return 0;
  };
  if (H5Literate(group.id(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, collect, &links) < 0) {
    refuse(path + " is damaged: it cannot be listed");
  }
  return links;
}

std::uint64_t elements_of(hid_t space, const std::string& what) {
  const int rank = H5Sget_simple_extent_ndims(space);
  if (rank < 0) refuse(what + " is damaged: it has no shape");
  std::array<hsize_t, H5S_MAX_RANK> extents{};
  if (H5Sget_simple_extent_dims(space, extents.data(), nullptr) < 0) refuse(what + " is damaged: it has no shape");
  const H5S_class_t kind = H5Sget_simple_extent_type(space);
  std::uint64_t elements = kind == H5S_NULL ? 0 : 1;
  for (int i = 0; i < rank; ++i) elements = times(elements, extents.at(static_cast<std::size_t>(i)));
  return elements;
}

class Walk {
 public:
  Walk(const Object& file, std::uint64_t file_bytes) : file_(file), file_bytes_(file_bytes) {
    declared_.file = file_bytes;
  }

  Declared all() {
    std::vector<std::string> open{"/"};
    while (!open.empty()) {
      const std::string path = std::move(open.back());
      open.pop_back();
      const Object object = owned(H5Oopen(file_.id(), path.c_str(), H5P_DEFAULT), H5Oclose, path);
      if (!seen_.insert(address_of(object, path)).second) continue;
      check_attributes(object, path);
      switch (H5Iget_type(object.id())) {
        case H5I_GROUP:
          for (auto& child : children_of(object, path)) open.push_back(std::move(child));
          break;
        case H5I_DATASET:
          check_dataset(object, path);
          break;
        default:  // a named type holds nothing
          break;
      }
    }
    return declared_;
  }

 private:
  static haddr_t address_of(const Object& object, const std::string& path) {
    H5O_info_t info{};
    if (H5Oget_info2(object.id(), &info, H5O_INFO_BASIC) < 0) refuse(path + " is damaged");
    return info.addr;
  }

  // Soft links stay within the file: what they name is reached by its own link.
  static std::vector<std::string> children_of(const Object& group, const std::string& path) {
    constexpr std::size_t deepest = 4096;
    std::vector<std::string> children;
    for (const auto& [name, type] : links_of(group, path)) {
      const std::string child = (path == "/" ? path : path + "/") + name;
      if (child.size() > deepest) refuse(path + " is nested too deep, or has a name too long");
      if (type == H5L_TYPE_EXTERNAL) refuse(child + " is an external link: other files are not read");
      if (type != H5L_TYPE_HARD && type != H5L_TYPE_SOFT) refuse(child + " is a link of a plugin: none is loaded");
      if (type == H5L_TYPE_HARD) children.push_back(child);
    }
    return children;
  }

  void check_attributes(const Object& object, const std::string& path) const {
    std::vector<std::string> names;
    const auto collect = [](hid_t, const char* name, const H5A_info_t*, void* out) -> herr_t {
      static_cast<std::vector<std::string>*>(out)->emplace_back(name);
      return 0;
    };
    if (H5Aiterate2(object.id(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, collect, &names) < 0) {
      refuse(path + " is damaged: its attributes cannot be listed");
    }
    for (const auto& name : names) {
      const std::string what = "attribute '" + name + "' of " + path;
      const Object attribute = owned(H5Aopen(object.id(), name.c_str(), H5P_DEFAULT), H5Aclose, what);
      const Object space = owned(H5Aget_space(attribute.id()), H5Sclose, what);
      const Object type = owned(H5Aget_type(attribute.id()), H5Tclose, what);
      require_held(times(elements_of(space.id(), what), H5Tget_size(type.id())), file_bytes_, what);
    }
  }

  // The ratio of its filters.
  static std::uint64_t check_filters(const Object& properties, const std::string& path) {
    std::uint64_t ratio = 1;
    const int count = H5Pget_nfilters(properties.id());
    for (int i = 0; i < count; ++i) {
      std::array<char, 64> name{};
      unsigned flags = 0;
      std::size_t values = 0;
      const H5Z_filter_t filter = H5Pget_filter2(properties.id(), static_cast<unsigned>(i), &flags, &values, nullptr,
                                                 name.size(), name.data(), nullptr);
      name.back() = '\0';
      if (filter == H5Z_FILTER_SHUFFLE || filter == H5Z_FILTER_FLETCHER32) continue;
      if (filter != H5Z_FILTER_DEFLATE) {
        refuse(path + " uses the filter " + std::to_string(filter) + " (" + name.data() +
               "); valid: deflate, shuffle, fletcher32");
      }
      if (ratio > 1) refuse(path + " is deflated twice");
      ratio = most_of_deflate;
    }
    return ratio;
  }

  static std::uint64_t chunk_bytes(const Object& properties, std::uint64_t element) {
    std::array<hsize_t, H5S_MAX_RANK> extents{};
    const int rank = H5Pget_chunk(properties.id(), static_cast<int>(extents.size()), extents.data());
    std::uint64_t bytes = element;
    for (int i = 0; i < rank; ++i) bytes = times(bytes, extents.at(static_cast<std::size_t>(i)));
    return bytes;
  }

  void check_dataset(const Object& dataset, const std::string& path) {
    const Object properties = owned(H5Dget_create_plist(dataset.id()), H5Pclose, path);
    const H5D_layout_t layout = H5Pget_layout(properties.id());
    if (layout == H5D_VIRTUAL) refuse(path + " is a virtual dataset: other files are not read");
    if (H5Pget_external_count(properties.id()) != 0) refuse(path + " has external storage: other files are not read");
    const std::uint64_t ratio = check_filters(properties, path);
    const std::uint64_t stored = H5Dget_storage_size(dataset.id());
    if (stored == 0) return;  // netCDF's dimensions have no values; whoever reads some asks require_stored()
    stored_ = sum(stored_, stored);
    if (stored_ > file_bytes_) refuse(path + " shares its bytes with others: more are stored than the file has");
    const Object space = owned(H5Dget_space(dataset.id()), H5Sclose, path);
    const Object type = owned(H5Dget_type(dataset.id()), H5Tclose, path);
    const std::uint64_t element = H5Tget_size(type.id());
    const std::uint64_t values = times(elements_of(space.id(), path), element);
    const std::uint64_t chunk = layout == H5D_CHUNKED ? chunk_bytes(properties, element) : 0;
    require_held(std::max(values, chunk), times(stored, ratio), path);
    declared_.all = sum(declared_.all, values);
    declared_.largest = std::max({declared_.largest, values, chunk});
  }

  static void require_held(std::uint64_t bytes, std::uint64_t most, const std::string& what) {
    if (bytes <= most) return;
    refuse(what + " declares " + std::to_string(bytes) + " bytes; what the file stores of it holds " +
           std::to_string(most) + " at most");
  }

  const Object& file_;
  std::uint64_t file_bytes_;
  std::uint64_t stored_ = 0;
  std::set<haddr_t> seen_;
  Declared declared_;
};

// Of a regular file.
std::uint64_t size_of_file(const std::filesystem::path& path) {
  require_file(path);
  struct stat about{};
  if (stat(path.c_str(), &about) != 0 || !S_ISREG(about.st_mode)) {
    throw InputError(path.string() + ": it is no file that can be read");
  }
  return static_cast<std::uint64_t>(about.st_size);
}

}  // namespace

Declared check_structure(const Object& file, std::uint64_t file_bytes) { return Walk(file, file_bytes).all(); }

std::string read_stranger(const std::filesystem::path& path, const StrangerReader& reader) {
  constexpr std::uint64_t least = std::uint64_t{64} << 20;
  constexpr std::uint64_t most_for_structure = std::uint64_t{1} << 30;
  constexpr double bytes_per_second = 50e6;
  const std::uint64_t size = size_of_file(path);
  const double seconds = 10 + static_cast<double>(size) / bytes_per_second;
  // The clock's limit is for disks that do not answer; a loaded machine must not come near it.
  const ChildLimits limits{"reading it", 10 * seconds, seconds, least + std::min(size, most_for_structure)};
  const ChildResult result = in_child(
      [&] {
        start();
        const Object file = open_file(path);
        const Declared declared = check_structure(file, size);
        allow_memory(sum(least, reader.memory(declared)));
        return reader.read(file);
      },
      limits);
  if (result.ok) return result.text;
  throw InputError(result.text.starts_with(path.string()) ? result.text : path.string() + ": " + result.text);
}

}  // namespace kvlab::h5
