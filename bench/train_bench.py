#!/usr/bin/env python3
"""Training speed of Ferry and of its peer (bench/peer), in one run, for the models S and M.

The peer's variants are tried for a few steps each; the fastest then alternates with Ferry, round by
round, so that both see the same machine. Each side's best round counts for speed, its largest for memory.
The last line is JSON: {"tier": ..., "S": {...}, "M": {...}}, each model with ferry_tokens_per_s,
peer_tokens_per_s, ratio, mfu, ferry_mb, peer_mb, tier. FERRY_CPU=avx2 keeps both sides to AVX2.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
# Steps measured in a round: a round of S takes about ten seconds, one of M a minute.
STEPS = {"S": 12, "M": 2}
VARIANTS = [("eager", "grouped_mm", "bf16"), ("eager", "eager", "bf16"), ("eager", "grouped_mm", "off"),
            ("eager", "grouped_mm_bf16", "bf16"), ("compile", "grouped_mm", "bf16"), ("compile", "eager", "bf16"),
            ("compile", "grouped_mm", "off")]
# What keeps PyTorch (ATen's own loops and torch.compile's, oneDNN, MKL) to the instructions of Ferry's tier.
PEER_ENVIRONMENT = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "plain": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}}

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--ferry", required=True, help="the program")
parser.add_argument("--python", default=sys.executable, help="a Python with the peer's packages")
parser.add_argument("--models", nargs="+", choices=sorted(STEPS), default=sorted(STEPS, reverse=True))
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--variants", nargs="+", type=lambda text: tuple(text.split("/")), default=VARIANTS,
                    help="of the peer, as mode/experts/autocast; all of them take half an hour for M")
parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
args = parser.parse_args()


def last_json(command, environment=None):
    """Runs a command, shows what it says, returns its last line."""
    print("  $", " ".join(map(str, command)), file=sys.stderr, flush=True)
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True,
                          env=dict(os.environ, **(environment or {})))
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        return None
    return json.loads(lines[-1])


def ferry(model, steps, warmup, write_config=None):
    """With a path, also writes the model's config.json there, for the peer: into a new file."""
    more = ["--write-config", write_config] if write_config else []
    return last_json([args.ferry, "bench-train", "--config", HERE / f"{model}.toml", "--steps", steps,
                      "--warmup", warmup, *more], {"FERRY_THREADS": str(args.threads)})


def peer(variant, config, shape, steps, warmup, tokens=None):
    """tokens: of a step, if not the shape's."""
    mode, experts, autocast = variant
    return last_json([args.python, HERE / "peer" / "train_peer.py", "--config", config,
                      "--tokens-per-step", tokens or shape["tokens_per_step"], "--seq-len", shape["sequence_length"],
                      "--micro-batch-tokens", shape["micro_batch_tokens"], "--steps", steps, "--warmup", warmup,
                      "--threads", args.threads, "--mode", mode, "--experts", experts, "--autocast", autocast],
                     PEER_ENVIRONMENT.get(shape["tier"]))


def measure(model, folder):
    config = folder / f"{model}.json"
    shape = ferry(model, 1, 0, config)
    if shape is None:
        sys.exit(f"train_bench: ferry bench-train failed on {model}")
    # One micro-batch a step tells the variants apart as well as the whole step does, sooner.
    tried = {v: peer(v, config, shape, 2, 1, shape["micro_batch_tokens"]) for v in args.variants}
    ran = {v: r for v, r in tried.items() if r is not None}
    for variant in tried.keys() - ran.keys():
        print(f"  {model}: the peer's variant {variant} failed and is left out", file=sys.stderr)
    if not ran:
        sys.exit(f"train_bench: no variant of the peer ran {model}")
    best = max(ran, key=lambda v: ran[v]["best_tokens_per_s"])
    print(f"  {model}: the peer's fastest variant is {best}", file=sys.stderr)
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(ferry(model, STEPS[model], 2))
        theirs.append(peer(best, config, shape, STEPS[model], 2))
    if None in ours or None in theirs:
        sys.exit(f"train_bench: a round of {model} failed")
    fastest = max(ours, key=lambda r: r["tokens_per_s"])
    peer_speed = max(r["tokens_per_s"] for r in theirs)
    return {"ferry_tokens_per_s": round(fastest["tokens_per_s"], 1), "peer_tokens_per_s": round(peer_speed, 1),
            "ratio": round(fastest["tokens_per_s"] / peer_speed, 3), "mfu": fastest["mfu"],
            "ferry_mb": max(r["peak_mb"] for r in ours), "peer_mb": max(r["peak_mb"] for r in theirs),
            "tier": shape["tier"], "peer_variant": "/".join(best), "rounds": args.rounds,
            "ferry_rounds": [r["tokens_per_s"] for r in ours], "peer_rounds": [r["tokens_per_s"] for r in theirs]}


with tempfile.TemporaryDirectory() as temporary:
    result = {model: measure(model, pathlib.Path(temporary)) for model in args.models}
print(json.dumps({"tier": next(iter(result.values()))["tier"], **result}))
