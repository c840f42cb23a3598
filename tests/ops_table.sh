#!/usr/bin/env bash
# docs/ops.md is what the program prints. usage: ops_table.sh FERRY DOCS
set -euo pipefail
if ! "$1" ops --markdown --runs "$2/ops_runs.txt" | diff -u "$2/ops.md" -; then
  echo "docs/ops.md is out of date: ./run build && build/ferry ops --markdown --runs docs/ops_runs.txt > docs/ops.md"
  exit 1
fi
