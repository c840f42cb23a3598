"""A GGUF file of random weights in the shapes of a model, for measuring speed: the same file for both sides."""
import struct

import numpy as np

F32, Q8_0, BF16 = 0, 8, 30
ALIGNMENT = 32


def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def value(v):
    """A metadata value with its type: u32, f32, bool, text or a list of texts or of i32."""
    if isinstance(v, bool):
        return struct.pack("<I?", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + text(v)
    if isinstance(v[0], str):
        return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(map(text, v))
    return struct.pack("<IIQ", 9, 5, len(v)) + np.asarray(v, np.int32).tobytes()


def encoded(kind, rows, columns, rng):
    """Random numbers of variance 1 / columns as they lie in the file, some rows at a time."""
    scale = columns ** -0.5
    step = max(1, (1 << 22) // columns)
    for begin in range(0, rows, step):
        n = min(step, rows - begin)
        if kind == F32:
            yield np.ones((n, columns), np.float32).tobytes()
        elif kind == BF16:
            x = rng.standard_normal((n, columns), np.float32) * scale
            yield (x.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        else:
            blocks = np.empty((n * columns // 32, 34), np.uint8)
            blocks[:, :2] = np.frombuffer(np.float16(scale / 60).tobytes(), np.uint8)
            blocks[:, 2:] = rng.integers(-127, 128, (blocks.shape[0], 32), np.int8).view(np.uint8)
            yield blocks.tobytes()


def size_of(kind, rows, columns):
    return rows * columns * {F32: 4, BF16: 2}.get(kind, 0) if kind != Q8_0 else rows * columns // 32 * 34


def qwen2(shape, kind):
    """(name, type, rows, columns) of each tensor; rows 1: a vector."""
    hidden, inner, kv = shape["hidden"], shape["inner"], shape["kv_heads"] * shape["head"]
    yield "token_embd.weight", kind, shape["vocab"], hidden
    for layer in range(shape["layers"]):
        b = f"blk.{layer}."
        yield b + "attn_norm.weight", F32, 1, hidden
        for name, rows in (("q", shape["heads"] * shape["head"]), ("k", kv), ("v", kv)):
            yield f"{b}attn_{name}.weight", kind, rows, hidden
            yield f"{b}attn_{name}.bias", F32, 1, rows
        yield b + "attn_output.weight", kind, hidden, shape["heads"] * shape["head"]
        yield b + "ffn_norm.weight", F32, 1, hidden
        yield b + "ffn_gate.weight", kind, inner, hidden
        yield b + "ffn_up.weight", kind, inner, hidden
        yield b + "ffn_down.weight", kind, hidden, inner
    yield "output_norm.weight", F32, 1, hidden
    yield "output.weight", kind, shape["vocab"], hidden


def write_qwen2(path, shape, kind):
    tensors = list(qwen2(shape, kind))
    a = "qwen2."
    # Ids are all that is asked: the vocabulary's texts only have to be there, and different.
    words = [f"t{i}" for i in range(shape["vocab"])]
    metadata = {"general.architecture": "qwen2", "general.name": "random", a + "block_count": shape["layers"],
                a + "context_length": shape["positions"], a + "embedding_length": shape["hidden"],
                a + "feed_forward_length": shape["inner"], a + "attention.head_count": shape["heads"],
                a + "attention.head_count_kv": shape["kv_heads"], a + "rope.freq_base": 10000.0,
                a + "attention.layer_norm_rms_epsilon": 1e-6, "general.alignment": ALIGNMENT,
                "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.tokens": words,
                "tokenizer.ggml.token_type": [1] * len(words), "tokenizer.ggml.merges": ["t 0"],
                "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1}
    rng = np.random.default_rng(1)
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, v in metadata.items():
            f.write(text(key) + value(v))
        offset = 0
        for name, t, rows, columns in tensors:
            dims = (columns,) if rows == 1 else (columns, rows)
            f.write(text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, t, offset))
            offset += -(-size_of(t, rows, columns) // ALIGNMENT) * ALIGNMENT
        f.write(b"\0" * (-f.tell() % ALIGNMENT))
        for name, t, rows, columns in tensors:
            for part in encoded(t, rows, columns, rng):
                f.write(part)
            f.write(b"\0" * (-f.tell() % ALIGNMENT))
