#!/usr/bin/env python3
"""Greedy answers of Ferry and of llama.cpp to the same prompts, on the same GGUF file.

llama.cpp rounds activations to 8 bits where weights are quantised, Ferry does not: where two tokens are nearly
as probable the two may part. For each prompt that they answer differently the margin is told: how much less
probable, in nats and by Ferry's logits, llama.cpp's token is where they part. Every margin must be within what the
format's rounding moves log-probabilities by on these very prompts; the last line is JSON.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np
from llama_cpp import Llama

SUBJECTS = ["the capital of France", "a ferry", "photosynthesis", "the number seven", "a good breakfast",
            "the Moon", "rust on iron", "a haiku", "the colour blue", "sleep"]
ASKED = ["What is {}?", "Write one sentence about {}.", "Explain {} to a child.", "Name three facts about {}.",
         "Why do people care about {}?"]

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model")
parser.add_argument("--ferry", required=True)
parser.add_argument("--tokens", type=int, default=24)
parser.add_argument("--dtype", default="f32")
args = parser.parse_args()

llama = Llama(args.model, n_ctx=512, logits_all=True, verbose=False)
prompts = [llama.tokenize(f"<|im_start|>user\n{how.format(what)}<|im_end|>\n<|im_start|>assistant\n".encode(),
                          add_bos=False, special=True) for how in ASKED for what in SUBJECTS]


def theirs(ids):
    """The greedy answer, and the log-probabilities of every position from the prompt's last on."""
    llama.reset()
    llama.eval(ids)
    answer, rows = [], []
    while len(answer) < args.tokens:
        logits = np.array(llama.scores[llama.n_tokens - 1], np.float64)
        rows.append(logits - np.logaddexp.reduce(logits))
        token = int(logits.argmax())
        if token == llama.token_eos():
            break
        answer.append(token)
        llama.eval([token])
    return answer, rows


with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    (folder / "in.jsonl").write_text("".join(
        json.dumps({"prompt": ids, "max_tokens": args.tokens, "temperature": 0, "logprobs": 64}) + "\n"
        for ids in prompts))
    subprocess.run([args.ferry, "generate", args.model, "--dtype", args.dtype, "--batch", folder / "in.jsonl",
                    "--out", folder / "out.jsonl"], check=True, stdout=subprocess.DEVNULL)
    ours = {}
    for line in (folder / "out.jsonl").read_text().splitlines():
        answer = json.loads(line)
        ours[answer["index"]] = answer

equal, margins, moved = 0, [], []
for index, ids in enumerate(prompts):
    answer, rows = theirs(ids)
    mine = ours[index]
    at = next((i for i, (a, b) in enumerate(zip(mine["ids"], answer)) if a != b),
              min(len(mine["ids"]), len(answer)))
    # How far the two are apart on what Ferry answered before they part.
    for i in range(min(at + 1, len(mine["ids"]), len(rows))):
        for token, log_prob in mine["top"][i][:2]:
            moved.append(abs(log_prob - rows[i][token]))
    if mine["ids"] == answer:
        equal += 1
        continue
    if at < len(mine["ids"]) and at < len(answer):
        top = dict(map(tuple, mine["top"][at]))
        margin = mine["log_probs"][at] - top[answer[at]] if answer[at] in top else float("inf")
    else:  # one ended there: the end's place among the other's tokens
        longer = rows[at] if at < len(rows) else None
        best = np.sort(longer)[-2:] if longer is not None else [0, float("inf")]
        margin = float(best[1] - best[0])
    margins.append(margin)
    print(f"prompt {index}: apart at token {at}, margin {margin:.4f} nats")

moved = [float(m) for m in moved]
margins = [float(m) for m in margins]
bound = 2 * max(moved)  # of each of the two tokens
print(json.dumps({"prompts": len(prompts), "equal": equal, "largest_margin": max(margins, default=0),
                  "log_probs_moved_by": {"mean": sum(moved) / len(moved), "largest": max(moved)}, "bound": bound,
                  "within": max(margins, default=0) <= bound}))
raise SystemExit(0 if max(margins, default=0) <= bound else 1)
