#!/usr/bin/env bash
# A small model that people have learns to answer sums right more often, by reinforcement through an adapter: hours, not
# minutes. In a folder where an earlier one was interrupted it goes on from there. Its last line is JSON.
# usage: tools/reason_smol.sh FERRY MODEL.gguf FOLDER [OPTION...]   options of ferry rl: --train.steps=10
#        tools/reason_smol.sh --check FOLDER: only whether it may have FOLDER (new, empty, or an earlier one's)
set -euo pipefail
export LC_ALL=C.UTF-8
. "$(dirname "${BASH_SOURCE[0]}")/own_folder.sh"
. "$(dirname "${BASH_SOURCE[0]}")/last_line.sh"
files=('(all|sums|tasks|held-out)\.jsonl' '(learn|prepared|before|after)\.txt' 'base(/.*)?')
if [ $# -lt 2 ] || { [ "$1" != --check ] && [ $# -lt 3 ]; }; then
  sed -n 's/^# usage: /usage: /p; s/^#  \( *tools.*\)/\1/p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
if [ "$1" = --check ]; then
  may_own_folder "./run reason-smol" "$2" "${files[@]}"
  exit 0
fi
ferry=$1
model=$2
out=$3
shift 3
step() { printf '\n== %s\n' "$*"; }

may_own_folder "./run reason-smol" "$out" "${files[@]}"
if [ -f "$out/prepared.txt" ]; then
  step "Going on in $out (name another folder to begin anew)"
else
  own_folder "./run reason-smol" "$out" "${files[@]}"
  step "1/3  The model as numbers of 16 bits, and tasks: some to learn from, others to be measured on"
  "$ferry" convert "$model" --to bf16 --out "$out/base"
  # It answers in a sentence: what counts is the last number in it, which is not the end of -7, 0.7 or 10/7. There are a hundred such sums of 55 pairs of
  # numbers: a third of the pairs is held out, so that 3 + 4 is not learnt where 4 + 3 is measured.
  make() { "$ferry" tasks sum --difficulty 1 --instruction "Work out this sum, and end with the number." "$@"; }
  by_last_number() {
    sed -E 's/"answer":"([0-9]+)","check":"number"/"answer":"(?s)(.*[^0-9.,\/-])?\1[^0-9]*","check":"regex"/' | sort -u
  }
  make --count 500 --seed 1 --out "$out/all.jsonl"
  by_last_number <"$out/all.jsonl" | shuf --random-source=<(yes) >"$out/sums.jsonl"
  awk -v held_out="$out/held-out.jsonl" -v tasks="$out/tasks.jsonl" '
    !match($0, /[0-9]+ \+ [0-9]+/) { print "no sum: " $0 >"/dev/stderr"; exit 1 }
    {
      split(substr($0, RSTART, RLENGTH), of, " \\+ ")
      pair = of[1] + 0 < of[2] + 0 ? of[1] " " of[2] : of[2] " " of[1]
      if (!(pair in number)) number[pair] = pairs++
      print >(number[pair] < 18 ? held_out : tasks)
    }' "$out/sums.jsonl"
  echo "prepared" >"$out/prepared.txt"
fi
step "2/3  Learning by reinforcement (Ctrl-C saves; the same command goes on)"
"$ferry" rl configs/reason_smol.toml --model.init="$out/base" --rl.tasks="$out/tasks.jsonl" \
  --rl.held_out="$out/held-out.jsonl" --checkpoint.dir="$out/run" --resume "$@" | tee -i "$out/learn.txt"
if [ "$(json stopped "$out/learn.txt")" != false ]; then
  echo "It ends here, as the training was stopped. The same command goes on with it."
  exit 0
fi
step "3/3  Its answers, before and after: eight to each sum that it never saw"
steps=$(json step "$out/learn.txt")
score() { "$ferry" score "$out/base" "$out/held-out.jsonl" --samples 8 --tokens 32 "${@:2}" | tee "$out/$1.txt"; }
score before
score after --adapter "$(field adapter "$out/learn.txt")"
printf -- '--- before\n'
sed -n 1,12p "$out/run/samples/step-00000000.txt"
printf -- '--- after\n'
sed -n 1,12p "$out/run/samples/$(printf 'step-%08d' "$steps").txt"
printf '{"score_before":%s,"score_after":%s,"steps":%s,"seconds":%s,"logprob_mismatches":%s,"adapter":%s}\n' \
  "$(json pass_at_1 "$out/before.txt")" "$(json pass_at_1 "$out/after.txt")" "$steps" \
  "$(json seconds "$out/learn.txt")" "$(json logprob_mismatches "$out/learn.txt")" "$(json adapter "$out/learn.txt")"
