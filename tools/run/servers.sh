# ./run test servers [CASE...]: ferry verify --server against llama.cpp's server. Sourced by ./run, whose functions it uses.
. tools/run/chat.sh

test_servers() {
  packages build servers
  build_program
  fetch_chat_model
  # What reads pictures is not built: a third of the time.
  CMAKE_ARGS="-DLLAVA_BUILD=OFF" building_llama python_with servers tests/servers/requirements.txt "./run test servers"
  say "Verifying llama.cpp's server"
  python3 -B tests/servers/servers_test.py --ferry build/ferry --python "$python_with_them" \
    --model "$chat_folder/$chat_model" --folder "${python_with_them%/bin/python}/models" "$@"
}
