#!/usr/bin/env bash
# fetch_source of tools/run/pypi.sh, from an index of our own: sources that are as they are known to be come to lie where
# they are wanted, others do not, and of neither is anything run. usage: fetch_source_test.sh SOURCES
set -euo pipefail
cd "$1"
top=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$top"' EXIT
failed() { echo "FAILED: $*"; cat "$top/said"; exit 1; }

# archive TEXT: a package whose sources have it, and would leave a mark if they were asked what they need
archive() {
  local root=$top/some_sources-1.0
  mkdir -p "$root/wanted/inside" "$root/other"
  echo "$1" >"$root/wanted/inside/text"
  echo "open('$top/was_run', 'w')" >"$root/setup.py"
  tar -czf "$top/some_sources-1.0.tar.gz" -C "$top" some_sources-1.0
}
archive 'as it is known'
known=$(sha256sum "$top/some_sources-1.0.tar.gz" | cut -d' ' -f1)
mkdir -p "$top/simple/some-sources"
echo "<a href=\"/some_sources-1.0.tar.gz#sha256=$known\">some_sources-1.0.tar.gz</a>" \
  >"$top/simple/some-sources/index.html"
: >"$top/served"
python3 -u -m http.server 0 --bind 127.0.0.1 --directory "$top" >"$top/served" 2>&1 &
server=$!
until grep -q 'port [0-9]' "$top/served"; do
  kill -0 "$server" || { cat "$top/served"; exit 1; }
  sleep 0.05
done
PIP_INDEX_URL=http://127.0.0.1:$(sed -n 's/.*port \([0-9]*\).*/\1/p' "$top/served" | head -n 1)/simple
export PIP_INDEX_URL no_proxy=127.0.0.1

# fetched SHA256 FOLDER: as ./run would have it
fetched() (
  say() { :; }
  die() { echo "$*"; exit 3; }
  . tools/run/pypi.sh
  fetch_source some-sources==1.0 "$1" "$2" wanted/inside
) >"$top/said" 2>&1

fetched "$known" "$top/whole" || failed 'what is known was not taken'
[ "$(cat "$top/whole/wanted/inside/text")" = 'as it is known' ] || failed 'its sources are not there'
[ ! -e "$top/whole/other" ] || failed 'more is there than was asked for'

! fetched "${known//[0-9]/a}" "$top/unlisted" || failed 'what is not listed was taken'
grep -q 'lists no file' "$top/said" || failed 'it is not said that it is not listed'

archive 'what somebody else put there'
! fetched "$known" "$top/others" || failed 'other sources were taken'
grep -q 'others than those that are known' "$top/said" || failed 'it is not said what is wrong'
for left in unlisted others; do
  [ -z "$(ls "$top/$left")" ] || failed "something was left in $left"
done
[ ! -e "$top/was_run" ] || failed 'code of the package was run'
echo 'fetch_source: what is known is taken, what is not listed or other is not, and nothing is run'
