#!/usr/bin/env bash
# The whole way of a model without any card: it is trained on software NVIDIA, whose GPU fails again and again, ends
# with the bytes of an undisturbed run, and is verified and served on software Ascend, where `ferry verify --server`
# judges what it answers. The last line is JSON; FOLDER/crossing.html says the same to people. Exit status 0 if all of
# it held.
# usage: tools/crossing.sh FERRY FOLDER NVIDIA-SIM ASCEND-SIM [--section.key=value...]   (options of ferry train)
#        tools/crossing.sh --check FOLDER   may FOLDER be filled?
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/own_folder.sh"
own=(tools/crossing.sh '(text|train|undisturbed|verify|serve|server)\.txt' '(tokenizer|server)\.json' 'crossing\.(html|json)'
  'state(/.*)?' 'calm(/.*)?')

if [ $# -lt 2 ]; then
  sed -n 's/^# usage: /usage: /p; s/^#  \( *tools.*\)/\1/p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
if [ "$1" = --check ]; then
  may_own_folder "${own[0]}" "$2" "${own[@]:1}"
  exit
fi

ferry=$(realpath "$1")
folder=$2
nvidia=$(realpath "$3")
ascend=$(realpath "$4")
shift 4
for library in "$nvidia/libcuda.so.1" "$ascend/libascendcl.so"; do
  [ -e "$library" ] || { echo "crossing.sh: $library: is not there; build nvidia_sim and ascend_sim" >&2; exit 2; }
done
# What was tried with software devices before must not disturb the undisturbed run; no proxy leads to this machine.
for name in ${!FERRY_NVIDIA_SIM_*} ${!FERRY_ASCEND_SIM_*}; do unset "$name"; done
export no_proxy=127.0.0.1,localhost
own_folder "${own[0]}" "$folder" "${own[@]:1}"
folder=$(realpath "$folder")
cd "$here/.."
here=tools

say() { printf '\n-- %s\n' "$*"; }
export XDG_STATE_HOME="$folder/state"  # what is noted of software devices is noted here

server=
stop_server() {
  [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server"; } || true
  server=
}
trap stop_server EXIT

say "A text to learn: this project's documentation"
cat README.md docs/*.md >"$folder/text.txt"
"$ferry" tokenizer train --vocab 300 --out "$folder/tokenizer.json" "$folder/text.txt"
"$ferry" data prepare "$folder/text.txt" --split line --held-out-bytes 8K --near-duplicate 2 \
  --tokenizer "$folder/tokenizer.json" --out "$folder/data"

# Steps as small as can be: each instruction of each thread is carried out by the CPU.
train() {
  local run=$1
  shift
  FERRY_CUDA_LIBRARIES=$nvidia "$ferry" train configs/tiny.toml --device cuda --data.dir="$folder/data" \
    --checkpoint.dir="$folder/$run" --data.sequence_length=16 --train.tokens_per_step=16 \
    --train.micro_batch_tokens=16 --train.evaluate_every=20 --train.evaluate_tokens=16 --train.compute=bf16 \
    --checkpoint.every=4 --train.steps=40 "$@" 2>&1
}
say "Training on software NVIDIA, whose memory fails some fifteen steps after each start"
FERRY_NVIDIA_SIM_FAULT=214@31:mean_loss train run "$@" | tee -i "$folder/train.txt"
say "The same run undisturbed"
train calm "$@" >"$folder/undisturbed.txt" || { cat "$folder/undisturbed.txt"; exit 1; }
tail -n 1 "$folder/undisturbed.txt"

model=$(tail -n 1 "$folder/train.txt" | sed -E 's/.*"model_dir":"([^"]*)".*/\1/')
calm=$(tail -n 1 "$folder/undisturbed.txt" | sed -E 's/.*"model_dir":"([^"]*)".*/\1/')
equal=true
for file in model.safetensors state/part-00000.safetensors; do
  cmp "$model/$file" "$calm/$file" || equal=false
done

export FERRY_ASCEND_LIBRARIES=$ascend
say "Verifying it on software Ascend"
# What is found is judged at the end, by crossing_report.py: a verdict that is not there, or another one, is none.
"$ferry" verify "$model" --device ascend --no-remember --json | tee -i "$folder/verify.txt" || true

say "Serving it there, and asking the server"
: >"$folder/serve.txt"  # is read before the server may have made it
"$ferry" serve "$model" --device ascend --port 0 >"$folder/serve.txt" 2>&1 &
server=$!
url=
for ((n = 0; n < 600; ++n)); do
  url=$(sed -nE 's|^ferry: serving .* at (http://[0-9.:]*[0-9]).*|\1|p' "$folder/serve.txt")
  [ -z "$url" ] || break
  kill -0 "$server" 2>/dev/null || break
  sleep 0.2
done
[ -n "$url" ] || { cat "$folder/serve.txt"; exit 1; }
"$ferry" verify "$model" --server "$url" --json | tee -i "$folder/server.txt" || true
python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1] + "/ferry/passport").read().decode())' \
  "$url" >"$folder/server.json"
stop_server

python3 "$here/crossing_report.py" "$folder" "$equal"
