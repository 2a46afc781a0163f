#include "core/method/spec.hpp"

#include <gtest/gtest.h>

#include "core/base/error.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

std::string refusal(MethodKind kind, const std::string& id, const std::vector<Setting>& settings = {}) {
  try {
    method_spec(test::registry(), kind, id, settings);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

std::string value_of(const MethodSpec& spec, const std::string& name) {
  for (std::size_t i = 0; i < spec.values.size(); ++i) {
    if (spec.method->parameters[i].name == name) return text_of(spec.method->parameters[i], spec.values[i]);
  }
  return "none";
}

TEST(MethodSpec, TakesTypedValuesAndTexts) {
  const auto spec = method_spec(test::registry(), MethodKind::codec, "quantize",
                                {{"bits", 5}, {"symmetric", false}, {"scales", "per_channel"}, {"group", "16"}});
  EXPECT_EQ(value_of(spec, "bits"), "5");
  EXPECT_EQ(value_of(spec, "symmetric"), "false");
  EXPECT_EQ(value_of(spec, "scales"), "per_channel");
  EXPECT_EQ(value_of(spec, "group"), "16");
  const auto plain = method_spec(test::registry(), MethodKind::codec, "quantize");
  ASSERT_EQ(plain.values.size(), plain.method->parameters.size());
  for (std::size_t i = 0; i < plain.values.size(); ++i) {
    EXPECT_EQ(plain.values[i].i, plain.method->parameters[i].default_value.i);
  }
  EXPECT_EQ(Setting("x", 0.1F).text, "0.10000000149011612");  // the same number
  EXPECT_EQ(Setting("x", std::uint64_t{1} << 63).text, "9223372036854775808");
}

TEST(MethodSpec, RefusesWithTheNearestValidChoice) {
  EXPECT_EQ(refusal(MethodKind::codec, "quantise"),
            "there is no codec 'quantise'; the nearest valid name is 'quantize'");
  EXPECT_EQ(refusal(MethodKind::codec, "magnitude").substr(0, 50),
            "'magnitude' is a selector, and a codec stands here");
  EXPECT_EQ(refusal(MethodKind::codec, "quantize", {{"bit", 4}}),
            "quantize has no 'bit'; the nearest valid name is 'bits'");
  EXPECT_EQ(refusal(MethodKind::codec, "quantize", {{"bits", 4}, {"bits", 4}}), "quantize: bits is given twice");
  const std::string range = refusal(MethodKind::codec, "quantize", {{"bits", 7}});
  EXPECT_NE(range.find("quantize: bits is 7; the nearest valid value is "), std::string::npos) << range;
  const std::string type = refusal(MethodKind::codec, "quantize", {{"bits", 4.5}});
  EXPECT_NE(type.find("quantize: bits is '4.5', not an integer; valid: "), std::string::npos) << type;
}

}  // namespace
}  // namespace kvlab
