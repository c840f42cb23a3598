#!/usr/bin/env python3
"""Writes testdata/goldens/gguf_blocks.json: for each quantised type of GGUF three blocks of random
bytes (their scales kept finite and small) and the numbers that llama.cpp's own Python package
decodes them to, as the bits of f32.

    pip install gguf==0.17.1 numpy
    tools/oracle/make_gguf_goldens.py testdata/goldens/gguf_blocks.json
"""

import json
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

# Where in a block the f16 scales lie.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}


def main(path):
    rng = np.random.default_rng(7)
    out = {}
    for name, places in SCALES.items():
        kind = GGMLQuantizationType[name]
        elements, size = GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (3, size), dtype=np.uint8)
        for place in places:
            scale = rng.normal(size=3).astype(np.float16)
            blocks[:, place : place + 2] = scale[:, None].view(np.uint8)
        values = quants.dequantize(blocks, kind).astype(np.float32)
        assert values.size == 3 * elements
        out[name] = {
            "bytes": blocks.tobytes().hex(),
            "values": values.tobytes().hex(),
        }
    with open(path, "w", encoding="ascii") as f:
        json.dump(out, f, indent=0)
        f.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
