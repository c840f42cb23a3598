#!/usr/bin/env bash
# The demo's script with a stand-in for the program, which takes no time: an interrupted demo goes on, an
# earlier one is replaced and that is said, and the last line is JSON whatever the folder is called.
# usage: demo_test.sh SOURCES
set -uo pipefail
cd "$1" || exit
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
failures=0
fail() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}

echo text | gzip >"$top/text.gz"
export FERRY_DEMO_TEXT=$top/text.gz
cat >"$top/ferry" <<'END'
#!/usr/bin/env bash
echo "$*" >>"$STAND_IN_LOG"
for word in "$@"; do
  case $word in --checkpoint.dir=*) run=${word#*=} ;; esac
done
after() { while [ "$1" != --out ]; do shift; done; printf '%s' "$2"; }
quoted() { local t=${1//\\/\\\\}; printf '"%s"' "${t//\"/\\\"}"; }
case $1 in
  bench-train) echo '{"tier":"avx2","mean_tokens_per_s":9000.5,"steps":4}' ;;
  tokenizer) echo '{}' >"$(after "$@")" ;;
  data)
    mkdir -p "$(after "$@")"
    echo '{}' >"$(after "$@")/manifest.json"
    ;;
  tasks) echo '{}' >"$(after "$@")" ;;
  train | rl)
    [ -n "${STAND_IN_STOP:-}" ] && step=5 stopped=true || step=9 stopped=false
    mkdir -p "$run/step-0000000$step"
    echo '{}' >"$run/step-0000000$step/checksums.json"
    scores=
    if [ "$1" = rl ]; then
      mkdir -p "$run/samples"
      for s in 0 $step; do echo "an answer of step $s" >"$run/samples/step-0000000$s.txt"; done
      scores=',"score_before":0.25,"score_after":0.875,"logprob_mismatches":0'
    fi
    printf '{"model_dir":%s,"step":%s,"stopped":%s%s,"seconds":3.5%s}\n' \
      "$(quoted "$run/step-0000000$step")" $step $stopped "${STAND_IN_RATE-,\"tokens_per_s\":8000.25}" "$scores"
    ;;
  serve) exit "${STAND_IN_SERVE:-0}" ;;
  eval)
    [ -d "$2" ] || exit 1
    echo '{"bits_per_byte":1.5,"xz_bits_per_byte":2.25}'
    ;;
esac
END
chmod +x "$top/ferry"
export STAND_IN_LOG=$top/log

# demo FOLDER [SIZE]: its output in $said, the commands that it gave in $gave
demo() {
  : >"$STAND_IN_LOG"
  said=$(tools/demo.sh "$top/ferry" "$1" nowhere "${2:-}" 2>&1) || fail "$1: status $?: $said"
  gave=$(cut -d' ' -f1 "$STAND_IN_LOG" | tr '\n' ' ')
}

for name in plain 'a,b' 'c}d' 'e"f' 'g h' 'i\j' "k'l" 'm":"n'; do
  demo "$top/$name" small
  model=$(tail -n 1 <<<"$said" | jq -r .model_dir) || fail "$name: not JSON: $(tail -n 1 <<<"$said")"
  [ "$model" = "$(realpath "$top")/$name/run/step-00000009" ] || fail "$name: the model is in $model"
  [ "$(tail -n 1 <<<"$said" | jq -c '[.bits_per_byte, .tokens_per_s, .size, .tier]')" = '[1.5,8000.25,"small","avx2"]' ] ||
    fail "$name: $(tail -n 1 <<<"$said")"
done

# A demo that is done is replaced, and that is said before anything else.
echo old >"$top/plain/verify.html"
demo "$top/plain" small
[[ $(grep -m 1 '^==' <<<"$said") == *"Replacing the demo of "*"$top/plain"* ]] || fail "says not what goes: $said"
[ ! -e "$top/plain/verify.html" ] || fail "an earlier demo's report stays"

# One that was stopped goes on, with its size, and says how.
STAND_IN_STOP=1 demo "$top/stop it" large
[[ $said == *"goes on with:"*"run demo"*'stop\ it'* ]] || fail "does not say how to go on: $said"
[[ $said != *"What it writes"* ]] || fail "goes on although it was stopped"
demo "$top/stop it"
[ "$gave" = "train eval generate verify " ] || fail "an interrupted demo begins anew: $gave"
grep -q -- '--resume' "$STAND_IN_LOG" || fail "the training is not resumed"
[ "$(tail -n 1 <<<"$said" | jq -r .size)" = large ] || fail "another size: $said"
# Interrupted behind its training: there is no step to take the speed from.
sed -i '/^done$/d' "$top/stop it/progress.txt"
STAND_IN_RATE='' demo "$top/stop it" large
[ "$gave" = "train eval generate verify " ] || fail "interrupted behind the training: $gave"
[ "$(tail -n 1 <<<"$said" | jq -r .tokens_per_s)" = 8000.25 ] || fail "lost the speed: $said"
# Of another size it begins anew; so does one that had not come to its training.
sed -i '/^done$/d' "$top/stop it/progress.txt"
demo "$top/stop it" small
[[ $gave == "bench-train tokenizer data train "* && $said == *"Replacing"* ]] || fail "another size: $gave"
rm "$top/plain/progress.txt"
demo "$top/plain"
[[ $gave == "bench-train tokenizer data train "* ]] || fail "interrupted before its training: $gave"

# At a terminal, and only there, it ends by serving the model; that this fails is a failure of the demo.
[[ $gave != *serve* ]] || fail "serves nobody: $gave"
: >"$STAND_IN_LOG"
command="$(printf '%q ' tools/demo.sh "$top/ferry" "$top/at a terminal" nowhere small)"
script -qec "$command" /dev/null </dev/null >"$top/said" || fail "at a terminal: $(cat "$top/said")"
[[ $(tail -n 1 "$STAND_IN_LOG") == "serve "*"/at a terminal/run/step-00000009 --name dictionary "* ]] ||
  fail "does not end at the model: $(cat "$STAND_IN_LOG")"
! STAND_IN_SERVE=3 script -qec "$command" /dev/null </dev/null >"$top/said" ||
  fail "a server that failed is not told"
: >"$STAND_IN_LOG"
script -qec "$command --no-serve" /dev/null </dev/null >"$top/said" || fail "--no-serve: $(cat "$top/said")"
! grep -q '^serve' "$STAND_IN_LOG" || fail "serves although it was told not to"
grep -q -- '--checkpoint.chat_template=/' "$STAND_IN_LOG" || fail "the model gets no chat template"

# --- ./run demo reason -----------------------------------------------------------------------------------
# reason FOLDER [SEED]: its output in $said, the commands that it gave in $gave
reason() {
  : >"$STAND_IN_LOG"
  said=$(tools/reason.sh "$top/ferry" "$1" "${2:-}" 2>&1) || fail "reason $1: status $?: $said"
  gave=$(cut -d' ' -f1 "$STAND_IN_LOG" | tr '\n' ' ')
}
making="tasks tasks tasks tokenizer data "
for name in sums 'g "h'; do
  reason "$top/$name"
  [ "$gave" = "${making}train rl " ] || fail "reason $name: $gave"
  ! grep -q -- '--resume' "$STAND_IN_LOG" || fail "reason $name: goes on with nothing"
  [ "$(tail -n 1 <<<"$said" | jq -c '[.score_before, .score_after, .steps, .logprob_mismatches, .model_dir]')" = \
    "$(jq -nc --arg model "$top/$name/run/step-00000009" '[0.25, 0.875, 9, 0, $model]')" ] || fail "reason $name: $said"
  [[ $said == *"an answer of step 0"*"an answer of step 9"* ]] || fail "reason $name shows no answers: $said"
done
# What it made it may replace; what it did not make stays.
reason "$top/sums"
[[ $gave == "${making}train rl " && $said == *"Replacing"* ]] || fail "reason again: $gave $said"
echo mine >"$top/sums/run/samples/notes.txt"
tools/reason.sh "$top/ferry" "$top/sums" >/dev/null 2>&1 && fail "reason takes somebody's notes for its own"
rm "$top/sums/run/samples/notes.txt"
# Stopped in either training it goes on, with its seed, and says how.
STAND_IN_STOP=1 reason "$top/stopped sums" 7
[[ $gave == "${making}train " && $said == *"goes on with:"*"demo reason"*'stopped\ sums'* ]] || fail "reason stopped: $gave $said"
reason "$top/stopped sums"
[ "$gave" = "train rl " ] || fail "an interrupted reason begins anew: $gave"
[ "$(grep -c -- '--train.seed=7 .*--resume' "$STAND_IN_LOG")" = 2 ] || fail "reason goes on as another: $(cat "$STAND_IN_LOG")"
[ "$(tail -n 1 <<<"$said" | jq .steps)" = 9 ] || fail "reason gone on with: $said"
# Another seed is another run; so is the next one after it was done.
sed -i '/^done$/d' "$top/stopped sums/progress.txt"
reason "$top/stopped sums" 8
[ "$gave" = "${making}train rl " ] || fail "another seed goes on: $gave"
reason "$top/stopped sums" 8
[ "$gave" = "${making}train rl " ] || fail "reason that was done: $gave"

[ "$failures" = 0 ] && echo "demo: all as it should be"
exit $((failures > 0))
