#!/usr/bin/env bash
# A small model learns to add, thinking: from some hundred worked sums, then by reinforcement on tasks that nobody
# worked for it. The same bits on each machine, and however often it is interrupted. Its last line is JSON.
# In a folder where an earlier one was interrupted it goes on from there.
# usage: tools/reason.sh FERRY FOLDER [SEED]
#        tools/reason.sh --check FOLDER: only whether it may have FOLDER (new, empty, or an earlier one's)
set -euo pipefail
export LC_ALL=C.UTF-8
. "$(dirname "${BASH_SOURCE[0]}")/own_folder.sh"
. "$(dirname "${BASH_SOURCE[0]}")/last_line.sh"
files=('(worked|tasks|held-out)\.jsonl' 'tokenizer\.json' '(begin|learn|progress)\.txt' 'begin(/.*)?')
if [ "$1" = --check ]; then
  may_own_folder "./run demo reason" "$2" "${files[@]}"
  exit 0
fi
ferry=$1
out=$2
seed=${3:-}
kind=sum
difficulty=2
start=$SECONDS
step() { printf '\n== %s\n' "$*"; }
progress=$out/progress.txt  # the seed, once there is all that training needs; "seconds" of each part; "done" at the end
noted() { grep -qx "$1" "$progress" 2>/dev/null; }
go_on="$(printf '%q ' "$(realpath run)" demo reason "$(realpath -m "$out")")"
# goes_on FILE: unless the training whose output this is was stopped
goes_on() {
  echo "seconds $((SECONDS - start))" >>"$progress"
  start=$SECONDS
  [ "$(json stopped "$1")" = false ] && return
  echo "It ends here, as the training was stopped. It goes on with: $go_on"
  exit 0
}

prepare() {
  step "1/4  Making tasks: some worked ones to begin with, others to learn from, others to be measured on"
  make() { "$ferry" tasks $kind --difficulty $difficulty --seed "$seed" "$@"; }
  make --count 300 --first 0 --solutions --out "$out/worked.jsonl"
  make --count 400 --first 100000 --without "$out/worked.jsonl" --out "$out/held-out.jsonl"
  make --count 5000 --first 1000 --without "$out/held-out.jsonl" --out "$out/tasks.jsonl"
  "$ferry" tokenizer train --vocab 284 --out "$out/tokenizer.json" "$out/worked.jsonl"
  "$ferry" data prepare "$out/worked.jsonl" --held-out-bytes 2K --near-duplicate 2 \
    --tokenizer "$out/tokenizer.json" --out "$out/data"
  echo "seed $seed" >"$progress"
}

may_own_folder "./run demo reason" "$out" "${files[@]}"
resume=()
if [ -f "$progress" ] && ! noted "done" && { [ -z "$seed" ] || noted "seed $seed"; }; then
  seed=$(sed -n 's/^seed //p' "$progress")
  resume=(--resume)
  step "Going on with what was interrupted in $out, seed $seed (name another folder to begin anew)"
else
  seed=${seed:-1}
  if [ -e "$out/.made-by-ferry" ] && [ -n "$(ls "$out")" ]; then
    step "Replacing what was made on $(date -r "$out/.made-by-ferry" '+%F %H:%M') in $out: its model and answers go"
  fi
  own_folder "./run demo reason" "$out" "${files[@]}"
  prepare
fi

step "2/4  Learning what an answer looks like, from the worked ones (Ctrl-C saves; to go on: $go_on)"
"$ferry" train configs/reason_begin.toml --data.dir="$out/data" --train.seed="$seed" \
  --checkpoint.dir="$out/begin" "${resume[@]}" | tee -i "$out/begin.txt"
goes_on "$out/begin.txt"
begun=$out/begin/$(printf 'step-%08d' "$(json step "$out/begin.txt")")
step "3/4  Learning by reinforcement: many answers to each task, the right ones made likelier"
"$ferry" rl configs/reason.toml --model.init="$begun" \
  --rl.tasks="$out/tasks.jsonl" --rl.held_out="$out/held-out.jsonl" --train.seed="$seed" \
  --checkpoint.dir="$out/run" "${resume[@]}" | tee -i "$out/learn.txt"
goes_on "$out/learn.txt"
step "4/4  Its answers, before and after"
steps=$(json step "$out/learn.txt")
printf -- '--- before\n'
sed -n 1,12p "$out/run/samples/step-00000000.txt"
printf -- '--- after\n'
sed -n 1,12p "$out/run/samples/$(printf 'step-%08d' "$steps").txt"
printf '{"score_before":%s,"score_after":%s,"steps":%s,"seconds":%d,"logprob_mismatches":%s,"model_dir":%s}\n' \
  "$(json score_before "$out/learn.txt")" "$(json score_after "$out/learn.txt")" "$steps" \
  "$(awk '/^seconds / { s += $2 } END { print s }' "$progress")" \
  "$(json logprob_mismatches "$out/learn.txt")" "$(json model_dir "$out/learn.txt")"
echo "done" >>"$progress"
