"""The small random models of the golden files: classic DeepSeek config keys."""


def _base(**kw):
    c = {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "moe_intermediate_size": 8,
        "num_hidden_layers": 2,
        "n_shared_experts": 1,
        "ep_size": 1,
        "moe_layer_freq": 1,
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-06,
        "use_cache": True,
        "pretraining_tp": 1,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    }
    c.update(kw)
    c["num_key_value_heads"] = c["num_attention_heads"]
    return c


def _v3(**kw):
    return _base(
        **{
            "architectures": ["DeepseekV3ForCausalLM"],
            "model_type": "deepseek_v3",
            "scoring_func": "sigmoid",
            "topk_method": "noaux_tc",
            "num_nextn_predict_layers": 0,
            **kw,
        }
    )


def _v2(**kw):
    return _base(
        **{
            "architectures": ["DeepseekV2ForCausalLM"],
            "model_type": "deepseek_v2",
            "scoring_func": "softmax",
            "norm_topk_prob": False,
            **kw,
        }
    )


def _yarn(factor, orig, **kw):
    return {
        "type": "yarn",
        "factor": float(factor),
        "original_max_position_embeddings": orig,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        **kw,
    }


def _dense(model_type, **kw):
    """Llama and Qwen2: one dense layer after the other, grouped-query attention."""
    return {
        "architectures": ["LlamaForCausalLM" if model_type == "llama" else "Qwen2ForCausalLM"],
        "model_type": model_type,
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-06,
        "use_cache": True,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
        **kw,
    }


# name -> (config, number of tokens, seed). The seeds come from `--search`.
GOLDENS = {
    # The V3 layout: dense first layer, 4 groups, YaRN with equal mscales, low-rank q.
    "v3_full": (
        _v3(
            num_hidden_layers=3, first_k_dense_replace=1,
            num_attention_heads=4, q_lora_rank=24, kv_lora_rank=16,
            qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
            n_routed_experts=16, num_experts_per_tok=4, n_group=4, topk_group=2,
            norm_topk_prob=True, routed_scaling_factor=2.5,
            rope_scaling=_yarn(40, 64, mscale=1.0, mscale_all_dim=1.0),
            max_position_embeddings=2560,
        ), 48, 11),
    # No dense layer, no low-rank q, no renormalisation, no rope scaling, 2 shared experts.
    "v3_qfull_nodense": (
        _v3(
            num_hidden_layers=2, first_k_dense_replace=0,
            num_attention_heads=3, q_lora_rank=None, kv_lora_rank=20,
            qk_nope_head_dim=12, qk_rope_head_dim=4, v_head_dim=10,
            n_routed_experts=8, num_experts_per_tok=2, n_group=2, topk_group=1,
            n_shared_experts=2, moe_intermediate_size=16,
            norm_topk_prob=False, routed_scaling_factor=1.5,
        ), 40, 3),
    # One group, tied embeddings, unequal mscales (the rotary part gains a factor), odd length.
    "v3_tied_mscale": (
        _v3(
            num_hidden_layers=2, first_k_dense_replace=1,
            num_attention_heads=5, q_lora_rank=20, kv_lora_rank=12,
            qk_nope_head_dim=6, qk_rope_head_dim=10, v_head_dim=8,
            n_routed_experts=12, num_experts_per_tok=3, n_group=1, topk_group=1,
            moe_intermediate_size=16, tie_word_embeddings=True,
            norm_topk_prob=True, routed_scaling_factor=1.0,
            rope_scaling=_yarn(16, 32, mscale=1.0, mscale_all_dim=0.707),
            max_position_embeddings=512,
        ), 33, 4),
    # YaRN without mscale keys, other betas and base, all groups kept, 2 MoE layers.
    "v3_yarn_plain": (
        _v3(
            num_hidden_layers=2, first_k_dense_replace=0,
            num_attention_heads=2, q_lora_rank=16, kv_lora_rank=24,
            qk_nope_head_dim=8, qk_rope_head_dim=16, v_head_dim=16,
            n_routed_experts=10, num_experts_per_tok=4, n_group=2, topk_group=2,
            n_shared_experts=2, moe_intermediate_size=14, rope_theta=500.0,
            norm_topk_prob=True, routed_scaling_factor=1.8,
            rope_scaling=_yarn(8, 40, beta_fast=2.0, beta_slow=0.25),
            max_position_embeddings=320,
        ), 64, 5),
    # Three of four groups, k = 6, large eps for the block norms (latent norms keep 1e-6).
    "v3_wide_eps": (
        _v3(
            hidden_size=40, intermediate_size=56, vocab_size=80,
            num_hidden_layers=3, first_k_dense_replace=1,
            num_attention_heads=3, q_lora_rank=None, kv_lora_rank=12,
            qk_nope_head_dim=4, qk_rope_head_dim=12, v_head_dim=20,
            n_routed_experts=16, num_experts_per_tok=6, n_group=4, topk_group=3,
            moe_intermediate_size=6, rms_norm_eps=1e-4,
            norm_topk_prob=True, routed_scaling_factor=4.0,
        ), 37, 2),
    # The V2-Lite layout: greedy softmax, full-rank q, mscale 0.707.
    "v2_lite": (
        _v2(
            num_hidden_layers=3, first_k_dense_replace=1,
            num_attention_heads=4, q_lora_rank=None, kv_lora_rank=16,
            qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
            n_routed_experts=8, num_experts_per_tok=3, n_group=1, topk_group=1,
            topk_method="greedy", n_shared_experts=2, routed_scaling_factor=1.0,
            rope_scaling=_yarn(40, 4096, mscale=0.707, mscale_all_dim=0.707),
            max_position_embeddings=163840,
        ), 48, 198),
    # The V2 layout: group-limited softmax, low-rank q, scaling factor 16.
    "v2_group": (
        _v2(
            hidden_size=36, num_hidden_layers=2, first_k_dense_replace=0,
            num_attention_heads=3, q_lora_rank=20, kv_lora_rank=12,
            qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=12,
            n_routed_experts=16, num_experts_per_tok=4, n_group=4, topk_group=2,
            topk_method="group_limited_greedy", n_shared_experts=2,
            routed_scaling_factor=16.0,
            rope_scaling=_yarn(4, 32, mscale=0.707, mscale_all_dim=0.707),
            max_position_embeddings=128,
        ), 44, 159),
    # Softmax greedy without groups or rope scaling, low-rank q, odd head count.
    "v2_plain": (
        _v2(
            hidden_size=40, num_hidden_layers=2, first_k_dense_replace=1,
            num_attention_heads=5, q_lora_rank=24, kv_lora_rank=16,
            qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6,
            n_routed_experts=12, num_experts_per_tok=2, n_group=1, topk_group=1,
            topk_method="greedy", n_shared_experts=1, moe_intermediate_size=16,
            routed_scaling_factor=2.0,
        ), 35, 2),
    # Llama 2: as many key heads as queries.
    "llama_plain": (
        _dense("llama", num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
               rms_norm_eps=1e-5, attention_bias=False, mlp_bias=False), 48, 1),
    # Llama 3.2: three queries for each key head, tied, its own slowing of seldom-turning pairs.
    "llama_3": (
        _dense("llama", hidden_size=36, num_attention_heads=6, num_key_value_heads=2, head_dim=12,
               rope_theta=500000.0, tie_word_embeddings=True, max_position_embeddings=256,
               rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                             "high_freq_factor": 4.0, "original_max_position_embeddings": 32}),
        61, 2),
    # One key head for all queries, heads wider than hidden / heads, linear scaling.
    "llama_linear": (
        _dense("llama", hidden_size=40, num_attention_heads=4, num_key_value_heads=1, head_dim=18,
               rope_scaling={"type": "linear", "factor": 4.0}), 35, 3),
    # Qwen2.5: biases, tied.
    "qwen2_tied": (
        _dense("qwen2", num_attention_heads=4, num_key_value_heads=2, rope_theta=1e6,
               tie_word_embeddings=True, use_sliding_window=False, sliding_window=32,
               max_window_layers=2), 48, 4),
    # R1-Distill-Qwen: untied, a smaller base, an odd number of heads.
    "qwen2_distill": (
        _dense("qwen2", hidden_size=30, num_attention_heads=5, num_key_value_heads=1,
               num_hidden_layers=3), 37, 5),
    # Qwen2.5 with its long contexts switched on.
    "qwen2_yarn": (
        _dense("qwen2", num_attention_heads=2, num_key_value_heads=2, rope_theta=1e6,
               max_position_embeddings=256,
               rope_scaling={"type": "yarn", "factor": 4.0,
                             "original_max_position_embeddings": 32}), 64, 6),
}
