#!/usr/bin/env python3
"""Golden file of the loss of preferences: what TRL's DPOTrainer computes from log-probabilities of answers, its
gradient by each of them, and the figures that it reports. Usage: make_dpo_goldens.py OUT.json
Needs torch, trl and what trl imports (transformers, accelerate, datasets)."""

import itertools
import json
import sys
from collections import defaultdict
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch
import trl
from trl.trainer.dpo_trainer import DPOTrainer

CHOSEN = [7, 3, 5, 1, 12]  # tokens of each pair's answers
REJECTED = [4, 3, 9, 2, 6]
LENGTHS = CHOSEN + REJECTED
LONGEST = 12
PAIRS = len(CHOSEN)
FIGURES = [
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
]


def samples():
    """Log-probabilities of the tokens, and what the reference gave whole answers: margins of both signs."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.tensor([[1 if t < n else 0 for t in range(LONGEST)] for n in LENGTHS])
    now = (-1.5 + 0.5 * torch.randn(len(LENGTHS), LONGEST, generator=generator)) * mask
    reference = now.sum(dim=1) + 6 * torch.randn(len(LENGTHS), generator=generator)
    return now, reference, mask


def trl_loss(now, reference, mask, manner):
    """The trainer's own method, with a trainer that has nothing but settings: what it asks of a model is given."""
    now = now.clone().requires_grad_(True)
    accelerator = MagicMock()
    accelerator.gather.side_effect = accelerator.gather_for_metrics.side_effect = lambda x: x
    types, weights = [manner["loss_type"]], [1.0]
    if manner["rpo_alpha"] > 0:
        types.append("sft")
        weights.append(manner["rpo_alpha"])
    metrics = {"train": defaultdict(list)}
    trainer = SimpleNamespace(
        accelerator=accelerator,
        aux_loss_enabled=False,
        beta=manner["beta"],
        f_divergence_type="reverse_kl",
        label_smoothing=manner["label_smoothing"],
        ld_alpha=None,
        loss_types=types,
        loss_weights=weights,
        model=SimpleNamespace(training=True),
        precompute_ref_logps=True,
        use_weighting=False,
        _metrics=metrics,
        _total_train_tokens=0,
        _tp_size=1,
    )
    # One token of a prompt stands before each answer.
    completion_mask = torch.cat([torch.zeros_like(mask[:, :1]), mask], dim=1)
    nothing = torch.zeros_like(now)
    outputs = SimpleNamespace(log_probs=now, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())
    loss = DPOTrainer._compute_loss(
        trainer,
        lambda **kwargs: outputs,
        {
            "input_ids": torch.zeros_like(completion_mask),
            "attention_mask": torch.ones_like(completion_mask),
            "completion_mask": completion_mask,
            "ref_chosen_logps": reference[:PAIRS],
            "ref_rejected_logps": reference[PAIRS:],
        },
        return_outputs=False,
    )
    loss.backward()
    return loss.item(), now.grad, {name: metrics["train"][name][-1] for name in FIGURES}


def rows(tensor):
    return [[float(x) for x in row[:n]] for row, n in zip(tensor, LENGTHS)]


def main():
    now, reference, mask = samples()
    cases = []
    for (loss_type, smoothing), beta, alpha in itertools.product(
        [("sigmoid", 0.0), ("hinge", 0.0), ("ipo", 0.0), ("robust", 0.0), ("robust", 0.2)], [0.1, 0.5], [0.0, 0.7]
    ):
        manner = {"loss_type": loss_type, "beta": beta, "label_smoothing": smoothing, "rpo_alpha": alpha}
        loss, gradient, figures = trl_loss(now, reference, mask, manner)
        cases.append({**manner, "loss": loss, "gradient": rows(gradient), "figures": figures})
    document = {
        "made_by": f"tools/oracle/make_dpo_goldens.py, trl {trl.__version__}, torch {torch.__version__}",
        "log_probs": rows(now),
        "reference_log_probs": [float(x) for x in reference],
        "cases": cases,
    }
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        json.dump(document, out, indent=None, separators=(",", ":"))
        out.write("\n")


main()
