#!/usr/bin/env python3
"""Lets PEFT open an adapter that Ferry trained, with its base, and compares logits.
Usage: check_adapter.py DIR ADAPTER LOGITS.safetensors TOKENS.txt [TOLERANCE]

LOGITS are what `ferry logits DIR --adapter ADAPTER --tokens TOKENS.txt --dtype f32` writes: "0", "1", ... per line.
Every tensor of the file must have found its place. Exits 0 within the tolerance (1e-5 of the largest), 1 beyond it."""

import os
import sys
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import peft
import torch
import transformers
from safetensors.numpy import load_file


def main():
    directory, adapter, logits, tokens = sys.argv[1:5]
    tolerance = float(sys.argv[5]) if len(sys.argv) > 5 else 1e-5
    transformers.logging.set_verbosity_error()
    base = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing.*keys.*")  # what PEFT says of tensors that it misses
        model = peft.PeftModel.from_pretrained(base, adapter).eval()
    held = {k for k in peft.get_peft_model_state_dict(model)}
    stored = load_file(os.path.join(adapter, "adapter_model.safetensors"))
    if held != set(stored):
        print("other tensors:", sorted(held ^ set(stored)))
        return 1
    got = load_file(logits)
    worst = 0.0
    with open(tokens, encoding="utf-8") as f:
        lines = [[int(x) for x in line.replace(",", " ").split()] for line in f if line.strip()]
    with torch.no_grad():
        for i, ids in enumerate(lines):
            ids = torch.tensor([ids])
            want = model(input_ids=ids, use_cache=False).logits[0].double().numpy()
            with model.disable_adapter():
                plain = model(input_ids=ids, use_cache=False).logits[0].double().numpy()
            largest = np.abs(want).max()
            worst = max(worst, float(np.abs(got[str(i)] - want).max() / largest))
            print(f"line {i}: the adapter changes {np.abs(plain - want).max() / largest:.3f} of the largest logit")
    print(f"peft {peft.__version__}: {len(stored)} tensors, largest relative error {worst:.3e} (tolerance {tolerance:g})")
    return 0 if worst <= tolerance else 1


sys.exit(main())
