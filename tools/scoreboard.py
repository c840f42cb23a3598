#!/usr/bin/env python3
"""Plants the defects and mutants of software Ascend one by one and counts whom the doctor names.

usage: tools/scoreboard.py FERRY SIM-FOLDER [--model DIR] [--jobs N] [--seeds N] [--only TEXT] [--json FILE]

FERRY is the program, SIM-FOLDER holds libascendcl.so, libnnopbase.so and libopapi.so. With --model, `ferry verify`
is asked about what the doctor did not find. The last line is JSON. Needs nothing but Python's standard library.
"""
import argparse
import concurrent.futures
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time

# What the doctor calls the parts of the runtime.
RUNTIME = {
    "MemcpyAsync": ("copies",),
    "MemsetAsync": ("fills",),
    "SynchronizeStream": ("streams",),
    "RecordEvent": ("streams",),
}


def lists_of(folder):
    """The simulator's own lists of what can be planted: (name, op, what it does)."""
    for library in ("libascendcl.so", "libnnopbase.so", "libopapi.so"):
        handle = ctypes.CDLL(os.path.join(folder, library), mode=ctypes.RTLD_GLOBAL)
        if library == "libascendcl.so":
            runtime = handle
    runtime.ferrySoftwareAscendList.restype = ctypes.c_char_p

    def read(what):
        text = runtime.ferrySoftwareAscendList(what.encode()).decode()
        return [tuple(line.split("\t")) for line in text.splitlines()]

    return read("defects"), read("mutants")


class Board:
    def __init__(self, args):
        self.args = args
        # What these doctors find is noted in a folder of their own, not in the user's.
        self.state = tempfile.TemporaryDirectory()
        self.base = dict(os.environ, FERRY_ASCEND_LIBRARIES=os.path.abspath(args.sim), FERRY_THREADS="1",
                         XDG_STATE_HOME=self.state.name)

    def run(self, command, **planted):
        env = dict(self.base, **{"FERRY_ASCEND_SIM_" + k: v for k, v in planted.items()})
        done = subprocess.run([self.args.ferry] + command, env=env, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=1800)
        lines = done.stdout.strip().splitlines()
        try:
            last = json.loads(lines[-1]) if lines else {}
        except json.JSONDecodeError:
            last = {}
        return done.returncode, last, done.stderr

    def doctor(self, *more, **planted):
        # A check of the quick list takes less than a second, on a busy machine a few: one that waits in vain must
        # not hold the board up.
        return self.run(["doctor", "--device", "ascend", "--quick", "--limit", "60s", "--json", "-", *more], **planted)

    def examine(self, planted):
        """The doctor's culprits: the quick list first, then a longer look at what that did not find."""
        for more in (["--first-level", "--soak", "0"], ["--soak", "12s"]):
            code, report, error = self.doctor(*more, **planted)
            if code not in (0, 1):
                return "error", error.strip()[-200:] or f"exit {code}", report
            if report.get("culprits"):
                return "doctor", report["culprits"][0], report
        if self.args.model:
            code, report, error = self.run(["verify", self.args.model, "--device", "ascend"], **planted)
            if code not in (0, 1):
                return "error", error.strip()[-200:] or f"exit {code}", report
            if code == 1:
                return "verify", report.get("first") or report, report
        return "nobody", {}, report


def calls_of(kernel, report):
    """The library calls that a kernel made in the checks that failed."""
    calls = set()
    for outcome in report.get("outcomes", []):
        if outcome["problems"]:
            for use in outcome["used"]:
                if use["kernel"] == kernel:
                    calls.update(use["calls"])
    return calls


def named_right(op, culprit, report):
    """Whether the culprit is the op that was spoiled.

    The library's call, by name. Or, for an op that only one kernel makes use of, that kernel (a fused op has no level
    of its own below the kernel that calls it). For the runtime, its part. What spoils any op names no op."""
    if op == "any":
        return True
    if op in RUNTIME:
        return culprit.get("op") in RUNTIME[op]
    call = "aclnn" + op
    if culprit.get("call"):
        return culprit["call"] == call
    return bool(culprit.get("kernel")) and call in calls_of(culprit["kernel"], report)


def describe(culprit):
    if not isinstance(culprit, dict):
        return str(culprit)
    parts = [culprit.get(k) for k in ("op", "kernel", "call")]
    return " / ".join(dict.fromkeys(p for p in parts if p)) or "-"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ferry")
    parser.add_argument("sim")
    parser.add_argument("--model", help="a model directory with a passport, for ferry verify")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", default="", help="defects and mutants whose name holds this")
    parser.add_argument("--skip-mutants", action="store_true")
    parser.add_argument("--json", help="write every result here")
    args = parser.parse_args()
    board = Board(args)
    defects, mutants = lists_of(args.sim)
    begin = time.monotonic()
    results = {"defects": [], "mutants": [], "seeds": []}

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        def each(what, entries, work):
            futures = {pool.submit(work, e): e for e in entries}
            for future in concurrent.futures.as_completed(futures):
                row = future.result()
                results[what].append(row)
                print(row["line"], flush=True)

        def seed(number):
            code, report, error = board.doctor("--soak", "1s", SEED=str(number))
            alarm = code != 0
            culprit = report.get("culprits", [{}])[0] if report.get("culprits") else error.strip()[-200:]
            return {"name": number, "alarm": alarm,
                    "line": f"seed {number:<4} {'ALARM ' + describe(culprit) if alarm else 'no alarm'}"}

        def planted(entry, variable):
            name, op, what = entry
            who, culprit, report = board.examine({variable: name})
            found = who in ("doctor", "verify")
            named = found and named_right(op, culprit, report)
            verdict = "named" if named else "found" if found else "ERROR" if who == "error" else "MISSED"
            return {"name": name, "op": op, "what": what, "by": who, "found": found, "named": named,
                    "culprit": culprit,
                    "line": f"{name:<34} {op:<28} {verdict:<7} {who:<7} {describe(culprit)}"}

        if not args.only:
            print(f"Nothing planted, {args.seeds} seeds")
            each("seeds", range(1, args.seeds + 1), seed)
        print("\nPlanted defects: name, op, result, by whom, whom it names")
        each("defects", [d for d in defects if args.only in d[0]], lambda e: planted(e, "DEFECT"))
        if not args.skip_mutants:
            print("\nMutants: name, op, result, by whom, whom it names")
            each("mutants", [m for m in mutants if args.only in m[0]], lambda e: planted(e, "MUTANT"))

    found = sum(r["found"] for r in results["defects"])
    named = sum(r["named"] for r in results["defects"])
    leaving = [r for r in results["mutants"] if r["found"]]
    within = [r["name"] for r in results["mutants"] if not r["found"]]
    summary = {
        "planted": len(results["defects"]), "found": found, "named": named,
        "mutants": len(leaving), "mutants_named": sum(r["named"] for r in leaving),
        "mutants_within": len(within),
        "false_alarms": sum(r["alarm"] for r in results["seeds"]), "seeds": len(results["seeds"]),
        "seconds": round(time.monotonic() - begin),
    }
    print(f"\nDefects: {found} of {summary['planted']} found, {named} named right")
    print(f"Mutants: {len(leaving)} leave the tolerance, {summary['mutants_named']} of them named right; "
          f"{len(within)} stay within it or are never met: {', '.join(within) or 'none'}")
    print(f"Nothing planted: {summary['false_alarms']} alarms in {summary['seeds']} seeds")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump({"summary": summary, **results}, out, indent=1)
    print(json.dumps(summary))
    good = found == summary["planted"] and named >= found - 1 and summary["false_alarms"] == 0 and \
        summary["mutants_named"] >= 0.95 * summary["mutants"]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
