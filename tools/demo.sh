#!/usr/bin/env bash
# The demo: a dictionary's text becomes a tokenizer, a dataset, a trained model, a measurement, a sample,
# and the model crosses to another vendor's (software) chip. Its last line is JSON.
# usage: tools/demo.sh FERRY FOLDER ASCEND_LIBRARIES
set -euo pipefail
ferry=$1
out=$2
ascend=$3
text=/usr/share/dictd/gcide.dict.dz
start=$SECONDS
step() { printf '\n== %s\n' "$*"; }
# field NAME FILE: the value of a field in the JSON that ends the file
field() { tail -n 1 "$2" | sed -E "s/.*\"$1\":\"?([^,}\"]*)\"?[,}].*/\1/"; }

rm -rf "$out"
mkdir -p "$out"
zcat "$text" >"$out/gcide.txt"

step "1/6  Learning a tokenizer from a dictionary's text ($(stat -c %s "$out/gcide.txt") bytes)"
"$ferry" tokenizer train --vocab 4096 --out "$out/tokenizer.json" "$out/gcide.txt"

step "2/6  Cutting the text into tokens; a megabyte of it is held out"
"$ferry" data prepare "$out/gcide.txt" --split entry --min-document-bytes 4096 \
  --tokenizer "$out/tokenizer.json" --out "$out/data"

step "3/6  Training (Ctrl-C saves; ferry train configs/demo.toml --resume goes on)"
"$ferry" train configs/demo.toml --data.dir="$out/data" --checkpoint.dir="$out/run" | tee "$out/train.txt"
model=$(field model_dir "$out/train.txt")

step "4/6  How well it predicts text that it never saw, next to xz and zstd"
"$ferry" eval "$model" --data "$out/data" | tee "$out/eval.txt"

step "5/6  What it writes"
"$ferry" generate "$model" --prompt "Ocean" --tokens 150 --temperature 0.7 --seed 1

step "6/6  The crossing: is it the same model on an Ascend chip? (software Ascend: there is no card here)"
FERRY_ASCEND_LIBRARIES=$ascend "$ferry" verify "$model" --device ascend --html "$out/verify.html"

step "Done in $((SECONDS - start)) s. The model is in $model, the loss curve in $out/run/curve.svg, the report in $out/verify.html"
printf '{"model_dir":"%s","bits_per_byte":%s,"xz_bits_per_byte":%s,"tokens_per_s":%s,"seconds":%s}\n' \
  "$model" "$(field bits_per_byte "$out/eval.txt")" "$(field xz_bits_per_byte "$out/eval.txt")" \
  "$(field tokens_per_s "$out/train.txt")" "$((SECONDS - start))"
