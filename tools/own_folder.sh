# Folders that a script fills, and empties to fill them again: only those that it made, and only while
# nothing lies in them that it does not make. Sourced.

# own_folder KIND FOLDER PATTERN...: makes FOLDER, empty but for a note of whose it is. What an earlier run
# left there goes: every entry must match a pattern (extended, of the whole path below FOLDER), or be what
# `ferry data prepare --out FOLDER/data` and `ferry train` or `rl --checkpoint.dir=FOLDER/run` make. Where anything
# else lies there the script ends with status 2, and all of it stays. Pattern ".*" alone: all that comes to
# lie there is.
own_folder() {
  may_own_folder "$@"
  if [ -d "$2" ]; then
    # Not the note: what is half removed is still known to be ours.
    (cd "$2" && find . -mindepth 1 -depth ! -path ./.made-by-ferry -delete)
  else
    mkdir -p "$2"
  fi
  printf '%s\n' "$1" >"$2/.made-by-ferry"
}

# may_own_folder KIND FOLDER PATTERN...: the same check, and nothing else.
may_own_folder() {
  local kind=$1 folder=$2 entry held
  shift 2
  if [ ! -e "$folder" ] && [ ! -L "$folder" ]; then return; fi
  [ -d "$folder" ] || refuse_folder "$folder: is not a folder; name another"
  [ -n "$(ls -A "$folder")" ] || return 0
  [ "$(cat "$folder/.made-by-ferry" 2>/dev/null)" = "$kind" ] ||
    refuse_folder "$folder: is not empty, and was not made by $kind; name another, or remove it yourself"
  for held in run data begin calm; do
    [ ! -e "$folder/$held/.lock" ] || flock -n "$folder/$held/.lock" true ||
      refuse_folder "$folder/$held: a process works in it that has not ended"
  done
  [ "$*" != '.*' ] || return 0
  while IFS= read -r -d '' entry; do
    entry=${entry#./}
    [ ! -L "$folder/$entry" ] && { matches "$entry" "$@" || made_by_ferry "$folder" "$entry"; } ||
      refuse_folder "$folder/$entry: $kind did not make it; take it elsewhere, or name another folder"
  done < <(cd "$folder" && find . -mindepth 1 ! -path ./.made-by-ferry -print0)
}

# made_by_ferry FOLDER ENTRY: whether a dataset or a run has such an entry. What lies in a checkpoint must
# be listed there.
made_by_ferry() {
  case $2 in
    run/step-*/*)
      local step=${2#run/}
      step=$1/run/${step%%/*}
      [ -d "$1/$2" ] || matches "$2" 'run/[^/]*/(checksums|passport|verified)\.json' ||
        grep -qF "\"${2#run/*/}\"" "$step/checksums.json" 2>/dev/null
      ;;
    *)
      matches "$2" 'data|data/\.lock|data/\.next|data/(\.next/)?(train|held-out)-[^/]*\.tok' \
        'data/(\.next/)?(manifest\.json|tokenizer\.json|held-out\.txt)(\.tmp\..*)?' \
        'data/\.prepare-(hashes|repeated)-[0-9]+\.sort' \
        'run|run/\.lock|run/(metrics\.jsonl|curve\.svg|status\.json)(\.tmp\..*)?' \
        'run/metrics\.([0-9]+\.jsonl|unreadable\.txt)(\.tmp\..*)?' \
        'run/samples|run/samples/step-[0-9]+\.txt(\.tmp\..*)?' \
        'run/tensorboard|run/tensorboard/events\..*' 'run/step-[0-9]+|run/\.step-[0-9]+\.(tmp|old|trash)\..*'
      ;;
  esac
}

# matches TEXT PATTERN...
matches() {
  local text=$1 pattern
  shift
  for pattern in "$@"; do
    [[ ! $text =~ ^($pattern)$ ]] || return 0
  done
  return 1
}

refuse_folder() {
  printf '%s\n' "$1" >&2
  exit 2
}
