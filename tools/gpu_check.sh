#!/usr/bin/env bash
# A quarter of an hour on an NVIDIA card, for whoever has one: what it is, whether its tensor cores add as the model
# that software NVIDIA has (nvidia_sim/exec/matrix_unit.h), whether ops are right, what compute-sanitizer says, a short
# run with its verdict, and speeds. Each step has a limit of its own, all together end within 560 seconds. Whatever ends
# it before, a signal or a line that is closed, FOLDER.tar.gz has all that was said, and the last line is JSON, null
# where something was not measured. Exit status 0: nothing was found wrong.
# usage: tools/gpu_check.sh FERRY FOLDER [--tests FOLDER] [--model DIR] [--only SUBJECT] [--limit SECONDS]
#   [--patience N]
#   --tests: where cuda_tensor_test is (build/tests): without it nothing is said of how tensor cores add
#   --model: a dense model (llama, qwen2), whose decoding is timed
#   --only: of the ops, this one (ferry doctor --only); --limit: of each step at most
#   --patience: all limits so many times as long, for software NVIDIA on a slow machine
set -euo pipefail
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
. "$here/own_folder.sh"

usage() {
  sed -n 's/^# usage: /usage: /p; s/^#   \(\[*--\)/  \1/p' "${BASH_SOURCE[0]}" >&2
  exit 2
}
[ $# -ge 2 ] || usage
ferry=$(realpath "$1")
folder=$2
shift 2
tests='' model='' only='' most='' patience=1
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || usage
  case $1 in
    --tests) tests=$(realpath "$2") ;;
    --model) model=$(realpath "$2") ;;
    --only) only=$2 ;;
    --limit) most=$2 ;;
    --patience) patience=$2 ;;
    *) usage ;;
  esac
  shift 2
done
[ -x "$ferry" ] || { echo "gpu_check.sh: $ferry: is no program" >&2; exit 2; }
[ -z "$tests" ] || [ -x "$tests/cuda_tensor_test" ] ||
  { echo "gpu_check.sh: $tests has no cuda_tensor_test" >&2; exit 2; }
[ -z "$model" ] || [ -e "$model" ] || { echo "gpu_check.sh: $model: is not there" >&2; exit 2; }
own_folder tools/gpu_check.sh "$folder" '.*'
folder=$(realpath "$folder")
cd "$here/.."
export XDG_STATE_HOME=$folder/state
device=cuda-tensor
all=$((560 * patience))  # seconds
# Who gives libraries of a driver runs software NVIDIA, each instruction of which a CPU carries out.
software=${FERRY_CUDA_LIBRARIES:+software}

report() {
  trap '' HUP INT TERM  # it is written whole
  local status=0
  python3 -B "$here/gpu_check_report.py" "$folder" "${software:-card}" >"$folder/report.txt" || status=$?
  local base
  base=$(basename "$folder")
  if tar -C "$(dirname "$folder")" --exclude="$base/model" -czf "$folder.tar.gz" "$base"; then
    printf -- '-- %s has what was said; please send it\n' "$folder.tar.gz"
  else
    printf -- '-- %s could not be written; %s has what was said\n' "$folder.tar.gz" "$folder"
  fi
  cat "$folder/report.txt"
  exit "$status"
}

running=''  # the process of the step at hand
stopped() {
  if [ -n "$running" ]; then
    # It may have ended just now, and how it ends says nothing any more: it is told as stopped.
    kill -TERM "$running" 2>/dev/null || true
    wait "$running" 2>/dev/null || true
    printf '%s\t%s\t%s\n' "$name" stopped 'a signal' >>"$folder/steps.tsv"
  fi
  report
}
trap stopped HUP INT TERM

# step NAME SECONDS COMMAND...: what it says goes to NAME.txt, how it ended to steps.tsv: 124 is the limit's.
step() {
  name=$1
  local limit=$(($2 * patience)) status=0 left=$((all - SECONDS - 20)) begin=$SECONDS
  shift 2
  [ -z "$most" ] || [ "$limit" -le "$most" ] || limit=$most
  [ "$limit" -le "$left" ] || limit=$left
  if [ "$limit" -lt 1 ]; then
    status=124
  else
    printf -- '-- %s: at most %s s\n' "$name" "$limit"
    # Asked to end, the doctor gives the check at hand ten seconds and tells what it has; who does not listen is ended.
    timeout -k 12 "$limit" "$@" >"$folder/$name.txt" 2>&1 &
    running=$!
    wait "$running" || status=$?
    running=''
    # Killed, by timeout at last or, before the limit, by somebody else (a machine without memory).
    [ "$status" != 137 ] || [ $((SECONDS - begin)) -lt "$limit" ] || status=124
  fi
  printf '%s\t%s\t%s\n' "$name" "$status" "$limit" >>"$folder/steps.tsv"
}
skipped() { printf '%s\tskipped\t%s\n' "$1" "$2" >>"$folder/steps.tsv"; }

git describe --always --dirty >"$folder/revision.txt" 2>&1 || echo 'no git checkout' >>"$folder/revision.txt"
# No more than that: its long report names the card's serial number and whoever else uses it.
if command -v nvidia-smi >/dev/null; then
  step smi 10 nvidia-smi --format=csv \
    --query-gpu=name,driver_version,compute_cap,memory.total,ecc.mode.current,clocks.max.sm,power.limit,mig.mode.current
else
  skipped smi 'nvidia-smi is not there'
fi
quick=()
[ -z "$software" ] || quick=(--quick)  # sizes that fill a card would take too long
step facts 40 "$ferry" doctor --device "$device" --only speed "${quick[@]}" --json "$folder/facts.json"

if [ -z "$tests" ]; then
  skipped conformance 'no --tests'
else
  FERRY_TESTS_ON_THIS_DEVICE=1 step conformance 60 "$tests/cuda_tensor_test" --gtest_filter='ThisDevice.*' \
    --gtest_output="json:$folder/conformance.json"
fi

step specs 120 "$ferry" doctor --device "$device" --quick ${only:+--only "$only"} --json "$folder/specs.json"

# Steps as small as can be where each instruction of each thread is carried out by a CPU.
small=()
[ -z "$software" ] || small=(--data.sequence_length=16 --train.tokens_per_step=16 --train.micro_batch_tokens=16
  --train.evaluate_tokens=16)
step train 80 tools/tiny_model.sh "$ferry" "$folder/model" --device "$device" --train.compute=bf16 --train.steps=20 \
  --train.evaluate_every=20 --checkpoint.every=20 "${small[@]}"
trained=''
[ ! -e "$folder/train.txt" ] || trained=$(tail -n 1 "$folder/train.txt")
if [ -d "$trained" ]; then
  step verify 40 "$ferry" verify "$trained" --device "$device" --no-remember --json
else
  skipped verify 'nothing was trained'
fi

if [ -n "$software" ]; then
  skipped speed 'not a card'
  skipped decode 'not a card'
else
  step speed 80 "$ferry" bench-train --config bench/M.toml --steps 3 --warmup 1 --train.device="$device" \
    --train.compute=bf16
  if [ -n "$model" ]; then
    step decode 40 "$ferry" bench-serve "$model" --device "$device"
  else
    skipped decode 'no --model'
  fi
fi

# Last, since a card is slower for it by far. The doctor's checks run in processes of their own.
for tool in memcheck racecheck synccheck; do
  if [ -n "$software" ]; then
    skipped "$tool" 'not a card'
  elif ! command -v compute-sanitizer >/dev/null; then
    skipped "$tool" 'compute-sanitizer is not there'
  else
    step "$tool" 33 compute-sanitizer --target-processes all --tool "$tool" \
      "$ferry" doctor --device "$device" --quick --only matmul
  fi
done

report
