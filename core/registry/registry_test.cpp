#include "core/registry/registry.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "core/base/error.hpp"
#include "core/registry/description.hpp"
#include "tests/support/support.hpp"

namespace kvlab {
namespace {

namespace fs = std::filesystem;

std::string refusal(const fs::path& library) {
  const Registry registry({library});
  EXPECT_EQ(registry.candidates().size(), 1U) << library;
  if (registry.candidates().empty()) return "";
  EXPECT_EQ(registry.candidates().front().state, Registry::Candidate::State::refused) << library;
  EXPECT_TRUE(registry.methods().empty());
  return registry.candidates().front().reason;
}

fs::path refused(const std::string& name) {
  return fs::path(KVLAB_BINARY_DIR) / "tests/plugins/refused" / (name + ".so");
}

#if defined(__x86_64__)
// tests/plugins/built holds libraries as they were built for older ABIs.
TEST(Registry, RefusesALibraryThatWasBuiltForAnOlderAbi) {
  for (const char* abi : {"1", "2", "3"}) {
    const std::string name = std::string("tests/plugins/built/abi") + abi + "_x86_64.so";
    const std::string reason = refusal(fs::path(KVLAB_SOURCE_DIR) / name);
    const std::string expected = std::string("built for plugin ABI ") + abi + ", this kvlab has ABI ";
    EXPECT_NE(reason.find(expected + std::to_string(KVLAB_ABI_VERSION)), std::string::npos) << reason;
  }
}
#endif

TEST(Registry, RefusesEachFlawWithItsReason) {
  const std::vector<std::pair<std::string, std::string>> expected{
      {"refused_magic", "magic"},
      {"refused_version", "built for plugin ABI 99, this kvlab has ABI " + std::to_string(KVLAB_ABI_VERSION)},
      {"refused_size", "wrong struct_size"},
      {"refused_id", "its id 'Not A Name' is not of the form"},
      {"refused_kind", "its kind is 3"},
      {"refused_functions", "selector functions are missing"},
      {"refused_parameter_twice", "declares 'number' twice"},
      {"refused_parameter_name", "'keep' uses a name that experiment files keep"},
      {"refused_parameter_type", "type 4, which is reserved"},
      {"refused_parameter_default", "'number' has a default outside of its range"},
      {"refused_reserved_ability", "kvlab.append, which is reserved"},
      {"refused_state_per_token", "state per token, which is reserved"},
      {"refused_null_scope", "one of its selector functions is null"},
      {"refused_optimized_by_two", "its field optimized is 2; valid: 0, 1"},
      {"refused_null_string", "its summary is null"},
      {"no_symbol", "it has no symbol kvlab_plugin"},
      {"refused_crash_when_opened", "opening it crashes (SIGABRT)"},
  };
  for (const auto& [name, reason] : expected) {
    EXPECT_NE(refusal(refused(name)).find(reason), std::string::npos) << name << ": " << refusal(refused(name));
  }
}

TEST(Registry, RefusesFilesThatAreNoLibraries) {
  const test::Folder folder;
  const auto text = folder.path() / "text.so";
  std::ofstream(text) << "not a library\n";
  EXPECT_NE(refusal(text).find("cannot be loaded"), std::string::npos);

  const auto truncated = folder.path() / "truncated.so";
  fs::copy(fs::path(KVLAB_BINARY_DIR) / "methods/quantize.so", truncated);
  for (const std::uintmax_t size : {std::uintmax_t{70}, std::uintmax_t{5000}, std::uintmax_t{20000}}) {
    fs::copy(fs::path(KVLAB_BINARY_DIR) / "methods/quantize.so", truncated, fs::copy_options::overwrite_existing);
    fs::resize_file(truncated, size);
    EXPECT_FALSE(refusal(truncated).empty()) << size;
  }
}

TEST(Registry, FindsLibrariesInFoldersAndBelow) {
  const test::Folder folder;
  fs::create_directories(folder.path() / "deep/deeper");
  fs::copy(fs::path(KVLAB_BINARY_DIR) / "methods/random.so", folder.path() / "deep/random.so");
  fs::copy(fs::path(KVLAB_BINARY_DIR) / "methods/magnitude.so", folder.path() / "deep/deeper/magnitude.so");
  const Registry registry({folder.path(), folder.path() / "absent"});
  EXPECT_EQ(registry.ids(), std::vector<std::string>{"random"});  // */*.so and no deeper
}

TEST(Registry, ALaterLibraryOfTheSameIdIsShadowed) {
  const test::Folder folder;
  fs::copy(fs::path(KVLAB_BINARY_DIR) / "methods/random.so", folder.path() / "a.so");
  fs::copy(fs::path(KVLAB_BINARY_DIR) / "methods/random.so", folder.path() / "b.so");
  const Registry registry({folder.path(), folder.path()});
  ASSERT_EQ(registry.candidates().size(), 2U);
  EXPECT_EQ(registry.candidates()[1].state, Registry::Candidate::State::shadowed);
  EXPECT_EQ(registry.find("random")->path, folder.path() / "a.so");
}

// What is measured is what was planned: a library that was built anew in between is another one.
TEST(Registry, ALibraryThatHasChangedIsNotTrusted) {
  const fs::path path = fs::path(KVLAB_BINARY_DIR) / "methods/random.so";
  const std::string hash = Registry::described({path}).find("random")->hash;
  EXPECT_EQ(hash.size(), 32U);
  EXPECT_EQ(Registry::trusted({{path, hash}}).ids(), std::vector<std::string>{"random"});
  try {
    Registry::trusted({{path, std::string(32, '0')}});
    FAIL() << "it was taken";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("random.so: it has changed since this run began"), std::string::npos);
  }
}

TEST(Registry, DescribesWhatItWouldLoadAndLoadsNothing) {
  const fs::path folder = fs::path(KVLAB_BINARY_DIR) / "methods";
  const Registry described = Registry::described({folder});
  const Registry loaded({folder});
  ASSERT_GT(described.methods().size(), 3U);
  ASSERT_EQ(described.ids(), loaded.ids());
  for (std::size_t i = 0; i < loaded.methods().size(); ++i) {
    EXPECT_EQ(described.methods()[i].descriptor, nullptr);
    EXPECT_NE(loaded.methods()[i].descriptor, nullptr);
    EXPECT_EQ(description_of(described.methods()[i]), description_of(loaded.methods()[i]));
    EXPECT_EQ(described.methods()[i].path, loaded.methods()[i].path);
  }
  const Method& quantize = *described.find("quantize");
  EXPECT_TRUE(quantize.abilities.attend_keys && quantize.abilities.attend_values && quantize.abilities.gather);
  EXPECT_EQ(quantize.parameters.front().name, loaded.find("quantize")->parameters.front().name);
}

TEST(Registry, EscapesWhatALibrarySaysOfItself) {
  Method method = *Registry::described({fs::path(KVLAB_BINARY_DIR) / "methods"}).find("quantize");
  method.summary = method.license = method.parameters.front().meaning = "\033[2J\n\xff";
  const Method read = method_of(description_of(method), "q.so");
  for (const std::string& text : {read.summary, read.license, read.parameters.front().meaning}) {
    EXPECT_EQ(text, "\\x1b[2J\\n\\xff");
  }
}

TEST(Registry, RefusesADamagedDescription) {
  const Registry registry = Registry::described({fs::path(KVLAB_BINARY_DIR) / "methods"});
  const std::string whole = description_of(*registry.find("quantize"));
  EXPECT_EQ(description_of(method_of(whole, "q.so")), whole);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(method_of(std::string_view(whole).substr(0, size), "q.so"), InputError) << size;
  }
  Method method = *registry.find("quantize");
  method.parameters.front().default_value.i = 1'000'000;
  EXPECT_THROW(method_of(description_of(method), "q.so"), InputError);
}

TEST(Parameter, ParsesWhatIsInRangeAndNamesTheNearestOtherwise) {
  Parameter bits;
  bits.name = "bits";
  bits.type = ParameterType::integer;
  bits.integers = {2, 3, 4, 8};
  EXPECT_EQ(parse(bits, "4").i, 4);
  const auto message = [](const Parameter& parameter, const char* text) {
    try {
      parse(parameter, text);
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message(bits, "7"), "bits is 7; the nearest valid value is 8 (valid: 2, 3, 4, 8)");
  EXPECT_EQ(message(bits, "4.5"), "bits is '4.5', not an integer; valid: 2, 3, 4, 8");
  EXPECT_EQ(message(bits, "99999999999999999999"), "bits is '99999999999999999999', not an integer; valid: 2, 3, 4, 8");

  Parameter share;
  share.name = "share";
  share.type = ParameterType::real;
  share.maximum.f = 1;
  EXPECT_EQ(parse(share, "0.25").f, 0.25);
  EXPECT_EQ(message(share, "1.5"), "share is 1.5; the nearest valid value is 1 (valid: 0 .. 1)");
  for (const char* text : {"nan", "inf", "1e999", "", "0.1x", "0x1p3"})
    EXPECT_NE(message(share, text), "accepted") << text;

  Parameter along;
  along.name = "scales";
  along.type = ParameterType::choice;
  along.choices = {"per_token", "per_channel"};
  EXPECT_EQ(parse(along, "per_channel").i, 1);
  EXPECT_EQ(message(along, "per_chanel"),
            "scales is 'per_chanel'; the nearest valid value is 'per_channel' (valid: per_token, per_channel)");

  Parameter flag;
  flag.name = "flag";
  flag.type = ParameterType::boolean;
  EXPECT_EQ(parse(flag, "true").i, 1);
  EXPECT_EQ(message(flag, "yes"), "flag is 'yes'; valid: true, false");
}

}  // namespace
}  // namespace kvlab
