// The little of HDF5's C interface that results and traces need, with owners and exceptions. Every function throws
// kvlab::InputError naming the object; the library's own printing is off.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace kvlab::h5 {

// Owns an identifier.
class Object {
 public:
  using Close = herr_t (*)(hid_t);
  Object(hid_t id, Close close) : id_(id), close_(close) {}
  ~Object();
  Object(Object&& other) noexcept;
  Object& operator=(Object&& other) noexcept;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  [[nodiscard]] hid_t id() const { return id_; }

 private:
  hid_t id_;
  Close close_;
};

// Once per process, before any call: errors are thrown, not printed; the library loads no plugins and follows no link
// into another file.
void start();

Object create_file();  // in memory, until saved; objects keep their order of creation
// The file's bytes, to be written to a disk: the library's own writing reports a full one only when it is too late.
std::vector<char> image_of(const Object& file);
Object open_file(const std::filesystem::path& path);  // to read
Object create_group(const Object& parent, const std::string& name);
Object open_group(const Object& parent, const std::string& name);
Object open_dataset(const Object& parent, const std::string& name);
bool has_link(const Object& parent, const std::string& name);
std::vector<std::string> children(const Object& group);  // in order of creation, or by name where that was not kept
std::vector<std::uint64_t> shape_of(const Object& dataset);
void require_stored(const Object& dataset);  // refuses one that has values and whose values are nowhere in the file

// Attributes. Strings are UTF-8 of variable length when written, of either kind when read; numbers are scalars.
void write_attribute(const Object& object, const std::string& name, const std::string& value);
void write_attribute(const Object& object, const std::string& name, double value);
void write_attribute(const Object& object, const std::string& name, std::int64_t value);
bool has_attribute(const Object& object, const std::string& name);
std::string read_string(const Object& object, const std::string& name);
double read_real(const Object& object, const std::string& name);
std::int64_t read_integer(const Object& object, const std::string& name);  // the attribute is of an integer type

// Datasets of one dimension, and scalar texts.
Object write_column(const Object& group, const std::string& name, const std::vector<double>& values);
Object write_column(const Object& group, const std::string& name, const std::vector<std::int64_t>& values);
Object write_column(const Object& group, const std::string& name, const std::vector<std::string>& values);
void write_text(const Object& group, const std::string& name, const std::string& text);
std::vector<double> read_reals(const Object& dataset);
std::vector<std::int64_t> read_integers(const Object& dataset);
std::string read_text(const Object& dataset);
std::vector<std::string> read_strings(const Object& dataset);

enum class Kind { real, integer, text, other };
Kind kind_of(const Object& dataset);
std::string name_of(const Object& object);  // its path in the file

}  // namespace kvlab::h5
