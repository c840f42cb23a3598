#!/usr/bin/env bash
# Recoveries are measured of real ranks, and what comes of them is a projection: its line, its page, its plot; the same
# file gives the same line; what is no measurement, or no assumption, is refused with status 2 and by name.
# usage: goodput_test.sh FERRY FOLDER SOURCES
set -uo pipefail
ferry=$(realpath "$1")
folder=$2
cd "$3"
failures=0
fail() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}

said=$(tools/goodput.sh "$ferry" "$folder" 1 1) || fail "tools/goodput.sh: status $?: $said"
line=$(tail -n 1 <<<"$said")
python3 - "$line" "$folder/measured.json" <<'END' || fail "the line is not as it must be: $line"
import json, sys
line, measured = json.loads(sys.argv[1]), json.load(open(sys.argv[2]))
scales = line["scales"]
assert [s["chips"] for s in scales] == [64, 1024, 10000, 16384, 100000], scales
shares = [s["goodput"] for s in scales]
assert shares == sorted(shares, reverse=True) and 0 < shares[-1] < shares[0] < 1, shares
for s in scales:
    assert 0 < s["goodput_worst"] <= s["goodput"] and s["with_overhead"] < s["goodput"] < 1, s
    assert len(s["rates"]) >= 4 and len(s["with_recovery_of"]) >= 3, s
    # Where faults are rare the first order is all there is.
    assert s["chips"] > 64 or abs(s["goodput"] - s["first_order"]) < 1e-3, s
# One that was stopped was waited for, and none of these is a constant.
assert measured["silent"]["detect_s"] >= 3, measured
assert 0 < measured["process"]["detect_s"] + measured["process"]["restart_s"] <= measured["process"]["slowest_s"] + 1e-3
assert 0 < measured["checks_share"] < 1 and measured["step_s"] > 0 and measured["pair"]["restart_s"] > 0, measured
END
[[ $said == *"steps have the losses and norms of the run that nobody disturbed"* ]] || fail "nothing was compared"
grep -q '<meta name="generator" content="Ferry">' "$folder/goodput.html" || fail "no page"
grep -q 'failures as of Llama 3' "$folder/goodput.svg" || fail "no plot"

project() { "$ferry" goodput --measured "$folder/measured.json" --published configs/goodput.json "$@"; }
again=$(project --json) || fail "again: status $?"
[ "$again" = "$line" ] || fail "the same measurement gives another line: $again"
slower=$(project --json --assume link_gb_per_s=0.1 --chips 10000) || fail "slower: status $?"
python3 -c '
import json, sys
fast, slow = (json.loads(a)["scales"] for a in sys.argv[1:])
assert len(slow) == 1 and slow[0]["goodput"] < fast[2]["goodput"] - 0.01, (slow, fast[2])' "$line" "$slower" ||
  fail "a link of a five hundredth changes nothing: $slower"
refused() {
  local named=$1 status=0 words
  shift
  words=$("$@" 2>&1) || status=$?
  [ $status = 2 ] || fail "$*: status $status instead of 2"
  [[ $words == *"$named"* ]] || fail "$*: \"$named\" is not named: $words"
}
refused together_share project --assume steps=1
refused "number from" project --assume step_s=0
refused "whole number" project --chips 1.5
refused README.md project --svg README.md
refused "two values" project --chips 64 --page "$folder/goodput.html"
refused command "$ferry" goodput --measured configs/goodput.json --published "$folder/measured.json"
[ "$failures" = 0 ]
