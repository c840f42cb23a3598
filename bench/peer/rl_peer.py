#!/usr/bin/env python3
"""GRPO by TRL's GRPOTrainer on the CPU, on a model directory and a file of tasks of Ferry's: the speed of its steps.

A task is right where the answer, without white space around it, is the task's. Prints one JSON line; tokens are counted
as Ferry counts them: those of the answers, and those that are run for gradients, prompts included.
"""
import argparse
import json
import os
import sys
import time

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", required=True)
parser.add_argument("--tasks", required=True)
parser.add_argument("--groups", type=int, required=True)
parser.add_argument("--group-size", type=int, required=True)
parser.add_argument("--tokens-max", type=int, required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--steps", type=int, default=3, help="measured steps")
parser.add_argument("--warmup", type=int, default=1)
parser.add_argument("--micro", type=int, default=0, help="answers of a micro-batch; 0: all of a step")
parser.add_argument("--autocast", choices=["bf16", "off"], default="bf16")
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import tempfile

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

torch.set_num_threads(args.threads)
torch.manual_seed(1)
tokenizer = AutoTokenizer.from_pretrained(args.model)
if tokenizer.pad_token is None:
    tokenizer.pad_token = tokenizer.eos_token
with open(args.tasks, encoding="utf-8") as lines:
    tasks = [json.loads(line) for line in lines]
data = Dataset.from_list([{"prompt": t.get("messages") or t["prompt"], "expected": t["answer"]} for t in tasks])
counted = {"answers": 0, "trained": 0}  # tokens since the last step


def reward(prompts, completions, completion_ids, expected, **_):
    for prompt, ids in zip(prompts, completion_ids):
        asked = (tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else
                 tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"])
        counted["answers"] += len(ids)
        counted["trained"] += len(asked) + len(ids) - 1
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [float(t.strip() == e) for t, e in zip(texts, expected)]


class Clock(TrainerCallback):
    def __init__(self):
        self.steps = []

    def on_step_begin(self, *_, **__):
        self.begin = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.steps.append((counted["answers"] + counted["trained"], time.perf_counter() - self.begin))
        counted.update(answers=0, trained=0)
        print(f"  step {len(self.steps)}: {self.steps[-1][0]} tokens, {self.steps[-1][1]:.1f} s", file=sys.stderr)


answers = args.groups * args.group_size
micro = args.micro or answers
with tempfile.TemporaryDirectory() as folder:
    config = GRPOConfig(
        output_dir=folder, use_cpu=True, bf16=args.autocast == "bf16", max_steps=args.warmup + args.steps, learning_rate=args.lr,
        lr_scheduler_type="constant", per_device_train_batch_size=micro, gradient_accumulation_steps=answers // micro,
        num_generations=args.group_size, max_completion_length=args.tokens_max, temperature=1.0, beta=0.0, epsilon=0.2,
        epsilon_high=0.28, loss_type="dapo", scale_rewards="group", logging_strategy="no", save_strategy="no",
        report_to=[], gradient_checkpointing=False, seed=1)
    clock = Clock()
    GRPOTrainer(model=AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32), reward_funcs=reward,
                args=config, train_dataset=data, processing_class=tokenizer, callbacks=[clock]).train()
measured = clock.steps[args.warmup:]
tokens, seconds = sum(t for t, _ in measured), sum(s for _, s in measured)
print(json.dumps({"tokens_per_s": tokens / seconds, "steps": len(measured), "tokens": tokens, "seconds": seconds}))
