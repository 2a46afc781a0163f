// A trace is checked once: what is known of it is kept in ~/.cache/kvlab/traces.json by path, size, time and inode.
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/child.hpp"
#include "core/base/error.hpp"
#include "core/base/hash.hpp"
#include "experiments/workloads/trace/trace.hpp"
#include "results/atomic.hpp"

namespace kvlab {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int check_version = 1;  // raised when the check refuses more than it did

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

json read_cache() {
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

std::string stamp_of(const fs::path& path) {
  struct stat info{};
  if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode))
    throw InputError(path.string() + ": there is no such file");
  return std::to_string(check_version) + " " + std::to_string(info.st_size) + " " +
         std::to_string(info.st_mtim.tv_sec) + "." + std::to_string(info.st_mtim.tv_nsec) + " " +
         std::to_string(info.st_ino);
}

}  // namespace

std::string check_trace(const fs::path& path) {
  const std::string stamp = stamp_of(path);
  const std::string key = fs::absolute(path).lexically_normal().string();
  json cache = read_cache();
  const auto text = [&](const char* field) {
    const json entry = cache.contains(key) ? cache[key] : json();
    return entry.is_object() && entry.contains(field) && entry[field].is_string() ? entry[field].get<std::string>()
                                                                                  : "";
  };
  if (text("stamp") == stamp && !text("hash").empty()) return text("hash");
  const ChildResult result = in_child(
      [&] {
        h5::silence();
        Trace(path).check_values();
        return hash_of_file(path);
      },
      {.doing = "reading it", .seconds = 600});
  if (!result.ok) {
    throw InputError(result.text.starts_with(path.string()) ? result.text : path.string() + ": " + result.text);
  }
  cache = read_cache();
  cache[key] = {{"stamp", stamp}, {"hash", result.text}};
  write_cache(cache);
  return result.text;
}

}  // namespace kvlab
