# ./run test clients [TEST...], llama-server [OPTION...], crowd [OPTION...] and balancer: clients that people have,
# llama.cpp's tests of its own server, many at once, and nginx between, against ferry serve with the model of ./run chat.
# Sourced by ./run, whose functions it uses.
. tools/run/chat.sh

test_clients() {
  packages build clients
  build_program
  python_with clients tests/clients/requirements.txt "./run test clients"
  served_model
  say "Clients against ferry serve"
  "$python_with_them" -B tests/clients/clients_test.py build/ferry "$served" "$@"
}

# The package on PyPI whose sources carry llama.cpp's: the version of tests/servers/requirements.txt.
llama_package=llama-cpp-python==0.3.36
llama_sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e

test_llama_server() {
  packages build clients
  build_program
  python_with llama-server tests/clients/llama_server_requirements.txt "./run test llama-server"
  served_model
  local sources
  sources=$(cache_folder $llama_package)
  fetch_source $llama_package $llama_sha256 "$sources" \
    vendor/llama.cpp/tools/server/tests vendor/llama.cpp/models/templates
  say "llama.cpp's tests of its server, where they apply, against ferry serve (some minutes)"
  "$python_with_them" -B tests/clients/llama_server.py build/ferry "$served" "$sources/vendor/llama.cpp" "$@"
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
  fetch_chat_model
  served=$chat_folder/$chat_model
}
