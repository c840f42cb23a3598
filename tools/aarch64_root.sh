#!/usr/bin/env bash
# Lays Debian's arm64 development packages into a folder for the cross-build (cmake/aarch64.cmake). Uses
# package lists and a cache of its own, so that the system's architectures stay as they are.
# usage: tools/aarch64_root.sh FOLDER
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/own_folder.sh"

packages=(libfmt-dev libfmt9 libexpected-dev nlohmann-json3-dev libpcre2-dev libsodium-dev libxxhash-dev libzstd-dev
          zlib1g-dev liblzma-dev libgtest-dev libgmock-dev)
stamp="packages: ${packages[*]}"

root=$(realpath -m "$1")
[ "$(cat "$root/complete" 2>/dev/null)" != "$stamp" ] || exit 0

printf '   fetching %d packages for arm64 into %s\n' "${#packages[@]}" "$root"
own_folder tools/aarch64_root.sh "$root" '.*'  # everything in it came from these packages
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,debs}
options=(-q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User="$(id -un)" -o Dir::State::Lists="$work/lists"
         -o Dir::Cache="$work/cache" -o Debug::NoLocking=true)
explain() {
  echo "aarch64_root: $1" >&2
  echo "aarch64_root: the aarch64 part of ./run test needs Debian's package archive; apt-get said:" >&2
  tail -n 5 "$work/apt.log" >&2
  exit 3
}
apt-get "${options[@]}" update >"$work/apt.log" 2>&1 || explain "the lists of arm64 packages could not be fetched"
(cd "$work/debs" && apt-get "${options[@]}" download "${packages[@]}" >>"$work/apt.log" 2>&1) ||
  explain "the arm64 packages could not be fetched"
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done
printf '%s\n' "$stamp" >"$root/complete"
