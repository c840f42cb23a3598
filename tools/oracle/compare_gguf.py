#!/usr/bin/env python3
"""Logits of Ferry and of llama.cpp for the same small GGUF files of random weights: each architecture in each type of
element.

Ferry is asked twice: with the file's numbers, in float32, and as it answers by default: with the file's codes and
activations of 8 bits, or in bfloat16. llama.cpp computes in F32 with files of that type, and rounds activations to 16 or
8 bits with others. A case passes if in F32 logits agree within 1e-3 of the largest, and in other types if llama.cpp's
mean KL divergence from Ferry's numbers is at most four times what Ferry's own rounding of activations makes it (in the
larger blocks of the types K an outlier costs its neighbours more). The last line is JSON.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from llama_cpp import Llama

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "bench"))
import random_gguf  # noqa: E402

COMMON = {"hidden": 256, "inner": 512, "heads": 4, "vocab": 320, "positions": 512}
LLAMA = {**COMMON, "layers": 3, "kv_heads": 2, "head": 64}
MLA = {**COMMON, "arch": "deepseek2", "layers": 3, "dense": 1, "latent": 256, "nope": 128, "rope": 64, "value": 128,
       "experts": 8, "used": 3, "shared": 1, "expert_inner": 256, "yarn": 8.0, "original": 64}
SHAPES = {
    "llama": {**LLAMA, "arch": "llama"},
    "qwen2": {**LLAMA, "arch": "qwen2"},
    # Without queries of low rank llama.cpp reads files of 26 and 27 blocks only.
    "v2-lite": {**MLA, "layers": 26},
    "v2-lite, one kv_b": {**MLA, "layers": 26, "split": False},
    "v2": {**MLA, "q_lora": 256},
    "v3": {**MLA, "q_lora": 256, "sigmoid": True, "scale": 2.5, "groups": 4, "groups_used": 2},
}
TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"]
F32_CACHE = 0  # as ggml numbers types

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--ferry", required=True, help="the program")
parser.add_argument("--types", nargs="+", choices=TYPES, default=TYPES)
parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
args = parser.parse_args()


def theirs(path, ids):
    llama = Llama(str(path), n_ctx=len(ids), n_batch=len(ids), logits_all=True, verbose=False, type_k=F32_CACHE,
                  type_v=F32_CACHE)
    llama.eval(ids)
    logits = np.array(llama.scores[:len(ids)], np.float64)
    llama.close()
    return logits


def ours(path, ids, folder, *options):
    tokens, out = folder / "ids.txt", folder / "logits.safetensors"
    tokens.write_text(" ".join(map(str, ids)))
    out.unlink(missing_ok=True)
    subprocess.run([args.ferry, "logits", path, "--tokens", tokens, "--out", out, *options],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    data = out.read_bytes()
    size = int.from_bytes(data[:8], "little")
    place = json.loads(data[8:8 + size])["0"]
    begin, end = (8 + size + o for o in place["data_offsets"])
    return np.frombuffer(data[begin:end], np.float32).reshape(place["shape"]).astype(np.float64)


def mean_kl(p, q):
    p, q = (x - np.logaddexp.reduce(x, axis=1, keepdims=True) for x in (p, q))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


rows, bad = {}, 0
with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    ids = [int(i) for i in np.random.default_rng(3).integers(0, COMMON["vocab"], 100)]
    for shape in args.shapes:
        for kind in args.types:
            path = folder / "model.gguf"
            random_gguf.write(path, SHAPES[shape], random_gguf.NAMES[kind])
            floats = "16" in kind
            peer, numbers = theirs(path, ids), ours(path, ids, folder, "--dtype", "f32", "--quantize", "none")
            kept = ours(path, ids, folder, "--dtype", "bf16" if floats else "f32")
            row = {"kl": mean_kl(numbers, peer), "kl_of_own_rounding": mean_kl(numbers, kept),
                   "largest": float(np.abs(numbers - peer).max() / np.abs(numbers).max()),
                   "same_choice": float((numbers.argmax(1) == peer.argmax(1)).mean())}
            row["within"] = (row["largest"] <= 1e-3 if kind == "F32"
                             else row["kl"] <= 4 * row["kl_of_own_rounding"])
            bad += not row["within"]
            rows[f"{shape} {kind}"] = row
            print(f"{shape:20} {kind:5} KL {row['kl']:.2e}, of Ferry's own rounding {row['kl_of_own_rounding']:.2e}, largest "
                  f"difference {row['largest']:.1e}, same choice {100 * row['same_choice']:.0f} %"
                  f"{'' if row['within'] else '  NOT WITHIN'}", flush=True)
print(json.dumps({"cases": rows, "not_within": bad}))
raise SystemExit(1 if bad else 0)
