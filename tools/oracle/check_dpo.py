#!/usr/bin/env python3
"""Learns the same pairs of answers with `ferry train` and with TRL's DPOTrainer, and compares each step.

    check_dpo.py FERRY MODEL_DIR

MODEL_DIR is a model directory with a chat template that writes nothing behind an answer's end token (TRL learns that,
too) and whose prompts end where a token does (TRL takes tokens that reach into the answer from the prompt). Both begin from it in float32 and take every pair in each step, so that their order does not matter, with the
same AdamW. Exits 1 if a loss, or a figure that both report, is apart by more than a ten-thousandth of the
largest; a token that nearly chooses other experts may do so in one of them, which shows as a jump in one step.
Needs what requirements.txt names, and trl 1.16.0.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
STEPS = 8
LR = 3e-4
RUN = f"""[data]
sequence_length = 128
[train]
steps = {STEPS}
tokens_per_step = 1024
micro_batch_tokens = 1024
compute = "f32"
balance_alpha = 0
bias_update_speed = 0
clip = 1
[optimizer]
lr = {LR}
beta1 = 0.9
beta2 = 0.999
weight_decay = 0
[schedule]
warmup_steps = 0
decay_steps = 0
[checkpoint]
every = 0
[log]
tensorboard = false
curve = false
"""
LOSSES = [
    ("sigmoid", {"loss_type": "sigmoid", "beta": 0.3}, {}),
    ("ipo", {"loss_type": "ipo", "beta": 0.5}, {}),
    ("robust", {"loss_type": "robust", "beta": 0.3, "label_smoothing": 0.2}, {}),
    ("sigmoid and sft", {"loss_type": "sigmoid", "beta": 0.3, "rpo_alpha": 0.5},
     {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}),
]
FIGURES = ["loss", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen",
           "logps/rejected"]


def pairs():
    words = ["ferry", "river", "water", "night"]
    for a in words:
        for b in words:
            yield {
                "prompt": [{"role": "user", "content": f"the {a} and the {b}"}],
                "chosen": [{"role": "assistant", "content": a}],
                "rejected": [{"role": "assistant", "content": f"{b} {a} the {b}"}],
            }


def of_ferry(ferry, model, folder, settings):
    (folder / "run.toml").write_text(RUN)
    lines = list(pairs())
    (folder / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in lines))
    command = [ferry, "train", folder / "run.toml", f"--model.init={model}", f"--dpo.pairs={folder}/pairs.jsonl",
               f"--checkpoint.dir={folder}/run", f"--dpo.pairs_per_step={len(lines)}"]
    command += [f"--dpo.{key}={value}" for key, value in settings.items()]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    records = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    return [r for r in records if r["kind"] == "step"]


def of_trl(model, folder, settings, other):
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    torch.set_num_threads(1)
    lines = list(pairs())
    given = {key: value for key, value in settings.items() if key != "rpo_alpha"}
    config = DPOConfig(
        output_dir=str(folder / "trl"), max_steps=STEPS, per_device_train_batch_size=len(lines), learning_rate=LR,
        lr_scheduler_type="constant", adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8, weight_decay=0.0,
        max_grad_norm=1.0, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, bf16=False, fp16=False,
        gradient_checkpointing=False, disable_tqdm=True, **{**given, **other})
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), args=config,
        train_dataset=Dataset.from_list(lines), processing_class=AutoTokenizer.from_pretrained(model))
    trainer.model.config.use_cache = False
    trainer.train()
    return [r for r in trainer.state.log_history if "loss" in r]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    bad = 0
    for name, settings, other in LOSSES:
        with tempfile.TemporaryDirectory() as path:
            folder = pathlib.Path(path)
            ours = of_ferry(sys.argv[1], sys.argv[2], folder, settings)
            theirs = of_trl(sys.argv[2], folder, settings, other)
        assert len(ours) == len(theirs) == STEPS
        for figure in FIGURES:
            largest = max(abs(float(t[figure])) for t in theirs)
            apart = max(abs(o[figure] - float(t[figure])) for o, t in zip(ours, theirs))
            wrong = apart > 1e-4 * max(largest, 1e-2)
            bad += wrong
            print(f"{name:<16} {figure:<20} {theirs[0][figure]:>10.4f} -> {theirs[-1][figure]:>10.4f}   "
                  f"apart {apart:.1e}{'   WRONG' if wrong else ''}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
