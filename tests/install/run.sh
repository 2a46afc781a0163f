#!/usr/bin/env bash
# Installs this build, moves what was installed, does from an empty folder what core/examples/README.md says, builds
# plugins out of tree with find_package(kvlab) (a selector written here, and the two skeletons of `kvlab new`), and uses
# all of them.
set -euo pipefail
build=$1
sanitized=$(grep -E '^KVLAB_SANITIZE:STRING=.+' "$build/CMakeCache.txt" || true)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cmake --install "$build" --prefix "$out/first" >/dev/null
mv "$out/first" "$out/usr"
installed=$out/usr/bin/kvlab
here=$(cd "$(dirname "$0")" && pwd)
python3 "$here/links.py" "$out/usr/share/doc/kvlab"

# The page, word for word. A sanitizer's core does not link without it.
if [ -z "$sanitized" ]; then
  env -u KVLAB_PLUGIN_PATH PREFIX="$out/usr" python3 "$here/page.py" "$out/usr/share/doc/kvlab/core/examples/README.md" "$out/page"
fi

mkdir -p "$out/consumer/methods"
cd "$out/consumer"
"$installed" new my_codec --kind codec
"$installed" new my_selector --kind selector
cat >newest.cpp <<'CPP'
#include <kvlab/plugin.hpp>

struct Newest : kvlab::Selector {
  static constexpr kvlab::Info info{.id = "newest", .version = "1.0.0", .summary = "keeps the newest tokens"};
  void scores(const kvlab::HeadView& head, std::span<float> out) const {
    for (std::size_t t = 0; t < out.size(); ++t) out[t] = static_cast<float>(head.positions[t]);
  }
};
KVLAB_PLUGIN(Newest)
CPP
cat >CMakeLists.txt <<'CMAKE'
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES CXX)
find_package(kvlab 0.1 REQUIRED)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/methods)
add_compile_options(-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror)
kvlab_add_method(newest SOURCES newest.cpp)
kvlab_add_method(my_codec SOURCES methods/my_codec/my_codec.cpp)
kvlab_add_method(my_selector SOURCES methods/my_selector/my_selector.cpp)
CMAKE
cmake -G Ninja -B build -DCMAKE_PREFIX_PATH="$out/usr" >cmake.log || { cat cmake.log; exit 1; }
cmake --build build >build.log || { cat build.log; exit 1; }
for library in build/methods/*.so; do
  [ "$(nm -D --defined-only "$library" | awk '{print $3}')" = kvlab_plugin ] || { echo "$library exports more than kvlab_plugin"; exit 1; }
done

cat >experiment.yaml <<'YAML'
kvlab: 1
name: consumer
workloads:
  noise: {synthetic: gaussian, kv_heads: 2, query_heads: 4, tokens: 300, head_dim: 64}
pipelines:
  built_in: {select: [{method: sliding_window, tokens: 100}], codec: {method: low_rank}}
  mine: {select: [{method: newest, tokens: 100}, {method: my_selector, keep: 0.9}], codec: {method: my_codec}}
measure: {speed: false}
YAML
export KVLAB_PLUGIN_PATH=$PWD/build/methods
"$installed" list >list.txt  # a pipe into grep -q would end it early
grep -q newest list.txt
# The benchmarks find their experiment where it was installed.
"$installed" bench --only none 2>bench.txt && exit 1
grep -q "it matches no cell" bench.txt
# No build type was named: a method is optimized all the same.
if [ -z "$sanitized" ] && grep -q WARNING list.txt; then exit 1; fi
"$installed" run experiment.yaml --plugins "$PWD/build"
"$installed" show results/runs/consumer.h5 --csv --columns pipeline,status >table.csv
grep -q '^mine,ok$' table.csv
# What every method must do, by what was built here.
"$installed" check build/methods
echo "installed, consumed, run"
