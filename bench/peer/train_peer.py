#!/usr/bin/env python3
"""Training speed of PyTorch on a DeepseekV3 model built from Transformers' modules.

Random tokens, float32 parameters, bfloat16 autocast, fused AdamW. Where the config asks for a
multi-token prediction layer, the same layer is built here from the same modules (Transformers
trains without it). The last line on stdout is a JSON object; progress goes to stderr.
"""
import argparse
import json
import os
import sys
import time

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--config", help="a config.json of model_type deepseek_v3")
parser.add_argument("--tokens-per-step", type=int, default=4096)
parser.add_argument("--micro-batch-tokens", type=int, default=0, help="0: one micro batch a step")
parser.add_argument("--seq-len", type=int, default=256)
parser.add_argument("--steps", type=int, default=10, help="measured steps")
parser.add_argument("--warmup", type=int, default=2, help="steps before the measured ones")
parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
parser.add_argument("--experts", default="grouped_mm", help="experts implementation (see --list-experts)")
parser.add_argument("--list-experts", action="store_true")
parser.add_argument("--attention", default="sdpa", help="attention implementation of Transformers")
parser.add_argument("--autocast", choices=["bf16", "off"], default="bf16")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--no-mtp", action="store_true")
parser.add_argument("--mtp-weight", type=float, default=0.3)
parser.add_argument("--lr", type=float, default=3e-4)
parser.add_argument("--seed", type=int, default=1)
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Compiler workers would compete with the run for the cores.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.masking_utils import create_causal_mask
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as ds

if args.mode == "compile":
    # Loaded before the memory baseline is taken.
    import torch._dynamo
    import torch._inductor.compile_fx


def say(*what):
    print(*what, file=sys.stderr, flush=True)


def memory_kb(field):
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise RuntimeError("no " + field)


def forget_peak():
    """Starts a new high-water mark of resident memory, where the kernel allows it."""
    try:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
        return True
    except OSError:
        return False


def grouped_bf16(self, hidden, index, weights):
    """grouped_mm with the expert weights cast to bfloat16 (autocast leaves grouped_mm alone)."""
    k = index.size(-1)
    order = torch.argsort(index.reshape(-1), stable=True)
    counts = torch.zeros(self.num_experts, dtype=torch.int32, device=hidden.device)
    flat = index.reshape(-1)
    counts = counts.scatter_add(0, flat, torch.ones_like(flat, dtype=torch.int32))
    ends = torch.cumsum(counts, 0, dtype=torch.int32)
    x = hidden.to(torch.bfloat16)[order // k]
    x = F.grouped_mm(x, self.gate_up_proj.to(torch.bfloat16).transpose(1, 2), offs=ends)
    gate, up = x.chunk(2, dim=-1)
    x = self.act_fn(gate) * up
    x = F.grouped_mm(x, self.down_proj.to(torch.bfloat16).transpose(1, 2), offs=ends)
    x = x * weights.reshape(-1)[order, None]
    back = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
    return x[back].view(index.size(0), k, -1).sum(1).to(hidden.dtype)


ALL_EXPERTS_FUNCTIONS.register("grouped_mm_bf16", grouped_bf16)


class PredictionLayer(nn.Module):
    """Predicts the token after the next one from the hidden state and the next token."""

    def __init__(self, config, layer):
        super().__init__()
        size = config.hidden_size
        self.enorm = ds.DeepseekV3RMSNorm(size, eps=config.rms_norm_eps)
        self.hnorm = ds.DeepseekV3RMSNorm(size, eps=config.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * size, size, bias=False)
        self.block = ds.DeepseekV3DecoderLayer(config, layer)
        self.norm = ds.DeepseekV3RMSNorm(size, eps=config.rms_norm_eps)

    def forward(self, hidden, embedded, **kw):
        joined = torch.cat([self.enorm(embedded), self.hnorm(hidden)], dim=-1)
        return self.norm(self.block(self.eh_proj(joined), **kw))


class Trainee(nn.Module):
    """The model with its losses; embedding and head are shared with the prediction layer."""

    def __init__(self, config, layers_after):
        super().__init__()
        self.config = config
        self.lm = ds.DeepseekV3ForCausalLM(config)
        self.after = nn.ModuleList(
            PredictionLayer(config, config.num_hidden_layers + i) for i in range(layers_after))
        for module in self.after.modules():
            self.lm._init_weights(module)

    def loss(self, hidden, labels):
        logits = self.lm.lm_head(hidden).float()
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    def forward(self, tokens):
        """tokens: [batch, length + 1 + prediction layers]"""
        length = tokens.size(1) - 1 - len(self.after)
        model = self.lm.model
        hidden = model.embed_tokens(tokens[:, :length])
        positions = torch.arange(length, device=tokens.device)[None]
        kw = {
            "attention_mask": create_causal_mask(config=self.config, inputs_embeds=hidden, attention_mask=None,
                                                 past_key_values=None, position_ids=positions),
            "position_embeddings": model.rotary_emb(hidden, positions),
            "position_ids": positions,
        }
        for layer in model.layers:
            hidden = layer(hidden, **kw)
        total = self.loss(model.norm(hidden), tokens[:, 1:length + 1])
        for depth, layer in enumerate(self.after, 1):
            hidden = layer(hidden, model.embed_tokens(tokens[:, depth:depth + length]), **kw)
            part = self.loss(hidden, tokens[:, depth + 1:depth + 1 + length])
            total = total + args.mtp_weight / len(self.after) * part
        return total


def main():
    names = ["eager"] + sorted(ALL_EXPERTS_FUNCTIONS.valid_keys())
    if args.list_experts:
        print("\n".join(names))
        return 0
    if not args.config:
        parser.error("--config is required")
    if args.experts not in names:
        parser.error(f"--experts: not offered by Transformers {transformers.__version__}: choose from {', '.join(names)}")
    micro = args.micro_batch_tokens or args.tokens_per_step
    if micro % args.seq_len or args.tokens_per_step % micro:
        parser.error("seq-len must divide the micro batch, and the micro batch the step")
    if args.steps < 1:
        parser.error("--steps must be at least 1")

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    transformers.logging.set_verbosity_error()
    with open(args.config) as f:
        raw = json.load(f)
    if raw.get("model_type") != "deepseek_v3":
        parser.error("model_type must be deepseek_v3")
    layers_after = 0 if args.no_mtp else raw.get("num_nextn_predict_layers", 0)
    config = ds.DeepseekV3Config.from_dict(raw)
    config._attn_implementation = args.attention
    config._experts_implementation = args.experts

    before = memory_kb("VmRSS")
    model = Trainee(config, layers_after)
    if raw.get("tie_word_embeddings"):
        model.lm.tie_weights()
    config._attn_implementation = args.attention
    config._experts_implementation = args.experts
    model.train()
    count = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.95), eps=1e-8,
                                  weight_decay=0.1, fused=True)
    forward = torch.compile(model, dynamic=False) if args.mode == "compile" else model
    rounds = args.tokens_per_step // micro
    draw = torch.Generator().manual_seed(args.seed)
    say(f"{count} parameters, {layers_after} prediction layers, {args.mode}, experts {args.experts}, "
        f"{rounds} micro batches of {micro // args.seq_len} x {args.seq_len} tokens, {args.threads} threads")

    def step():
        total = 0.0
        for _ in range(rounds):
            tokens = torch.randint(config.vocab_size, (micro // args.seq_len, args.seq_len + 1 + layers_after),
                                   generator=draw)
            with torch.autocast("cpu", torch.bfloat16, enabled=args.autocast == "bf16"):
                loss = forward(tokens) / rounds
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    for i in range(args.warmup):
        start = time.perf_counter()
        loss = step()
        say(f"warm-up {i}: loss {loss:.4f}, {time.perf_counter() - start:.2f} s")
    # Peak of the measured steps only: what compiling needed for a moment does not count.
    cleared = forget_peak()
    times = []
    for i in range(args.steps):
        start = time.perf_counter()
        loss = step()
        times.append(time.perf_counter() - start)
        say(f"step {i}: loss {loss:.4f}, {times[-1]:.3f} s, {args.tokens_per_step / times[-1]:.0f} tokens/s")
    peak = memory_kb("VmHWM") - before
    print(json.dumps({
        "tokens_per_s": round(args.tokens_per_step * len(times) / sum(times), 2),
        "peak_mb": round(peak / 1024, 1),
        "mode": args.mode, "experts": args.experts, "params": count,
        "best_tokens_per_s": round(args.tokens_per_step / min(times), 2),
        "autocast": args.autocast, "mtp_layers": layers_after, "threads": args.threads, "loss": round(loss, 5),
        "peak_excludes_warmup": cleared,
        "torch": torch.__version__.split("+")[0], "transformers": transformers.__version__,
    }))
    return 0


if __name__ == "__main__":
    sys.exit(main())
