#!/usr/bin/env python3
"""What tools/gpu_check.sh found, from the files that its steps left in FOLDER: a line for each step, and one of JSON.

usage: tools/gpu_check_report.py FOLDER card|software

The JSON has `device`, `conformance_failures`, `specs_failed`, `sanitizer_findings`, `train_ratio`,
`decode_of_bandwidth`, `mfu`, null where nothing was measured, and `wrong`, the steps in which something was found, or
which did not end well. Exit status 1 if there are any.
"""
import json
import pathlib
import re
import sys

SANITIZERS = ("memcheck", "racecheck", "synccheck")


def steps_of(folder):
    """name -> (status, "stopped", or None; limit, or why it was stopped or left out)"""
    steps = {}
    try:
        lines = (folder / "steps.tsv").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:  # stopped before the first one ended
        lines = []
    for line in lines:
        name, status, rest = line.split("\t")
        steps[name] = (None if status == "skipped" else status if status == "stopped" else int(status), rest)
    return steps


def json_of(path):
    """A file that is one document, or None."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def last_json_of(path):
    """The document in a text's last line, or None."""
    try:
        return json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    except (OSError, ValueError, IndexError):
        return None


def measured(facts, name):
    """(value, peak) of the doctor's measurement, or None."""
    for m in (facts or {}).get("measurements", []):
        if m["name"] == name:
            return m["value"], m["peak"]
    return None


def sanitizer_findings(folder, tool):
    """What the tool's summary counts; None: it ended without one, as when it saw no kernel."""
    said = (folder / f"{tool}.txt").read_text(encoding="utf-8", errors="replace")
    # racecheck: "RACECHECK SUMMARY: 0 hazards displayed"; the others: "ERROR SUMMARY: 0 errors". One for each process.
    summaries = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", said)
    if not summaries or "terminated before first instrumented API call" in said:
        return None
    return sum(map(int, summaries))


def conformance_failures(results):
    """Of the tests that ran; None: none did, since there is no model of this architecture, or they are not there."""
    cases = [c for suite in (results or {}).get("testsuites", []) for c in suite["testsuite"]]
    ran = [c for c in cases if c.get("result") == "COMPLETED"]
    return sum(bool(c.get("failures")) for c in ran) if ran else None


def main():
    folder, software = pathlib.Path(sys.argv[1]), sys.argv[2] == "software"
    steps = steps_of(folder)
    facts, specs = json_of(folder / "facts.json"), json_of(folder / "specs.json")
    sanitizers = {tool: sanitizer_findings(folder, tool) for tool in SANITIZERS
                  if steps.get(tool, (None,))[0] is not None}
    counted = [n for n in sanitizers.values() if n is not None]
    result = {"device": (facts or {}).get("description"),
              "conformance_failures": conformance_failures(json_of(folder / "conformance.json")),
              "specs_failed": None if not specs or not specs["checks"] else specs["problems"],
              "sanitizer_findings": sum(counted) if counted else None,
              "train_ratio": None,  # no peer runs here
              "decode_of_bandwidth": None,
              "mfu": None}
    speed, product = last_json_of(folder / "speed.txt"), measured(facts, "matmul bf16")
    if not software and speed and product and product[1] > 0:
        # bench-train's share is of a product that it measured; this one is of the chip's peak.
        result["mfu"] = speed["mfu"] * speed["peak_gflops"] / product[1]
    decode, memory = last_json_of(folder / "decode.txt"), measured(facts, "memory, copy")
    if not software and decode and memory and "of_bandwidth" in decode:  # a dense model's
        result["decode_of_bandwidth"] = (decode["decode_tokens_per_s"]["1"] * decode["weight_mb"] * 1e6
                                         / (memory[0] * 1e9))

    # What ended well may have found something all the same, or nothing that says so.
    found = {"conformance": result["conformance_failures"], "specs": result["specs_failed"], **sanitizers}
    wrong = []
    for name, (status, rest) in steps.items():
        if status is None:
            print(f"{name:12} left out: {rest}")
        elif status == "stopped":
            print(f"{name:12} stopped: {rest}")
        elif status == 124:
            print(f"{name:12} did not end within {rest} s")
        else:
            print(f"{name:12} {'done' if status == 0 else f'ended with status {status}'}")
        silent = name != "conformance" and name in found and found[name] is None
        if status not in (None, 0) or found.get(name) or (status == 0 and silent):
            wrong.append(name)
    result["wrong"] = wrong
    print(json.dumps(result))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
