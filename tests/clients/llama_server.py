"""llama.cpp's own server tests, where they apply, against ferry serve with a small model.

usage: llama_server.py FERRY MODEL FOLDER [pytest's arguments]; made by ./run test llama-server. FOLDER holds
llama.cpp's tools/server/tests and models/templates. What of them is asked, and why the rest is not: llama_server.toml.
"""
import ast
import collections
import inspect
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import types

import pytest

HERE = pathlib.Path(__file__).parent
LIST = HERE / "llama_server.toml"

# Settings of their server that have an option here, are told otherwise, or change no answer.
NO_MATTER = {"api_key", "chat_template", "chat_template_file", "debug", "external_server", "jinja",
             "kv_unified", "log_path", "model_alias", "n_batch", "n_ctx", "n_predict", "n_slots",
             "n_ubatch", "offline", "process", "ready", "reasoning", "seed", "server_host",
             "server_metrics", "server_port", "server_slots", "temperature"}
MODEL_OF_ANY = "ggml-org/test-model-stories260K"  # what most tests ask for: ferry serve has its own in its place


class Entry:
    """Of a test, or of all tests of a file: whether it applies."""

    def __init__(self, name, group, asked):
        found = re.fullmatch(r"(test_\w+\.py)(?:::(\w+)(?:\[(.*)\])?)?", name)
        if not found:
            sys.exit(f"{LIST}: {name!r} names no test")
        self.name, (self.file, self.function, self.case) = name, found.groups()
        self.asked, self.because = asked, group.get("because", "")
        self.without, self.template = group.get("without", []), group.get("template")

    def is_of(self, item):
        if self.file != item.path.name or self.function not in (None, item.originalname):
            return False
        return self.case is None or re.search(self.case, item.callspec.id) is not None


class Listed:
    """llama_server.toml."""

    def __init__(self):
        groups = tomllib.loads(LIST.read_text())
        self.entries = [Entry(name, group, kind == "asked")
                        for kind in ("asked", "not_asked") for group in groups[kind] for name in group["tests"]]
        # Those that say most come first.
        self.entries.sort(key=lambda e: (e.case is None, e.function is None))

    def entry_of(self, item):
        return next((e for e in self.entries if e.is_of(item)), None)

    def without(self, file, function):
        return next((e.without for e in self.entries if e.asked and (e.file, e.function) == (file, function)), [])


def with_less(path, listed):
    """A file of tests in which no assertion speaks of what the list leaves out; lines stay where they were."""
    source = path.read_text()
    lines = source.splitlines(keepends=True)
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for word in listed.without(path.name, function.name):
            found = [a for a in ast.walk(function) if isinstance(a, ast.Assert) and word in ast.unparse(a.test)]
            if not found:
                sys.exit(f"{LIST}: {path.name}::{function.name} asserts nothing of {word!r}")
            for node in found:
                lines[node.lineno - 1:node.end_lineno] = (
                    [" " * node.col_offset + "pass\n"] + ["\n"] * (node.end_lineno - node.lineno))
    return "".join(lines)


WHERE = ("id_slot", "cache_prompt")  # where an answer is computed, and from what is known: no answer depends on it
NATIVE = ("/completion", "/completions")  # their own form of completions; OpenAI's is at /v1 alone


def as_openai(server, native):
    """Their own kind of a request for a text, as OpenAI's."""
    most = native.get("n_predict", server.n_predict)
    asked = {name: value for name, value in native.items()
             if name not in ("n_predict", "return_tokens", *WHERE)}
    # The model of these tests knows no end; this one does.
    return asked | {"max_tokens": 1 << 20 if most == -1 else most, "ignore_eos": True, "timings_per_token": True,
                    "return_token_ids": True}


def as_native(choice, answer, asked, native):
    """What OpenAI's form tells, in theirs."""
    timings, end = answer["timings"], choice["finish_reason"]
    ids = choice.get("token_ids", [])
    return {"content": choice["text"], "timings": timings, "stop": end is not None,
            "tokens": ids if native.get("return_tokens") or native.get("stream") else [],
            "truncated": end == "length" and timings["predicted_n"] < asked["max_tokens"]}


class FerryServer:
    """What their ServerProcess does, by ferry serve."""

    def __init__(self, ferry, model, folder, work, utils):
        self.ferry, self.model, self.folder, self.work, self.utils = ferry, model, folder, work, utils
        self.item = self.entry = None  # the test that runs
        self.make_request, self.make_stream_request = (
            utils.ServerProcess.make_request, utils.ServerProcess.make_stream_request)
        utils.ServerProcess.start = lambda server, timeout_seconds=60: self.start(server, timeout_seconds)
        utils.ServerProcess.make_request = lambda server, *args, **named: self.ask(server, *args, **named)
        utils.ServerProcess.make_stream_request = lambda server, *args, **named: self.stream(server, *args, **named)

    def names(self, server):
        """Their server answers whatever model it is asked for; this one has these names: its own, and the test's."""
        asked = re.findall(r'\bmodel"?\s*[:=]\s*"([^"]+)"', inspect.getsource(self.item.function))
        asked.append(getattr(self.item, "callspec", None) and self.item.callspec.params.get("model"))
        return dict.fromkeys(name for name in [server.model_alias, *asked] if name)

    def template(self, server, folder):
        if server.chat_template_file:
            return self.folder / "tools/server/tests" / server.chat_template_file
        if server.chat_template and not re.fullmatch(r"[\w.-]+", server.chat_template):  # no name of one of theirs
            path = folder / "template.jinja"
            path.write_text(server.chat_template)
            return path
        return self.entry.template and HERE / self.entry.template

    def options(self, server, folder):
        usual = self.utils.ServerPreset.tinyllama2()
        if server.model_hf_repo != MODEL_OF_ANY:
            pytest.fail("asks for a model that has to be fetched")
        for name, value in vars(server).items():
            if name not in NO_MATTER and value != getattr(usual, name):
                pytest.fail(f"ferry serve has nothing like {name}")
        # Theirs draws with a seed of its own, the same in each run; here nothing is drawn. It trusts any origin.
        options = ["--host", server.server_host, "--port", "0", "--temperature", "0", "--cors", "*"]
        room = server.n_ctx if server.kv_unified else server.n_ctx // server.n_slots
        options += ["--running", str(server.n_slots), "--cache-tokens", str(room)]
        for name in self.names(server):
            options += ["--name", name]
        if server.api_key:
            (folder / "keys").write_text(server.api_key + "\n")
            options += ["--api-key-file", str(folder / "keys")]
        if template := self.template(server, folder):
            options += ["--chat-template", str(template)]
        return options

    def start(self, server, timeout_s):
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.work))
        log_path = folder / "log"
        options = self.options(server, folder)
        with open(log_path, "wb") as log:
            server.process = subprocess.Popen([self.ferry, "serve", self.model, *options], stderr=log)
        self.utils.server_instances.add(server)
        end = time.monotonic() + timeout_s
        while not (ready := re.search(r"serving .* at http://.*:(\d+)/", log_path.read_text())):
            if server.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(log_path.read_text())
            time.sleep(0.05)
        server.server_port = int(ready[1])

    def ask(self, server, method, path, data=None, *args, **named):
        data = data and {name: value for name, value in data.items() if name not in WHERE}
        if path == "/apply-template":
            return self.apply_template(server, data)
        if method != "POST" or path not in NATIVE:
            return self.make_request(server, method, path, data, *args, **named)
        asked = as_openai(server, data)
        answer = self.make_request(server, method, "/v1/completions", asked, *args, **named)
        if answer.status_code == 200:
            choices = [as_native(choice, answer.body, asked, data) for choice in answer.body["choices"]]
            answer.body = choices[0] if len(choices) == 1 else choices
        return answer

    def apply_template(self, server, conversation):
        """There is no such path: a conversation's tokens tell the text that the template made of it."""
        if server.reasoning:  # "auto", too, tells the template to think, if it knows how
            conversation["thinking"] = {"type": "disabled" if server.reasoning == "off" else "adaptive"}
        tokens = self.make_request(server, "POST", "/tokenize", conversation)
        if tokens.status_code != 200:
            return tokens
        text = self.make_request(server, "POST", "/detokenize", {"tokens": tokens.body["tokens"]})
        text.body["prompt"] = text.body["content"]
        return text

    def stream(self, server, method, path, data=None, *args, **named):
        if path in NATIVE:
            asked = as_openai(server, data)
            for event in self.make_stream_request(server, method, "/v1/completions", asked, *args, **named):
                yield as_native(event["choices"][0], event, asked, data)
            return
        if "n_predict" in data:
            data = {"max_tokens": data.pop("n_predict"), "ignore_eos": True, **data}
        for event in self.make_stream_request(server, method, path, data, *args, **named):
            # The first says the role; its content is "" with OpenAI and DeepSeek, null with llama.cpp.
            for choice in event.get("choices", []):
                if choice.get("delta", {}).get("role") and choice["delta"]["content"] == "":
                    choice["delta"]["content"] = None
            yield event


class Plugin:
    """Asks what the list says, and counts."""

    def __init__(self, listed, server, utils):
        self.listed, self.server, self.utils = listed, server, utils
        self.outcomes, self.reasons = collections.Counter(), collections.Counter()

    @pytest.hookimpl(tryfirst=True)  # all tests, before some are chosen
    def pytest_collection_modifyitems(self, items):
        entries = {item.nodeid: self.listed.entry_of(item) for item in items}
        if unknown := [name for name, entry in entries.items() if entry is None]:
            raise pytest.UsageError(f"{LIST} says nothing of {', '.join(unknown)}")
        if unused := [e.name for e in self.listed.entries if e not in entries.values()]:
            raise pytest.UsageError(f"{LIST} names what there is no test of: {', '.join(unused)}")

    @pytest.hookimpl(tryfirst=True)  # before what the test itself has to say
    def pytest_runtest_setup(self, item):
        self.server.item, self.server.entry = item, self.listed.entry_of(item)
        if not self.server.entry.asked:
            pytest.skip(self.server.entry.because)

    @pytest.fixture(autouse=True)
    def servers_end(self):
        yield
        for server in set(self.utils.server_instances):
            server.stop()

    def pytest_runtest_logreport(self, report):
        if report.outcome == "skipped":
            self.outcomes["skipped"] += 1
            self.reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
        elif report.outcome == "failed" or report.when == "call":
            self.outcomes[report.outcome] += 1

    def close(self):
        """Says what became of all."""
        print()
        for reason, count in self.reasons.most_common():
            print(f"{count:4} do not apply: {reason}")
        passed, failed = self.outcomes["passed"], self.outcomes["failed"]
        print(f"\nllama.cpp's server tests: {passed + failed} ran, {passed} passed, {failed} failed, "
              f"{self.outcomes['skipped']} do not apply")


def main():
    ferry, model, folder = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
    listed = Listed()
    tests = folder / "tools/server/tests"
    with tempfile.TemporaryDirectory() as work:
        unit = pathlib.Path(work, "unit")
        unit.mkdir()
        for path in sorted(tests.glob("unit/*.py")):
            (unit / path.name).write_text(with_less(path, listed))
        sys.path[:0] = [work, str(tests)]
        sys.modules["wget"] = types.ModuleType("wget")  # nothing is fetched
        import utils
        plugin = Plugin(listed, FerryServer(ferry, model, folder, work, utils), utils)
        status = pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", work, "-c", str(tests / "pytest.ini"),
                              "--import-mode=importlib", str(unit), *sys.argv[4:]], plugins=[plugin])
    if status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        plugin.close()
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
