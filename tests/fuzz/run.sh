#!/usr/bin/env bash
# Runs one fuzzer for some seconds on a copy of its seeds. The copy, and any input that broke the
# reader (crash-*), stay beside the program. usage: [FERRY_FUZZ_SEED=N] run.sh PROGRAM SECONDS
set -euo pipefail
program=$1
seconds=$2
seeds=$(dirname "${BASH_SOURCE[0]}")/$(basename "$program")_seeds
corpus=${program}_corpus
mkdir -p "$corpus"
[ ! -d "$seeds" ] || cp -n "$seeds"/* "$corpus"/
# One input may take 25 s: a sanitised program is ten times slower, and a busy machine gives it a part of a processor.
exec "$program" -seed="${FERRY_FUZZ_SEED:-1}" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=2048 -max_len=65536 \
  -print_final_stats=1 -artifact_prefix="$corpus/../" "$corpus"
