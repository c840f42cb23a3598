#!/usr/bin/env bash
# The demo: a dictionary's text becomes a tokenizer, a dataset, a trained model, a measurement and a
# sample. Its last line is JSON. usage: tools/demo.sh FERRY FOLDER
set -euo pipefail
ferry=$1
out=$2
text=/usr/share/dictd/gcide.dict.dz
start=$SECONDS
step() { printf '\n== %s\n' "$*"; }

mkdir -p "$out"
step "1. Learning a tokenizer from the dictionary"
zcat "$text" >"$out/gcide.txt"
"$ferry" tokenizer train --vocab 6144 --out "$out/tokenizer.json" "$out/gcide.txt"

step "2. Cutting the text into tokens, some of it held out"
"$ferry" data prepare "$text" --tokenizer "$out/tokenizer.json" --out "$out/data" --force

step "3. Training"
"$ferry" train configs/demo.toml --data.dir="$out/data" --checkpoint.dir="$out/run"

step "4. How well it predicts text that it never saw, next to xz and zstd"
"$ferry" eval "$out/run/latest" --dataset "$out/data" | tee "$out/eval.txt"

step "5. What it writes"
"$ferry" generate "$out/run/latest" --prompt "Ocean" --max-tokens 120 --temperature 0.7 --seed 1

step "Done in $((SECONDS - start)) s"
tail -n 1 "$out/eval.txt"
