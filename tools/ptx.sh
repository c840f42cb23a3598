#!/usr/bin/env bash
# Makes src/ops/<op>/<op>_cuda.ptx of <op>_cuda.cu with nvcc. The texts are committed: a build needs no nvcc, and every
# machine has the same kernels. The first line says what a text was made of; tests/ptx_test.sh compares.
# usage: ptx.sh NVCC [--out FOLDER]     all of them, beside their sources or in the folder
#        ptx.sh --digest FILE.cu        what the first line says of the sources
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# -fmad=false -ftz=true, and divisions and roots rounded exactly: the bits are the CPU's (docs/numerics.md).
options=(-ptx -arch=compute_80 -std=c++20 -O3 -fmad=false -ftz=true -prec-div=true -prec-sqrt=true -Isrc --Ofast-compile=min
  -Werror all-warnings)

# sources_of FILE.cu: the source and the headers of Ferry's that it includes, each once.
sources_of() {
  local files=("$1") seen=" $1 " header i
  for ((i = 0; i < ${#files[@]}; ++i)); do
    while read -r header; do
      [[ $seen == *" $header "* ]] || { files+=("$header"); seen+="$header "; }
    done < <(sed -n 's|^#include "\(.*\)"|src/\1|p' "${files[i]}")
  done
  echo "${files[@]}"
}

# digest FILE.cu: of its sources and of the options.
digest() {
  # shellcheck disable=SC2046  # names without blanks
  { cat $(sources_of "$1"); echo "${options[*]}"; } | sha256sum | cut -c1-32
}

if [ "$1" = --digest ]; then
  digest "$2"
  exit
fi
nvcc=$1 out=''
[ "${2:-}" != --out ] || out=$3
version=$("$nvcc" --version | sed -n 's/.*release [0-9.]*, V//p')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for source in src/ops/*/*_cuda.cu; do
  name=${source##*/}
  name=${name%.cu}.ptx
  "$nvcc" "${options[@]}" -o "$work/$name" "$source"
  {
    echo "// Made by ./run ptx of $source ($(digest "$source")) with nvcc $version"
    sed -e '/^\/\//d' -e '/^[[:space:]]*\/\//d' -e '/^[[:space:]]*$/d' "$work/$name"
  } >"$work/whole"
  mv "$work/whole" "${out:-${source%/*}}/$name"
done
