#!/usr/bin/env python3
"""Speed of answering, of Ferry and of llama.cpp, on the same files of random weights in the shapes of
DeepSeek-R1-Distill-Qwen-1.5B and DeepSeek-V2-Lite, in one run, round by round so that both see the same machine.

Both compute with the file's own codes. The last line is JSON: for each model and format its tier and rows with ferry,
peer, ratio, of_bandwidth (what a token reads of the file, by the read bandwidth measured beside), of_peak (products with
weights, by as many as the processor does from registers; 8 bits but for bf16). Rows are tokens a second;
of "first token" they are seconds, Ferry's from its start as a program, the peer's from its library's first call, and the
ratio is turned over: above 1 Ferry is sooner.
"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import random_gguf

PEER = pathlib.Path(__file__).resolve().parent / "peer" / "serve_peer.py"
SHAPES = {"1.5B": {"arch": "qwen2", "layers": 28, "hidden": 1536, "inner": 8960, "heads": 12, "kv_heads": 2,
                   "head": 128, "vocab": 151936, "positions": 131072},
          "V2-Lite": {"arch": "deepseek2", "layers": 27, "dense": 1, "hidden": 2048, "inner": 10944, "heads": 16,
                      "latent": 512, "nope": 128, "rope": 64, "value": 128, "experts": 64, "used": 6, "shared": 2,
                      "expert_inner": 1408, "vocab": 102400, "positions": 163840, "yarn": 40.0, "original": 4096}}
# Of matrices, and of the head.
FORMATS = {"8-bit": (random_gguf.Q8_0, None), "bf16": (random_gguf.BF16, None),
           "4-bit": (random_gguf.Q4_0, random_gguf.Q8_0)}
CASES = ["1.5B 8-bit", "1.5B bf16", "1.5B 4-bit", "V2-Lite 4-bit"]

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--ferry", required=True, help="the program")
parser.add_argument("--python", default=sys.executable, help="a Python with llama_cpp and numpy")
parser.add_argument("--folder", required=True, help="where the files of weights are kept")
parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
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


def bytes_of_a_token(shape, kind, head):
    """What a token reads: of experts its share, of the embedding next to nothing."""
    return sum(random_gguf.size_of(t, dims) * (shape["used"] / shape["experts"] if "_exps" in name else 1)
               for name, t, dims, _ in random_gguf.tensors_of(shape, kind, head) if name != "token_embd.weight")


def products_of_a_token(shape, kind, head):
    """Multiply-adds with weights that reading a token takes: of experts its share; the head is for the last one alone,
    and attention is left out."""
    return sum(math.prod(dims) * (shape["used"] / shape["experts"] if "_exps" in name else 1)
               for name, _, dims, _ in random_gguf.tensors_of(shape, kind, head)
               if len(dims) > 1 and name not in ("token_embd.weight", "output.weight"))


def first_token(path):
    """Seconds from the start of the program to the end of one with one token, the file in the page cache."""
    with tempfile.TemporaryDirectory() as folder:
        asked = pathlib.Path(folder) / "in.jsonl"
        asked.write_text(json.dumps({"prompt": list(range(2, 18)), "max_tokens": 1, "temperature": 0}) + "\n")
        begin = time.perf_counter()
        subprocess.run([args.ferry, "generate", path, "--batch", asked, "--out", asked.with_name("out.jsonl")],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       env=dict(os.environ, FERRY_THREADS=str(args.threads)))
        return time.perf_counter() - begin


def measure(name, kind):
    code, head = FORMATS[kind]
    shape = SHAPES[name]
    # A file of an earlier shape is another file.
    path = pathlib.Path(args.folder) / f"random-{name}-{kind}-{shape['positions']}.gguf"
    if not path.exists():
        print(f"Writing {path}", file=sys.stderr)
        partial = path.with_suffix(".partial")
        random_gguf.write(partial, shape, code, head)
        partial.rename(path)
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(last_json([args.ferry, "bench-serve", path, "--rounds", 1],
                              {"FERRY_THREADS": str(args.threads)}))
        theirs.append(last_json([args.python, PEER, path, "--threads", args.threads, "--rounds", 1], {}))
    rows = {}
    figures = [("prefill of 512", lambda r: r["prefill_tokens_per_s"])]
    figures += [(f"decode, {n} at once", lambda r, n=n: r["decode_tokens_per_s"][n]) for n in ("1", "8", "16")]
    for row, of in figures:
        a, b = max(map(of, ours)), max(map(of, theirs))
        rows[row] = {"ferry": round(a, 2), "peer": round(b, 2), "ratio": round(a / b, 3)}
    a = min(first_token(path) for _ in range(args.rounds))
    b = min(last_json([args.python, PEER, path, "--threads", args.threads, "--first-token"], {})["first_token_s"]
            for _ in range(args.rounds))
    rows["first token"] = {"ferry": round(a, 3), "peer": round(b, 3), "ratio": round(b / a, 3)}
    bandwidth = max(r["bandwidth_gb_s"] for r in ours)
    # FERRY_CPU=plain has none.
    peak = max(r.get("peak_tops", {}).get("bf16" if kind == "bf16" else "int8", 0) for r in ours)
    if peak > 0:
        rows["prefill of 512"]["of_peak"] = round(
            rows["prefill of 512"]["ferry"] * 2 * products_of_a_token(shape, code, head) / 1e12 / peak, 3)
    rows["decode, 1 at once"]["of_bandwidth"] = round(
        rows["decode, 1 at once"]["ferry"] * bytes_of_a_token(shape, code, head) / 1e9 / bandwidth, 3)
    return {"tier": ours[0]["tier"], "threads": args.threads, "processor": ours[0]["processor"],
            "bandwidth_gb_s": round(bandwidth, 1), "peak_tops": round(peak, 3), "weight_mb": round(ours[0]["weight_mb"], 1),
            "loading_peak_mb": round(max(r["loading_peak_mb"] for r in ours), 1), "peer": "llama.cpp " + theirs[0]["version"],
            "rounds": args.rounds, "rows": rows}


print(json.dumps({case: measure(*case.split()) for case in args.cases}))
