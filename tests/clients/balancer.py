"""deploy/nginx.conf in front of three ferry serve, of which one is killed while many ask; before that, in front of
three that refuse, keep silent and count as they are told.

usage: balancer.py [FERRY MODEL]; made by ./run test balancer. Exits with 1 unless every whole answer is right and comes
once, and every stream is right or seen to be cut off. Without arguments: only the part without a model.
"""
import asyncio
import contextlib
import json
import pathlib
import re
import socket
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


def start_nginx(folder, ports, port, changes=()):
    """With the configuration that is deployed: its ports are changed, and what `changes` names: (pattern, text)."""
    site = pathlib.Path("deploy/nginx.conf").read_text()
    own = [(rf"127\.0\.0\.1:800{number}\b", f"127.0.0.1:{at}") for number, at in enumerate(ports, 1)]
    for pattern, text in [*own, (r"listen 8000;", f"listen 127.0.0.1:{port};"), *changes]:
        site, count = re.subn(pattern, text, site)
        assert count > 0, pattern
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


class Stub:
    """Answers with its number, or as the prompt says: "refuse" (503, as where too many wait), "silent" (nothing, for
    longer than nginx waits), "slow" (half a second). Counts what it is asked."""

    def __init__(self, number):
        self.number, self.asked, self.at_once, self.most_at_once = number, [], 0, 0

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                body = await reader.readexactly(int(re.search(r"content-length: (\d+)", head, re.IGNORECASE)[1]))
                prompt = json.loads(body)["prompt"]
                self.asked.append(prompt)
                if "silent" in prompt:
                    await asyncio.sleep(5)
                if "slow" in prompt:
                    self.at_once += 1
                    self.most_at_once = max(self.most_at_once, self.at_once)
                    await asyncio.sleep(0.5)
                    self.at_once -= 1
                status, more = (503, "Retry-After: 1\r\n") if "refuse" in prompt else (200, "")
                said = json.dumps({"choices": [{"text": str(self.number)}]})
                writer.write(f"HTTP/1.1 {status} X\r\n{more}Content-Length: {len(said)}\r\n\r\n{said}".encode())
                await writer.drain()
        writer.close()


async def status_of(port, prompt, headers=""):
    """(status, head, which stub answered)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"prompt": prompt}).encode()
    writer.write(f"POST /v1/completions HTTP/1.0\r\nHost: a\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode()
                 + body)
    head, _, said = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    status = int(head.split()[1])
    return status, head.decode(), json.loads(said)["choices"][0]["text"] if said[:1] == b"{" else None


async def rules(folder):
    """What the configuration promises of servers that are busy, slow or gone."""
    stubs = [await Stub(i).start() for i in range(SERVERS)]
    port = free_port()
    waits = [(rf"{name} \S+;", f"{name} 1s;") for name in ("proxy_read_timeout", "proxy_connect_timeout")]

    def asked(prompt):
        return sum(s.asked.count(prompt) for s in stubs)

    nginx = start_nginx(folder, [s.port for s in stubs], port, [*waits, (r"max_conns=\d+", "max_conns=4")])
    try:
        # What begins alike goes to one server, and with other keys, for which it is computed anew anyway, to others.
        beginning = "You are a helpful assistant. " * 50
        whose = {(await status_of(port, f"{beginning}{i}"))[2] for i in range(12)}
        assert len(whose) == 1, whose
        for name in ("Authorization: Bearer", "X-Api-Key:"):
            whose = {(await status_of(port, beginning, f"{name} key-{i}\r\n"))[2] for i in range(24)}
            assert len(whose) == SERVERS, f"{name}: 24 keys are answered by {len(whose)} servers"
        whose = {(await status_of(port, f"{i}: other words", "X-Conversation: 7\r\n"))[2] for i in range(12)}
        assert len(whose) == 1, whose
        # More than a server answers at once go to the others; more than all do wait, and are answered.
        for crowd, most in ((12, 4), (24, 24)):
            for stub in stubs:
                stub.most_at_once = 0
            answers = await asyncio.gather(*[status_of(port, f"{beginning} slow {i}") for i in range(crowd)])
            assert [a[0] for a in answers] == [200] * crowd, answers
            assert len({a[2] for a in answers}) == SERVERS
            assert max(s.most_at_once for s in stubs) <= most, [s.most_at_once for s in stubs]
        # A question that all are too busy for says nothing against them.
        for i in range(4):
            status, head, _ = await status_of(port, f"refuse {i}")
            assert status == 503 and "Retry-After: 1" in head, head
            assert all(f"refuse {i}" in s.asked for s in stubs), "a server that might have had room was not asked"
            for k in range(8):
                status, head, _ = await status_of(port, f"{k} after a refusal")
                assert status == 200, head
        # One that no server answers in time is not computed by one after the other, and the next one is answered.
        for i in range(4):
            status, head, _ = await status_of(port, f"silent {i}")
            assert status == 504 and asked(f"silent {i}") == 1, f"{asked(f'silent {i}')} times: {head}"
            status, head, _ = await status_of(port, "after silence")
            assert status == 200, head
    finally:
        nginx.terminate()
        nginx.wait(10)
    # One whose machine is gone: nothing answers there, not even "no". The others do, whoever was to be asked.
    with socket.socket() as void:
        void.bind(("127.0.0.1", 0))
        void.listen(0)
        with contextlib.ExitStack() as fillers:
            for _ in range(3):
                filler = fillers.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(void.getsockname())
            nginx = start_nginx(folder, [stubs[0].port, void.getsockname()[1], stubs[2].port], port, waits)
            try:
                for i in range(12):
                    status, head, _ = await status_of(port, f"{i} while one is gone")
                    assert status == 200, head
            finally:
                nginx.terminate()
                nginx.wait(10)


def main():
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(rules(folder))
    print("busy, silent and absent servers: as deploy/nginx.conf says")
    if len(sys.argv) == 1:
        return
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
