#!/usr/bin/env bash
# docs/ops.md is what the program prints. usage: ops_table.sh FERRY DOCS/OPS.MD
set -euo pipefail
if ! "$1" ops --markdown | diff -u "$2" -; then
  echo "docs/ops.md is out of date: ./run build && build/ferry ops --markdown > docs/ops.md"
  exit 1
fi
