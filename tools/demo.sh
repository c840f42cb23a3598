#!/usr/bin/env bash
# The demo: a dictionary's text becomes a tokenizer, a dataset, a trained model, a measurement and a
# sample. A fixed number of steps, never a clock. Its last line is JSON.
# usage: tools/demo.sh FERRY FOLDER
set -euo pipefail
ferry=$1
out=$2
text=/usr/share/dictd/gcide.dict.dz
start=$SECONDS
step() { printf '\n== %s\n' "$*"; }
# field NAME FILE: a field of the one line of JSON that ends a command's output.
field() { tail -n 1 "$2" | sed -n "s/.*\"$1\": *\"\{0,1\}\([^,\"}]*\).*/\1/p"; }

rm -rf "$out"
mkdir -p "$out"

step "1. Learning a tokenizer from the dictionary"
zcat "$text" >"$out/gcide.txt"
"$ferry" tokenizer train --vocab 6144 --out "$out/tokenizer.json" "$out/gcide.txt"

step "2. Cutting the text into tokens; some of it is held out"
"$ferry" data prepare "$text" --tokenizer "$out/tokenizer.json" --out "$out/data"

step "3. Training"
"$ferry" train configs/demo.toml "--data.dir=$out/data" "--checkpoint.dir=$out/run" | tee "$out/train.txt"
model=$(field model_dir "$out/train.txt")

step "4. How well it predicts text that it never saw, next to xz and zstd"
"$ferry" eval "$model" --data "$out/data" | tee "$out/eval.txt"

step "5. What it writes"
"$ferry" generate "$model" --prompt "Ocean" --tokens 120 --temperature 0.7 --seed 1

step "The curve: $out/run/curve.svg"
printf '{"model_dir": "%s", "bits_per_byte": %s, "xz_bits_per_byte": %s, "tokens_per_s": %s, "seconds": %s}\n' \
  "$model" "$(field bits_per_byte "$out/eval.txt")" "$(field xz_bits_per_byte "$out/eval.txt")" \
  "$(field tokens_per_s "$out/train.txt")" "$((SECONDS - start))"
