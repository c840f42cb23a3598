#!/usr/bin/env python3
"""What the communication of a step by several ranks costs, on this machine's loopback.

For each number of ranks, round by round, so that all see the same machine: what the link carries (plain TCP, as many
processes in a ring), the exchanges of a sharded step without anything being computed, beside plain messages of the same
communicator (bench/comm_bench.cc), and a real step by `ferry launch`, a thread each, beside one process with as many
threads (at most as the machine has cores), whose losses must be the same to the last digit.
The last line is JSON: for each number of ranks bytes_per_step (of all ranks together), of_floor (by (R - 1) times 4
bytes of gradient and 2 of weight for each parameter), of_link (bytes a second, by the link's), of_messages (by that of
plain messages), step_overhead (how much longer the real step takes).
"""
import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

BLOCK = 1 << 20

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--ferry", required=True, help="the program")
parser.add_argument("--comm-bench", required=True, help="the built bench/comm_bench.cc")
parser.add_argument("--ranks", nargs="+", type=int, default=[2, 3, 4, 8])
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--steps", type=int, default=5, help="of a round")
parser.add_argument("--megabytes", type=int, default=16, help="of weights whose exchange is measured")
parser.add_argument("--config", default="configs/demo_small.toml", help="of the real step")
args = parser.parse_args()
CORES = len(os.sched_getaffinity(0))
MICRO_BATCHES = max(8, *args.ranks)


def output_of(command, environment=None):
    print("  $", " ".join(map(str, command)), file=sys.stderr, flush=True)
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True,
                          env=dict(os.environ, **(environment or {})))
    if done.returncode != 0:
        sys.exit(f"comm_bench: {command[0]} failed with status {done.returncode}:\n{done.stdout}")
    return done.stdout


def ring(ranks):
    """Connections of TCP from each to the next: (to the next, from the one before) by rank."""
    towards, behind = [None] * ranks, [None] * ranks
    with socket.create_server(("127.0.0.1", 0)) as server:
        for r in range(ranks):
            towards[r] = socket.create_connection(server.getsockname())
            behind[(r + 1) % ranks] = server.accept()[0]
    return list(zip(towards, behind))


def pass_on(to, source, total):
    """One rank's side: sends so much to the next, and takes as much from the one before, at the same time."""
    def send():
        block = memoryview(bytes(BLOCK))
        for at in range(0, total, BLOCK):
            to.sendall(block[:min(BLOCK, total - at)])
    sender = threading.Thread(target=send)
    sender.start()
    taken, into = 0, bytearray(BLOCK)
    while taken < total:
        n = source.recv_into(into)
        if n == 0:
            os._exit(1)
        taken += n
    sender.join()


def link_bytes_per_s(ranks, total):
    """Of all links of a ring together, each with so many bytes to carry."""
    links = ring(ranks)
    ready, go = os.pipe(), os.pipe()
    pids = []
    for to, source in links:
        pid = os.fork()
        if pid == 0:
            pass_on(to, source, BLOCK)  # all are there, and the buffers are
            os.write(ready[1], b".")
            os.read(go[0], 1)
            pass_on(to, source, total)
            os._exit(0)
        pids.append(pid)
    for _ in range(ranks):
        os.read(ready[0], 1)
    begin = time.perf_counter()
    os.write(go[1], b"." * ranks)
    failed = [pid for pid in pids if os.waitpid(pid, 0)[1] != 0]
    seconds = time.perf_counter() - begin
    for pair in links:
        for s in pair:
            s.close()
    for fd in ready + go:
        os.close(fd)
    if failed:
        sys.exit("comm_bench: a process of the plain ring failed")
    return ranks * total / seconds


def prepare(folder):
    """A dataset of this project's documentation."""
    text = folder / "text.txt"
    pages = [pathlib.Path("README.md"), *sorted(pathlib.Path("docs").glob("*.md"))]
    text.write_bytes(b"".join(p.read_bytes() for p in pages))
    output_of([args.ferry, "tokenizer", "train", "--vocab", 300, "--out", folder / "tokenizer.json", text])
    output_of([args.ferry, "data", "prepare", text, "--split", "line", "--held-out-bytes", "8K", "--near-duplicate", 2,
               "--tokenizer", folder / "tokenizer.json", "--out", folder / "data"])


def real_steps(folder, launch, threads):
    """The median step's seconds, without the first two, and every step's loss."""
    run = tempfile.mkdtemp(dir=folder)
    output_of([args.ferry, *launch, "train", args.config, f"--data.dir={folder / 'data'}", f"--checkpoint.dir={run}",
               f"--train.threads={threads}", f"--train.steps={args.steps + 2}", "--data.sequence_length=256",
               "--train.micro_batch_tokens=256", f"--train.tokens_per_step={256 * MICRO_BATCHES}",
               "--schedule.warmup_steps=1", "--train.evaluate_every=0", "--train.evaluate_tokens=2048",
               "--checkpoint.every=0", "--log.every=1000"])
    records = [json.loads(line) for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines()]
    steps = [r for r in records if "seconds" in r]
    return statistics.median(r["seconds"] for r in steps[2:]), [r["loss"] for r in steps]


def measure(ranks, folder):
    links, of_link, of_messages, overheads, exchanges = [], [], [], [], []
    for _ in range(args.rounds):
        link = link_bytes_per_s(ranks, 64 * BLOCK)
        exchange = json.loads(output_of([args.comm_bench, ranks, args.megabytes, MICRO_BATCHES, 1, args.steps],
                                        {"FERRY_THREADS": "1"}).splitlines()[-1])
        speed = exchange["bytes_per_step"] / exchange["exchange_s"][0]
        links.append(link)
        exchanges.append(exchange["exchange_s"][0])
        of_link.append(speed / link)
        of_messages.append(exchange["plain_s"][0] / exchange["exchange_s"][0])
        one, losses = real_steps(folder, [], min(ranks, CORES))
        many, same = real_steps(folder, ["launch", "-n", ranks, "--"], 1)
        if losses != same:
            sys.exit(f"comm_bench: {ranks} ranks have other losses than one process")
        overheads.append(many / one - 1)
    row = {"ranks": ranks, "bytes_per_step": exchange["bytes_per_step"],
           "of_floor": round(exchange["bytes_per_step"] / exchange["floor_bytes"], 3),
           "of_link": round(statistics.median(of_link), 3), "of_messages": round(statistics.median(of_messages), 3),
           "step_overhead": round(statistics.median(overheads), 3), "weight_bytes": exchange["weight_bytes"],
           "exchange_s": round(statistics.median(exchanges), 4),
           "link_gb_per_s": round(statistics.median(links) / 1e9, 2),
           "step_overheads": [round(o, 3) for o in overheads]}
    print("{ranks} ranks: {bytes_per_step} bytes a step ({of_floor} of the least), at {of_link} of the link's "
          "{link_gb_per_s} GB/s and {of_messages} of plain messages' speed; a real step takes {percent:+.1f} %".format(
              **row, percent=100 * row["step_overhead"]), file=sys.stderr, flush=True)
    return row


with tempfile.TemporaryDirectory() as temporary:
    before = os.getloadavg()[0]
    prepare(pathlib.Path(temporary))
    rows = [measure(ranks, pathlib.Path(temporary)) for ranks in args.ranks]
print(json.dumps({"command": "bench comm", "cores": CORES, "micro_batches": MICRO_BATCHES, "rounds": args.rounds,
                  "load": [round(before, 1), round(os.getloadavg()[0], 1)], "rows": rows}))
