// A method's parameters, declared once: the declaration names the member, and the member is filled in before the
// method is used.
//
//   static constexpr auto parameters() {
//     return std::tuple{kvlab::integer(&Mine::rank, "rank", 32, kvlab::Range{1, 512}, "1", "columns kept"),
//                       kvlab::flag(&Mine::centre, "centre", true, "subtract the mean first")};
//   }
#pragma once

#include <kvlab/abi.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>

namespace kvlab {

// Who a method is: id (the folder's name), version, one line, paper, licence (SPDX).
struct Info {
  const char* id;
  const char* version;
  const char* summary;
  const char* paper_title = "";
  const char* paper_arxiv = "";
  const char* license = "Apache-2.0";
};

template <class Number>
struct Range {  // inclusive
  Number minimum;
  Number maximum;
};
template <class Number>
Range(Number, Number) -> Range<Number>;

template <class Method, class Member>
struct Declared {
  Member Method::* member;
  kvlab_parameter declared;
};

namespace detail {
constexpr kvlab_parameter declare(kvlab_parameter_type type, const char* name, const char* unit, const char* meaning) {
  kvlab_parameter declared{};
  declared.struct_size = sizeof(kvlab_parameter);
  declared.type = type;
  declared.name = name;
  declared.unit = unit;
  declared.meaning = meaning;
  return declared;
}
}  // namespace detail

template <class Method, class Member>
constexpr Declared<Method, Member> integer(Member Method::* member, const char* name, std::int64_t default_value,
                                           Range<int> range, const char* unit, const char* meaning) {
  kvlab_parameter declared = detail::declare(KVLAB_INT, name, unit, meaning);
  declared.default_value.i = default_value;
  declared.minimum.i = range.minimum;
  declared.maximum.i = range.maximum;
  return {member, declared};
}

// One of the integers in an array of static storage.
template <class Method, class Member, std::size_t count>
constexpr Declared<Method, Member> integer(Member Method::* member, const char* name, std::int64_t default_value,
                                           const std::array<std::int64_t, count>& allowed, const char* unit,
                                           const char* meaning) {
  kvlab_parameter declared = detail::declare(KVLAB_INT, name, unit, meaning);
  declared.default_value.i = default_value;
  declared.minimum.i = allowed.front();
  declared.maximum.i = allowed.back();
  declared.integers = allowed.data();
  declared.count = count;
  return {member, declared};
}

template <class Method>
constexpr Declared<Method, double> real(double Method::* member, const char* name, double default_value,
                                        Range<double> range, const char* unit, const char* meaning) {
  kvlab_parameter declared = detail::declare(KVLAB_FLOAT, name, unit, meaning);
  declared.default_value.f = default_value;
  declared.minimum.f = range.minimum;
  declared.maximum.f = range.maximum;
  return {member, declared};
}

template <class Method>
constexpr Declared<Method, bool> flag(bool Method::* member, const char* name, bool default_value,
                                      const char* meaning) {
  kvlab_parameter declared = detail::declare(KVLAB_BOOL, name, "", meaning);
  declared.default_value.i = default_value ? 1 : 0;
  return {member, declared};
}

// An enum whose enumerators are numbered from 0 in the order of `names`, an array of static storage.
template <class Method, class Enum, std::size_t count>
constexpr Declared<Method, Enum> choice(Enum Method::* member, const char* name, Enum default_value,
                                        const std::array<const char*, count>& names, const char* meaning) {
  kvlab_parameter declared = detail::declare(KVLAB_CHOICE, name, "", meaning);
  declared.default_value.i = static_cast<std::int64_t>(default_value);
  declared.choices = names.data();
  declared.count = count;
  return {member, declared};
}

namespace detail {

template <class Method>
constexpr auto parameters_of() {
  if constexpr (requires { Method::parameters(); }) {
    return Method::parameters();
  } else {
    return std::tuple<>{};
  }
}

template <class Method>
inline constexpr auto parameter_tuple = parameters_of<Method>();

template <class Method>
inline constexpr auto parameter_table = std::apply(
    [](const auto&... parameter) { return std::array<kvlab_parameter, sizeof...(parameter)>{parameter.declared...}; },
    parameter_tuple<Method>);

template <class Method, class Member>
void assign(Method& method, const Declared<Method, Member>& parameter, const kvlab_value& value) {
  if (parameter.declared.type == KVLAB_FLOAT) {
    method.*parameter.member = static_cast<Member>(value.f);
  } else {
    method.*parameter.member = static_cast<Member>(value.i);
  }
}

// Values arrive in the order of declaration.
template <class Method>
void assign_all(Method& method, const kvlab_value* values) {
  std::apply([&](const auto&... parameter) { (assign(method, parameter, *values++), ...); }, parameter_tuple<Method>);
}

}  // namespace detail
}  // namespace kvlab
