#!/usr/bin/env python3
"""Plants the defects and mutants of a software device one by one and counts whom doctor and verify name.

usage: tools/scoreboard.py FERRY SIM-FOLDER [--device ascend|cuda|cuda-tensor] [--model DIR] [--run RUN] [--jobs N]
                           [--seeds N] [--first-seed N] [--only TEXT] [--part K/N] [--skip-defects] [--skip-mutants]
                           [--subjects OP,OP...] [--whole-list] [--json FILE]

FERRY is the program, SIM-FOLDER holds software Ascend (libascendcl.so, libnnopbase.so and libopapi.so), or software
NVIDIA (libcuda.so.1), which has no mutants. With --model, `ferry verify` is asked about what the doctor's quick list
did not find; with --run, then the doctor's full list and that run's own sizes. With --subjects, the doctor is asked
about these alone, one after the other until something is found: seconds for each defect, where the quick list on
software NVIDIA takes a minute. Whether a mutant leaves the tolerance, and which kernels a defect spoils, is measured
by the simulator, which does each spoiled launch once more as it should be, and not by those who look for it. The last
line is JSON. Needs nothing but Python's standard library.
"""
import argparse
import concurrent.futures
import ctypes
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from types import MappingProxyType

# The software devices: which libraries list what can be planted (the first answers), and the names of settings.
DEVICES = {
    "ascend": {"libraries": ("libascendcl.so", "libnnopbase.so", "libopapi.so"), "list": "ferrySoftwareAscendList",
               "what": ("defects", "mutants"), "folder": "FERRY_ASCEND_LIBRARIES", "setting": "FERRY_ASCEND_SIM_",
               "call": "aclnn", "title": "software Ascend"},
    "cuda": {"libraries": ("libcuda.so.1",), "list": "ferrySoftwareNvidiaList", "what": ("defects",),
             "folder": "FERRY_CUDA_LIBRARIES", "setting": "FERRY_NVIDIA_SIM_", "call": "", "title": "software NVIDIA"},
}
DEVICES["cuda-tensor"] = DEVICES["cuda"]  # whose products of bf16 are on tensor cores

# What the doctor calls the parts of the runtime.
RUNTIME = {
    "Memcpy": ("copies",),
    "Memset": ("fills",),
    "Stream": ("streams",),
    "Memory": ("memory",),
    "MemcpyAsync": ("copies",),
    "MemsetAsync": ("fills",),
    "SynchronizeStream": ("streams",),
    "RecordEvent": ("streams",),
}

SUBJECTS_ASKED = 3  # alone, about a mutant, before the whole list

RUN_LIMIT_S = 1800  # of one doctor or verify

# By how much an output may be off, in units of the largest element of its row: 16-bit types by one unit in the last
# place, float32 by 32 roundings, integers not at all.
TOLERANCE = {"BF16": 2**-7, "FLOAT16": 2**-10, "FLOAT": 2**-19, "DOUBLE": 2**-48}


def lists_of(folder, device):
    """The simulator's own lists of what can be planted: (name, op, what it does); defects, then mutants."""
    handles = [ctypes.CDLL(os.path.join(folder, library), mode=ctypes.RTLD_GLOBAL) for library in device["libraries"]]
    list_of = getattr(handles[0], device["list"])
    list_of.restype = ctypes.c_char_p

    def read(what):
        if what not in device["what"]:
            return []
        return [tuple(line.split("\t")) for line in list_of(what.encode()).decode().splitlines()]

    return read("defects"), read("mutants")


class Deviations:
    """What the simulator measured: by op and type, the largest deviation of a launch from the right one."""

    def __init__(self):
        self.largest = {}

    def read(self, path):
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                op, dtype, deviation = line.rstrip("\n").split("\t")
                self.largest[op, dtype] = max(self.largest.get((op, dtype), 0), float(deviation))

    def called(self):
        return {op for op, _ in self.largest}

    def spoiled(self):
        return {op for (op, _), deviation in self.largest.items() if deviation > 0}

    def effect_on(self, op):
        """"left" the tolerance, "within" it, "no effect", or "not called"."""
        measured = [(dtype, d) for (name, dtype), d in self.largest.items() if name == op]
        if not measured:
            return "not called"
        if any(d > TOLERANCE.get(dtype, 0) for dtype, d in measured):
            return "left"
        return "within" if any(d > 0 for _, d in measured) else "no effect"


class Board:
    """Runs the program with something planted."""

    def __init__(self, args):
        self.args = args
        self.device = DEVICES[args.device]
        # What these doctors find is noted in a folder of their own, not in the user's.
        self.state = tempfile.TemporaryDirectory()
        self.base = dict(os.environ, FERRY_THREADS="1", XDG_STATE_HOME=self.state.name,
                         **{self.device["folder"]: os.path.abspath(args.sim)})

    def run(self, command, planted, deviations, more_environment=MappingProxyType({})):
        """Exit status (None: it did not end), the last line's JSON, what was said on stderr."""
        with tempfile.NamedTemporaryFile(prefix="deviations-") as file:
            settings = dict(planted, DEVIATIONS=file.name)
            env = dict(self.base, **{self.device["setting"] + k: v for k, v in settings.items()}, **more_environment)
            try:
                done = subprocess.run([self.args.ferry] + command, env=env, capture_output=True, text=True,
                                      errors="replace",  # a model may answer with half a character
                                      stdin=subprocess.DEVNULL, timeout=RUN_LIMIT_S)
            except subprocess.TimeoutExpired:  # a row of its own; the board goes on
                return None, {}, f"no end within {RUN_LIMIT_S} s"
            deviations.read(file.name)
        lines = done.stdout.strip().splitlines()
        try:
            last = json.loads(lines[-1]) if lines else {}
        except json.JSONDecodeError:
            last = {}
        return done.returncode, last, done.stderr

    def tiers(self):
        """The instruction sets that this processor has, as FERRY_CPU names them."""
        def has(tier):
            done = subprocess.run([self.args.ferry, "ops"], env=dict(self.base, FERRY_CPU=tier), check=False,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return done.returncode == 0
        return [tier for tier in ("plain", "avx2", "avx512", "avx512_dot") if has(tier)]

    def doctor(self, more, planted, deviations, device=None, tier=None):
        # A check of the quick list takes less than a second, on a very busy machine a minute: one that waits in
        # vain must not hold the board up, and a busy machine is no hang.
        command = ["doctor", "--device", device or self.args.device, "--quick", "--limit", "5m", "--json", "-", *more]
        return self.run(command, planted, deviations, {"FERRY_CPU": tier} if tier else {})

    def doctor_for_run(self, planted, deviations, more=()):
        """The doctor at the sizes of the run that is given, in the full list."""
        command = ["doctor", "--device", self.args.device, "--for", self.args.run, "--limit", "10m",
                   "--first-level", "--soak", "0", "--json", "-", *more]
        return self.run(command, planted, deviations)

    def check_run(self):
        """A --run that the doctor does not take is said at once, not in every row."""
        code, _, error = self.doctor_for_run({}, Deviations(), ["--quick", "--only", "copies"])
        if code != 0:
            sys.exit(f"--run {self.args.run}: {error.strip() or f'exit {code}'}")

    def verify(self, planted, deviations):
        command = ["verify", self.args.model, "--device", self.args.device, "--no-remember", "--json"]
        return self.run(command, planted, deviations)

    def called(self):
        """The ops that doctor and verify call at all, each. From then on it is known whom to ask about each."""
        by_doctor, by_verify = Deviations(), Deviations()
        _, report, _ = self.doctor(["--soak", "1s"], {}, by_doctor)
        self.seconds, self.subjects = {}, {}
        for outcome in report.get("outcomes", []):
            subject = outcome["subject"]
            self.seconds[subject] = self.seconds.get(subject, 0) + outcome["seconds"]
            # A call of the library that is tried alone is a subject itself.
            calls = {call for use in outcome["used"] for call in use["calls"]} | {subject}
            if outcome["level"] in ("library", "ops"):
                for call in calls:
                    self.subjects.setdefault(call, set()).add(subject)
        if self.args.model:
            self.verify({}, by_verify)
        return by_doctor.called(), by_verify.called()

    def who_calls(self, op):
        """What the doctor can be asked about alone to have this op called: the quickest of the quick list's subjects."""
        return sorted(self.subjects.get(self.device["call"] + op, ()), key=self.seconds.get)[:SUBJECTS_ASKED]


class Finding:
    """Who found what was planted, and whom they name."""

    def __init__(self, by, culprit, calls=()):
        self.alone = False  # the doctor was asked about subjects that call the op, and about nothing else
        self.by = by
        self.culprit = culprit
        self.calls = calls  # those of the library that the named kernel made where it failed

    def names(self, op, prefix):
        """Whether the culprit is this op, which the library's calls have with the prefix before it.

        The library's call, by name. Or, where none is named, the kernel that calls it. For the runtime, its part."""
        if op in RUNTIME:
            return self.culprit.get("op") in RUNTIME[op]
        call = prefix + op
        return self.culprit["call"] == call if self.culprit.get("call") else call in self.calls

    def describe(self):
        parts = [self.culprit.get(k) for k in ("op", "kernel", "call", "error")]
        return " / ".join(dict.fromkeys(p for p in parts if p)) or "-"


def calls_in_failures(kernel, report):
    """The library calls that a kernel made in the doctor's checks that failed."""
    uses = [use for outcome in report["outcomes"] if outcome["problems"] for use in outcome["used"]]
    return {call for use in uses if use["kernel"] == kernel for call in use["calls"]}


def finding_of_doctor(code, report, error):
    if code not in (0, 1):
        return Finding("error", {"error": error.strip()[-200:] or f"exit {code}"})
    if not report.get("culprits"):
        return None
    culprit = report["culprits"][0]
    return Finding("doctor", culprit, calls_in_failures(culprit.get("kernel"), report))


def finding_of_verify(code, report, error):
    if code not in (0, 1):
        return Finding("error", {"error": error.strip()[-200:] or f"exit {code}"})
    if code == 0:
        return None
    if report["altered"]:  # weights that came back otherwise: nothing was computed
        return Finding("verify", {"op": "copies"})
    first = report["first"]
    if not first:
        return Finding("verify", {"error": report["reasons"][0]})
    return Finding("verify", {"kernel": first["op"]}, first["calls"])


def examine(board, planted, op, called, mutant):
    """The first finding, and what was measured: the quick list, then verify, then a long look.

    About a mutant the doctor is asked first by the subjects that call its op, each alone, which takes a second or two and
    has fewer to choose a culprit from: such names are counted apart. The whole list is for those that are not named so,
    and with --whole-list for all. With --subjects, the doctor is asked about each of these alone, and looks no longer.
    An op that the one or the other never calls cannot show there, and a mutant that stayed within the tolerance
    in the quick list does so in the soak, which makes the same calls. Defects that come and go need the soak."""
    deviations = Deviations()
    by_doctor, by_verify = called

    def may_show(calls):
        return not mutant or op in calls

    for subject in filter(None, board.args.subjects.split(",")):
        finding = finding_of_doctor(*board.doctor(["--only", subject, "--soak", "0"], planted, deviations))
        if finding:
            return finding, deviations
    whole = not board.args.subjects
    if whole and mutant and not board.args.whole_list:
        for subject in board.who_calls(op):
            finding = finding_of_doctor(*board.doctor(["--only", subject, "--soak", "0"], planted, deviations))
            if finding and finding.names(op, board.device["call"]) and deviations.effect_on(op) == "left":
                finding.alone = True
                return finding, deviations
    if whole and may_show(by_doctor):
        finding = finding_of_doctor(*board.doctor(["--first-level", "--soak", "0"], planted, deviations))
        if finding:
            return finding, deviations
    if board.args.model and may_show(by_verify):
        finding = finding_of_verify(*board.verify(planted, deviations))
        if finding:
            return finding, deviations
    if whole and (not mutant or deviations.effect_on(op) == "left"):
        finding = finding_of_doctor(*board.doctor(["--soak", "12s"], planted, deviations))
        if finding:
            return finding, deviations
    if board.args.run and not mutant:
        finding = finding_of_doctor(*board.doctor_for_run(planted, deviations))
        if finding:
            return finding, deviations
    return Finding("nobody", {}), deviations


def judge(entry, finding, deviations, mutant, prefix):
    """The row of the table for what was planted. What spoils any op is named by an op that it did spoil."""
    name, op, what = entry
    found = finding.by in ("doctor", "verify")
    spoiled = deviations.spoiled() if op == "any" else {op}
    named = found and any(finding.names(s, prefix) for s in spoiled)
    idle = op == "any" and not found and not spoiled  # it met no launch that it could spoil
    effect = deviations.effect_on(op) if mutant else "no effect" if idle else "left"
    verdict = "ERROR" if finding.by == "error" else "named" if named else "found" if found else \
        "MISSED" if effect == "left" else effect
    return {"name": name, "op": op, "what": what, "by": finding.by, "found": found,
            "named": named and not finding.alone, "named_alone": named and finding.alone,
            "effect": effect, "culprit": finding.culprit, "spoiled": sorted(deviations.spoiled()),
            "line": f"{name:<38} {op:<28} {verdict:<10} {finding.by:<7} {finding.describe()}"}


def dealt(entries, args):
    """Those that --only and --part ask for."""
    part, parts = map(int, args.part.split("/"))
    chosen = [e for e in entries if args.only in e[0]]
    if parts > 1:
        random.Random(1).shuffle(chosen)
    return chosen[part - 1::parts]


def seed(board, device, tier, number):
    """A row for a sound device: anything that is found is a false alarm. Both seeds differ from row to row, that of
    the inputs and that of the simulator's delays and orders."""
    code, report, error = board.doctor(["--soak", "1s", "--seed", str(number)], {"SEED": str(1000 + number)},
                                       Deviations(), device, tier)
    device = f"{device} {tier}" if tier else device
    finding = finding_of_doctor(code, report, error)
    reasons = "; ".join(report.get("reasons", [])) if finding else ""
    return {"name": f"{device} {number}", "alarm": code != 0,
            "line": f"{device} seed {number:<4} {'ALARM ' + finding.describe() + ': ' + reasons if finding else 'no alarm'}"}


def summary_of(results, seconds):
    defects, mutants = results["defects"], results["mutants"]
    left = [r for r in mutants if r["effect"] == "left"]

    def count(rows, what):
        return sum(1 for r in rows if r[what])

    return {
        "planted": len(defects), "found": count(defects, "found"), "named": count(defects, "named"),
        "mutants": len(left), "mutants_found": count(left, "found"), "mutants_named": count(left, "named"),
        "mutants_named_alone": count(left, "named_alone"),
        "mutants_within": sum(r["effect"] == "within" for r in mutants),
        "mutants_without_effect": sum(r["effect"] == "no effect" for r in mutants),
        "mutants_not_called": sum(r["effect"] == "not called" for r in mutants),
        "false_alarms": count(results["seeds"], "alarm"), "seeds": len(results["seeds"]),
        "seconds": seconds,
    }


def print_summary(s, results):
    print(f"\nDefects: {s['found']} of {s['planted']} found, {s['named']} named right")
    print(f"Mutants: {s['mutants']} leave the tolerance, {s['mutants_found']} of them found, {s['mutants_named']} "
          f"named right and {s['mutants_named_alone']} by a subject that was asked alone; {s['mutants_within']} change "
          f"outputs within it, {s['mutants_without_effect']} change "
          f"nothing, {s['mutants_not_called']} are of ops that nobody called")
    wrong = [r for r in results["mutants"] + results["defects"]
             if r["effect"] == "left" and not r["named"] and not r["named_alone"]]
    print("Not named right: " + (", ".join(r["name"] for r in wrong) or "none"))
    print(f"Nothing planted: {s['false_alarms']} alarms in {s['seeds']} seeds")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ferry")
    parser.add_argument("sim")
    parser.add_argument("--device", choices=sorted(DEVICES), default="ascend")
    parser.add_argument("--model", help="a model directory with a passport, for ferry verify")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--skip-defects", action="store_true")
    parser.add_argument("--run", metavar="RUN",
                        help="a TOML file of settings, a model directory, v3 or v2-lite: defects that were not found are "
                             "looked for at this run's sizes")
    parser.add_argument("--subjects", default="", metavar="OP,OP...",
                        help="ask the doctor about these subjects (--only) alone: seconds for each defect")
    parser.add_argument("--whole-list", action="store_true",
                        help="ask the doctor's whole quick list about every mutant: ten seconds for each")
    parser.add_argument("--only", default="", help="defects and mutants whose name holds this")
    parser.add_argument("--part", default="1/1", metavar="K/N",
                        help="the K-th of N parts into which defects and mutants are dealt by a fixed draw")
    parser.add_argument("--skip-mutants", action="store_true")
    parser.add_argument("--json", help="write every result here, into a new file")
    args = parser.parse_args()
    if args.json and os.path.exists(args.json):  # said now, not after hours
        parser.error(f"--json {args.json}: is there already; name another file")
    return args


def main():
    args = arguments()
    board = Board(args)
    defects, mutants = lists_of(args.sim, board.device)
    begin = time.monotonic()
    results = {"defects": [], "mutants": [], "seeds": []}
    if args.run:
        board.check_run()
    called = board.called() if mutants and not args.skip_mutants else (set(), set())

    def row(entry, mutant):
        planted = {"MUTANT" if mutant else "DEFECT": entry[0]}
        finding, deviations = examine(board, planted, entry[1], called, mutant)
        return judge(entry, finding, deviations, mutant, board.device["call"])

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        def each(what, entries, work):
            futures = [pool.submit(work, e) for e in entries]
            for future in concurrent.futures.as_completed(futures):
                results[what].append(future.result())
                print(results[what][-1]["line"], flush=True)

        if not args.only and args.seeds > 0:
            places = [(args.device, None)] + [("cpu", tier) for tier in board.tiers() if args.device == "ascend"]
            print(f"Nothing planted, {args.seeds} seeds of inputs and simulator, {board.device['title']}"
                  + "".join(f", CPU as {tier}" for _, tier in places if tier))
            rows = [(*place, number) for number in range(args.first_seed, args.first_seed + args.seeds)
                    for place in places]
            each("seeds", rows, lambda entry: seed(board, *entry))
        if not args.skip_defects:
            print("\nPlanted defects: name, op, result, by whom, whom it names")
            each("defects", dealt(defects, args), lambda e: row(e, False))
        if not args.skip_mutants:
            print("\nMutants: name, op, result, by whom, whom it names")
            each("mutants", dealt(mutants, args), lambda e: row(e, True))

    summary = summary_of(results, round(time.monotonic() - begin))
    print_summary(summary, results)
    if args.json:
        with open(args.json, "x", encoding="utf-8") as out:
            json.dump({"summary": summary, **results}, out, indent=1)
    print(json.dumps(summary))
    good = summary["found"] == summary["planted"] and summary["named"] >= summary["found"] - 1 and \
        summary["false_alarms"] == 0 and \
        summary["mutants_named"] + summary["mutants_named_alone"] >= 0.95 * summary["mutants"]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
