#!/usr/bin/env bash
# The demo: a dictionary's text becomes a tokenizer, a dataset, a trained model, a measurement, a sample,
# and the model crosses to another vendor's (software) chip. How long it trains is chosen to suit the
# machine, or named; each size is a fixed number of steps, with the same bits everywhere. Its last line is JSON.
# In a folder where an earlier one was interrupted in its training, or behind it, it goes on from there.
# At a terminal it ends by serving the model, unless --no-serve.
# usage: tools/demo.sh FERRY FOLDER ASCEND_LIBRARIES [small | large] [--no-serve]
#        tools/demo.sh --check FOLDER: only whether the demo may have FOLDER (new, empty, or an earlier demo's)
set -euo pipefail
export LC_ALL=C.UTF-8  # numbers are written and read with a point
. "$(dirname "${BASH_SOURCE[0]}")/own_folder.sh"
. "$(dirname "${BASH_SOURCE[0]}")/last_line.sh"
files=('gcide\.txt' 'tokenizer\.json' '(machine|train|eval|progress)\.txt' 'verify\.html')
if [ "$1" = --check ]; then
  may_own_folder "./run demo" "$2" "${files[@]}"
  exit 0
fi
ferry=$1
out=$2
ascend=$3
size=
serve=true
for word in "${@:4}"; do
  if [ "$word" = --no-serve ]; then serve=false; else size=$word; fi
done
text=${FERRY_DEMO_TEXT:-/usr/share/dictd/gcide.dict.dz}  # a test's is smaller
vocab=4096
large_minutes_max=12  # longer, and the small one is chosen
start=$SECONDS
step() { printf '\n== %s\n' "$*"; }
config() { if [ "$1" = large ]; then echo configs/demo.toml; else echo configs/demo_small.toml; fi; }
# setting NAME SIZE: a whole number in the settings of a size
setting() { sed -nE "s/^$1 = ([0-9]+).*/\1/p" "$(config "$2")"; }
# minutes SIZE: how long it trains here, as measured; a tenth more for measuring and saving on the way
minutes() {
  awk -v tokens=$(($(setting steps "$1") * $(setting tokens_per_step "$1"))) \
    -v rate="$(field mean_tokens_per_s "$out/machine.txt")" 'BEGIN { printf "%.1f", 1.1 * tokens / rate / 60 }'
}

progress=$out/progress.txt  # the size, once there is all that training needs; "done" at the end
noted() { grep -qx "$1" "$progress" 2>/dev/null; }

prepare() {
  step "1/7  Measuring this machine: some steps of training"
  "$ferry" bench-train --config "$(config large)" --model.vocab_size=$vocab --steps 4 --warmup 1 >"$out/machine.txt"
  tier=$(field tier "$out/machine.txt")
  if [ -z "$size" ]; then
    size=small
    if awk -v m="$(minutes large)" -v max=$large_minutes_max 'BEGIN { exit !(m <= max) }'; then size=large; fi
  fi
  printf '%.0f tokens/s (%s). Training takes about %s min in size small, %s min in size large; this is size %s\n' \
    "$(field mean_tokens_per_s "$out/machine.txt")" "$tier" "$(minutes small)" "$(minutes large)" "$size"
  printf '(./run demo --size small|large chooses otherwise). The rest takes a minute or two.\n'
  zcat "$text" >"$out/gcide.txt"

  step "2/7  Learning a tokenizer from a dictionary's text ($(stat -c %s "$out/gcide.txt") bytes)"
  "$ferry" tokenizer train --vocab $vocab --out "$out/tokenizer.json" "$out/gcide.txt"

  step "3/7  Cutting the text into tokens; a megabyte of it is held out"
  "$ferry" data prepare "$out/gcide.txt" --split entry --min-document-bytes 4096 \
    --tokenizer "$out/tokenizer.json" --out "$out/data"
  echo "size $size" >"$progress"
}

may_own_folder "./run demo" "$out" "${files[@]}"
resume=()
if [ -f "$progress" ] && ! noted "done" && { [ -z "$size" ] || noted "size $size"; }; then
  size=$(sed -n 's/^size //p' "$progress")
  resume=(--resume)
  step "Going on with the demo that was interrupted in $out, size $size (name another folder for a new one)"
else
  if [ -e "$out/.made-by-ferry" ] && [ -n "$(ls "$out")" ]; then
    step "Replacing the demo of $(date -r "$out/.made-by-ferry" '+%F %H:%M') in $out: its model, data and reports go"
  fi
  own_folder "./run demo" "$out" "${files[@]}"
  prepare
fi
tier=$(field tier "$out/machine.txt")

train=("$(realpath "$ferry")" train "$(realpath "$(config "$size")")" --data.dir="$(realpath "$out/data")"
  --checkpoint.dir="$(realpath "$out")/run" --checkpoint.chat_template="$(realpath configs/demo_chat.jinja)")
go_on="$(printf '%q ' "$(realpath run)" demo "$(realpath "$out")")"
training_start=$SECONDS
step "4/7  Training (Ctrl-C saves; to go on with the demo: $go_on)"
"${train[@]}" "${resume[@]}" | tee -i "$out/train.txt"
training_s=$((SECONDS - training_start))
rate=$(field tokens_per_s "$out/train.txt")
if [ "$rate" != null ]; then echo "rate $rate" >>"$progress"; fi
rate=$(sed -n 's/^rate //p' "$progress" | tail -n 1)
if [ "$(field stopped "$out/train.txt")" != false ]; then
  echo "The demo ends here, as the training was stopped. It goes on with: $go_on"
  exit 0
fi
model=$out/run/$(printf 'step-%08d' "$(field step "$out/train.txt")")

step "5/7  How well it predicts text that it never saw, next to xz and zstd"
"$ferry" eval "$model" --data "$out/data" | tee "$out/eval.txt"

step "6/7  What it writes"
"$ferry" generate "$model" --prompt "Ocean" --tokens 150 --temperature 0.7 --seed 1

step "7/7  The crossing: is it the same model on an Ascend chip? (software Ascend: there is no card here)"
FERRY_ASCEND_LIBRARIES=$ascend "$ferry" verify "$model" --device ascend --html "$out/verify.html"

step "Done in $((SECONDS - start)) s. The model is in $model, the loss curve in $out/run/curve.svg, the report in $out/verify.html"
echo "The next act, a model that learns to reason: ./run demo reason"
printf '{"model_dir":%s,"bits_per_byte":%s,"xz_bits_per_byte":%s,"tokens_per_s":%s,"seconds":%s,"size":"%s","training_s":%s,"tier":"%s"}\n' \
  "$(json model_dir "$out/train.txt")" "$(field bits_per_byte "$out/eval.txt")" "$(field xz_bits_per_byte "$out/eval.txt")" \
  "${rate:-null}" "$((SECONDS - start))" "$size" "$training_s" "$tier"
echo "done" >>"$progress"

# Where somebody sits at a terminal: the model itself. It knows a dictionary, not how to converse.
if $serve && [ -t 0 ] && [ -t 1 ]; then
  step "Ask it in your browser, at the address below: \"define ocean\". It goes on, entry after entry; Ctrl-C ends it"
  echo "Again: $(printf '%q ' "$ferry" serve "$model" --name dictionary)"
  "$ferry" serve "$model" --name dictionary --quiet
fi
