#!/usr/bin/env python3
"""Speed of reinforcement learning beside TRL's GRPOTrainer, in one run: the same model, tasks and settings, on the CPU.

Both sides draw groups of answers at temperature 1 and take one update of all f32 weights from them; Ferry computes in
bf16, the peer in whichever of bf16 and f32 is faster. They take turns, and each side's fastest round counts. A token is
one of an answer, or one that is run for gradients; the rate is theirs by the time of whole steps. The last line is JSON.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--ferry", required=True, help="the program")
parser.add_argument("--python", default=sys.executable, help="a Python with the peer's packages")
parser.add_argument("--model", required=True, help="a model directory that both sides open")
parser.add_argument("--tasks", required=True, help="a file of tasks whose check is exact")
parser.add_argument("--groups", type=int, default=8)
parser.add_argument("--group-size", type=int, default=8)
parser.add_argument("--tokens-max", type=int, default=64)
parser.add_argument("--lr", type=float, default=1e-6)
parser.add_argument("--steps", type=int, default=3, help="measured steps of a round")
parser.add_argument("--variants", nargs="+", default=["0/bf16", "0/off", "8/bf16", "8/off"],
                    help="of the peer: answers of a micro-batch (0: all) and autocast; its fastest counts")
parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
args = parser.parse_args()


def run(command):
    print("  $", " ".join(map(str, command)), file=sys.stderr, flush=True)
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"rl_bench: {command[0]} ended with status {done.returncode}")
    return done.stdout


def ferry():
    with tempfile.TemporaryDirectory() as folder:
        one = pathlib.Path(folder) / "held-out.jsonl"
        one.write_text(pathlib.Path(args.tasks).read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
        config = pathlib.Path(folder) / "rl.toml"
        config.write_text("", encoding="utf-8")
        settings = {
            "model.init": args.model, "rl.tasks": args.tasks, "rl.held_out": one, "checkpoint.dir": folder + "/run",
            "train.steps": args.steps + 1, "train.threads": args.threads, "train.evaluate_every": 0,
            "train.bias_update_speed": 0, "train.balance_alpha": 0, "rl.groups_per_step": args.groups,
            "rl.group_size": args.group_size, "rl.tokens_max": args.tokens_max, "rl.clip_high": 0.28,
            "rl.running": min(256, args.groups * args.group_size), "optimizer.lr": args.lr, "optimizer.weight_decay": 0,
            "schedule.warmup_steps": 0, "schedule.decay_fraction": 0, "log.tensorboard": "false", "log.curve": "false"}
        run([args.ferry, "rl", config, *(f"--{k}={v}" for k, v in settings.items())])
        records = [json.loads(line) for line in open(folder + "/run/metrics.jsonl", encoding="utf-8")]
    steps = [r for r in records if r["kind"] == "step"][1:]
    return sum(r["tokens_per_s"] * r["seconds"] for r in steps) / sum(r["seconds"] for r in steps)


def peer(variant):
    micro, autocast = variant.split("/")
    said = run([args.python, HERE / "peer" / "rl_peer.py", "--model", args.model, "--tasks", args.tasks,
                "--groups", args.groups, "--group-size", args.group_size, "--tokens-max", args.tokens_max,
                "--lr", args.lr, "--steps", args.steps, "--threads", args.threads, "--micro", micro,
                "--autocast", autocast])
    return json.loads(said.strip().splitlines()[-1])["tokens_per_s"]


ours, theirs = [], []
for _ in range(args.rounds):
    ours.append(ferry())
    theirs += [peer(variant) for variant in args.variants]
print(json.dumps({"model": pathlib.Path(args.model).name, "ferry_tokens_per_s": round(max(ours), 1),
                  "peer_tokens_per_s": round(max(theirs), 1), "ratio": round(max(ours) / max(theirs), 2),
                  "ferry_rounds": ours, "peer_rounds": theirs}))
