#!/usr/bin/env bash
# tools/crossing_report.py: a crossing is whole only if all of it held; each way in which one may not be is one of these.
# usage: crossing_report_test.sh SOURCE-FOLDER
set -euo pipefail
report=$1/tools/crossing_report.py
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# whole: what the commands say of a crossing that held
whole() {
  printf 'device     software NVIDIA (1), compute bf16\nits device failed\n{"step":40,"loss":5.5}\n' >"$folder/train.txt"
  echo '{"verdict":"passed","description":"software Ascend (1)","tokens":64,"tokens_agree":63,"tokens_near_tie":1}' \
    >"$folder/verify.txt"
  echo '{"verdict":"same","compared_tokens":9,"kl_max":0.1}' >"$folder/server.txt"
  echo '{"device":"software Ascend (1)"}' >"$folder/server.json"
}
# expect STATUS EQUAL WHAT
expect() {
  local status=0
  python3 "$report" "$folder" "$2" >"$folder/said" || status=$?
  [ "$status" = "$1" ] || { echo "$3: exit $status, not $1"; cat "$folder/said"; exit 1; }
}
# spoiled FILE FROM TO WHAT
spoiled() {
  whole
  grep -q "$2" "$folder/$1" || { echo "$4: nothing to spoil in $1"; exit 1; }
  sed -i "s/$2/$3/" "$folder/$1"
  expect 1 true "$4"
}

whole
expect 0 true 'a crossing that held'
expect 1 false 'other bytes than an undisturbed run'
spoiled train.txt NVIDIA Ascend 'trained elsewhere'
spoiled train.txt 'its device failed' 'all went well' 'no fault came'
spoiled verify.txt passed failed 'verify was not content'
spoiled verify.txt Ascend NVIDIA 'verified elsewhere'
spoiled verify.txt '"tokens_agree":63' '"tokens_agree":62' 'a token parted'
spoiled verify.txt '"tokens":64' '"tokens":0' 'no token was compared'
spoiled verify.txt '.*' '' 'verify said nothing'
spoiled server.txt same differs 'the server answers otherwise'
spoiled server.txt '.*' '' 'verify --server said nothing'
spoiled server.json 'software Ascend (1)' cpu 'served elsewhere'
echo 'crossing_report.py: 1 whole, 11 that are not'
