"""A crowd against ferry serve: streams whose answers are known, beside connections that send a byte now and then.

usage: crowd.py FERRY MODEL [--streams N] [--slow N] [--seconds S]; made by ./run test crowd. Exits with 1 if an answer was
lost or another's, or if the server grew or died.
"""
import argparse
import asyncio
import json
import pathlib
import re
import resource
import subprocess
import tempfile
import time

PROMPTS = [f"Question {i}: what comes after {i * 7}?" for i in range(16)]


def body_of(prompt):
    return json.dumps({"prompt": prompt, "max_tokens": 8, "temperature": 0, "stream": True}).encode()


async def ask(port, prompt):
    """The text of a streamed answer. None: the server was busy (503)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        body = body_of(prompt)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: "
                     + str(len(body)).encode() + b"\r\n\r\n" + body)
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 503"):
            return None
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head)
        said = b""
        while size := int((await reader.readline()).strip() or b"0", 16):
            said += (await reader.readexactly(size + 2))[:-2]
        events = [e[6:] for e in said.decode().split("\n\n") if e.startswith("data: ")]
        if events[-1] != "[DONE]":
            raise RuntimeError("a stream ended early")
        return "".join(json.loads(e)["choices"][0]["text"] for e in events[:-1])
    finally:
        writer.close()


async def slow(port, end):
    """Sends a byte of a head each second, again and again."""
    while time.monotonic() < end:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            for byte in b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 1000:
                if time.monotonic() >= end:
                    break
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(1)
            writer.close()
        except OSError:
            await asyncio.sleep(0.1)  # dropped, as it should be


async def crowd(port, pid, args):
    expected = {p: await ask(port, p) for p in PROMPTS}
    end = time.monotonic() + args.seconds
    counts = {"answers": 0, "busy": 0, "wrong": 0}

    async def stream(number):
        while time.monotonic() < end:
            prompt = PROMPTS[number % len(PROMPTS)]
            said = await ask(port, prompt)
            if said is None:
                counts["busy"] += 1
                await asyncio.sleep(0.2)
            else:
                counts["answers"] += 1
                counts["wrong"] += said != expected[prompt]
            number += 1

    slow_ones = [asyncio.create_task(slow(port, end)) for _ in range(args.slow)]
    streams = [asyncio.create_task(stream(i)) for i in range(args.streams)]
    await asyncio.sleep(args.seconds / 3)
    resident_before = resident(pid)
    await asyncio.gather(*streams)
    counts["grown_mib"] = (resident(pid) - resident_before) >> 20
    for task in slow_ones:
        task.cancel()
    await asyncio.gather(*slow_ones, return_exceptions=True)
    counts["answer_after"] = await ask(port, PROMPTS[0]) == expected[PROMPTS[0]]
    return counts


def resident(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) << 10


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ferry")
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    # The server inherits it: a descriptor for each connection.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory() as folder:
        log_path = pathlib.Path(folder, "log")
        with open(log_path, "wb") as log:
            server = subprocess.Popen([args.ferry, "serve", args.model, "--port", "0", "--quiet"], stderr=log)
        end = time.monotonic() + 120
        while not (ready := re.search(r"serving .* at http://\S+:(\d+)/", log_path.read_text())):
            if server.poll() is not None or time.monotonic() > end:
                raise SystemExit(log_path.read_text())
            time.sleep(0.05)
        counts = asyncio.run(crowd(int(ready[1]), server.pid, args))
        server.terminate()
        counts["status"] = server.wait(60)
    print(json.dumps(counts))
    good = counts["answers"] > 0 and counts["wrong"] == 0 and counts["answer_after"] and counts["status"] == 0
    raise SystemExit(0 if good and counts["grown_mib"] < 64 else 1)


if __name__ == "__main__":
    main()
