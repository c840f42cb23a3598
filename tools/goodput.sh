#!/usr/bin/env bash
# What share of its time a run would make steps in at scales that nobody here has: measures what recoveries take of
# ranks that are killed and stopped (tools/goodput.py), and has `ferry goodput` project from that and from the published
# rates of failures in configs/goodput.json. Leaves FOLDER/measured.json and a page with a plot, FOLDER/goodput.html.
# The last line is JSON.
# usage: tools/goodput.sh FERRY FOLDER [SEED [FAULTS [OPTION...]]]   (1 and 9; options of ferry goodput)
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/own_folder.sh"

# Of `ferry launch`'s folders own_folder knows one, run.
own=('(text|launched)\.txt' 'tokenizer\.json' 'measured\.json' 'goodput\.(html|svg)' 'steady(/.*)?')
if [ "${1:-}" = --check ]; then
  may_own_folder tools/goodput.sh "$2" "${own[@]}"
  exit 0
fi
if [ $# -lt 2 ]; then
  sed -n 's/^# usage: /usage: /p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
ferry=$(realpath "$1")
own_folder tools/goodput.sh "$2" "${own[@]}"
folder=$(realpath "$2")
seed=${3:-1}
faults=${4:-9}
shift $(($# < 4 ? $# : 4))
cd "$here/.."

say() { printf '\n-- %s\n' "$*"; }

say "A text to learn: this project's documentation"
cat README.md docs/*.md >"$folder/text.txt"
"$ferry" tokenizer train --vocab 300 --out "$folder/tokenizer.json" "$folder/text.txt"
"$ferry" data prepare "$folder/text.txt" --split line --held-out-bytes 8K --near-duplicate 2 \
  --tokenizer "$folder/tokenizer.json" --out "$folder/data"

say "What recoveries take"
python3 -B tools/goodput.py --ferry "$ferry" --folder "$folder" --seed "$seed" --faults "$faults"

say "What that comes to at other scales"
"$ferry" goodput --measured "$folder/measured.json" --published configs/goodput.json \
  --page "$folder/goodput.html" --svg "$folder/goodput.svg" "$@"
