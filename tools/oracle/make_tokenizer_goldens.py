"""Writes testdata/tokenizer/: five small tokenizers and what Hugging Face's tokenizers makes of tricky text.

The tokenizers are those of compare_tokenizers.py (DeepSeek-V3-, Llama-3-, Qwen2- and GPT-2-like) and one like DeepSeek-V2's, trained by
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

# The chain of DeepSeek-V2's tokenizer.json: line ends, letters with case, ASCII and full-width punctuation,
# space at the ends of pieces, CJK (by codes, characters younger than PCRE2's tables among them), digits.
V2_LETTERS = (
    "41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376-377 37B-37D 37F 386 388-38A "
    "38C 38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF "
    "1D00-1D2B 1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D "
    "1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 "
    "1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126 2128 212A-212D 212F-2134 2139 213C-213F "
    "2145-2149 214E 2183-2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2-2CF3 A640-A66D A680-A69B A722-A76F "
    "A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 "
    "104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943 ")
V2_CHAIN = [r"[\r\n]",
            r"\s?[" + "".join("-".join(chr(int(end, 16)) for end in r.split("-")) for r in V2_LETTERS.split()) + "]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", r"\s+$",
            "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"]
V2_TRICKY = [
    "a  \n b \n\n  c   ", "  end  ", "x \r\n", " \n \n", "\t\tif (x):  \r\n\r\n  y  ", "\u2018q\u2019\u201cr\u201d \uff01\uff1f \u3001\u3002\u3000\u3000z",
    "\u0897\u0cf3\u0ece a\u180eb \u180e\u1b4e\u1c89\u1c8a\u2427\u2ffc\u31e4\u31ef \u4e00\u9fa5\u9fa6", "\uac00\uac01\ud7a3 \ud7b0\ud7fb",
    "12 3456 \u0661\u0662 \u2167\u00bd\u00b2 \U00011de0\U00011de9\U00016ff4\U00016ff6 7", "sm\u00f8r \u00c1 \u00fc\u00fcber \u00f7", "\u1fd3\u2126\u212a\u1f7d\ua790\ua791 \U00010400\U00010c80\U0001e900x",
]


def v2_spec(spec):
    """The same vocabulary under V2's chain, and with settings that say nothing where every byte has a token."""
    steps = [dict(type="Split", pattern=dict(Regex=p), behavior="Isolated", invert=False) for p in V2_CHAIN]
    spec["pre_tokenizer"] = dict(type="Sequence", pretokenizers=steps + [
        dict(type="Digits", individual_digits=True),
        dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False)])
    spec["model"].update(byte_fallback=True, unk_token="<|pad|>", fuse_unk=True)
    # V2's vocabulary lacks the 13 bytes that UTF-8 never uses; their letters are added tokens.
    letters = "\u00c0\u00c1\u00f5\u00f6\u00f7\u00f8\u00f9\u00fa\u00fb\u00fc\u00fd\u00fe\u00ff"
    kept = sorted((t for t in spec["model"]["vocab"] if t not in letters), key=spec["model"]["vocab"].get)
    spec["model"]["vocab"] = {t: i for i, t in enumerate(kept)}
    for token in spec["added_tokens"]:
        token["id"] = spec["model"]["vocab"][token["content"]]
    for letter in letters:
        spec["added_tokens"].append(dict(id=len(kept) + letters.index(letter), content=letter, single_word=False, lstrip=False,
                                         rstrip=False, normalized=True, special=False))


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
        for name, vocab in (("deepseek", 700), ("deepseek_v2", 700), ("llama3", 640), ("qwen2", 640), ("gpt2", 500)):
            path = out / f"{name}.json"
            path.unlink(missing_ok=True)  # ferry writes over none
            subprocess.run([args.ferry, "tokenizer", "train", "--out", path, "--vocab", str(vocab), "--split", name.removesuffix("_v2"), corpus],
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
            if name == "deepseek_v2":
                v2_spec(spec)
            elif name != "deepseek":
                oracle.add_tokens(spec, FLAGGED)
            path.write_text(json.dumps(spec, ensure_ascii=False, separators=(",", ":")) + "\n")
            theirs = tokenizers.Tokenizer.from_file(str(path))
            cases = []
            for text in TRICKY + random_texts + (V2_TRICKY if name == "deepseek_v2" else []):
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
