#include "results/hdf5.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "core/base/error.hpp"

namespace kvlab::h5 {
namespace {

[[noreturn]] void fail(const std::string& what) { throw InputError(what); }

Object owned(hid_t id, Object::Close close, const std::string& what) {
  if (id < 0) fail(what);
  return {id, close};
}

void check(herr_t status, const std::string& what) {
  if (status < 0) fail(what);
}

Object string_type() {
  Object type = owned(H5Tcopy(H5T_C_S1), H5Tclose, "no string type");
  check(H5Tset_size(type.id(), H5T_VARIABLE), "no variable strings");
  check(H5Tset_cset(type.id(), H5T_CSET_UTF8), "no UTF-8");
  return type;
}

Object scalar() { return owned(H5Screate(H5S_SCALAR), H5Sclose, "no scalar space"); }

void write_scalar(const Object& object, const std::string& name, hid_t type, const void* value) {
  const Object space = scalar();
  const Object attribute = owned(H5Acreate2(object.id(), name.c_str(), type, space.id(), H5P_DEFAULT, H5P_DEFAULT),
                                 H5Aclose, "attribute " + name + " cannot be written");
  check(H5Awrite(attribute.id(), type, value), "attribute " + name + " cannot be written");
}

Object open_attribute(const Object& object, const std::string& name) {
  return owned(H5Aopen(object.id(), name.c_str(), H5P_DEFAULT), H5Aclose,
               name_of(object) + " has no attribute '" + name + "'");
}

void require_scalar(const Object& attribute, const std::string& what) {
  const Object space = owned(H5Aget_space(attribute.id()), H5Sclose, what + " has no shape");
  if (H5Sget_simple_extent_npoints(space.id()) != 1) fail(what + " is not a single value");
}

Object write_dataset(const Object& group, const std::string& name, hid_t type, std::size_t count, const void* data) {
  const hsize_t extent = count;
  const Object space = owned(H5Screate_simple(1, &extent, nullptr), H5Sclose, name + " has no shape");
  Object dataset = owned(H5Dcreate2(group.id(), name.c_str(), type, space.id(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                         H5Dclose, "dataset " + name + " cannot be written");
  if (count > 0) {
    check(H5Dwrite(dataset.id(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), "dataset " + name + " cannot be written");
  }
  return dataset;
}

std::size_t rows_of(const Object& dataset) {
  const auto shape = shape_of(dataset);
  if (shape.size() != 1) fail(name_of(dataset) + " has " + std::to_string(shape.size()) + " dimensions, not 1");
  constexpr std::uint64_t limit = 100'000'000;
  if (shape[0] > limit) fail(name_of(dataset) + " has more than 100,000,000 rows");
  require_stored(dataset);
  return shape[0];
}

// Strings of variable or fixed length from an attribute or dataset, `read` being H5Aread or H5Dread.
template <class Read>
std::vector<std::string> read_any_strings(hid_t file_type, std::size_t count, const std::string& what, Read&& read) {
  if (H5Tget_class(file_type) != H5T_STRING) fail(what + " is not text");
  std::vector<std::string> values(count);
  if (count == 0) return values;
  if (H5Tis_variable_str(file_type) > 0) {
    const Object type = string_type();
    H5Tset_cset(type.id(), H5Tget_cset(file_type));
    std::vector<char*> pointers(count, nullptr);
    check(read(type.id(), pointers.data()), what + " cannot be read");
    for (std::size_t i = 0; i < count; ++i) {
      if (pointers[i] != nullptr) values[i] = pointers[i];
      H5free_memory(pointers[i]);
    }
    return values;
  }
  const std::size_t size = H5Tget_size(file_type);
  constexpr std::size_t limit = std::size_t{1} << 26;
  if (size == 0 || size > limit / count) fail(what + " is too long");
  std::string buffer(size * count, '\0');
  check(read(file_type, buffer.data()), what + " cannot be read");
  for (std::size_t i = 0; i < count; ++i)
    values[i] = std::string(buffer.data() + i * size, strnlen(buffer.data() + i * size, size));
  return values;
}

}  // namespace

Object::~Object() {
  if (id_ >= 0) close_(id_);
}
Object::Object(Object&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
Object& Object::operator=(Object&& other) noexcept {
  std::swap(id_, other.id_);
  std::swap(close_, other.close_);
  return *this;
}

void start() {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  H5PLset_loading_state(0);
  if (H5Lis_registered(H5L_TYPE_EXTERNAL) > 0) H5Lunregister(H5L_TYPE_EXTERNAL);
}

Object create_file() {
  const Object properties = owned(H5Pcreate(H5P_FILE_CREATE), H5Pclose, "no file properties");
  H5Pset_link_creation_order(properties.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
  const Object access = owned(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "no file properties");
  constexpr std::size_t step = std::size_t{1} << 20;
  check(H5Pset_fapl_core(access.id(), step, 0), "no files in memory");
  return owned(H5Fcreate("in memory", H5F_ACC_TRUNC, properties.id(), access.id()), H5Fclose,
               "a file in memory cannot be made");
}

std::vector<char> image_of(const Object& file) {
  check(H5Fflush(file.id(), H5F_SCOPE_GLOBAL), "a file in memory cannot be finished");
  const ssize_t size = H5Fget_file_image(file.id(), nullptr, 0);
  std::vector<char> image(size > 0 ? static_cast<std::size_t>(size) : 0);
  if (size <= 0 || H5Fget_file_image(file.id(), image.data(), image.size()) != size) {
    fail("a file in memory cannot be finished");
  }
  return image;
}

Object open_file(const std::filesystem::path& path) {
  return owned(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose,
               path.string() + ": is no HDF5 file, or is damaged");
}

Object create_group(const Object& parent, const std::string& name) {
  const Object properties = owned(H5Pcreate(H5P_GROUP_CREATE), H5Pclose, "no group properties");
  H5Pset_link_creation_order(properties.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
  return owned(H5Gcreate2(parent.id(), name.c_str(), H5P_DEFAULT, properties.id(), H5P_DEFAULT), H5Gclose,
               "group " + name + " cannot be written");
}

Object open_group(const Object& parent, const std::string& name) {
  if (!has_link(parent, name)) fail("there is no group '" + name + "'");
  return owned(H5Gopen2(parent.id(), name.c_str(), H5P_DEFAULT), H5Gclose, "'" + name + "' is not a group");
}

Object open_dataset(const Object& parent, const std::string& name) {
  if (!has_link(parent, name)) fail(name_of(parent) + " has no dataset '" + name + "'");
  return owned(H5Dopen2(parent.id(), name.c_str(), H5P_DEFAULT), H5Dclose, "'" + name + "' is not a dataset");
}

bool has_link(const Object& parent, const std::string& name) {
  return H5Lexists(parent.id(), name.c_str(), H5P_DEFAULT) > 0 &&
         H5Oexists_by_name(parent.id(), name.c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> children(const Object& group) {
  std::vector<std::string> names;
  const auto collect = [](hid_t, const char* name, const H5L_info_t*, void* out) -> herr_t {
    static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  if (H5Literate(group.id(), H5_INDEX_CRT_ORDER, H5_ITER_INC, nullptr, collect, &names) < 0) {
    names.clear();
    check(H5Literate(group.id(), H5_INDEX_NAME, H5_ITER_INC, nullptr, collect, &names), "a group cannot be listed");
  }
  return names;
}

std::vector<std::uint64_t> shape_of(const Object& dataset) {
  const Object space = owned(H5Dget_space(dataset.id()), H5Sclose, name_of(dataset) + " has no shape");
  const int rank = H5Sget_simple_extent_ndims(space.id());
  if (rank < 0) fail(name_of(dataset) + " has no shape");
  std::vector<hsize_t> extents(static_cast<std::size_t>(rank));
  if (rank > 0) check(H5Sget_simple_extent_dims(space.id(), extents.data(), nullptr), "no shape");
  return {extents.begin(), extents.end()};
}

void require_stored(const Object& dataset) {
  const auto shape = shape_of(dataset);
  const bool empty = std::find(shape.begin(), shape.end(), 0U) != shape.end();
  if (!empty && H5Dget_storage_size(dataset.id()) == 0)
    fail(name_of(dataset) + " has values that the file does not hold");
}

void write_attribute(const Object& object, const std::string& name, const std::string& value) {
  const char* text = value.c_str();
  write_scalar(object, name, string_type().id(), &text);
}
void write_attribute(const Object& object, const std::string& name, double value) {
  write_scalar(object, name, H5T_NATIVE_DOUBLE, &value);
}
void write_attribute(const Object& object, const std::string& name, std::int64_t value) {
  write_scalar(object, name, H5T_NATIVE_INT64, &value);
}

bool has_attribute(const Object& object, const std::string& name) { return H5Aexists(object.id(), name.c_str()) > 0; }

std::string read_string(const Object& object, const std::string& name) {
  const Object attribute = open_attribute(object, name);
  const std::string what = "attribute '" + name + "' of " + name_of(object);
  require_scalar(attribute, what);
  const Object type = owned(H5Aget_type(attribute.id()), H5Tclose, what + " has no type");
  return read_any_strings(type.id(), 1, what,
                          [&](hid_t memory, void* out) { return H5Aread(attribute.id(), memory, out); })
      .front();
}

double read_real(const Object& object, const std::string& name) {
  const Object attribute = open_attribute(object, name);
  const std::string what = "attribute '" + name + "' of " + name_of(object);
  require_scalar(attribute, what);
  const Object type = owned(H5Aget_type(attribute.id()), H5Tclose, what + " has no type");
  const H5T_class_t kind = H5Tget_class(type.id());
  if (kind != H5T_FLOAT && kind != H5T_INTEGER) fail(what + " is not a number");
  double value = 0;
  check(H5Aread(attribute.id(), H5T_NATIVE_DOUBLE, &value), what + " cannot be read");
  return value;
}

std::int64_t read_integer(const Object& object, const std::string& name) {
  const Object attribute = open_attribute(object, name);
  const std::string what = "attribute '" + name + "' of " + name_of(object);
  require_scalar(attribute, what);
  const Object type = owned(H5Aget_type(attribute.id()), H5Tclose, what + " has no type");
  if (H5Tget_class(type.id()) != H5T_INTEGER) fail(what + " is not an integer");
  std::int64_t value = 0;
  check(H5Aread(attribute.id(), H5T_NATIVE_INT64, &value), what + " cannot be read");
  return value;
}

Object write_column(const Object& group, const std::string& name, const std::vector<double>& values) {
  return write_dataset(group, name, H5T_NATIVE_DOUBLE, values.size(), values.data());
}
Object write_column(const Object& group, const std::string& name, const std::vector<std::int64_t>& values) {
  return write_dataset(group, name, H5T_NATIVE_INT64, values.size(), values.data());
}
Object write_column(const Object& group, const std::string& name, const std::vector<std::string>& values) {
  std::vector<const char*> pointers;
  for (const auto& value : values) pointers.push_back(value.c_str());
  return write_dataset(group, name, string_type().id(), pointers.size(), pointers.data());
}

void write_text(const Object& group, const std::string& name, const std::string& text) {
  const Object type = string_type();
  const Object space = scalar();
  const Object dataset =
      owned(H5Dcreate2(group.id(), name.c_str(), type.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
            H5Dclose, "dataset " + name + " cannot be written");
  const char* pointer = text.c_str();
  check(H5Dwrite(dataset.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, &pointer), name + " cannot be written");
}

std::vector<double> read_reals(const Object& dataset) {
  std::vector<double> values(rows_of(dataset));
  if (values.empty()) return values;
  check(H5Dread(dataset.id(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
        name_of(dataset) + " cannot be read");
  return values;
}

std::vector<std::int64_t> read_integers(const Object& dataset) {
  std::vector<std::int64_t> values(rows_of(dataset));
  if (values.empty()) return values;
  check(H5Dread(dataset.id(), H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
        name_of(dataset) + " cannot be read");
  return values;
}

std::string read_text(const Object& dataset) {
  if (!shape_of(dataset).empty()) fail(name_of(dataset) + " is no single text");
  const Object type = owned(H5Dget_type(dataset.id()), H5Tclose, name_of(dataset) + " has no type");
  return read_any_strings(
             type.id(), 1, name_of(dataset),
             [&](hid_t memory, void* out) { return H5Dread(dataset.id(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, out); })
      .front();
}

std::vector<std::string> read_strings(const Object& dataset) {
  const Object type = owned(H5Dget_type(dataset.id()), H5Tclose, name_of(dataset) + " has no type");
  return read_any_strings(type.id(), rows_of(dataset), name_of(dataset), [&](hid_t memory, void* out) {
    return H5Dread(dataset.id(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, out);
  });
}

Kind kind_of(const Object& dataset) {
  const Object type = owned(H5Dget_type(dataset.id()), H5Tclose, name_of(dataset) + " has no type");
  switch (H5Tget_class(type.id())) {
    case H5T_FLOAT:
      return Kind::real;
    case H5T_INTEGER:
      return Kind::integer;
    case H5T_STRING:
      return Kind::text;
    default:
      return Kind::other;
  }
}

std::string name_of(const Object& object) {
  std::array<char, 256> name{};
  return H5Iget_name(object.id(), name.data(), name.size()) > 0 ? std::string(name.data()) : "the file";
}

}  // namespace kvlab::h5
