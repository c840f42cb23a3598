#!/usr/bin/env python3
"""Golden file of the loss of policy gradients: what TRL's GRPOTrainer computes from log-probabilities of answers,
and its gradient by each of them. Usage: make_grpo_goldens.py OUT.json
Needs torch, trl and what trl imports (transformers, accelerate, datasets)."""

import itertools
import json
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch
import trl
from trl.trainer.grpo_trainer import GRPOTrainer

LENGTHS = [7, 3, 5, 1, 12, 9]
LONGEST = 12
TOKENS_MAX = 16


def samples():
    """Drawn log-probabilities, near each other as after some updates; the second and the last answer have moved far."""
    generator = torch.Generator().manual_seed(1)

    def draw(spread):
        return -1.5 + spread * torch.randn(len(LENGTHS), LONGEST, generator=generator)

    mask = torch.tensor([[1 if t < n else 0 for t in range(LONGEST)] for n in LENGTHS])
    old = draw(0.5)
    now = old + 0.3 * torch.randn(old.shape, generator=generator)
    now[1] -= 1.0
    now[5] -= 1.0
    reference = old + 0.5 * torch.randn(old.shape, generator=generator)
    return old, now, reference, mask, old + 0.4 * torch.randn(old.shape, generator=generator)


def trl_loss(old, now, reference, mask, drawn, advantages, manner):
    """The trainer's own method, with a trainer that has nothing but settings: what it asks of a model is given.
    `drawn`: as another engine had them that drew the answers, where importance_cap is above 0."""
    now = now.clone().requires_grad_(True)
    accelerator = MagicMock()
    accelerator.num_processes = 1
    accelerator.gather.side_effect = accelerator.gather_for_metrics.side_effect = lambda x: x
    accelerator.reduce.side_effect = lambda x, reduction: x
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kw: (now, torch.zeros_like(now), None),
        get_off_policy_mask=GRPOTrainer.get_off_policy_mask,
        accelerator=accelerator,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=manner["kl"] == "unbiased", steps_per_generation=1),
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=manner["off_policy_mask"] or None,
        importance_sampling_level="token",
        beta=0.0 if manner["kl"] == "none" else manner["kl_weight"],
        loss_type={"token": "bnpo", "sequence": "grpo", "constant": "dr_grpo"}[manner["normalise"]],
        epsilon_low=manner["clip_low"],
        epsilon_high=manner["clip_high"],
        max_completion_length=TOKENS_MAX,
        use_vllm=manner["importance_cap"] > 0,
        vllm_importance_sampling_correction=True,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        _metrics={"train": MagicMock()},
    )
    ids = torch.zeros(mask.shape, dtype=torch.long)
    elsewhere = {}
    if manner["importance_cap"] > 0:  # as GRPOTrainer has it for vllm_importance_sampling_mode "token_truncate"
        elsewhere = {
            "sampling_per_token_logps": drawn,
            "importance_sampling_ratio": torch.clamp(torch.exp((old - drawn) * mask), max=manner["importance_cap"]),
        }
    loss = GRPOTrainer._compute_loss(
        trainer,
        None,
        {
            "prompt_ids": ids[:, :1],
            "prompt_mask": mask[:, :1],
            "completion_ids": ids,
            "completion_mask": mask,
            "advantages": advantages,
            "old_per_token_logps": old,
            "ref_per_token_logps": reference,
            **elsewhere,
        },
    )
    loss.backward()
    return loss.item(), now.grad


def rows(tensor):
    return [[float(x) for x in row[:n]] for row, n in zip(tensor, LENGTHS)]


def main():
    old, now, reference, mask, drawn = samples()
    rewards = [1.0, 0.0, 0.1, 0.0, 1.1, 0.0]
    given = torch.tensor(rewards)
    deviation = (given - given.mean()) / (given.std() + 1e-4)
    cases = []
    for kl, normalise, off_policy, cap in itertools.product(
        ["none", "k3", "unbiased"], ["token", "sequence", "constant"], [0.0, 0.5], [0.0, 1.25]
    ):
        manner = {
            "clip_low": 0.2,
            "clip_high": 0.28,
            "kl": kl,
            "kl_weight": 0.04,
            "normalise": normalise,
            "tokens_max": TOKENS_MAX,
            "off_policy_mask": off_policy,
            "importance_cap": cap,
        }
        loss, gradient = trl_loss(old, now, reference, mask, drawn, deviation, manner)
        cases.append({**manner, "loss": loss, "gradient": rows(gradient)})
    document = {
        "made_by": f"tools/oracle/make_grpo_goldens.py, trl {trl.__version__}, torch {torch.__version__}",
        "rewards": rewards,
        "advantages": [float(a) for a in deviation],
        "old_log_probs": rows(old),
        "log_probs": rows(now),
        "drawn_log_probs": rows(drawn),
        "reference_log_probs": rows(reference),
        "cases": cases,
    }
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        json.dump(document, out, indent=None, separators=(",", ":"))
        out.write("\n")


main()
