"""A server that says what a test tells it to: the page's files as they are embedded, and canned answers."""

import json
import pathlib
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import log

SOURCES = pathlib.Path(__file__).resolve().parents[2]

PASSPORT = json.loads((pathlib.Path(__file__).parent / "passport.json").read_text())


def page_policy():
    """The Content-Security-Policy of page_files.h."""
    header = (SOURCES / "src/serve/page/page_files.h").read_text()
    value = header[header.index("kPageSecurityPolicy ="):]
    return "".join(re.findall(r'"([^"]*)"', value[:value.index(";\n\n")]))


def delta(**fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def tokens(text, probabilities=(), field="content"):
    """Chunks, a word each, with the log-probabilities that a test gives: [(p, [(other, p), ...]), ...]."""
    words = re.findall(r"\s*\S+|\s+$", text)
    out = []
    for i, word in enumerate(words):
        p, others = probabilities[i] if i < len(probabilities) else (0.95, [])
        out.append(given(word, p, others, **{field: word}))
    return out


def entry(token, p, others=()):
    return {**named(token, p), "top_logprobs": [named(t, q) for t, q in others]}


def named(token, p):
    """token: a text, or bytes that need not be one; <|...|> are control tokens."""
    data = token if isinstance(token, bytes) else token.encode()
    text = data.decode(errors="replace")
    special = {"special": True} if text.startswith("<|") else {}
    return {"token": text, "logprob": log(p), "bytes": list(data), **special}


def given(token, p=0.95, others=(), **fields):
    """A chunk of a token with the text that comes with it: none where it is held back, or is no part of the answer."""
    chunk = delta(**fields)
    chunk["choices"][0]["logprobs"] = {"content": [entry(token, p, [(token, p), *others])]}
    return chunk


def ending(prompt=12, known=0, completion=5, finish="stop"):
    return [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
            {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion,
                                      "total_tokens": prompt + completion,
                                      "prompt_tokens_details": {"cached_tokens": known}}}]


def said(text, **end):
    """A whole answer in two pieces."""
    half = len(text) // 2
    return [delta(role="assistant", content=""), delta(content=text[:half]), delta(content=text[half:]), *ending(**end)]


class CannedServer:
    """answers: for each request in order a list of chunks; a threading.Event among them is waited for, a number is
    slept (s), None closes the connection, a string is sent as it is. The last one is repeated. refusal: (status,
    message, headers) in place of answers."""

    def __init__(self, build="build"):
        self.answers = [said("Hello.")]
        self.refusal = None
        self.key = None
        self.model = "tiny"
        self.passport = PASSPORT
        self.asked = []  # bodies of requests
        self.keys = []  # their Authorization headers
        self.gone = threading.Event()  # a client left before its answer's end
        listing = SOURCES / build / "generated/page_files.cc.list"
        self.files = {}
        for line in listing.read_text().splitlines():
            path, kind, file = line.split(" ", 2)
            self.files[path] = (kind + ("; charset=utf-8" if kind.startswith("text/") else ""), file)
        canned = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                canned.get(self)

            def do_POST(self):
                canned.post(self)

        class Server(ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                if not isinstance(sys.exc_info()[1], ConnectionError):  # a browser leaves when it likes
                    super().handle_error(request, client_address)

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    @staticmethod
    def reply(handler, status, body, kind="application/json", headers=()):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", len(body)), *headers):
            handler.send_header(name, str(value))
        handler.end_headers()
        handler.wfile.write(body)

    def allowed(self, handler):
        self.keys.append(handler.headers.get("Authorization"))
        if self.key is None or handler.headers.get("Authorization") == f"Bearer {self.key}":
            return True
        self.reply(handler, 401, {"error": {"message": "Incorrect API key provided.", "type": "invalid_request_error"}})
        return False

    def get(self, handler):
        path = handler.path.split("?")[0]
        if path in self.files:
            kind, file = self.files[path]
            with open(file, "rb") as content:
                self.reply(handler, 200, content.read(), kind, [("Content-Security-Policy", page_policy())])
        elif path == "/v1/models":
            if self.allowed(handler):
                self.reply(handler, 200, {"object": "list", "data": [{"id": self.model, "object": "model"}]})
        elif path == "/ferry/passport" and self.passport:
            if self.allowed(handler):
                self.reply(handler, 200, self.passport)
        else:
            self.reply(handler, 404, {"error": {"message": f"There is no {path}."}})

    def post(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        if not self.allowed(handler):
            return
        self.asked.append(body)
        if self.refusal:
            status, message, headers = self.refusal
            self.reply(handler, status, {"error": {"message": message}}, headers=headers)
            return
        chunks = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        try:
            for chunk in chunks:
                if isinstance(chunk, threading.Event):
                    # Keep-alives, as a server that waits sends them: so it learns that the client left.
                    while not chunk.wait(0.05):
                        handler.wfile.write(b": keep-alive\n\n")
                        handler.wfile.flush()
                elif isinstance(chunk, (int, float)):
                    threading.Event().wait(chunk)
                elif chunk is None:
                    return
                else:
                    text = chunk if isinstance(chunk, str) else f"data: {json.dumps(chunk)}\n\n"
                    handler.wfile.write(text.encode())
                    handler.wfile.flush()
            handler.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            self.gone.set()
