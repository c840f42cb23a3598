#!/usr/bin/env python3
"""Speed of answering, of Ferry and of llama.cpp, on the same file of random weights in the shapes of
DeepSeek-R1-Distill-Qwen-1.5B, in one run, round by round so that both see the same machine.

The last line is JSON: for each format and tier a list of rows with ferry, peer, ratio, of_bandwidth.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

import random_gguf

HERE = pathlib.Path(__file__).resolve().parent
SHAPES = {"1.5B": {"layers": 28, "hidden": 1536, "inner": 8960, "heads": 12, "kv_heads": 2, "head": 128,
                   "vocab": 151936, "positions": 4096}}
FORMATS = {"8-bit": (random_gguf.Q8_0, ["--quantize", "int8"]), "bf16": (random_gguf.BF16, [])}

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--ferry", required=True, help="the program")
parser.add_argument("--python", default=sys.executable, help="a Python with llama_cpp and numpy")
parser.add_argument("--folder", required=True, help="where the files of weights are kept")
parser.add_argument("--formats", nargs="+", choices=sorted(FORMATS), default=sorted(FORMATS))
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
args = parser.parse_args()


def last_json(command, environment):
    print("  $", " ".join(map(str, command)), file=sys.stderr, flush=True)
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, env=dict(os.environ, **environment))
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        sys.exit(f"serve_bench: {command[0]} failed")
    return json.loads(lines[-1])


def measure(name, kind):
    code, options = FORMATS[kind]
    path = pathlib.Path(args.folder) / f"random-{name}-{kind}.gguf"
    if not path.exists():
        print(f"Writing {path}", file=sys.stderr)
        partial = path.with_suffix(".partial")
        random_gguf.write_qwen2(partial, SHAPES[name], code)
        partial.rename(path)
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(last_json([args.ferry, "bench-serve", path, *options, "--rounds", 1],
                              {"FERRY_THREADS": str(args.threads)}))
        theirs.append(last_json([args.python, HERE / "peer" / "serve_peer.py", path, "--threads", args.threads,
                                 "--rounds", 1], {}))
    rows = {}
    figures = [("prefill of 512", lambda r: r["prefill_tokens_per_s"])]
    figures += [(f"decode, {n} at once", lambda r, n=n: r["decode_tokens_per_s"][n]) for n in ("1", "8", "16")]
    for row, of in figures:
        a, b = max(map(of, ours)), max(map(of, theirs))
        rows[row] = {"ferry": round(a, 2), "peer": round(b, 2), "ratio": round(a / b, 3)}
    bandwidth = max(r["bandwidth_gb_s"] for r in ours)
    rows["decode, 1 at once"]["of_bandwidth"] = round(
        rows["decode, 1 at once"]["ferry"] * ours[0]["weight_mb"] / 1e3 / bandwidth, 3)
    return {"tier": ours[0]["tier"], "threads": args.threads, "processor": ours[0]["processor"],
            "bandwidth_gb_s": round(bandwidth, 1), "weight_mb": round(ours[0]["weight_mb"], 1),
            "peak_mb": round(max(r["peak_mb"] for r in ours), 1), "peer": "llama.cpp " + theirs[0]["version"],
            "rounds": args.rounds, "rows": rows}


print(json.dumps({f"{name} {kind}": measure(name, kind) for name in SHAPES for kind in args.formats}))
