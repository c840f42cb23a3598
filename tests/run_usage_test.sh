#!/usr/bin/env bash
# ./run says what it can do in lines that a terminal of 100 columns shows whole, and a command that takes no arguments
# refuses them by name instead of leaving them unread. usage: run_usage_test.sh SOURCES
set -uo pipefail
cd "$1"
export FERRY_PACKAGES=skip
failures=0
fail() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}

wide=$(./run help | awk 'length > 100')
[ -z "$wide" ] || fail "lines of more than 100 columns: $wide"
for command in mutants ptx build lint; do
  status=0
  said=$(timeout 20 ./run "$command" --sample 2>&1 </dev/null) || status=$?
  [ "$status" = 2 ] || fail "$command: status $status instead of 2"
  [[ $said == *"--sample"*"takes no arguments"* ]] || fail "$command: $said"
done
[ "$failures" = 0 ]
