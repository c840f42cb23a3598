#!/usr/bin/env python3
"""What tools/gpu_check.sh found, from the files that its steps left in FOLDER: a line for each step, and one of JSON.

usage: tools/gpu_check_report.py FOLDER

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
    """name -> (status or None, limit or why it was left out)"""
    steps = {}
    for line in (folder / "steps.tsv").read_text(encoding="utf-8").splitlines():
        name, status, rest = line.split("\t")
        steps[name] = (None if status == "skipped" else int(status), rest)
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


def sanitizer_findings(folder, steps):
    """The sum of the tools' summaries; None if one of them said nothing."""
    found = 0
    for tool in SANITIZERS:
        if steps[tool][0] is None:
            return None
        said = (folder / f"{tool}.txt").read_text(encoding="utf-8", errors="replace")
        # racecheck: "RACECHECK SUMMARY: 0 hazards displayed"; the others: "ERROR SUMMARY: 0 errors".
        summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", said)
        if not summary:
            return None
        found += int(summary[-1])
    return found


def main():
    folder = pathlib.Path(sys.argv[1])
    steps = steps_of(folder)
    facts, specs = json_of(folder / "facts.json"), json_of(folder / "specs.json")
    conformance = json_of(folder / "conformance.json")
    software = "software" in (facts or {}).get("description", "software")
    result = {"device": (facts or {}).get("description"),
              "conformance_failures": None if not conformance or not conformance["tests"] else conformance["failures"],
              "specs_failed": None if not specs or not specs["checks"] else specs["problems"],
              "sanitizer_findings": sanitizer_findings(folder, steps),
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

    # What ended well may have found something all the same.
    found = {"conformance": result["conformance_failures"], "specs": result["specs_failed"]}
    wrong = []
    for name, (status, rest) in steps.items():
        if status is None:
            print(f"{name:12} left out: {rest}")
        elif status == 124:
            print(f"{name:12} did not end within {rest} s")
        else:
            print(f"{name:12} {'done' if status == 0 else f'ended with status {status}'}")
        if status not in (None, 0) or found.get(name) or (status == 0 and name in found and found[name] is None):
            wrong.append(name)
    if result["sanitizer_findings"]:
        wrong.append("sanitizer")
    result["wrong"] = wrong
    print(json.dumps(result))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
