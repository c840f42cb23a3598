#!/usr/bin/env bash
# Which sources the builds with sanitizers compile as one: those that share no name of an unnamed namespace.
# usage: join_sources_test.sh SOURCES
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unnamed() { printf 'namespace {\n%s\n}  // namespace\n' "$1"; }
unnamed 'int count(int n) {' >a.cc
unnamed 'constexpr int count = 3;' >same_name.cc
echo 'int b() { return count(3); }' >mentions.cc
echo '// count is no word of this one' >comment.cc
echo 'const Table<Args> kForward{' >table.cc
echo 'const Table<Others> kForward{' >other_table.cc
unnamed 'using Json = nlohmann::json;' >json.cc
unnamed 'using Json = nlohmann::json;' >same_json.cc
unnamed 'using Json = nlohmann::ordered_json;' >ordered_json.cc

failures=0
# expect MOST GROUPS FILE...: the groups' numbers, in the files' order
expect() {
  local got
  got=$(awk -v most="$1" -f "$sources/cmake/join_sources.awk" "${@:3}" | cut -d' ' -f1 | tr '\n' ' ')
  [ "$got" = "$2 " ] || { echo "FAILED: ${*:3}: groups $got, not $2" >&2; failures=$((failures + 1)); }
}
sources=$1
expect 8 "1 2" a.cc same_name.cc
expect 8 "1 2" a.cc mentions.cc
expect 8 "1 2" mentions.cc a.cc
expect 8 "1 1" a.cc comment.cc
expect 8 "1 2" table.cc other_table.cc
expect 8 "1 1 2" json.cc same_json.cc ordered_json.cc
expect 8 "1 2 1" a.cc same_name.cc comment.cc
expect 1 "1 2" a.cc comment.cc
[ "$failures" = 0 ]
