"""ferry verify --server against llama.cpp's server (llama-cpp-python's): honest as it is, with weights of several
formats, and with faults that its settings provoke.

usage: servers_test.py --ferry build/ferry --python PYTHON --model MODEL.gguf --folder FOLDER [CASE...]: PYTHON has
llama-cpp-python with its server; what is made of the model, other formats of its weights, is kept in FOLDER
"""

import argparse
import dataclasses
import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

# What of llama.cpp writes the weights so.
FORMATS = {"f16": "LLAMA_FTYPE_MOSTLY_F16", "bf16": "LLAMA_FTYPE_MOSTLY_BF16", "q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
           "q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0"}

REQUANTISE = """
import ctypes, sys, llama_cpp
p = llama_cpp.llama_model_quantize_default_params()
p.ftype, p.allow_requantize = getattr(llama_cpp, sys.argv[3]), True
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(p)))
"""


@dataclasses.dataclass
class Case:
    served: str                 # the format of the server's weights; "as_is"
    expected: str               # the model that it should be, in which format
    fault: str | None           # the name that verify is to tell; None: it is honest
    server: tuple = ()          # settings of the server
    verify: tuple = ()          # options of ferry verify


CASES = {
    "as it is": Case("as_is", "as_is", None),
    "f16": Case("f16", "f16", None, verify=("--weights", "bf16")),
    "bf16": Case("bf16", "bf16", None, verify=("--weights", "bf16")),
    "q8_0": Case("q8_0", "q8_0", None),
    "q8_0 of bf16, and says so": Case("q8_0", "bf16", None, verify=("--weights", "int8")),
    "tokens alone": Case("as_is", "as_is", None, server=("--logits_all", "false")),
    "q4_0 for bf16": Case("q4_0", "bf16", "quantised", verify=("--weights", "bf16")),
    "q4_0 said to be int8": Case("q4_0", "bf16", "quantised", verify=("--weights", "int8")),
    "positions stretched": Case("bf16", "bf16", "rope", server=("--rope_freq_scale", "0.5"),
                                verify=("--weights", "bf16")),
    "another base of positions": Case("bf16", "bf16", "rope", server=("--rope_freq_base", "10000"),
                                      verify=("--weights", "bf16")),
    "another template": Case("bf16", "bf16", "template", server=("--chat_format", "llama-2"),
                             verify=("--weights", "bf16")),
    "a begin token that is not wanted": Case("bf16", "bf16", "bos-doubled", verify=("--weights", "bf16"),
                                             server=("--kv_overrides", "tokenizer.ggml.add_bos_token=bool:true")),
}


def ask(url):
    with urllib.request.urlopen(url, timeout=5) as reply:
        return reply.read()


class Server:
    """llama-cpp-python's server on a port of its own, as long as the block runs."""

    def __init__(self, python, model, settings, log):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        options = {"--model": str(model), "--port": str(self.port), "--host": "127.0.0.1", "--logits_all": "true",
                   "--n_ctx": "1200", "--verbose": "false"}
        options.update(zip(settings[::2], settings[1::2]))
        self.command = [python, "-m", "llama_cpp.server"] + [word for pair in options.items() for word in pair]
        self.log = log

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=subprocess.STDOUT)
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                ask(self.address + "/v1/models")
                return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        self.__exit__()
        raise RuntimeError(f"the server did not start: {' '.join(self.command)}")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def file_of(args, kind):
    if kind == "as_is":
        return args.model
    path = args.folder / f"{args.model.stem}.{kind}.gguf"
    if not path.exists():
        partial = path.with_suffix(".partial")
        subprocess.run([args.python, "-c", REQUANTISE, args.model, partial, FORMATS[kind]], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        partial.rename(path)
    return path


def run(args, name, case):
    """What is wrong; an empty text: nothing."""
    log = args.folder / "server.log"
    with open(log, "w") as out, Server(args.python, file_of(args, case.served), case.server, out) as server:
        command = [args.ferry, "verify", file_of(args, case.expected), "--server", server.address, "--timeout", "600",
                   "--positions", str(args.positions), *case.verify, "--json", "-"]
        begin = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if (ended := server.process.poll()) is not None:
            return f"the server ended with {ended}, while it was asked: {log.read_text()[-400:]}"
    lines = done.stdout.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        return f"status {done.returncode}: {done.stderr.strip()[-400:]}"
    report = json.loads(lines[-1])
    print(f"{name:<34} {report['verdict']:<11} {str(report['fault']):<13} {report['compared_tokens']:>5} tokens, "
          f"KL {report['kl_mean']:.2g}, at most {report['kl_max']:.2g}; {time.monotonic() - begin:.0f} s", flush=True)
    right = report["fault"] == case.fault and done.returncode == (0 if case.fault is None else 1)
    return "" if right else f"expected {case.fault}\n" + done.stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ferry", required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--folder", required=True, type=pathlib.Path)
    parser.add_argument("--positions", type=int, default=512, help="of the longest text")
    parser.add_argument("cases", nargs="*", help=", ".join(CASES))
    args = parser.parse_args()
    for name in args.cases:
        if name not in CASES:
            sys.exit(f"servers_test: there is no case {name!r}; there are: {', '.join(CASES)}")
    args.folder.mkdir(parents=True, exist_ok=True)
    wrong = {}
    for name in args.cases or CASES:
        if problem := run(args, name, CASES[name]):
            wrong[name] = problem
    for name, problem in wrong.items():
        print(f"\nWRONG: {name}: {problem}")
    print(json.dumps({"cases": len(args.cases or CASES), "wrong": sorted(wrong)}))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
