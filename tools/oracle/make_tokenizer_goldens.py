"""Writes testdata/tokenizer/: four small tokenizers and what Hugging Face's tokenizers makes of tricky text.

The tokenizers are those of compare_tokenizers.py (DeepSeek-, Llama-3-, Qwen2- and GPT-2-like), trained by
Ferry with a vocabulary small enough to commit. goldens.json holds, for each, texts with their ids: special
tokens as text, and parsed.

Usage: python tools/oracle/make_tokenizer_goldens.py --ferry build/ferry   (seed fixed; tokenizers 0.23)
"""
import argparse
import json
import pathlib
import random
import subprocess
import tempfile

import tokenizers

import compare_tokenizers as oracle

FLAGGED = [("<|sp|>", ["special"]), ("<|spx", []), ("<|both|>", ["lstrip", "rstrip", "special"]),
           ("<left>", ["lstrip"]), ("<right>", ["rstrip"]), ("word", ["single_word"]), ("中文", ["single_word", "lstrip"]),
           ("e\u0301t", ["normalized"]), ("<think>", ["normalized"])]

TRICKY = [
    "", " ", "a", "\0", "\0\0 \0", "Hello, world! 1234567", "DeepSeek-V3 是一个MoE模型。", "don't can't I'll WE'VE it'ſ 'S",
    "def f(x):\n    return x**2\n", "  leading and  double\n\nnewline\t tab", "\r\n\r\n a", "x  \n  y \n\n\n z   ", "   ", "\n", " \n \r\n",
    "\u00a0a\u00a0\u00a0b\u3000c\u2028d\u0085e\u180ef\u200bg\x0b\x0ch\x1ci", "$9.99 @at #hash 100% a_b-c", "!abc ,def .gh _x ~y `z",
    "👩‍👩‍👧‍👦🏳️‍🌈👍🏽🇩🇪❤️☺️1️⃣", "e\u0301 é a\u0323\u0307 a\u0307\u0323 가\u11a8 각 \u1100\u1161\u11a8 \u212b \u2126 \ufb01 \u0958 \u0344",
    "\u0041\u030a\u0301 q\u0307\u0323 \u09c7\u09be \u1b05\u1b35 \U000110ba \u2adc \u0f73", "٣٤٥٦ १२३४ ⅷ ½ ²³ 12345 1,234.5 〇一二三",
    "カタカナひらがな漢字混じり、한국어 텍스트。", "\U00031350\U0001e030\U000105c0 \u1c89\u1c8a \ua7cb\ua7cd \U00010d40\U00010d41 \u0897x \U0001cc00",
    "\ufffd\ufffd a\ufffdb", "<|bos|>hi<|eos|><|pad|>", "<|bos|", "<|bos|><|bos|> <|eos|>x", "a <|sp|> b<|spx|>c <|spx <|sp|",
    "a  <|both|>  b", "x <left> <left>y", "x <right>  \n y <right><right> z", "word words sword word, _word word_ éword word", "a 中文 b中文c  中文",
    "et e\u0301t \u00e9t <think>ok</think>", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "-" * 90 + "\n" + "=" * 50 + " " * 70 + "x", "The quick brown fox jumps over the lazy dog. " * 3,
    "if (a && b) { return *p++ ->q; } // c\n\t\tfor(;;)\n", "https://example.org/a?b=c&d=%20e#f", "iPhone15ProMax v2.0.1-rc3",
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ferry", required=True)
    parser.add_argument("--out", default="testdata/tokenizer")
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    rng = random.Random(7)
    goldens = dict(made_by="tools/oracle/make_tokenizer_goldens.py", tokenizers=tokenizers.__version__, files={})
    random_texts = [oracle.random_unicode(rng, 300).decode(), oracle.spaces(rng, 500).decode(), oracle.marks(rng, 500).decode(),
                    oracle.ill_formed(rng, 400).decode("utf-8", errors="replace"), oracle.chinese(rng, 300).decode()]
    with tempfile.TemporaryDirectory() as folder:
        corpus = pathlib.Path(folder) / "corpus.txt"
        corpus.write_bytes(oracle.sources(rng, 300_000) + oracle.chinese(rng, 60_000) + oracle.emoji_and_names(rng, 60_000) +
                           "".join(TRICKY).encode() * 3)
        for name, vocab in (("deepseek", 700), ("llama3", 640), ("qwen2", 640), ("gpt2", 500)):
            path = out / f"{name}.json"
            subprocess.run([args.ferry, "tokenizer", "train", "--out", path, "--vocab", str(vocab), "--split", name, corpus],
                           check=True, stdout=subprocess.DEVNULL)
            spec = json.loads(path.read_text())
            if name == "llama3":
                spec["model"]["ignore_merges"] = True
                for word in ["Ġquick", "Ġbrownish", "jumps"]:
                    spec["model"]["vocab"].setdefault(word, len(spec["model"]["vocab"]))
            if name == "qwen2":
                spec["normalizer"] = {"type": "NFC"}
                spec["model"]["merges"] = [" ".join(m) for m in spec["model"]["merges"]]
            if name == "gpt2":
                spec["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
            if name != "deepseek":
                oracle.add_tokens(spec, FLAGGED)
            path.write_text(json.dumps(spec, ensure_ascii=False, separators=(",", ":")) + "\n")
            theirs = tokenizers.Tokenizer.from_file(str(path))
            cases = []
            for text in TRICKY + random_texts:
                theirs.encode_special_tokens = True
                as_text = theirs.encode(text, add_special_tokens=False).ids
                theirs.encode_special_tokens = False
                parsed = theirs.encode(text, add_special_tokens=False).ids
                cases.append(dict(text=text, ids=as_text) if parsed == as_text else dict(text=text, ids=as_text, parsed=parsed))
            goldens["files"][name] = cases
    lines = [json.dumps({k: v for k, v in goldens.items() if k != "files"})[:-1] + ', "files": {']
    for i, (name, cases) in enumerate(goldens["files"].items()):
        lines.append(f'"{name}": [')
        lines.append(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
        lines.append("]," if i + 1 < len(goldens["files"]) else "]")
    (out / "goldens.json").write_text("\n".join(lines) + "}}\n")


main()
