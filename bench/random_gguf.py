"""GGUF files of random weights in the shapes of models, for measuring speed and comparing logits: the same file for
both sides."""
import struct

import numpy as np

F32, F16, Q4_0, Q4_1, Q8_0, Q4_K, Q6_K, BF16 = 0, 1, 2, 3, 8, 12, 14, 30
NAMES = {"F32": F32, "F16": F16, "BF16": BF16, "Q4_0": Q4_0, "Q4_1": Q4_1, "Q8_0": Q8_0, "Q4_K": Q4_K, "Q6_K": Q6_K}
BLOCKS = {F32: (1, 4), F16: (1, 2), BF16: (1, 2), Q4_0: (32, 18), Q4_1: (32, 20), Q8_0: (32, 34), Q4_K: (256, 144),
          Q6_K: (256, 210)}  # elements, bytes
# Where scales lie in a block of random bytes, and what makes its numbers of deviation 1: codes of four bits deviate
# by 4.61, of six by 18.5, of eight by 73.9; bytes of six bits are 31.5 in the mean.
SCALES = {Q4_0: [(0, 1 / 4.61)], Q4_1: [(0, 1 / 4.61), (2, -7.5 / 4.61)], Q8_0: [(0, 1 / 73.9)],
          Q4_K: [(0, 1 / 4.61 / 31.5), (2, 7.5 / 4.61 / 31.5)],  # about
          Q6_K: [(208, 1 / 18.5 / 73.9)]}
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


def encoded(kind, shape, deviation, rng):
    """Random numbers as they lie in the file, some rows at a time; vectors are norms, about 1, or biases."""
    if len(shape) == 1:
        x = rng.standard_normal(shape, np.float32) * deviation
        yield (x if deviation < 0.1 else 1 + 0.02 * x).astype(np.float32).tobytes()
        return
    columns, rows = shape[-1], int(np.prod(shape[:-1]))
    step = max(1, (1 << 22) // columns)
    elements, size = BLOCKS[kind]
    for begin in range(0, rows, step):
        n = min(step, rows - begin)
        if elements == 1:
            x = rng.standard_normal((n, columns), np.float32) * np.float32(deviation)
            yield {F32: lambda: x, F16: lambda: x.astype(np.float16),
                   BF16: lambda: (x.view(np.uint32) >> 16).astype(np.uint16)}[kind]().tobytes()
            continue
        blocks = rng.integers(0, 256, (n * columns // elements, size), np.uint8)
        for at, scale in SCALES[kind]:
            blocks[:, at:at + 2] = np.frombuffer(np.float16(scale * deviation).tobytes(), np.uint8)
        if kind == Q4_K:
            blocks[:, 4:16] = packed_scales(rng.integers(24, 40, (len(blocks), 8)))
        yield blocks.tobytes()


def packed_scales(s):
    """The twelve bytes of eight scales of six bits and of as many least values, here the same: numbers about zero, as
    in files of trained weights. (Least values of their own would be a bias for each 32 columns, larger than all else.)"""
    first, last = s[:, :4], s[:, 4:]
    low = (first | last >> 4 << 6).astype(np.uint8)
    return np.concatenate([low, low, ((last & 15) | (last & 15) << 4).astype(np.uint8)], axis=1)


def size_of(kind, shape):
    elements, size = BLOCKS[kind]
    return int(np.prod(shape)) // elements * size


def fitting(kind, columns):
    """A type whose blocks such rows are made of."""
    return kind if columns % BLOCKS[kind][0] == 0 else Q8_0


class Model:
    """The tensors of a model: (name, type, shape with columns last, deviation)."""

    def __init__(self, shape, kind, head):
        self.shape, self.kind, self.head, self.tensors = shape, kind, head, []

    def vector(self, name, size, deviation=1.0):
        self.tensors.append((name, F32, (size,), deviation))

    def matrix(self, name, *shape, kind=None):
        kind = fitting(self.kind if kind is None else kind, shape[-1])
        # What is added to the residual stream grows it no faster than in a trained model.
        added = (2 * self.shape["layers"]) ** -0.5 if "_down" in name or "attn_output" in name else 1
        self.tensors.append((name, kind, shape, added * shape[-1] ** -0.5))

    def mlp(self, block, suffix, inner, *stack):
        hidden = self.shape["hidden"]
        self.matrix(f"{block}ffn_gate{suffix}.weight", *stack, inner, hidden)
        self.matrix(f"{block}ffn_up{suffix}.weight", *stack, inner, hidden)
        self.matrix(f"{block}ffn_down{suffix}.weight", *stack, hidden, inner)


def add_llama(m, block, bias):
    s = m.shape
    kv = s["kv_heads"] * s["head"]
    for name, rows in (("q", s["heads"] * s["head"]), ("k", kv), ("v", kv)):
        m.matrix(f"{block}attn_{name}.weight", rows, s["hidden"])
        if bias:
            m.vector(f"{block}attn_{name}.bias", rows, 0.02)
    m.matrix(block + "attn_output.weight", s["hidden"], s["heads"] * s["head"])


def add_mla(m, block):
    s = m.shape
    heads, nope, rope, latent = s["heads"], s["nope"], s["rope"], s["latent"]
    if s.get("q_lora"):
        m.matrix(block + "attn_q_a.weight", s["q_lora"], s["hidden"])
        m.vector(block + "attn_q_a_norm.weight", s["q_lora"])
        m.matrix(block + "attn_q_b.weight", heads * (nope + rope), s["q_lora"])
    else:
        m.matrix(block + "attn_q.weight", heads * (nope + rope), s["hidden"])
    m.matrix(block + "attn_kv_a_mqa.weight", latent + rope, s["hidden"])
    m.vector(block + "attn_kv_a_norm.weight", latent)
    if s.get("split", True):
        m.matrix(block + "attn_k_b.weight", heads, latent, nope)
        m.matrix(block + "attn_v_b.weight", heads, s["value"], latent)
    else:
        m.matrix(block + "attn_kv_b.weight", heads * (nope + s["value"]), latent)
    m.matrix(block + "attn_output.weight", s["hidden"], heads * s["value"])


def tensors_of(shape, kind, head):
    m = Model(shape, kind, head)
    deepseek = shape["arch"] == "deepseek2"
    m.matrix("token_embd.weight", shape["vocab"], shape["hidden"])
    for layer in range(shape["layers"]):
        block = f"blk.{layer}."
        m.vector(block + "attn_norm.weight", shape["hidden"])
        add_mla(m, block) if deepseek else add_llama(m, block, shape["arch"] == "qwen2")
        m.vector(block + "ffn_norm.weight", shape["hidden"])
        if not deepseek or layer < shape["dense"]:
            m.mlp(block, "", shape["inner"])
            continue
        m.matrix(block + "ffn_gate_inp.weight", shape["experts"], shape["hidden"], kind=F32)
        if shape.get("sigmoid"):
            m.vector(block + "exp_probs_b.bias", shape["experts"], 0.05)
        m.mlp(block, "_exps", shape["expert_inner"], shape["experts"])
        m.mlp(block, "_shexp", shape["shared"] * shape["expert_inner"])
    m.vector("output_norm.weight", shape["hidden"])
    m.matrix("output.weight", shape["vocab"], shape["hidden"], kind=head)
    return m.tensors


def byte_alphabet():
    """The characters that stand for bytes in byte-level BPE: GPT-2's."""
    shown = [b for b in range(256) if 33 <= b < 127 or 161 <= b < 173 or b >= 174]
    others = iter(range(256, 512))
    return [chr(b) if b in shown else chr(next(others)) for b in range(256)]


def metadata_of(s):
    a = s["arch"] + "."
    # Ids are all that is asked: the vocabulary's texts only have to be there, every byte's among them, and different.
    words = byte_alphabet() + [f"t{i}" for i in range(s["vocab"] - 256)]
    pre = {"qwen2": "qwen2", "llama": "gpt-2", "deepseek2": "deepseek-llm"}[s["arch"]]
    values = {"general.architecture": s["arch"], "general.name": "random", a + "block_count": s["layers"],
              a + "context_length": s["positions"], a + "embedding_length": s["hidden"],
              a + "feed_forward_length": s["inner"], a + "attention.head_count": s["heads"],
              a + "rope.freq_base": 10000.0, a + "attention.layer_norm_rms_epsilon": 1e-6,
              "general.alignment": ALIGNMENT, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre,
              "tokenizer.ggml.tokens": words, "tokenizer.ggml.token_type": [1] * len(words),
              "tokenizer.ggml.merges": ["t 0"], "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1}
    if s["arch"] != "deepseek2":
        return {**values, a + "attention.head_count_kv": s["kv_heads"]}
    key, split = s["nope"] + s["rope"], s.get("split", True)
    values.update({a + "rope.dimension_count": s["rope"], a + "attention.kv_lora_rank": s["latent"],
                   a + "attention.head_count_kv": 1 if split else s["heads"],
                   a + "attention.key_length": s["latent"] + s["rope"] if split else key,
                   a + "attention.value_length": s["latent"] if split else s["value"],
                   a + "leading_dense_block_count": s["dense"], a + "expert_count": s["experts"],
                   a + "expert_used_count": s["used"], a + "expert_shared_count": s["shared"],
                   a + "expert_feed_forward_length": s["expert_inner"],
                   a + "expert_weights_scale": s.get("scale", 1.0),
                   a + "expert_weights_norm": bool(s.get("sigmoid")),
                   a + "expert_gating_func": 2 if s.get("sigmoid") else 1, a + "vocab_size": s["vocab"]})
    if split:
        values.update({a + "attention.key_length_mla": key, a + "attention.value_length_mla": s["value"]})
    if s.get("q_lora"):
        values[a + "attention.q_lora_rank"] = s["q_lora"]
    if s.get("groups"):
        values.update({a + "expert_group_count": s["groups"], a + "expert_group_used_count": s["groups_used"]})
    if s.get("yarn"):
        values.update({a + "rope.scaling.type": "yarn", a + "rope.scaling.factor": s["yarn"],
                       a + "rope.scaling.original_context_length": s["original"],
                       a + "rope.scaling.yarn_log_multiplier": 0.0707})
    return values


def write(path, shape, kind, head=None):
    """All matrices of one type, but for routers, the head where `head` says so, and rows that its blocks do not fit."""
    tensors, metadata = tensors_of(shape, kind, head), metadata_of(shape)
    rng = np.random.default_rng(1)
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, v in metadata.items():
            f.write(text(key) + value(v))
        offset = 0
        for name, t, dims, _ in tensors:
            f.write(text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *reversed(dims), t, offset))
            offset += -(-size_of(t, dims) // ALIGNMENT) * ALIGNMENT
        f.write(b"\0" * (-f.tell() % ALIGNMENT))
        for name, t, dims, deviation in tensors:
            for part in encoded(t, dims, deviation, rng):
                f.write(part)
            f.write(b"\0" * (-f.tell() % ALIGNMENT))
