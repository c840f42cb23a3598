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
# What was trained was also judged, and nothing of it was left out.
for step in facts conformance specs train verify; do
  grep -q "^$step  *done\$" "$top/sound.said" || { cat "$top/sound.said"; echo "sound: $step was not done"; exit 1; }
done
[ -s "$top/sound/revision.txt" ] || { echo "sound: nothing says which source it was"; exit 1; }
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

# A folder as a card would leave it: what only a card can say, and a tool that found something where another did not
# end.
card=$top/card
mkdir "$card"
cat >"$card/facts.json" <<'END'
{"description": "NVIDIA H100, sm_90, tensor cores", "measurements":
  [{"name": "matmul bf16", "value": 5e14, "peak": 800000}, {"name": "memory, copy", "value": 2000, "peak": 3350}]}
END
echo '{"checks": 10, "problems": 0}' >"$card/specs.json"
echo '{"testsuites": [{"testsuite": [{"name": "a", "result": "SKIPPED"}]}]}' >"$card/conformance.json"
printf 'words\n{"mfu": 0.5, "peak_gflops": 400000}\n' >"$card/speed.txt"
printf '{"decode_tokens_per_s": {"1": 500}, "weight_mb": 2000, "of_bandwidth": 0.9}\n' >"$card/decode.txt"
printf '== ERROR SUMMARY: 0 errors\n== ERROR SUMMARY: 5 errors\n' >"$card/memcheck.txt"
printf '== Target application terminated before first instrumented API call\n== ERROR SUMMARY: 0 errors\n' \
  >"$card/synccheck.txt"
: >"$card/racecheck.txt"
printf '%s\t%s\t%s\n' facts 0 40 conformance 0 60 specs 0 120 speed 0 80 decode 0 40 memcheck 0 33 racecheck 124 33 \
  synccheck 0 33 >"$card/steps.tsv"
status=0
python3 -B "$source/tools/gpu_check_report.py" "$card" card >"$top/card.said" || status=$?
tail -n 1 "$top/card.said" >"$top/card.json"
[ "$status" = 1 ] || { cat "$top/card.said"; echo "card: exit $status, not 1"; exit 1; }
holds card 'j["sanitizer_findings"] == 5 and j["wrong"] == ["memcheck", "racecheck", "synccheck"]'
holds card 'j["conformance_failures"] is None and j["specs_failed"] == 0'
holds card 'abs(j["mfu"] - 0.25) < 1e-9 and abs(j["decode_of_bandwidth"] - 0.5) < 1e-9'

# Whoever stops it has what was found until then.
"$source/tools/gpu_check.sh" "$ferry" "$top/stopped" --patience 20 >"$top/stopped.said" 2>&1 &
check=$!
until grep -q -- '-- specs' "$top/stopped.said"; do
  kill -0 "$check" || { cat "$top/stopped.said"; echo "stopped: it ended by itself"; exit 1; }
  sleep 0.1
done
kill -TERM "$check"
status=0
wait "$check" || status=$?
tail -n 1 "$top/stopped.said" >"$top/stopped.json"
[ "$status" = 1 ] || { cat "$top/stopped.said"; echo "stopped: exit $status, not 1"; exit 1; }
holds stopped '"software NVIDIA" in j["device"] and "specs" in j["wrong"] and "train" not in j["wrong"]'
tar -tzf "$top/stopped.tar.gz" | grep -q 'stopped/facts.json$' || { echo "stopped: no archive"; exit 1; }
