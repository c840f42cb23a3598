#!/usr/bin/env bash
# What Ferry did not make stays: scripts empty only folders that they made, and only of what they made;
# commands replace only files of the kind that they write. usage: user_files_test.sh FERRY SOURCES
set -uo pipefail
ferry=$1
cd "$2"
export FERRY_PACKAGES=skip
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
failures=0
fail() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}

# listing FOLDER: every entry with its content's sum
listing() { find "$1" | sort && find "$1" -type f -exec sha256sum {} + | sort; }

# refuses FOLDER COMMAND...: ends with 2, names the folder, and leaves everything as it was
refuses() {
  local folder=$1 before status=0 said
  shift
  before=$(listing "$folder")
  said=$("$@" 2>&1 </dev/null) || status=$?
  [ "$status" = 2 ] || fail "status $status instead of 2: $* ($said)"
  [[ $said == *"$folder"* ]] || fail "does not name $folder: $* ($said)"
  [ "$(listing "$folder")" = "$before" ] || fail "$folder is not as it was: $*"
}

# --- a user's folder, named by mistake: every script that takes a folder to fill ------------------------
mkdir -p "$top/home/papers"
echo "years of work" >"$top/home/papers/thesis.txt"
echo "another" >"$top/home/tokenizer.json"
refuses "$top/home" ./run demo "$top/home"
refuses "$top/home" ./run demo "$top/home" --size small
refuses "$top/home" tools/demo.sh "$ferry" "$top/home" nowhere small
refuses "$top/home" ./run demo reason "$top/home"
refuses "$top/home" tools/reason.sh "$ferry" "$top/home"
refuses "$top/home" ./run reason-smol "$top/home"
refuses "$top/home" tools/reason_smol.sh "$ferry" nowhere.gguf "$top/home"
refuses "$top/home" tools/tiny_model.sh "$ferry" "$top/home"
refuses "$top/home" tools/aarch64_root.sh "$top/home"
refuses "$top/home/papers/thesis.txt" ./run demo "$top/home/papers/thesis.txt"
refuses "$top/home" env -C "$top" "$PWD/run" demo home # where the user is, not where ./run is

# --- arguments that are not understood start nothing -----------------------------------------------------
for arguments in "--size huge" "--size" "--size=" "--large"; do
  # shellcheck disable=SC2086
  ./run demo "$top/new" $arguments >/dev/null 2>&1
  [ $? = 2 ] || fail "./run demo $arguments is taken"
  [ ! -e "$top/new" ] || fail "./run demo $arguments made a folder"
done

said=$(tools/reason_smol.sh "$ferry" 2>&1)
{ [ $? = 2 ] && [[ $said == "usage: tools/reason_smol.sh"* ]]; } || fail "reason_smol.sh does not say how it is called: $said"

# --- "~" that no shell expanded is not made a folder, whose removal would name somebody's home --------------
made=$(cd "$top" && listing . | grep -c '~')
for arguments in "tokenizer train --vocab 300 --out=~/t.json $PWD/README.md" "data prepare --out=~ $PWD/README.md" \
  "keygen ~root/key" "train --checkpoint.dir=~/run $PWD/configs/tiny.toml"; do
  # shellcheck disable=SC2086
  said=$(cd "$top" && "$ferry" $arguments 2>&1)
  { [ $? = 2 ] && [[ $said == *'"~" is no home folder'* ]]; } || fail "$arguments: $said"
done
[ "$made" = "$(cd "$top" && listing . | grep -c '~')" ] || fail "a folder was made of ~"

# --- over its own earlier work: again, and with something of somebody else's in it -----------------------
own=$top/tiny
again() { tools/tiny_model.sh "$ferry" "$own" >"$top/log" 2>&1; }
again || fail "the first time: $(tail -n 3 "$top/log")"
model=$(tail -n 1 "$top/log")
[ -e "$model/config.json" ] || fail "no model in $model"
weights=$(sha256sum <"$model/model.safetensors")
again || fail "over its own: $(tail -n 3 "$top/log")"
[ "$(sha256sum <"$model/model.safetensors")" = "$weights" ] || fail "other weights the second time"
mkdir "$own/data/.next" # of a data prepare that was killed
touch "$own/data/.next/train-00000.tok" "$own/data/.prepare-hashes-00001.sort"
again || fail "over what a killed data prepare left: $(tail -n 3 "$top/log")"
again_refuses() { refuses "$own" tools/tiny_model.sh "$ferry" "$own"; }
for foreign in notes.txt data/notes.txt run/notes.txt "run/step 1" "$(basename "$model")" \
  "run/$(basename "$model")/notes.txt" "run/$(basename "$model")/state/notes.json"; do
  mkdir -p "$(dirname "$own/$foreign")"
  echo mine >"$own/$foreign"
  again_refuses
  rm "$own/$foreign"
done
mkdir "$own/empty"
again_refuses
rmdir "$own/empty"
mv "$own/run" "$top/elsewhere"
ln -s "$top/elsewhere" "$own/run"
again_refuses
[ -e "$top/elsewhere/$(basename "$model")/config.json" ] || fail "went through a link"
rm "$own/run"
mv "$top/elsewhere" "$own/run"
exec 8>>"$own/run/.lock"
flock 8
again_refuses # a run is at work in it
exec 8>&-
refuses "$own" ./run demo "$own" # made by another script
again || fail "after all that: $(tail -n 3 "$top/log")"

# --- files that a command is told to write ---------------------------------------------------------------
# writes FILE COMMAND...: makes it, refuses it where it is another's, and makes it again over its own
writes() {
  local file=$1
  shift
  "$@" >"$top/log" 2>&1 || fail "cannot write $file: $* ($(tail -n 2 "$top/log"))"
  [ -s "$file" ] || fail "did not write $file: $*"
  "$@" >"$top/log" 2>&1 || fail "does not write over its own $file: $* ($(tail -n 2 "$top/log"))"
  writes_over_nothing "$file" "$@"
}
# writes_once FILE COMMAND...: the same of what does not say whose it is, which is refused where it is its own, too
writes_once() {
  local file=$1
  shift
  "$@" >"$top/log" 2>&1 || fail "cannot write $file: $* ($(tail -n 2 "$top/log"))"
  [ -s "$file" ] || fail "did not write $file: $*"
  refuses "$file" "$@"
  writes_over_nothing "$file" "$@"
}
writes_over_nothing() {
  local file=$1
  shift
  mv "$file" "$top/ours"
  echo "years of work" >"$file"
  refuses "$file" "$@"
  cp "$top/home/tokenizer.json" "$file"
  refuses "$file" "$@"
  rm "$file"
  ln -s "$top/ours" "$file"
  refuses "$file" "$@"
  rm "$file"
  mkfifo "$file"
  refuses "$file" "$@"
  rm "$file" "$top/ours"
}
echo "1 2 3" >"$top/ids"
export XDG_STATE_HOME=$top/state
printf '\003\000\000\000one' >"$top/frames"
writes_once "$top/out" "$ferry" tokenizer train --vocab 300 --out "$top/out" README.md
writes "$top/out" "$ferry" tokenizer bench --tokenizer "$model/tokenizer.json" --frames "$top/frames" --out "$top/out"
writes "$top/out" "$ferry" logits "$model" --tokens "$top/ids" --out "$top/out"
writes "$top/out" "$ferry" verify "$model" --html "$top/out"
# The doctor takes half a minute: with a device that is not there it ends behind the check of its paths.
doctor() { "$ferry" doctor --device toaster "$@" 2>&1; }
echo '{"verdict": "fit to train", "outcomes": []}' >"$top/report"
[[ $(doctor --json "$top/report") == *toaster* ]] || fail "doctor does not write over its own report"
for option in --json --html; do
  refuses "$top/home/papers/thesis.txt" "$ferry" doctor --device toaster "$option" "$top/home/papers/thesis.txt"
done
bench=("$ferry" bench-train --config configs/tiny.toml --model.vocab_size=300 --data.dir=unused --steps 1 --warmup 0 --write-config)
writes_once "$top/out" "${bench[@]}" "$top/out"
refuses "$model" "${bench[@]}" "$model/config.json" # the config of weights
refuses "$model" "$ferry" tokenizer train --vocab 300 --out "$model/tokenizer.json" README.md
refuses "$own/data" "$ferry" tokenizer train --vocab 300 --out "$own/data/tokenizer.json" README.md
refuses "$model" "$ferry" logits "$model" --tokens "$top/ids" --out "$model/model.safetensors"
echo mine >"$top/out.tmp"
"$ferry" tokenizer encode --tokenizer "$model/tokenizer.json" '~/a' >/dev/null ||
  fail "text that begins with ~ is taken for a path"
"$ferry" logits "$model" --tokens "$top/ids" --out "$top/out" >/dev/null || fail "logits"
[ "$(cat "$top/out.tmp")" = mine ] || fail "logits took a file beside its own"

# --- what a command prints is in none of its files, also where the caller closed its outputs --------------
(
  "$ferry" train configs/tiny.toml --data.dir="$own/data" --checkpoint.dir="$top/closed" --train.steps=2 \
    <&- >&- 2>&-
) || fail "train with its outputs closed"
[[ $(cat "$top/closed/.lock") =~ ^[0-9]+$ ]] ||
  fail "what train prints is in its lock: $(head -c 200 "$top/closed/.lock")"
"$ferry" verify "$top/closed/step-00000002" --quick >"$top/log" 2>&1 || fail "closed outputs: $(tail -n 3 "$top/log")"

[ "$failures" = 0 ] && echo "user_files: all as it should be"
exit $((failures > 0))
