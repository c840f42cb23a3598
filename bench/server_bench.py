#!/usr/bin/env python3
"""What clients wait for at a server, of ferry serve and of llama.cpp's llama-server, on one GGUF file: seconds to the first
token and milliseconds between tokens at 1, 8 and 64 clients, in turns, so that both see the same machine.

A client asks for a stream, reads it to its end and asks the next; no two prompts begin alike. The last line is JSON: for
each number of clients ferry and peer with first_token_ms and between_ms (median, 95th percentile) and tokens_per_s, and
overhead_us: what ferry's network thread computes for a token.
"""
import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("model", help="a GGUF file")
parser.add_argument("--ferry", required=True, help="the program")
parser.add_argument("--llama-server", help="llama.cpp's server; without it ferry is measured alone")
parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
parser.add_argument("--tokens", type=int, default=64, help="of an answer")
parser.add_argument("--words", type=int, default=96, help="of a prompt")
parser.add_argument("--asked", type=int, default=128, help="requests of a round, but no fewer than one a client")
parser.add_argument("--rounds", type=int, default=2)
parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
args = parser.parse_args()

WORDS = ("ship river stone morning letter engine garden window market winter paper silver bridge road water light "
         "mountain harbour field captain signal number story island copper forest").split()


def prompt_of(number):
    """The words of no other request: its number stands first."""
    chosen = [WORDS[(number * 31 + i * (i + 7)) % len(WORDS)] for i in range(args.words)]
    return f"{number}: " + " ".join(chosen)


async def ask(port, number):
    """When it was asked, when pieces of the answer came, how many tokens it has."""
    body = json.dumps({"prompt": prompt_of(number), "max_tokens": args.tokens, "temperature": 0, "ignore_eos": True,
                       "stream": True, "stream_options": {"include_usage": True}}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    with contextlib.closing(writer):
        asked, came, tokens = time.perf_counter(), [], None
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     b"Content-Type: application/json\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            sys.exit(f"server_bench: {head.decode(errors='replace')}{await reader.read(1000)}")
        async for line in reader:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
            if event.get("choices") and event["choices"][0]["text"]:
                came.append(time.perf_counter())
    if tokens is None or not came:
        sys.exit("server_bench: a stream ended early")
    return asked, came, tokens


async def crowd(port, clients, first):
    """What `clients` saw that asked one after the other, requests numbered from `first`."""
    numbers = iter(range(first, first + max(args.asked * min(clients, 8) // 8, clients)))

    async def client():
        return [await ask(port, number) for number in numbers]

    begin = time.perf_counter()
    answers = [a for of in await asyncio.gather(*(client() for _ in range(clients))) for a in of]
    return answers, time.perf_counter() - begin


def percentiles(values):
    values = sorted(values)
    return {"median": round(statistics.median(values), 2), "p95": round(values[int(0.95 * (len(values) - 1))], 2)}


def seen(answers, seconds):
    return {"first_token_ms": percentiles([(came[0] - asked) * 1e3 for asked, came, _ in answers]),
            "between_ms": percentiles([(b - a) * 1e3 for _, came, _ in answers for a, b in zip(came, came[1:])]),
            "tokens_per_s": round(sum(tokens for _, _, tokens in answers) / seconds, 1)}


def computed_ns(pid):
    """Of a process's first thread."""
    return int(pathlib.Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0])


@contextlib.contextmanager
def server(command, environment, folder):
    """Starts a server on a port that is free, and waits until it answers."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = pathlib.Path(folder) / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command + ["--port", str(port)], stdout=out, stderr=out,
                                   env=dict(os.environ, **environment))
    try:
        for _ in range(1200):
            if process.poll() is not None:
                sys.exit(f"server_bench: {command[0]} ended:\n{log.read_text()[-2000:]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as s:
                s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if b" 200 " in s.recv(100):
                    break
            time.sleep(0.1)
        else:
            sys.exit(f"server_bench: {command[0]} did not come up")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def better(a, b):
    """Of two rounds: the one that more tokens a second came in."""
    return b if a is None or b["tokens_per_s"] > a["tokens_per_s"] else a


most = max(args.clients)
context = 4 * args.words + args.tokens  # a word of the list is no more than that many tokens
COMMANDS = {"ferry": ([args.ferry, "serve", args.model, "--quiet"],
                      {"FERRY_THREADS": str(args.threads)}),
            "peer": ([args.llama_server or "", "--model", args.model, "--parallel", str(most), "--ctx-size", str(most * context),
                      "--threads", str(args.threads), "--threads-batch", str(args.threads), "--no-webui"], {})}
if not args.llama_server:
    del COMMANDS["peer"]
best = {clients: {} for clients in args.clients}
asked_before = 0
with tempfile.TemporaryDirectory() as folder:
    for clients in args.clients:
        for turn in range(args.rounds):
            for name, (command, environment) in COMMANDS.items():
                with server(command, environment, folder) as (port, pid):
                    asyncio.run(crowd(port, 1, asked_before))  # all pages touched
                    asked_before += args.asked
                    before = computed_ns(pid)
                    answers, seconds = asyncio.run(crowd(port, clients, asked_before))
                    asked_before += args.asked
                    figures = seen(answers, seconds)
                    if name == "ferry":
                        figures["overhead_us"] = round((computed_ns(pid) - before) / 1e3 / sum(a[2] for a in answers), 2)
                best[clients][name] = better(best[clients].get(name), figures)
                print(f"{clients} clients, round {turn + 1}, {name}: {figures}", file=sys.stderr, flush=True)
for of in best.values() if args.llama_server else ():
    of["ratio"] = round(of["ferry"]["tokens_per_s"] / of["peer"]["tokens_per_s"], 3)
print(json.dumps({"model": pathlib.Path(args.model).name, "threads": args.threads, "tokens": args.tokens,
                  "clients": {str(clients): of for clients, of in best.items()}}))
