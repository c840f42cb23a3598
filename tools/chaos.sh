#!/usr/bin/env bash
# Runs whose ranks are killed and stopped at random moments, and in whose memory bits flip, and what must come of it:
# the bytes of one undisturbed process. The n-th fault of a seed is always the same, and so long after the run could have
# it; what the ranks are at then is the machine's. The flips of its n-th run are the same, too. The last line is JSON.
# Exit status 0 if every run finished, with those bytes, anybody was lost at all, and a flip was found.
# usage: tools/chaos.sh FERRY FOLDER [SEED [MINUTES]]   (1 and 1; 0 minutes: one run)
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/own_folder.sh"

if [ $# -lt 2 ]; then
  sed -n 's/^# usage: /usage: /p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
ferry=$(realpath "$1")
own_folder tools/chaos.sh "$2" '(text|train|launched|waits)\.txt' 'tokenizer\.json' 'calm(/.*)?' 'steady(/.*)?' 'run(/.*)?'
folder=$(realpath "$2")
seed=${3:-1}
minutes=${4:-1}
cd "$here/.."

say() { printf '\n-- %s\n' "$*"; }
now_ms() { date +%s%3N; }
launcher=
end_launcher() { [ -z "$launcher" ] || kill -9 "$launcher" 2>/dev/null || true; }
trap end_launcher EXIT

say "A text to learn: this project's documentation"
cat README.md docs/*.md >"$folder/text.txt"
"$ferry" tokenizer train --vocab 300 --out "$folder/tokenizer.json" "$folder/text.txt"
"$ferry" data prepare "$folder/text.txt" --split line --held-out-bytes 8K --near-duplicate 2 \
  --tokenizer "$folder/tokenizer.json" --out "$folder/data"

# Of ten micro-batches a step, so that most numbers of ranks share them unevenly.
settings=(configs/tiny.toml --data.dir="$folder/data" --train.steps=240 --train.tokens_per_step=640
  --train.micro_batch_tokens=64 --train.evaluate_every=40 --checkpoint.every=60 --log.every=40)
bytes_of() { cat "$1"/step-00000240/model.safetensors "$1"/step-00000240/state/part-*.safetensors | sha256sum; }
ranks=4

say "One undisturbed process, and $ranks undisturbed ranks"
"$ferry" train "${settings[@]}" --checkpoint.dir="$folder/calm" >"$folder/train.txt"
expected=$(bytes_of "$folder/calm")
began=$(now_ms)
"$ferry" launch -n $ranks -- train "${settings[@]}" --checkpoint.dir="$folder/steady" >"$folder/launched.txt"
steady_ms=$(($(now_ms) - began))
if [ "$(bytes_of "$folder/steady")" != "$expected" ]; then
  echo "tools/chaos.sh: undisturbed ranks train other bytes than one process" >&2
  exit 1
fi

RANDOM=$seed
faults=0 finished=true bit_equal=true runs=0 from_checkpoint=0 convicted=0 spent_ms=0
: >"$folder/waits.txt"
deadline=$(($(date +%s) + ${minutes%.*} * 60))

# ranks_of LAUNCHER: its processes that live, as the system knows them. Some end while they are read.
ranks_of() {
  local stat
  for stat in /proc/[0-9]*/stat; do cat "$stat" 2>/dev/null; done |
    awk -v launcher="$1" '{ pid = $1; sub(/^.*\) /, ""); if ($2 == launcher && $1 != "Z") print pid }'
}

# How many lines of what the launcher said have that; none is a number, a file that is not there ends this.
count_said() { grep -c -- "$1" "$folder/launched.txt" || [ $? -eq 1 ]; }

# The next fault: what, after how long, and to whom. Not to be called in a subshell, which would draw it again.
draw_fault() {
  stops=$((RANDOM % 4 == 0))
  local ms=$((RANDOM % 1500 + 100))
  after=$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))
  whom=$RANDOM
}
draw_fault

# What flips in this run: a bit of a weight at one rank, one of the optimizer's state at another, before some step. A
# successor that comes so far has one, too.
flips() {
  local n=$((seed * 31 + runs))
  printf 'flip.weights@%d:%d:flip%d,flip.state@%d:%d:flip%d' \
    $((n % ranks)) $((40 + n * 13 % 120)) $((n * 7919)) $(((n + 2) % ranks)) $((30 + n * 29 % 150)) $((n * 104729))
}

while :; do
  runs=$((runs + 1))
  rm -rf "$folder/run"
  began=$(now_ms)
  FERRY_FAULT=$(flips) "$ferry" launch -n $ranks -- train "${settings[@]}" --checkpoint.dir="$folder/run" \
    --supervisor.step_patience_s=10 \
    >"$folder/launched.txt" 2>&1 &
  launcher=$!
  while kill -0 "$launcher" 2>/dev/null; do
    # One that has not begun yet has nothing to lose.
    if ! grep -q '"stage":"running"' "$folder/run/status.json" 2>/dev/null; then
      sleep 0.05
      continue
    fi
    sleep "$after"
    mapfile -t all < <(ranks_of "$launcher")
    [ ${#all[@]} -gt 0 ] || continue
    victim=${all[whom % ${#all[@]}]}
    faults=$((faults + 1))
    if [ $stops -eq 0 ]; then
      kill -9 "$victim" 2>/dev/null || true
    else
      kill -STOP "$victim" 2>/dev/null || true
      sleep 0.5
      kill -CONT "$victim" 2>/dev/null || true
    fi
    draw_fault
  done
  status=0
  wait "$launcher" || status=$?
  launcher=
  spent_ms=$((spent_ms + $(now_ms) - began))
  sed -nE 's/.* in place again, ([0-9.]+) s after the loss.*/\1/p' "$folder/launched.txt" >>"$folder/waits.txt"
  said=$(count_said 'starting again from the newest checkpoint')
  from_checkpoint=$((from_checkpoint + said))
  said=$(count_said 'left, convicted of silent corruption after')
  convicted=$((convicted + said))
  if [ $status -ne 0 ]; then
    finished=false
    cat "$folder/launched.txt"
  elif [ "$(bytes_of "$folder/run")" != "$expected" ]; then
    bit_equal=false
    cat "$folder/launched.txt"
  fi
  echo "run $runs: status $status, $faults faults so far"
  if [ $status -ne 0 ] || ! $bit_equal || [ "$(date +%s)" -ge "$deadline" ]; then break; fi
done

sort -g "$folder/waits.txt" | awk -v ranks=$ranks -v faults=$faults -v finished=$finished -v bit_equal=$bit_equal \
  -v steady_ms=$steady_ms -v spent_ms=$spent_ms -v runs=$runs -v again=$from_checkpoint -v convicted=$convicted '
  { wait[NR] = $1 }
  END {
    printf "{\"ranks\":%d,\"faults\":%d,\"finished\":%s,\"bit_equal\":%s,\"goodput\":%.3f,", \
      ranks, faults, finished, bit_equal, steady_ms * runs / spent_ms
    printf "\"restart_s_p50\":%.2f,\"restart_s_max\":%.2f,", wait[int((NR + 1) / 2)], wait[NR]
    printf "\"runs\":%d,\"replaced\":%d,\"from_checkpoint\":%d,\"convicted\":%d}\n", runs, NR, again, convicted
  }'
if [ ! -s "$folder/waits.txt" ] && [ $from_checkpoint -eq 0 ]; then
  echo "tools/chaos.sh: no rank was lost: this shows nothing; give it more minutes, or another seed" >&2
  exit 1
fi
if $finished && [ $convicted -eq 0 ]; then
  echo "tools/chaos.sh: of all bits that flipped none was found" >&2
  exit 1
fi
$finished && $bit_equal
