#!/usr/bin/env python3
"""Reads what the commands of tools/crossing.sh said, and writes FOLDER/crossing.json and FOLDER/crossing.html; the last
line of its output is the JSON. Exit status 0 if the model arrived whole.

usage: tools/crossing_report.py FOLDER true|false   (whether the interrupted run ended with an undisturbed one's bytes)
"""
import html
import json
import os
import re
import sys


def text_of(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
        return file.read()


def last_json(text):
    lines = text.strip().splitlines()
    return json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}


def device_of(text):
    """What a run or a server says that it computes on."""
    found = re.search(r"^device +(.*?)(?:, compute.*)?$", text, re.MULTILINE)
    return found.group(1) if found else ""


def result_of(folder, equal):
    trained, verified = text_of(folder, "train.txt"), last_json(text_of(folder, "verify.txt"))
    server = last_json(text_of(folder, "server.txt"))
    end = last_json(trained)
    return {
        "trained_on": device_of(trained), "steps": end.get("step"), "loss": end.get("loss"),
        "faults": trained.count("its device failed"), "resumed_equal": equal,
        "verified_on": verified.get("description", ""), "verdict": verified.get("verdict", ""),
        "served_on": last_json(text_of(folder, "server.json")).get("device", ""),
        "tokens": verified.get("tokens"), "tokens_agree": verified.get("tokens_agree"),
        "tokens_near_tie": verified.get("tokens_near_tie"),
        "server_verdict": server.get("verdict", ""), "compared_tokens": server.get("compared_tokens"),
        "kl_max": server.get("kl_max"),
    }


def whole(r):
    """Every token that parted stood near a tie, every judge was content, and each was where he should be."""
    agreeing = bool(r["tokens"]) and r["tokens_agree"] + r["tokens_near_tie"] == r["tokens"]
    crossed = r["trained_on"].startswith("software NVIDIA") and r["verified_on"].startswith("software Ascend") and \
        r["served_on"].startswith("software Ascend")
    return crossed and r["faults"] > 0 and r["resumed_equal"] and r["verdict"] == "passed" and agreeing and \
        r["server_verdict"] == "same"


def page(r):
    def row(name, value):
        return f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
    rows = [
        row("Trained on", f"{r['trained_on']}: {r['steps']} steps, loss {r['loss']}"),
        row("Faults on the way", f"{r['faults']} (214 ECC_UNCORRECTABLE; each ended the worker)"),
        row("Bytes of an undisturbed run", "equal: weights and training state" if r["resumed_equal"] else "OTHER"),
        row("Verified on", f"{r['verified_on']}: {r['verdict']}"),
        row("Tokens that agree", f"{r['tokens_agree']} of {r['tokens']}; {r['tokens_near_tie']} near a tie"),
        row("Served on", r["served_on"]),
        row("ferry verify --server", f"{r['server_verdict']}: {r['compared_tokens']} tokens compared, "
                                     f"largest KL {r['kl_max']}"),
    ]
    verdict = "The model arrived whole." if whole(r) else "The model did not arrive whole."
    return ("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Ferry: a crossing</title>"
            "<style>body{font:16px/1.5 sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;"
            "color-scheme:light dark}th{text-align:left;vertical-align:top;padding:.3rem 1rem .3rem 0}</style>"
            f"<h1>A crossing without a card</h1><p><strong>{verdict}</strong> Nothing here ran on hardware: both "
            "devices are software that comes with Ferry.</p><table>" + "".join(rows) + "</table></html>\n")


def main():
    folder, equal = sys.argv[1], sys.argv[2] == "true"
    result = result_of(folder, equal)
    with open(os.path.join(folder, "crossing.html"), "w", encoding="utf-8") as out:
        out.write(page(result))
    line = json.dumps(result)
    with open(os.path.join(folder, "crossing.json"), "w", encoding="utf-8") as out:
        out.write(line + "\n")
    print(f"\nReport: {os.path.join(folder, 'crossing.html')}\n{line}")
    return 0 if whole(result) else 1


if __name__ == "__main__":
    sys.exit(main())
