#!/usr/bin/env python3
"""Writes testdata/chat/masks.json: conversations, and which of their tokens Transformers says the assistant writes
(apply_chat_template with return_assistant_tokens_mask), for the small tokenizers of testdata/tokenizer.

    pip install transformers==5.23.0 jinja2==3.1.6
    tools/oracle/make_chat_masks.py testdata/tokenizer testdata/chat/masks.json
"""

import json
import os
import sys

from transformers import PreTrainedTokenizerFast

# The answer and its end token are what is generated, as in the templates that people train with.
CHATML = (
    "{%- for m in messages -%}"
    "{{- BOS + m['role'] + '\n' -}}"
    "{%- if m['role'] == 'assistant' -%}"
    "{%- generation -%}{{- m['content'] + EOS -}}{%- endgeneration -%}{{- '\n' -}}"
    "{%- else -%}{{- m['content'] + EOS + '\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- BOS + 'assistant\n' -}}{%- endif -%}"
)
PLAIN = (
    "{{- BOS -}}"
    "{%- for m in messages -%}"
    "{%- if m['role'] == 'assistant' -%}"
    "{{- '### Answer:\n' -}}{%- generation -%}{{- m['content'] + EOS -}}{%- endgeneration -%}"
    "{%- else -%}{{- '### ' + m['role'] + ': ' + m['content'] + '\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '### Answer:\n' -}}{%- endif -%}"
)


def turns(*texts, system=None):
    messages = [{"role": "system", "content": system}] if system else []
    for i, text in enumerate(texts):
        messages.append({"role": "assistant" if i % 2 else "user", "content": text})
    return messages


CONVERSATIONS = [
    turns("Hi", "Ho"),
    turns("What is a ferry?", "A boat that goes back and forth.\n", system="Be brief."),
    turns("one", "two", "three", "four", "five", "six"),
    turns("ôter 船 🚢", "naïve — “quoted” 🙂\n\n```c\nint x = 1;\n```"),
    turns("  spaces  ", "\tand tabs 12345678 \n"),
    turns("a", "", "b", "c"),
]


def main(tokenizers, out):
    cases = []
    for name in ("qwen2", "deepseek", "llama3"):
        path = os.path.join(tokenizers, name + ".json")
        special = {t["content"]: t["id"] for t in json.load(open(path))["added_tokens"] if t["special"]}
        bos, eos = (next(t for t in special if word in t) for word in ("bos", "eos"))
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=path, bos_token=bos, eos_token=eos)
        for template in (CHATML, PLAIN):
            template = template.replace("BOS", repr(bos)).replace("EOS", repr(eos))
            for messages in CONVERSATIONS:
                got = tokenizer.apply_chat_template(
                    messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
                )
                ids, mask = got["input_ids"], got["assistant_masks"]
                cases.append({"tokenizer": name, "template": template, "messages": messages, "eos": special[eos],
                              "ids": list(ids), "mask": "".join(str(m) for m in mask)})
    with open(out, "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main(*sys.argv[1:])
