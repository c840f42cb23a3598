#!/usr/bin/env python3
"""llama.cpp's speed on a GGUF file, by its own library: a prompt, and tokens of several sequences at once.
The last line is JSON. Each figure is the best of the rounds, as ferry bench-serve counts."""
import argparse
import json
import sys
import time

import numpy as np
import llama_cpp as l

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--prompt", type=int, default=512)
parser.add_argument("--context", type=int, default=128)
parser.add_argument("--steps", type=int, default=32)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 16])
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--first-token", action="store_true", help="only load, read 16 tokens and choose one")
args = parser.parse_args()

# Errors alone; kept in a name, since the library keeps no reference.
ERROR = 4
log = l.llama_log_callback(lambda level, text, _: print(text.decode(errors="replace"), end="", file=sys.stderr)
                           if level == ERROR else None)
l.llama_log_set(log, None)
begin = time.perf_counter()
l.llama_backend_init()
model = l.llama_model_load_from_file(args.model.encode(), l.llama_model_default_params())
if not model:
    raise SystemExit("llama.cpp cannot load " + args.model)
vocab = l.llama_vocab_n_tokens(l.llama_model_get_vocab(model))
rng = np.random.default_rng(2)


def context(sequences, tokens_each):
    p = l.llama_context_default_params()
    p.n_ctx = sequences * (tokens_each + 8)
    p.n_batch = p.n_ubatch = 512
    p.n_seq_max = sequences
    p.n_threads = p.n_threads_batch = args.threads
    p.kv_unified = True
    return l.llama_init_from_model(model, p)


def decode(ctx, entries, wanted):
    """entries: (token, position, sequence); `wanted`: whose logits are."""
    batch = l.llama_batch_init(len(entries), 0, 1)
    batch.n_tokens = len(entries)
    for i, (token, position, sequence) in enumerate(entries):
        batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
        batch.seq_id[i][0] = sequence
        batch.logits[i] = i in wanted
    if l.llama_decode(ctx, batch) != 0:
        raise SystemExit("llama_decode failed")
    for i in wanted:
        row = np.ctypeslib.as_array(l.llama_get_logits_ith(ctx, i), (vocab,))
        row.argmax()  # greedy, as Ferry chooses
    l.llama_batch_free(batch)


def prefill():
    ctx = context(1, args.prompt)
    ids = rng.integers(0, vocab, args.prompt)
    begin = time.perf_counter()
    for at in range(0, args.prompt, 512):
        part = ids[at:at + 512]
        last = at + len(part) == args.prompt
        decode(ctx, [(int(t), at + i, 0) for i, t in enumerate(part)], {len(part) - 1} if last else set())
    seconds = time.perf_counter() - begin
    l.llama_free(ctx)
    return args.prompt / seconds


def at_once(n):
    ctx = context(n, args.context + args.steps)
    for s in range(n):
        decode(ctx, [(int(t), i, s) for i, t in enumerate(rng.integers(0, vocab, args.context))], {args.context - 1})
    begin = time.perf_counter()
    for step in range(args.steps):
        decode(ctx, [(int(rng.integers(0, vocab)), args.context + step, s) for s in range(n)], set(range(n)))
    seconds = time.perf_counter() - begin
    l.llama_free(ctx)
    return n * args.steps / seconds


if args.first_token:
    decode(context(1, 16), [(2 + i, i, 0) for i in range(16)], {15})
    print(json.dumps({"first_token_s": time.perf_counter() - begin}))
    raise SystemExit
best = {"prefill_tokens_per_s": 0, "decode_tokens_per_s": {str(n): 0 for n in args.at_once}}
for _ in range(args.rounds):
    best["prefill_tokens_per_s"] = max(best["prefill_tokens_per_s"], prefill())
    for n in args.at_once:
        best["decode_tokens_per_s"][str(n)] = max(best["decode_tokens_per_s"][str(n)], at_once(n))
print(json.dumps({**best, "version": l.__version__, "system": l.llama_print_system_info().decode()}))
