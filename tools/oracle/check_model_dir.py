#!/usr/bin/env python3
"""Opens a model folder in Transformers and compares its logits with stored ones.

    check_model_dir.py DIR LOGITS.safetensors TOKENS.txt [--tolerance 1e-5]

TOKENS.txt holds one sequence of token ids a line (spaces or commas between them);
LOGITS.safetensors holds a float32 tensor [tokens, vocab] named "0", "1", ... per line.
Exits 0 when the largest error relative to the largest logit of its line is within the
tolerance, 1 when it is not, 2 when the inputs do not fit together.
"""
import argparse
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file


def fail(text):
    print(text, file=sys.stderr)
    sys.exit(2)


def read_lines(path):
    lines = []
    with open(path) as f:
        for line in f:
            ids = [int(x) for x in line.replace(",", " ").split()]
            if ids:
                lines.append(ids)
    return lines


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("dir")
    ap.add_argument("logits")
    ap.add_argument("tokens")
    ap.add_argument("--tolerance", type=float, default=1e-5)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--greedy", action="store_true", help="also require the same largest logit at every position")
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    lines = read_lines(args.tokens)
    stored = load_file(args.logits)
    if not lines:
        fail("no token lines")
    if set(stored) != {str(i) for i in range(len(lines))}:
        fail(f"{len(lines)} token lines, but logits are named {sorted(stored)}")

    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        args.dir, dtype=torch.float32, attn_implementation="eager",
        experts_implementation="eager", output_loading_info=True)
    model.eval()
    with open(os.path.join(args.dir, "config.json")) as f:
        layers = json.load(f)["num_hidden_layers"]
    # Transformers leaves the prediction module behind the last layer out.
    extra = [k for k in info["unexpected_keys"] if not k.startswith(f"model.layers.{layers}.")]
    if info["missing_keys"] or extra or info["mismatched_keys"]:
        fail(f"keys: missing {sorted(info['missing_keys'])} unexpected {sorted(extra)} "
             f"mismatched {sorted(map(str, info['mismatched_keys']))}")

    worst, same = 0.0, True
    with torch.no_grad():
        for i, ids in enumerate(lines):
            want = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().numpy()
            got = stored[str(i)]
            if got.dtype != np.float32 or got.shape != want.shape:
                fail(f"tensor {i}: {got.dtype}{list(got.shape)}, expected float32{list(want.shape)}")
            if not np.isfinite(got).all():
                fail(f"tensor {i} holds values that are not finite")
            err = float(np.abs(got - want).max() / np.abs(want).max())
            agree = bool((got.argmax(-1) == want.argmax(-1)).all())
            same = same and agree
            worst = max(worst, err)
            print(f"line {i}: {len(ids)} tokens, relative error {err:.3e}, greedy {'equal' if agree else 'differs'}")
    good = worst <= args.tolerance and (same or not args.greedy)
    print(f"max relative error {worst:.3e} (tolerance {args.tolerance:g}): {'ok' if good else 'FAILED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
