#!/usr/bin/env python3
"""Whether what automata of JSON schemas let through satisfies the schemas, as python's jsonschema judges.

    FERRY_SCHEMA_WALKS=walks.jsonl build/grammar_test --gtest_filter='RandomSchema.*'
    pip install 'jsonschema[format]' && tools/oracle/check_schema_walks.py walks.jsonl

Each line of the file is a schema and a document that was drawn under its masks. Exits 1 if one is not valid.
"""
import json
import sys

import jsonschema


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    wrong = checked = 0
    with open(sys.argv[1], encoding="utf-8") as lines:
        for line in lines:
            walk = json.loads(line)
            checked += 1
            try:
                jsonschema.Draft202012Validator(walk["schema"]).validate(walk["document"])
            except jsonschema.ValidationError as error:
                wrong += 1
                print(f"{json.dumps(walk)}\n  {error.message}")
    print(f"{checked} documents, {wrong} that do not satisfy their schema")
    return 1 if wrong or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
