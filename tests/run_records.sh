#!/usr/bin/env bash
# The committed records of runs name the ops whose specs pass here, and no others; a run of the smallest cases alone
# leaves no record. usage: run_records.sh PROGRAM DEVICE RECORDS [OP]
set -euo pipefail
program=$1 device=$2 committed=$3 small=${4:-add}
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT

# ops_of RECORDS: on this device, wherever and whenever that was. cuda-tensor is the device cuda that says so.
ops_of() {
  awk -F '\t' -v device="$device" '
    { its = $2 ($4 ~ /bf16 products on tensor cores/ ? "-tensor" : "") }
    its == device { print $1 }' "$1" | sort -u
}

FERRY_RUN_RECORDS=$top/run "$program" --gtest_filter='Spec_*' --gtest_brief=1
if ! diff -u --label "$committed" --label "this run" <(ops_of "$committed") <(ops_of "$top/run"); then
  echo "$committed is out of date: FERRY_RUN_RECORDS=$committed $program --gtest_filter='Spec_*'"
  exit 1
fi

FERRY_SPECS=smallest FERRY_RUN_RECORDS=$top/smallest "$program" --gtest_filter="Spec_$small.*" --gtest_brief=1
if [ -e "$top/smallest" ]; then
  echo "a run with FERRY_SPECS=smallest left a record, as if all cases had passed: $(cat "$top/smallest")"
  exit 1
fi
