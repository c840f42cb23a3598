#!/usr/bin/env python3
"""Golden files of LoRA: adapters that PEFT made and saved, of the small models of make_goldens.py, with the logits
and the gradients that PEFT gets with them. Usage: make_adapter_goldens.py [testdata/goldens/adapters]

Each NAME/ holds adapter_config.json and adapter_model.safetensors as save_pretrained writes them, and
expected.safetensors: logits [tokens, vocab], loss [1], and grad.TENSOR for each of the adapter's tensors. The base is
the model of ../BASE.json, whose tokens are those of ../BASE.safetensors. Needs peft beside requirements.txt."""

import json
import os
import sys

import numpy as np
import peft
import torch
from safetensors.numpy import load_file, save_file

from configs import GOLDENS
from make_goldens import MIN_MARGIN, Recorder, build, param_table, step_loss

# PEFT takes gate_proj, up_proj and down_proj of a model with experts for those of the experts.
LATENT = ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]
ADAPTERS = {
    # name: (base, settings of LoraConfig)
    "llama_qv": ("llama_plain", {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}),
    "qwen2_all": ("qwen2_tied", {"r": 3, "lora_alpha": 5, "target_modules": "all-linear", "use_rslora": True}),
    "v3_latent": ("v3_full", {"r": 2, "lora_alpha": 4, "target_modules": LATENT, "lora_dropout": 0.1}),
}


def make(name, base, settings, out):
    goldens = os.path.join(out, "..")
    with open(os.path.join(goldens, base + ".json"), encoding="utf-8") as f:
        document = json.load(f)
    cfg = GOLDENS[base][0]
    ids = torch.from_numpy(load_file(os.path.join(goldens, base + ".safetensors"))["tokens"].astype(np.int64))[None]
    model = build(cfg, param_table(cfg), document["seed"], torch.float32)
    recorder = Recorder(model, cfg)
    model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    generator = torch.Generator().manual_seed(7)
    factors = {}
    for full, p in model.named_parameters():
        if not p.requires_grad:
            continue
        with torch.no_grad():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator) / np.sqrt(p.shape[1]))
        factors[full.replace(".default", "")] = p
    logits, loss = step_loss(model, ids)
    assert recorder.margin() >= MIN_MARGIN, recorder.margin()
    loss.backward()
    with torch.no_grad(), model.disable_adapter():
        without, _ = step_loss(model, ids)
    assert (without - logits).abs().max() > 0.05 * logits.abs().max(), "the adapter changes too little"
    folder = os.path.join(out, name)
    model.save_pretrained(folder)
    os.remove(os.path.join(folder, "README.md"))
    stored = load_file(os.path.join(folder, "adapter_model.safetensors"))
    assert set(stored) == set(factors), set(stored) ^ set(factors)
    config_path = os.path.join(folder, "adapter_config.json")
    with open(config_path, encoding="utf-8") as f:
        config = json.load(f)
    config["target_modules"] = sorted(config["target_modules"])  # a set: else other bytes each time
    config["base_model_name_or_path"] = base  # not a temporary folder
    with open(config_path, "w", encoding="utf-8") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")
    expected = {"logits": logits.detach().numpy(), "loss": np.array([loss.item()], np.float32)}
    expected.update({"grad." + n: p.grad.numpy() for n, p in factors.items()})
    path = os.path.join(folder, "expected.safetensors")
    save_file({k: np.ascontiguousarray(v) for k, v in expected.items()}, path)
    os.chmod(path, 0o644)
    print(f"{name}: peft {peft.__version__}, {len(factors)} tensors, loss {loss.item():.4f}")


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "testdata/goldens/adapters"
    os.makedirs(out, exist_ok=True)
    for name, (base, settings) in ADAPTERS.items():
        make(name, base, settings, out)


main()
