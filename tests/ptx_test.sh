#!/usr/bin/env bash
# Each CUDA kernel's committed PTX was made of the sources that lie beside it; and, where the nvcc that made it is
# installed, is what it makes of them. usage: ptx_test.sh TOP
set -euo pipefail
cd "$1"
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
wrong=0

for source in src/ops/*/*_cuda.cu; do
  text=${source%.cu}.ptx
  if [ ! -e "$text" ] || ! head -n 1 "$text" | grep -qF "$source ($(tools/ptx.sh --digest "$source"))"; then
    echo "$text was not made of $source as it is: ./run ptx"
    wrong=1
  fi
done
for text in src/ops/*/*_cuda.ptx; do
  [ -e "${text%.ptx}.cu" ] || { echo "$text has no source: remove it"; wrong=1; }
done
[ "$wrong" = 0 ] || exit 1

nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
made_with=$(head -qn 1 src/ops/*/*_cuda.ptx | sed 's/.* with nvcc //' | sort -u)
if [ ! -x "$nvcc" ] || [ "$("$nvcc" --version | sed -n 's/.*release [0-9.]*, V//p')" != "$made_with" ]; then
  echo "nvcc $made_with is not installed: the texts' sources were compared, not what it makes of them"
  exit 0
fi
tools/ptx.sh "$nvcc" --out "$top"
for text in src/ops/*/*_cuda.ptx; do
  diff -u "$text" "$top/${text##*/}" || { echo "$text is not what nvcc makes: ./run ptx"; wrong=1; }
done
tools/cuda_quality.py "$(dirname "$nvcc")/ptxas" --check docs/cuda.md ||
  { echo "docs/cuda.md is not what tools/cuda_quality.py prints"; wrong=1; }
exit "$wrong"
