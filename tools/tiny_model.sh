#!/usr/bin/env bash
# Trains the model of configs/tiny.toml on this project's own documentation, in seconds. Its last line is
# the model's directory. FOLDER is a new one, or an earlier run's.
# usage: tools/tiny_model.sh FERRY FOLDER [--section.key=value...]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/own_folder.sh"
ferry=$1
out=$2
shift 2

own_folder tools/tiny_model.sh "$out" '(text|train)\.txt' 'tokenizer\.json'
cat README.md docs/*.md >"$out/text.txt"
"$ferry" tokenizer train --vocab 300 --out "$out/tokenizer.json" "$out/text.txt"
"$ferry" data prepare "$out/text.txt" --split line --held-out-bytes 8K --near-duplicate 2 \
  --tokenizer "$out/tokenizer.json" --out "$out/data"
"$ferry" train configs/tiny.toml --data.dir="$out/data" --checkpoint.dir="$out/run" "$@" | tee -i "$out/train.txt"
tail -n 1 "$out/train.txt" | sed -E 's/.*"model_dir":"([^"]*)".*/\1/'
