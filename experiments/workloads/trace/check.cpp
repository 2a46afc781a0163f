// A trace is checked once: what is known of it is kept in ~/.cache/kvlab/traces.json by path and stamp.
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "core/base/error.hpp"
#include "core/base/file.hpp"
#include "core/base/hash.hpp"
#include "core/base/text.hpp"
#include "experiments/workloads/trace/trace.hpp"
#include "results/atomic.hpp"
#include "results/structure.hpp"

namespace kvlab {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int check_version = 2;  // raised when the check refuses more than it did

// Empty where there is no home.
fs::path cache_file() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0') {
    return fs::path(cache) / "kvlab/traces.json";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    return fs::path(home) / ".cache/kvlab/traces.json";
  }
  return {};
}

// Whatever lies there that is no plain file holds nothing.
json read_cache() {
  std::error_code failure;
  if (!fs::is_regular_file(cache_file(), failure)) return json::object();
  std::ifstream file(cache_file());
  const json cache = json::parse(file, nullptr, false);
  return cache.is_object() ? cache : json::object();
}

// That the cache cannot be written is no error: the next start checks again.
void write_cache(const json& cache) {
  const fs::path path = cache_file();
  if (path.empty()) return;
  try {
    fs::create_directories(path.parent_path());
    write_atomically(path, cache.dump(1) + '\n');
    remove_left_behind(path.parent_path(), path.filename().string());
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch)
  }
}

// What the cache knows of a trace; nothing when it was not checked as it is now, or the entry cannot be read.
std::optional<CheckedTrace> remembered(const json& cache, const std::string& key, const std::string& stamp) {
  try {
    const json& entry = cache.at(key);
    if (entry.at("stamp").get<std::string>() != stamp) return std::nullopt;
    return CheckedTrace{stamp, entry.at("hash").get<std::string>(), header_of(entry.at("header"))};
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

// The child's part: {"hash", "header"}.
std::string check_all(const h5::Object& file, const fs::path& path) {
  const Trace trace(file);
  trace.check_values();
  return json{{"hash", hash_of_file(path)}, {"header", to_json(trace.header())}}.dump();
}

}  // namespace

std::string stamp_of_trace(const fs::path& path) {
  require_file(path);
  struct stat info{};
  if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) {
    throw InputError(path.string() + ": it is no file that can be read");
  }
  std::ostringstream stamp;
  stamp << check_version << ' ' << info.st_size << ' ' << info.st_dev << ' ' << info.st_ino;
  for (const timespec& time : {info.st_mtim, info.st_ctim}) stamp << ' ' << time.tv_sec << '.' << time.tv_nsec;
  return stamp.str();
}

CheckedTrace check_trace(const fs::path& path) {
  const std::string stamp = stamp_of_trace(path);
  const std::string key = printable(fs::absolute(path).lexically_normal().string());
  if (auto known = remembered(read_cache(), key, stamp)) return *known;
  // A tensor of a sequence as it is stored and as f32, and the library's chunks.
  const auto memory = [](const h5::Declared& declared) { return 8 * declared.largest + 8 * declared.file; };
  const std::string answer =
      h5::read_stranger(path, {memory, [&](const h5::Object& file) { return check_all(file, path); }});
  if (stamp_of_trace(path) != stamp) throw InputError(path.string() + ": it changes while it is read");
  try {
    json entry = json::parse(answer);
    const CheckedTrace checked{stamp, entry.at("hash").get<std::string>(), header_of(entry.at("header"))};
    entry["stamp"] = stamp;
    json cache = read_cache();
    cache[key] = entry;
    write_cache(cache);
    return checked;
  } catch (const json::exception& error) {
    throw InputError(path.string() + ": what was read of it is damaged: " + error.what());
  }
}

}  // namespace kvlab
