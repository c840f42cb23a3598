#!/usr/bin/env python3
"""What recoveries of a run by several ranks take, from the fault to the next step, for `ferry goodput --measured`.

One run nobody disturbs, for the time of a step, of the checks for silent corruption and of a checkpoint. In another one
ranks are killed, stopped (which stands for a host that says nothing any more), and killed together with the one that
holds their replica, one fault after the other, each when the run is at steps again. When each thing was said stands in
its status.json, when each step was made in its metrics.jsonl. Both runs must have the same losses, to the last digit.
Writes FOLDER/measured.json. Exit status 1 if the losses differ, or a recovery does not come to an end.
"""
import argparse
import datetime
import json
import os
import pathlib
import random
import re
import signal
import statistics
import subprocess
import sys
import time

RANKS = 4
STEADY_S = 8  # of the run that nobody disturbs, at least
SAVED_EVERY = 50  # steps
END_S = 300  # for anything that is waited for, on a machine that has ten times the work that it can do
# How long a rank that says nothing is waited for: it is ended then.
SETTINGS = ["--supervisor.hang_verdict_s=3", "--supervisor.hang_patience_s=4", "--supervisor.restarts=50"]

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--ferry", required=True, help="the program")
parser.add_argument("--folder", required=True, type=pathlib.Path, help="with a dataset in FOLDER/data")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--faults", type=int, default=9, help="ranks killed; of each other kind a third as many, or one")
args = parser.parse_args()


def fail(words):
    sys.exit(f"tools/goodput.py: {words}")


class Run:
    """A launched run, seen from outside."""

    def __init__(self, name):
        self.folder = args.folder / name
        self.log = args.folder / "launched.txt"
        # Of ten micro-batches a step, which four ranks share unevenly.
        command = [args.ferry, "launch", "-n", str(RANKS), "--", "train", "configs/tiny.toml",
                   f"--data.dir={args.folder / 'data'}", f"--checkpoint.dir={self.folder}", "--train.steps=1000000",
                   "--train.tokens_per_step=640", "--train.micro_batch_tokens=64", "--train.evaluate_every=0",
                   f"--checkpoint.every={SAVED_EVERY}", "--checkpoint.keep_last=2", "--log.every=1000", *SETTINGS]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def status(self):
        try:
            return json.loads((self.folder / "status.json").read_text())
        except FileNotFoundError:
            return {}

    def records(self, last=None):
        """Of steps, the last so many or all. What follows the last end of a line is being written."""
        try:
            lines = (self.folder / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        found = (json.loads(line) for line in (lines if last is None else lines[-last:]))
        return [r for r in found if "seconds" in r]

    def wait(self, what, found):
        """Until found() gives something, which is returned."""
        until = time.monotonic() + END_S
        while time.monotonic() < until:
            if self.process.poll() is not None:
                fail(f"the run ended with status {self.process.returncode} while waiting for {what}: {self.said()}")
            if (value := found()) is not None:
                return value
            time.sleep(0.01)
        fail(f"nothing for {END_S} s while waiting for {what}: {self.said()}")

    def said(self):
        return self.log.read_text(errors="replace")

    def at_steps(self, more=3):
        """Until all ranks are at steps, and some more are made; gives the ranks' processes."""
        begin = time.time() * 1000
        self.wait("steps", lambda: len([r for r in self.records(20) if r["unix_ms"] > begin]) >= more or None)

        def whole():
            status = self.status()
            ranks = status.get("ranks", [])
            ready = status.get("stage") == "running" and len(ranks) == RANKS
            return [r["pid"] for r in ranks] if ready and not any(r["ended"] for r in ranks) else None
        return self.wait("all ranks", whole)

    def message(self, since_ms, pattern):
        """When the launcher said it."""
        def said():
            later = (m for m in self.status().get("said", []) if m["unix_ms"] >= since_ms)
            return next((m["unix_ms"] for m in later if re.search(pattern, m["text"])), None)
        return self.wait(f'"{pattern}"', said)

    def step_after(self, since_ms):
        return self.wait("the next step",
                         lambda: next((r["unix_ms"] for r in self.records(400) if r["unix_ms"] >= since_ms), None))

    def end(self):
        """Lets it save; its last line."""
        self.process.terminate()
        if self.process.wait(END_S) != 0:
            fail(f"the run ended with status {self.process.returncode}: {self.said()}")
        return json.loads(self.said().strip().splitlines()[-1])


def undisturbed():
    run = Run("steady")
    try:
        run.at_steps()
        time.sleep(STEADY_S)
        run.wait("two checkpoints", lambda: [r for r in run.records(1) if r["step"] > 2 * SAVED_EVERY] or None)
        result, records = run.end(), run.records()
    finally:
        run.process.kill()
    between = [(b["unix_ms"] - a["unix_ms"], a["step"] % SAVED_EVERY == 0) for a, b in zip(records, records[1:])]
    usual = statistics.median(ms for ms, saved in between if not saved)
    waits = [ms - usual for ms, saved in between if saved]
    return records, {"step_s": statistics.median(r["seconds"] for r in records),
                     "checks_share": result["corruption_checks_share"],
                     "save_s": max(0.0, statistics.mean(waits)) / 1000}


def strike(run, kind, draw):
    """One fault; the seconds until it was told, and from then until the next step."""
    pids = run.at_steps()
    time.sleep(draw.uniform(0.05, 0.5))
    rank = draw.randrange(RANKS)
    # An owner's replica is the next rank.
    struck = [pids[rank], pids[(rank + 1) % RANKS]] if kind == "pair" else [pids[rank]]
    begin = int(time.time() * 1000)
    for pid in struck:
        os.kill(pid, signal.SIGSTOP if kind == "silent" else signal.SIGKILL)
    if kind == "pair":
        told = placed = run.message(begin, "starting again from the newest checkpoint")
    else:
        told = run.message(begin, f"rank {rank} was ended by signal 9 ")
        placed = run.message(told, "in place again, .* nothing from a checkpoint")
    stepped = run.step_after(placed)
    return (told - begin) / 1000, (stepped - told) / 1000


def disturbed():
    few = max(1, args.faults // 3)
    kinds = ["process"] * args.faults + ["silent"] * few + ["pair"] * few
    draw = random.Random(args.seed)
    draw.shuffle(kinds)
    seen = {kind: [] for kind in kinds}
    run = Run("run")
    try:
        run.wait("a checkpoint", lambda: next(iter(run.folder.glob("step-*")), None))
        for kind in kinds:
            detect, restart = strike(run, kind, draw)
            print(f"{kind:8} told after {detect:6.3f} s, the next step {restart:6.3f} s later", flush=True)
            seen[kind].append((detect, restart))
        run.at_steps()
        run.end()
    finally:
        run.process.kill()
    measured = {kind: {"faults": len(all_), "detect_s": round(statistics.mean(d for d, _ in all_), 4),
                       "restart_s": round(statistics.mean(r for _, r in all_), 4),
                       "slowest_s": round(max(d + r for d, r in all_), 4)} for kind, all_ in seen.items()}
    return run.records(), measured


def same_losses(calm, struck):
    """How many steps both made. What they came to must be the same."""
    known = {r["step"]: (r["loss"], r["gradient_norm"]) for r in calm}
    both = [r for r in struck if r["step"] in known]
    for r in both:
        if known[r["step"]] != (r["loss"], r["gradient_norm"]):
            fail(f"step {r['step']} has another loss or norm than in the run that nobody disturbed")
    return len(both)


def machine():
    first = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    fields = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    known = {key.strip(): value.strip() for key, value in fields}
    name = known.get("model name", os.uname().machine)
    if "cpu family" in known:
        name += f", family {known['cpu family']}, model {known['model']}"
    return f"{len(os.sched_getaffinity(0))} cores of {name}"


def load():
    return " ".join(f"{x:.1f}" for x in os.getloadavg()[:1])


before = load()
calm, steady = undisturbed()
struck, recoveries = disturbed()
compared = same_losses(calm, struck)
print(f"{compared} steps have the losses and norms of the run that nobody disturbed")
if compared == 0:
    fail("the two runs have no step in common")
document = {"format": 1, "command": f"tools/goodput.py --seed {args.seed} --faults {args.faults}", "machine": machine(),
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
            "load": f"load average {before} before, {load()} after", "settings": SETTINGS, "ranks": RANKS, **steady,
            **recoveries}
(args.folder / "measured.json").write_text(json.dumps(document, indent=2) + "\n")
