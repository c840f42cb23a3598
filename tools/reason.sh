#!/usr/bin/env bash
# A small model learns to add, thinking: from some hundred worked sums, then by reinforcement on tasks that nobody
# worked for it. The same bits on each machine. Its last line is JSON.
# usage: tools/reason.sh FERRY FOLDER [SEED]
#        tools/reason.sh --check FOLDER: only whether it may have FOLDER (new, empty, or an earlier one's)
set -euo pipefail
export LC_ALL=C.UTF-8
. "$(dirname "${BASH_SOURCE[0]}")/own_folder.sh"
files=('(worked|tasks|held-out)\.jsonl' 'tokenizer\.json' '(begin|learn)\.txt' 'begin(/.*)?')
if [ "$1" = --check ]; then
  may_own_folder "./run demo reason" "$2" "${files[@]}"
  exit 0
fi
ferry=$1
out=$2
seed=${3:-1}
kind=sum
difficulty=2
start=$SECONDS
step() { printf '\n== %s\n' "$*"; }
field() { tail -n 1 "$2" | sed -nE "s/.*[{,]\"$1\":(\"([^\"\\\\]|\\\\.)*\"|[^,}\"]*)[,}].*/\1/p" | tr -d '"'; }

own_folder "./run demo reason" "$out" "${files[@]}"
step "1/4  Making tasks: some worked ones to begin with, others to learn from, others to be measured on"
make() { "$ferry" tasks $kind --difficulty $difficulty --seed "$seed" "$@"; }
make --count 300 --first 0 --solutions --out "$out/worked.jsonl"
make --count 400 --first 100000 --without "$out/worked.jsonl" --out "$out/held-out.jsonl"
make --count 5000 --first 1000 --without "$out/held-out.jsonl" --out "$out/tasks.jsonl"
step "2/4  Learning what an answer looks like, from the worked ones"
"$ferry" tokenizer train --vocab 284 --out "$out/tokenizer.json" "$out/worked.jsonl"
"$ferry" data prepare "$out/worked.jsonl" --held-out-bytes 2K --near-duplicate 2 \
  --tokenizer "$out/tokenizer.json" --out "$out/data"
"$ferry" train configs/reason_begin.toml --data.dir="$out/data" --train.seed="$seed" \
  --checkpoint.dir="$out/begin" | tee -i "$out/begin.txt"
step "3/4  Learning by reinforcement: 16 answers each to 16 tasks a step, the right ones made likelier"
"$ferry" rl configs/reason.toml --model.init="$(field model_dir "$out/begin.txt")" \
  --rl.tasks="$out/tasks.jsonl" --rl.held_out="$out/held-out.jsonl" --train.seed="$seed" \
  --checkpoint.dir="$out/run" | tee -i "$out/learn.txt"
step "4/4  Its answers, before and after"
for samples in "$out"/run/samples/step-*.txt; do last=$samples; done
printf -- '--- before\n'; sed -n 1,12p "$out/run/samples/step-00000000.txt"
printf -- '--- after\n'; sed -n 1,12p "$last"
printf '{"score_before":%s,"score_after":%s,"steps":%s,"seconds":%d,"logprob_mismatches":%s,"model_dir":"%s"}\n' \
  "$(field score_before "$out/learn.txt")" "$(field score_after "$out/learn.txt")" "$(field steps "$out/learn.txt")" \
  $((SECONDS - start)) "$(field logprob_mismatches "$out/learn.txt")" "$(field model_dir "$out/learn.txt")"
