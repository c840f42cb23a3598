#!/usr/bin/env python3
"""Trains two steps with each setting of the router and of RoPE, and compares with Transformers.

    check_settings.py FERRY DATA_DIR [WORD]

DATA_DIR is what `ferry data prepare` made with a small vocabulary; only cases whose name holds WORD are
tried. A case passes when Transformers gives the same logits, or when the run's first lines say that it
will not. Exits 1 if any case does neither. Needs what requirements.txt names.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

MODEL = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_nextn_predict_layers": 0, "num_attention_heads": 2,
    "q_lora_rank": 0, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "intermediate_size": 64, "moe_intermediate_size": 32, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": "true",
    "routed_scaling_factor": 1.5, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "max_position_embeddings": 128, "initializer_range": 0.2, "tie_word_embeddings": "false",
}
RUN = """[data]
sequence_length = 64
[train]
steps = 2
tokens_per_step = 256
micro_batch_tokens = 256
evaluate_tokens = 512
compute = "f32"
[schedule]
warmup_steps = 1
decay_steps = 0
[log]
tensorboard = false
curve = false
"""


def cases():
    for scoring in ("sigmoid", "softmax"):
        for method in ("noaux_tc", "greedy", "group_limited_greedy"):
            for norm in ("true", "false"):
                groups = {} if method == "greedy" else {"n_group": 2}
                yield f"{scoring} {method} {norm}", {
                    "scoring_func": scoring, "topk_method": method, "norm_topk_prob": norm, **groups}
    yarn = {"rope_scaling.type": "yarn", "rope_scaling.factor": 4,
            "rope_scaling.original_max_position_embeddings": 32}
    m, a = "rope_scaling.mscale", "rope_scaling.mscale_all_dim"
    others = {
        "freq2": {"moe_layer_freq": 2}, "tied": {"tie_word_embeddings": "true"},
        "mtp": {"num_nextn_predict_layers": 1}, "qlora": {"q_lora_rank": 16},
        "dense": {"first_k_dense_replace": 3}, "yarn": yarn, "yarn both": {**yarn, m: 1, a: 0.7},
        "yarn first 0": {**yarn, m: 0, a: 0.7}, "yarn second": {**yarn, a: 0.7}, "yarn first": {**yarn, m: 0.7},
    }
    v2 = {"scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": "false"}
    for name, settings in others.items():
        yield "v3 " + name, settings
        yield "v2 " + name, {**v2, **settings}


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    ferry, data, word = sys.argv[1], sys.argv[2], (sys.argv + [""])[3]
    check = pathlib.Path(__file__).with_name("check_model_dir.py")
    bad = 0
    for name, settings in cases():
        if word not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            (path / "run.toml").write_text(RUN)
            (path / "ids").write_text("1 5 8 100 22 45 67 89 11 200 150 33 44 55 66 77\n")
            train = [ferry, "train", path / "run.toml", f"--data.dir={data}", f"--checkpoint.dir={path}/run"]
            train += [f"--model.{key}={value}" for key, value in {**MODEL, **settings}.items()]
            said = subprocess.run(train, check=True, capture_output=True, text=True).stdout
            told = "Transformers does not honour" in said
            model = path / "run/step-00000002"
            subprocess.run([ferry, "logits", model, "--tokens", path / "ids", "--dtype", "f32",
                            "--out", path / "logits"], check=True, capture_output=True)
            same = subprocess.run([sys.executable, check, model, path / "logits", path / "ids"],
                                  capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
            wrong = (same.returncode == 0) == told
            bad += wrong
            print(f"{name:<40} {'same logits' if same.returncode == 0 else 'other logits':<13}"
                  f"{', told' if told else ''}{'   WRONG' if wrong else ''}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
