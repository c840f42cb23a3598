"""deploy/nginx.conf in front of three ferry serve, of which one is killed while many ask.

usage: balancer.py FERRY MODEL; made by ./run test balancer. Exits with 1 unless every whole answer is right and comes once,
and every stream is right or seen to be cut off.
"""
import asyncio
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

SERVERS, CLIENTS, SECONDS, KILL_AFTER = 3, 24, 12, 3
PROMPTS = [f"Question {i}: what comes after {i * 7}?" for i in range(8)]


class Server:
    def __init__(self, ferry, model, folder, number):
        self.log = pathlib.Path(folder, f"log-{number}")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([ferry, "serve", model, "--port", "0"], stderr=log)

    def port(self):
        end = time.monotonic() + 120
        while not (ready := re.search(r"serving .* at http://\S+:(\d+)/", self.log.read_text())):
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(self.log.read_text())
            time.sleep(0.05)
        return int(ready[1])


def start_nginx(folder, ports, port):
    """With the configuration that is deployed: only its ports are changed."""
    site = pathlib.Path("deploy/nginx.conf").read_text()
    for number, own in enumerate(ports, 1):
        site, count = re.subn(rf"127\.0\.0\.1:800{number}\b", f"127.0.0.1:{own}", site)
        assert count == 1
    site, count = re.subn(r"listen 8000;", f"listen 127.0.0.1:{port};", site)
    assert count == 1
    temporary = "".join(f"{name}_temp_path {folder}/{name};\n"
                        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    pathlib.Path(folder, "nginx.conf").write_text(
        f"pid {folder}/pid;\nerror_log {folder}/nginx.log;\ndaemon off;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{site}}}\n")
    nginx = subprocess.Popen(["/usr/sbin/nginx", "-c", f"{folder}/nginx.conf", "-e", f"{folder}/nginx.log"])
    time.sleep(0.5)
    if nginx.poll() is not None:
        raise SystemExit(pathlib.Path(folder, "nginx.log").read_text())
    return nginx


async def ask(port, prompt, stream, conversation="one"):
    """(text, whole): the text of an answer, as far as it came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        body = json.dumps({"prompt": prompt, "max_tokens": 8, "temperature": 0, "stream": stream}).encode()
        writer.write(b"POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nX-Conversation: " + conversation.encode()
                     + b"\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)
        said = await reader.read()
    finally:
        writer.close()
    head, _, said = said.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise RuntimeError(head.decode() + said.decode())
    if not stream:
        return json.loads(said)["choices"][0]["text"], True
    events = [e[6:] for e in said.decode().split("\n\n") if e.startswith("data: ") and e.endswith(("}", "]"))]
    whole = bool(events) and events[-1] == "[DONE]"
    return "".join(json.loads(e)["choices"][0]["text"] for e in events if e != "[DONE]"), whole


def free_port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


async def load(port, victim):
    expected = {p: (await ask(port, p, False))[0] for p in PROMPTS}
    counts = {"answers": 0, "streams": 0, "streams_cut_off": 0, "lost": 0, "wrong": 0}
    end = time.monotonic() + SECONDS

    async def client(number):
        while time.monotonic() < end:
            prompt, stream = PROMPTS[number % len(PROMPTS)], number % 2 == 1
            try:
                text, whole = await ask(port, prompt, stream, f"conversation {number}")
            except (RuntimeError, OSError, ValueError) as error:
                print(error, file=sys.stderr)
                counts["lost"] += 1
                continue
            counts["streams" if stream else "answers"] += 1
            if whole:
                counts["wrong"] += text != expected[prompt]
            else:
                counts["streams_cut_off"] += 1
                counts["wrong"] += not expected[prompt].startswith(text)
            number += CLIENTS

    clients = [asyncio.create_task(client(i)) for i in range(CLIENTS)]
    await asyncio.sleep(KILL_AFTER)
    victim.process.kill()
    await asyncio.gather(*clients)
    return counts


def main():
    ferry, model = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        servers = [Server(ferry, model, folder, i) for i in range(SERVERS)]
        port = free_port()
        nginx = start_nginx(folder, [s.port() for s in servers], port)
        try:
            counts = asyncio.run(load(port, servers[1]))
        finally:
            nginx.terminate()
            nginx.wait(10)
            for server in servers:
                server.process.terminate()
            statuses = [server.process.wait(60) for server in servers]
    counts["statuses"] = statuses
    print(json.dumps(counts))
    good = counts["answers"] > 0 and counts["streams"] > 0 and counts["lost"] == 0 and counts["wrong"] == 0
    raise SystemExit(0 if good and statuses == [0, -9, 0] else 1)


if __name__ == "__main__":
    main()
