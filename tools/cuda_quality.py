#!/usr/bin/env python3
"""What can be said without a clock of the CUDA kernels for tensor cores: a table in Markdown, as docs/cuda.md has it.

usage: tools/cuda_quality.py PTXAS [--check FILE.md]

Registers, spilled bytes and shared memory are what PTXAS says of the committed PTX; from them follows how many blocks a
multiprocessor holds. The roofline is computed from the kernels' tiles and from numbers about chips that are named below,
which others published: nothing here was measured. With --check, ends with 1 if a line is not in FILE.md as it is.
Needs nothing but Python's standard library.
"""
import argparse
import math
import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Of a multiprocessor, by NVIDIA's tuning guides for Ampere and Hopper: bytes of shared memory for blocks, of which each
# takes 1 KiB more than it asks for; 64 Ki registers, given to warps by 256; 64 warps; 32 blocks.
SHARED = {"sm_80": 164 << 10, "sm_90a": 228 << 10}
REGISTERS, REGISTERS_UNIT, WARPS, BLOCKS = 64 << 10, 256, 64, 32

# Dense bf16 FLOP/s and multiprocessors of the data sheets (A100 SXM, H100 SXM); bytes per clock that a multiprocessor has
# from its shared memory (tuning guides) and, an assumption from others' microbenchmarks, all of them from the L2 cache.
CHIPS = {
    "A100": {"flops": 312e12, "multiprocessors": 108, "clock": 1.41e9, "shared": 128, "l2_bytes_s": 4.0e12},
    "H100": {"flops": 989e12, "multiprocessors": 132, "clock": 1.83e9, "shared": 128, "l2_bytes_s": 5.5e12},
}


def constant(path, name):
    """An integer constant of a header."""
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        found = re.search(rf"\b{name} = (\d+)", file.read())
    if not found:
        sys.exit(f"{path} has no {name}")
    return int(found.group(1))


def kernels(ptxas, chip):
    """name -> (registers, spilled bytes, shared bytes), of the kernels for tensor cores."""
    out = {}
    for op in ("matmul", "grouped_linear"):
        path = os.path.join(TOP, "src", "ops", op, f"{op}_cuda.ptx")
        said = subprocess.run([ptxas, f"-arch={chip}", "-v", "-o", os.devnull, path],
                              capture_output=True, text=True, check=True).stderr
        for part in said.split("Compiling entry function ")[1:]:
            name = part.split("'")[1]
            if "tensor" not in name:
                continue
            spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", part))
            out[name] = (int(re.search(r"Used (\d+) registers", part).group(1)), spilled,
                         int(re.search(r"(\d+) bytes smem", part).group(1)))
    return out


def blocks_held(registers, shared, threads, chip):
    """How many blocks of a kernel a multiprocessor holds at a time."""
    warps = threads // 32
    of_warp = math.ceil(registers * 32 / REGISTERS_UNIT) * REGISTERS_UNIT
    return min(REGISTERS // (of_warp * warps), SHARED[chip] // (shared + 1024), WARPS // warps, BLOCKS)


def roofline(tile_m, tile_n, warp_m, warp_n, chip):
    """Shares of the peak that the kernels' main loop can have, by what bounds it, in the order of the loop's parts."""
    its = CHIPS[chip]
    flops_16 = 2 * tile_m * tile_n * 16  # of a step of 16 of k
    clocks = flops_16 / (its["flops"] / its["multiprocessors"] / its["clock"])
    warps = (tile_m // warp_m) * (tile_n // warp_n)
    shared_bytes = warps * (warp_m + warp_n) * 16 * 2 + (tile_m + tile_n) * 16 * 2  # ldmatrix reads, copies write
    l2_bytes_per_flop = (tile_m + tile_n) * 2 * 16 / flops_16
    return {"shared": min(1, clocks / (shared_bytes / its["shared"])),
            "l2": min(1, its["l2_bytes_s"] / l2_bytes_per_flop / its["flops"])}


def table(ptxas):
    """The lines."""
    threads = constant("src/ops/matmul/matmul_cuda.h", "kTensorThreads")
    tile_m, tile_n = (constant("src/ops/matmul/matmul_cuda.h", n) for n in ("kTensorM", "kTensorN"))
    by_chip = {chip: kernels(ptxas, chip) for chip in SHARED}
    lines = ["| kernel | registers of a thread, sm_80 and sm_90a | spilled bytes | shared bytes | blocks (warps of 64) "
             "of a multiprocessor |", "|---|---|---|---|---|"]
    for name in sorted(by_chip["sm_80"]):
        both = [by_chip[chip][name] for chip in SHARED]
        held = [blocks_held(r, s, threads, chip) for chip, (r, _, s) in zip(SHARED, both)]
        lines.append(f"| {name} | {both[0][0]}, {both[1][0]} | {both[0][1]}, {both[1][1]} | {both[0][2]} | "
                     + ", ".join(f"{h} ({h * threads // 32})" for h in held) + " |")
    lines += ["", "| chip | shared memory allows | the L2 cache allows | so, of the peak in bf16, at most |",
              "|---|---|---|---|"]
    for chip, its in CHIPS.items():
        share = roofline(tile_m, tile_n, tile_m // 2, tile_n // 4, chip)
        least = min(share.values())
        lines.append(f"| {chip} | {share['shared']:.0%} | {share['l2']:.0%} | {least:.0%}: "
                     f"{least * its['flops'] / 1e12:.0f} of {its['flops'] / 1e12:.0f} TFLOP/s |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ptxas")
    parser.add_argument("--check", metavar="FILE.md")
    args = parser.parse_args()
    lines = table(args.ptxas)
    if not args.check:
        print("\n".join(lines))
        return 0
    with open(args.check, encoding="utf-8") as file:
        there = set(file.read().splitlines())
    missing = [line for line in lines if line not in there]
    for line in missing:
        print(f"{args.check} has not: {line}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
