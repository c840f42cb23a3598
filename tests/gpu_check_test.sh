#!/usr/bin/env bash
# tools/gpu_check.sh, rehearsed on software NVIDIA: it says what was measured and what was not, finds what is planted,
# and a step that takes too long ends and is told.
# usage: gpu_check_test.sh SOURCE-FOLDER FERRY NVIDIA-SIM TESTS-FOLDER
set -euo pipefail
source=$1 ferry=$2 sim=$3 tests=$4
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
export FERRY_CUDA_LIBRARIES=$sim
for name in ${!FERRY_NVIDIA_SIM_*}; do unset "$name"; done

# check NAME STATUS OPTION...: runs it; its JSON goes to NAME.json
check() {
  local name=$1 expected=$2 status=0
  shift 2
  "$source/tools/gpu_check.sh" "$ferry" "$top/$name" "$@" >"$top/$name.said" 2>&1 || status=$?
  tail -n 1 "$top/$name.said" >"$top/$name.json"
  [ "$status" = "$expected" ] || { cat "$top/$name.said"; echo "$name: exit $status, not $expected"; exit 1; }
}
# holds NAME EXPRESSION: of the JSON j
holds() {
  python3 -c 'import json, sys; j = json.load(open(sys.argv[1])); sys.exit(0 if eval(sys.argv[2]) else 1)' \
    "$top/$1.json" "$2" ||
    { cat "$top/$1.said"; echo "$1: not so: $2"; exit 1; }
}

check sound 0 --tests "$tests" --only add --patience 20
holds sound '"software NVIDIA" in j["device"] and "tensor cores" in j["device"]'
holds sound 'j["conformance_failures"] == 0 and j["specs_failed"] == 0 and j["wrong"] == []'
holds sound 'all(j[name] is None for name in ("sanitizer_findings", "train_ratio", "decode_of_bandwidth", "mfu"))'
tar -tzf "$top/sound.tar.gz" | grep 'sound/specs.json$' || { echo "the archive has not what the doctor found"; exit 1; }

# A sum that is cut in place of rounded: the doctor finds it in add.
FERRY_NVIDIA_SIM_DEFECT=add_truncates check defect 1 --only add --patience 20
holds defect 'j["specs_failed"] > 0 and "specs" in j["wrong"] and j["conformance_failures"] is None'

# Tensor cores that round, as no GPU does: within all bounds, and not the model.
FERRY_NVIDIA_SIM_DEFECT=mma_rounds check rounds 1 --tests "$tests" --only add --patience 20
holds rounds 'j["conformance_failures"] > 0 and j["specs_failed"] == 0 and "conformance" in j["wrong"]'

# A step that does not end is ended; what it did not measure is not there.
check short 1 --only attention --limit 1
holds short '"specs" in j["wrong"] and "train" in j["wrong"]'
grep -q 'train .*did not end within 1 s' "$top/short.said" ||
  { cat "$top/short.said"; echo "no limit was told"; exit 1; }
