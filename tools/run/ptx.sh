# ./run ptx: the CUDA kernels' PTX. Sourced by ./run, whose functions it uses.

# What nvcc consists of on PyPI: compiler, its front-end, and the headers that every .cu includes.
nvcc_packages=(nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96)

# nvcc of this machine, or fetched once into the cache folder: sets `nvcc`.
find_nvcc() {
  # Another version writes PTX that drivers of this one do not read.
  for nvcc in "$(command -v nvcc)" /usr/local/cuda/bin/nvcc; do
    [ ! -x "$nvcc" ] || ! "$nvcc" --version | grep -q 'release 13\.0,' || return 0
  done
  local folder
  folder=$(cache_folder "${nvcc_packages[0]}")
  nvcc=$folder/nvidia/cu13/bin/nvcc
  [ ! -x "$nvcc" ] || return 0
  packages ptx
  say "Fetching nvcc from PyPI into $folder (once)"
  local work=$folder.fetching
  rm -rf "$work"
  mkdir -p "$work"
  python3 -m venv "$work/python"
  "$work/python/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --target "$work/packages" "${nvcc_packages[@]}" || die "nvcc could not be fetched: is the network there?"
  mv "$work/packages" "$folder"
  rm -rf "$work"
  [ -x "$nvcc" ] || die "${nvcc_packages[0]} holds no nvidia/cu13/bin/nvcc"
}

ptx() {
  packages build
  find_nvcc
  mkdir -p build
  say "Making the kernels' PTX with $nvcc"
  tools/ptx.sh "$nvcc"
  say "Assembling it for Ampere and Hopper: it must, without spilled registers"
  local chip text
  for chip in sm_80 sm_90a; do
    for text in src/ops/*/*_cuda.ptx; do
      "${nvcc%/*}/ptxas" -arch=$chip -v -o /dev/null "$text" 2>build/ptxas.log || { cat build/ptxas.log; die "$text, for $chip"; }
      ! grep 'spill stores' build/ptxas.log | grep -qv ' 0 bytes spill stores' || die "$text spills registers on $chip"
    done
  done
  git diff --stat -- 'src/ops/*.ptx'
}
