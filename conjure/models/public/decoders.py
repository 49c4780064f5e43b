"""Decoder-only families: config.json -> TransformerConfig, and where each tensor lies.

A family is a function that reads its config and a map of names; `FAMILIES` at the end lists them by `model_type`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conjure.models.public.family import Family
from conjure.models.public.names import Map, of_expert, per_group, per_head, quarters, rows, turned, under
from conjure.models.public.settings import Settings
from conjure.models.transformer import TransformerConfig
from conjure.nn.experts import Experts
from conjure.nn.latent import Latent
from conjure.nn.position import Rope
from conjure.nn.rope_scaling import yarn_gain

# -- Llama and its kin -------------------------------------------------------------------------------------------------


def llama(s: Settings) -> TransformerConfig:
    """Llama 1 to 3, and the ground on which the families below stand."""
    dim, heads = s.integer("hidden_size"), s.integer("num_attention_heads")
    width = s.integer("head_dim", default=dim // heads)
    bias = s.flag("attention_bias", default=False)
    return TransformerConfig(
        vocab=s.integer("vocab_size"), dim=dim, layers=s.integer("num_hidden_layers"), heads=heads,
        kv_heads=s.integer("num_key_value_heads", default=heads), head_dim=width, hidden=s.integer("intermediate_size"),
        activation=s.activation("hidden_act", "hidden_activation", default="silu"),
        norm_eps=s.number("rms_norm_eps", default=1e-6), qkv_bias=bias, out_bias=bias,
        mlp_bias=s.flag("mlp_bias", default=False), rope=s.rope(width),
        tie=s.flag("tie_word_embeddings", default=False),
    )  # fmt: skip


def mistral(s: Settings) -> TransformerConfig:
    c = llama(s)
    return replace(c, windows=_windows(s, c.layers))


def mixtral(s: Settings) -> TransformerConfig:
    c = mistral(s)
    experts = Experts(
        count=s.integer("num_local_experts"), chosen=s.integer("num_experts_per_tok"), hidden=c.feedforward,
        renormalise=True,
    )  # fmt: skip
    return replace(c, experts=experts)


def qwen2(s: Settings) -> TransformerConfig:
    c = llama(s)
    used = s.flag("use_sliding_window", default=False)
    first = s.integer("max_window_layers", default=28, least=0)
    window = s.integer("sliding_window", default=4096) if used else 0
    windows = tuple(window if layer >= first else 0 for layer in range(c.layers)) if window else ()
    return replace(c, qkv_bias=s.flag("qkv_bias", default=True), out_bias=False, windows=windows)


def qwen3(s: Settings) -> TransformerConfig:
    c = qwen2(s)
    bias = s.flag("attention_bias", default=False)
    return replace(c, qk_norm=True, qkv_bias=bias, out_bias=bias)


def qwen2_moe(s: Settings) -> TransformerConfig:
    return _qwen_experts(s, qwen2(s), shared=s.integer("shared_expert_intermediate_size"))


def qwen3_moe(s: Settings) -> TransformerConfig:
    return _qwen_experts(s, qwen3(s), shared=0)


def _qwen_experts(s: Settings, c: TransformerConfig, shared: int) -> TransformerConfig:
    dense, step = s.get("mlp_only_layers", default=[]), s.integer("decoder_sparse_step", default=1)
    experts = Experts(
        count=s.integer("num_experts", "num_local_experts"), chosen=s.integer("num_experts_per_tok"),
        hidden=s.integer("moe_intermediate_size"), renormalise=s.flag("norm_topk_prob", default=False),
        shared_hidden=shared, shared_gate=shared > 0,
    )  # fmt: skip
    sparse = tuple(i for i in range(c.layers) if i not in dense and (i + 1) % step == 0)
    return replace(c, experts=experts if sparse else None, expert_layers=sparse)


def gemma(s: Settings) -> TransformerConfig:
    c = llama(s)
    return replace(c, norm="rms1", activation="gelu_tanh", tie=s.flag("tie_word_embeddings", default=True),
                   embedding_scale=c.dim**0.5)


def gemma2(s: Settings) -> TransformerConfig:
    c = gemma(s)
    return replace(
        c, placement="sandwich", attention_scale=s.number("query_pre_attn_scalar", default=256) ** -0.5,
        attention_softcap=s.number("attn_logit_softcapping", default=0),
        logit_softcap=s.number("final_logit_softcapping", default=0),
        windows=_windows(s, c.layers, lambda i: i % 2 == 0),
    )  # fmt: skip


def gemma3(s: Settings) -> TransformerConfig:
    c = gemma2(s)
    pattern = s.integer("sliding_window_pattern", "_sliding_window_pattern", default=6)
    local = s.rope(c.width, layers="sliding_attention")
    if not s.has("rope_parameters"):
        local = Rope(dim=c.width, theta=s.number("rope_local_base_freq", default=10_000))
    return replace(
        c, qk_norm=True, rope=s.rope(c.width, theta=1e6, layers="full_attention"), rope_local=local,
        windows=_windows(s, c.layers, lambda i: (i + 1) % pattern != 0),
    )  # fmt: skip


def phi3(s: Settings) -> TransformerConfig:
    c = llama(s)
    return replace(c, windows=_windows(s, c.layers))


def phi(s: Settings) -> TransformerConfig:
    """Phi-1 to 2: both halves of a layer read one norm."""
    c = llama(s)
    return replace(
        c, norm="layer", norm_eps=s.number("layer_norm_eps", default=1e-5), parallel="shared", gated=False,
        activation=s.activation("hidden_act", default="gelu_new"), qkv_bias=True, out_bias=True, mlp_bias=True,
        qk_norm=s.flag("qk_layernorm", default=False), rope=s.rope(c.width, partial=0.5), head_bias=True,
    )  # fmt: skip


def starcoder2(s: Settings) -> TransformerConfig:
    c = llama(s)
    bias = s.flag("use_bias", default=True)
    return replace(
        c, norm="layer", norm_eps=s.number("norm_epsilon", default=1e-5), gated=False, qkv_bias=bias, out_bias=bias,
        activation=s.activation("hidden_act", default="gelu_pytorch_tanh"), mlp_bias=bias,
        windows=_windows(s, c.layers), tie=s.flag("tie_word_embeddings", default=True),
    )  # fmt: skip


def deepseek(s: Settings) -> TransformerConfig:
    """DeepSeek-V2 and V3: latent attention, and experts in groups."""
    v3 = s.get("model_type") == "deepseek_v3"
    c = llama(Settings({**s.values, "head_dim": None, "num_key_value_heads": None}))
    latent = Latent(
        query_rank=s.get("q_lora_rank"), rank=s.integer("kv_lora_rank"), plain=s.integer("qk_nope_head_dim"),
        rotated=s.integer("qk_rope_head_dim"), value=s.integer("v_head_dim"),
    )  # fmt: skip
    rope = s.rope(latent.rotated, interleaved=s.flag("rope_interleave", default=True))
    scale = (latent.plain + latent.rotated) ** -0.5
    said = Settings({**s.get("rope_scaling", default={}), **s.get("rope_parameters", default={})})
    if rope.scaling is not None and said.has("mscale_all_dim"):
        scale *= yarn_gain(rope.scaling.factor, said.number("mscale_all_dim", default=1)) ** 2
    grouped = v3 or s.get("topk_method", default="greedy") != "greedy"
    width = s.integer("moe_intermediate_size")
    experts = Experts(
        count=s.integer("n_routed_experts"), chosen=s.integer("num_experts_per_tok"), hidden=width,
        score="sigmoid" if v3 else "softmax", renormalise=v3 and s.flag("norm_topk_prob", default=True),
        scale=s.number("routed_scaling_factor", default=1), corrected=v3,
        groups=s.integer("n_group", default=1) if grouped else 1,
        chosen_groups=s.integer("topk_group", default=1) if grouped else 1,
        group_score="best_two" if v3 else "best",
        shared_hidden=width * s.integer("n_shared_experts", default=0, least=0),
    )  # fmt: skip
    dense = s.integer("first_k_dense_replace", default=0, least=0)
    return replace(c, kv_heads=None, latent=latent, rope=rope, attention_scale=scale, experts=experts,
                   expert_layers=tuple(range(dense, c.layers)))


def gpt_oss(s: Settings) -> TransformerConfig:
    c = llama(Settings(s.values, {"attention_bias": True, "rms_norm_eps": 1e-5}))
    experts = Experts(
        count=s.integer("num_local_experts"), chosen=s.integer("num_experts_per_tok", "experts_per_token", default=4),
        hidden=s.integer("intermediate_size"), score="softmax_of_chosen", bias=True,
    )  # fmt: skip
    return replace(c, activation="clamped_swish", sinks=True, experts=experts,
                   rope=s.rope(c.width, theta=150_000.0), windows=_windows(s, c.layers, lambda i: i % 2 == 0))


def grok(s: Settings) -> TransformerConfig:
    """Grok-1 as xai-org/grok-1 runs it. Its own file is a pickle of 8-bit arrays, which is never read here."""
    c = llama(s)
    experts = Experts(count=s.integer("num_local_experts", "num_experts", default=8),
                      chosen=s.integer("num_experts_per_tok", default=2), hidden=c.feedforward)
    return replace(
        c, activation="gelu_tanh", placement="sandwich", tie=True, experts=experts,
        attention_scale=s.number("attn_output_multiplier", default=0.08838834764831845),
        attention_softcap=s.number("attn_logit_softcapping", default=30),
        embedding_scale=s.number("embedding_multiplier_scale", default=78.38367176906169),
        logit_scale=s.number("output_multiplier_scale", default=0.5773502691896257),
    )  # fmt: skip


def _windows(s: Settings, layers: int, sliding: Any = lambda layer: True) -> tuple[int, ...]:
    """Window of each layer: `layer_types` if the file has them, else where `sliding(layer)`."""
    window = s.get("sliding_window")
    if not window:
        return ()
    kinds = s.get("layer_types")
    own = [kind == "sliding_attention" for kind in kinds] if kinds else [sliding(i) for i in range(layers)]
    return tuple(s.integer("sliding_window") if each else 0 for each in own)


LLAMA_TOP: Map = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head", "head_bias": "lm_head.bias"}
LAYER = "model.layers.{i}."
ATTENTION: Map = {
    "norm_attention": "input_layernorm",
    "attention.out": "self_attn.o_proj",
    "attention.norm_q": "self_attn.q_norm",
    "attention.norm_k": "self_attn.k_norm",
}
GATED: Map = {"feedforward.up": rows("mlp.gate_proj", "mlp.up_proj"), "feedforward.down": "mlp.down_proj"}


def _qkv(c: TransformerConfig, *disk: str) -> Map:
    kv = c.key_heads * c.width
    return {"attention.qkv": rows(*disk, sizes=(c.heads * c.width, kv, kv))}


def llama_names(c: TransformerConfig, more: Map | None = None) -> Map:
    qkv = _qkv(c, "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    layer = {**ATTENTION, **qkv, **GATED, "norm_feedforward": "post_attention_layernorm", **(more or {})}
    return {**LLAMA_TOP, **under(LAYER, layer)}


def _sandwich_names(c: TransformerConfig) -> Map:
    return llama_names(c, {
        "norm_attention_out": "post_attention_layernorm",
        "norm_feedforward": "pre_feedforward_layernorm",
        "norm_feedforward_out": "post_feedforward_layernorm",
    })  # fmt: skip


def _mixtral_names(c: TransformerConfig) -> Map:
    expert = "block_sparse_moe.experts.{j}."
    return llama_names(c, {
        "feedforward.router": "block_sparse_moe.gate",
        "feedforward.experts.{j}.up": rows(expert + "w1", expert + "w3"),
        "feedforward.experts.{j}.down": expert + "w2",
    })  # fmt: skip


def _grok_names(c: TransformerConfig) -> Map:
    return {**_mixtral_names(c), **under(LAYER, {
        "norm_attention_out": "post_attention_layernorm",
        "norm_feedforward": "pre_feedforward_layernorm",
        "norm_feedforward_out": "post_feedforward_layernorm",
    })}  # fmt: skip


def _expert_names(c: TransformerConfig) -> Map:
    """Qwen and DeepSeek."""
    shared = "mlp.shared_expert." if c.experts and c.experts.shared_gate else "mlp.shared_experts."
    return llama_names(c, {
        "feedforward.router": "mlp.gate",
        "feedforward.experts.{j}.up": rows("mlp.experts.{j}.gate_proj", "mlp.experts.{j}.up_proj"),
        "feedforward.experts.{j}.down": "mlp.experts.{j}.down_proj",
        "feedforward.shared.up": rows(shared + "gate_proj", shared + "up_proj"),
        "feedforward.shared.down": shared + "down_proj",
        "feedforward.shared_gate": "mlp.shared_expert_gate",
        "feedforward.correction": "mlp.gate.e_score_correction_bias",
        "attention.query": "self_attn.q_proj",
        "attention.query_down": "self_attn.q_a_proj",
        "attention.query_norm": "self_attn.q_a_layernorm",
        "attention.query_up": "self_attn.q_b_proj",
        "attention.down": "self_attn.kv_a_proj_with_mqa",
        "attention.norm": "self_attn.kv_a_layernorm",
        "attention.up": "self_attn.kv_b_proj",
    })  # fmt: skip


def _gpt_oss_names(c: TransformerConfig) -> Map:
    return llama_names(c, {
        "attention.sinks": "self_attn.sinks",
        "feedforward.router": "mlp.router",
        "feedforward.experts.{j}.up": of_expert("mlp.experts.gate_up_proj", interleaved=True),
        "feedforward.experts.{j}.down": of_expert("mlp.experts.down_proj", interleaved=False),
    })  # fmt: skip


def _phi3_names(c: TransformerConfig) -> Map:
    return llama_names(c, {"attention.qkv": "self_attn.qkv_proj", "feedforward.up": "mlp.gate_up_proj"})


def _phi_names(c: TransformerConfig) -> Map:
    more: Map = {
        "attention.out": "self_attn.dense", "attention.norm_q": "self_attn.q_layernorm",
        "attention.norm_k": "self_attn.k_layernorm", "feedforward.up": "mlp.fc1", "feedforward.down": "mlp.fc2",
    }  # fmt: skip
    return {**llama_names(c, more), "norm": "model.final_layernorm"}


def _starcoder2_names(c: TransformerConfig) -> Map:
    return llama_names(c, {"feedforward.up": "mlp.c_fc", "feedforward.down": "mlp.c_proj"})


# -- GPT-2 and its kin -------------------------------------------------------------------------------------------------


def gpt2(s: Settings) -> TransformerConfig:
    dim = s.integer("n_embd", "hidden_size")
    scaled = s.flag("scale_attn_weights", default=True)
    return TransformerConfig(
        vocab=s.integer("vocab_size"), dim=dim, layers=s.integer("n_layer", "num_hidden_layers"),
        heads=s.integer("n_head", "num_attention_heads"), hidden=s.integer("n_inner", default=4 * dim),
        activation=s.activation("activation_function", default="gelu_new"), gated=False, norm="layer",
        norm_eps=s.number("layer_norm_epsilon", default=1e-5), qkv_bias=True, out_bias=True, mlp_bias=True,
        positions="learned", max_length=s.integer("n_positions", "max_position_embeddings", "n_ctx", default=1024),
        attention_scale=None if scaled else 1.0,
        scale_by_layer=s.flag("scale_attn_by_inverse_layer_idx", default=False),
        tie=s.flag("tie_word_embeddings", default=True),
    )  # fmt: skip


def gpt_bigcode(s: Settings) -> TransformerConfig:
    c = gpt2(Settings(s.values, {"activation_function": "gelu_pytorch_tanh"}))
    return replace(c, kv_heads=1 if s.flag("multi_query", default=True) else None)


def gpt_neo(s: Settings) -> TransformerConfig:
    dim, layers = s.integer("hidden_size"), s.integer("num_layers")
    kinds = s.get("attention_layers") or [k for group, n in s.get("attention_types") for _ in range(n) for k in group]
    window = s.integer("window_size", default=256)
    return TransformerConfig(
        vocab=s.integer("vocab_size"), dim=dim, layers=layers, heads=s.integer("num_heads"),
        hidden=s.integer("intermediate_size", default=4 * dim), gated=False, norm="layer",
        activation=s.activation("activation_function", default="gelu_new"),
        norm_eps=s.number("layer_norm_epsilon", default=1e-5), out_bias=True, mlp_bias=True, attention_scale=1.0,
        positions="learned", max_length=s.integer("max_position_embeddings", default=2048),
        windows=tuple(window if kind == "local" else 0 for kind in kinds),
        tie=s.flag("tie_word_embeddings", default=True),
    )  # fmt: skip


def gptj(s: Settings) -> TransformerConfig:
    """GPT-J and CodeGen."""
    dim, heads = s.integer("n_embd"), s.integer("n_head")
    rotary = s.integer("rotary_dim", default=64)
    return TransformerConfig(
        vocab=s.integer("vocab_size"), dim=dim, layers=s.integer("n_layer"), heads=heads,
        hidden=s.integer("n_inner", default=4 * dim),
        activation=s.activation("activation_function", default="gelu_new"),
        gated=False, norm="layer", norm_eps=s.number("layer_norm_epsilon", default=1e-5), parallel="shared",
        mlp_bias=True, rope=Rope(dim=rotary, interleaved=True), tie=s.flag("tie_word_embeddings", default=False),
        head_bias=True,
    )  # fmt: skip


def _gpt_names(attention: Map, feedforward: Map) -> Map:
    top: Map = {"embed": "transformer.wte", "place": "transformer.wpe", "norm": "transformer.ln_f", "head": "lm_head",
                "head_bias": "lm_head.bias"}
    layer: Map = {"norm_attention": "ln_1", "norm_feedforward": "ln_2", **attention, **feedforward}
    return {**top, **under("transformer.h.{i}.", layer)}


def _gpt2_names(c: TransformerConfig) -> Map:
    return _gpt_names(
        {"attention.qkv": turned("attn.c_attn"), "attention.out": turned("attn.c_proj")},
        {"feedforward.up": turned("mlp.c_fc"), "feedforward.down": turned("mlp.c_proj")},
    )


def _bigcode_names(c: TransformerConfig) -> Map:
    fused = per_head("attn.c_attn", c.heads) if c.key_heads == c.heads else "attn.c_attn"
    return _gpt_names(
        {"attention.qkv": fused, "attention.out": "attn.c_proj"},
        {"feedforward.up": "mlp.c_fc", "feedforward.down": "mlp.c_proj"},
    )


def _gpt_neo_names(c: TransformerConfig) -> Map:
    inner = "attn.attention."
    return _gpt_names(
        {**_qkv(c, inner + "q_proj", inner + "k_proj", inner + "v_proj"), "attention.out": inner + "out_proj"},
        {"feedforward.up": "mlp.c_fc", "feedforward.down": "mlp.c_proj"},
    )


def _gptj_names(c: TransformerConfig) -> Map:
    return _gpt_names(
        {**_qkv(c, "attn.q_proj", "attn.k_proj", "attn.v_proj"), "attention.out": "attn.out_proj"},
        {"feedforward.up": "mlp.fc_in", "feedforward.down": "mlp.fc_out"},
    )


def _codegen_names(c: TransformerConfig) -> Map:
    return {**_gptj_names(c), **under("transformer.h.{i}.", {"attention.qkv": quarters("attn.qkv_proj")})}


# -- NeoX, BLOOM, Falcon -----------------------------------------------------------------------------------------------


def gpt_neox(s: Settings) -> TransformerConfig:
    """GPT-NeoX and Pythia."""
    dim, heads = s.integer("hidden_size"), s.integer("num_attention_heads")
    bias = s.flag("attention_bias", default=True)
    theta = s.number("rotary_emb_base", default=10_000)
    return TransformerConfig(
        vocab=s.integer("vocab_size"), dim=dim, layers=s.integer("num_hidden_layers"), heads=heads,
        hidden=s.integer("intermediate_size"), activation=s.activation("hidden_act"), gated=False, norm="layer",
        norm_eps=s.number("layer_norm_eps", default=1e-5), qkv_bias=bias, out_bias=bias, mlp_bias=True,
        parallel="separate" if s.flag("use_parallel_residual", default=True) else "none",
        rope=s.rope(dim // heads, theta=theta, partial=s.number("rotary_pct", default=0.25)),
        tie=s.flag("tie_word_embeddings", default=False),
    )  # fmt: skip


def bloom(s: Settings) -> TransformerConfig:
    dim = s.integer("hidden_size", "n_embed")
    return TransformerConfig(
        vocab=s.integer("vocab_size"), dim=dim, layers=s.integer("n_layer", "num_hidden_layers"),
        heads=s.integer("n_head", "num_attention_heads"), hidden=4 * dim, activation="gelu_tanh", gated=False,
        norm="layer", norm_eps=s.number("layer_norm_epsilon", default=1e-5), qkv_bias=True, out_bias=True,
        mlp_bias=True, residual_from_norm=s.flag("apply_residual_connection_post_layernorm", default=False),
        alibi="bloom", embedding_norm=True, tie=s.flag("tie_word_embeddings", default=True),
    )  # fmt: skip


def falcon(s: Settings) -> TransformerConfig:
    """All three layouts: 7b (one key head), 40b (groups, two norms), RW (ALiBi, one after the other)."""
    dim, heads = s.integer("hidden_size"), s.integer("num_attention_heads", "n_head")
    new, linear = s.flag("new_decoder_architecture", default=False), s.flag("alibi", default=False)
    bias = s.flag("bias", default=False)
    kv = s.integer("num_kv_heads", "n_head_kv", default=heads) if new else None
    if not new and s.flag("multi_query", default=True):
        kv = 1
    one_norm = not new or s.get("num_ln_in_parallel_attn") == 1
    parallel = "shared" if one_norm else "separate"
    return TransformerConfig(
        vocab=s.integer("vocab_size"), dim=dim, layers=s.integer("num_hidden_layers", "n_layer"), heads=heads,
        kv_heads=kv, hidden=s.integer("ffn_hidden_size", default=4 * dim), gated=False, norm="layer",
        activation=s.activation("activation"), norm_eps=s.number("layer_norm_epsilon", default=1e-5), qkv_bias=bias,
        out_bias=bias, mlp_bias=bias, parallel=parallel if new or s.flag("parallel_attn", default=True) else "none",
        rope=None if linear else s.rope(dim // heads), alibi="falcon" if linear else "none",
        tie=s.flag("tie_word_embeddings", default=True),
    )  # fmt: skip


NEOX_LAYER: Map = {
    "norm_attention": "input_layernorm", "norm_feedforward": "post_attention_layernorm",
    "feedforward.up": "mlp.dense_h_to_4h", "feedforward.down": "mlp.dense_4h_to_h",
}  # fmt: skip


def _neox_names(c: TransformerConfig) -> Map:
    attention: Map = {"attention.qkv": per_head("attention.query_key_value", c.heads),
                      "attention.out": "attention.dense"}
    top: Map = {"embed": "gpt_neox.embed_in", "norm": "gpt_neox.final_layer_norm", "head": "embed_out"}
    return {**top, **under("gpt_neox.layers.{i}.", {**NEOX_LAYER, **attention})}


def _bloom_names(c: TransformerConfig) -> Map:
    attention: Map = {"attention.qkv": per_head("self_attention.query_key_value", c.heads),
                      "attention.out": "self_attention.dense"}
    top: Map = {"embed": "transformer.word_embeddings", "norm": "transformer.ln_f", "head": "lm_head",
                "norm_embedding": "transformer.word_embeddings_layernorm"}
    return {**top, **under("transformer.h.{i}.", {**NEOX_LAYER, **attention})}


def _falcon_names(c: TransformerConfig) -> Map:
    fused = "self_attention.query_key_value"
    own = per_head(fused, c.heads) if c.key_heads == c.heads else per_group(fused, c.heads, c.key_heads, c.width)
    layer: Map = {"attention.qkv": own, "attention.out": "self_attention.dense"}
    if c.parallel == "separate":
        layer |= {"norm_attention": "ln_attn", "norm_feedforward": "ln_mlp"}
    return {**_bloom_names(c), **under("transformer.h.{i}.", layer)}


# -- OPT ---------------------------------------------------------------------------------------------------------------


def opt(s: Settings) -> TransformerConfig:
    """OPT and Galactica."""
    dim, before = s.integer("hidden_size"), s.flag("do_layer_norm_before", default=True)
    bias = s.flag("enable_bias", default=True)
    inner = s.integer("word_embed_proj_dim", default=dim)
    return TransformerConfig(
        vocab=s.integer("vocab_size"), dim=dim, layers=s.integer("num_hidden_layers"),
        heads=s.integer("num_attention_heads"), hidden=s.integer("ffn_dim"), gated=False, norm="layer", norm_eps=1e-5,
        activation=s.activation("activation_function", default="relu"), qkv_bias=bias, out_bias=bias, mlp_bias=bias,
        norm_affine=s.flag("layer_norm_elementwise_affine", default=True), placement="pre" if before else "post",
        final_norm=before and not s.flag("_remove_final_layer_norm", default=False), positions="learned",
        positions_from="mask", position_offset=2, max_length=s.integer("max_position_embeddings"),
        embedding_dim=inner if inner != dim else None, tie=s.flag("tie_word_embeddings", default=True),
    )  # fmt: skip


def _opt_names(c: TransformerConfig) -> Map:
    top: Map = {
        "embed": "model.decoder.embed_tokens", "place": "model.decoder.embed_positions", "head": "lm_head",
        "norm": "model.decoder.final_layer_norm", "project_in": "model.decoder.project_in",
        "project_out": "model.decoder.project_out",
    }  # fmt: skip
    layer: Map = {
        "norm_attention": "self_attn_layer_norm", "attention.out": "self_attn.out_proj",
        "norm_feedforward": "final_layer_norm", "feedforward.up": "fc1", "feedforward.down": "fc2",
        **_qkv(c, "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    }  # fmt: skip
    return {**top, **under("model.decoder.layers.{i}.", layer)}


HALF_ATTENTION = ("*.attn.bias", "*.attn.masked_bias", "*.attn.attention.bias", "*.attn.attention.masked_bias")
"""Causal triangles that old files of GPT-2's kin hold."""

FAMILIES: dict[str, Family] = {
    "llama": Family(llama, llama_names, "model."),
    "mistral": Family(mistral, llama_names, "model.", defaults={"sliding_window": 4096}),
    "mixtral": Family(mixtral, _mixtral_names, "model.",
                      defaults={"rms_norm_eps": 1e-5, "rope_theta": 1e6, "num_local_experts": 8,
                                "num_experts_per_tok": 2}),
    "qwen2": Family(qwen2, llama_names, "model."),
    "qwen3": Family(qwen3, llama_names, "model.", defaults={"head_dim": 128}),
    "qwen2_moe": Family(qwen2_moe, _expert_names, "model."),
    "qwen3_moe": Family(qwen3_moe, _expert_names, "model.", defaults={"head_dim": 128}),
    "gemma": Family(gemma, llama_names, "model.", defaults={"head_dim": 256}),
    "gemma2": Family(gemma2, _sandwich_names, "model.", defaults={
        "head_dim": 256, "sliding_window": 4096, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}),
    "gemma3_text": Family(gemma3, _sandwich_names, "model.", defaults={
        "head_dim": 256, "sliding_window": 4096, "num_attention_heads": 8, "num_key_value_heads": 4,
        "vocab_size": 262_208, "rope_theta": 1e6}),
    "phi3": Family(phi3, _phi3_names, "model."),
    "phi": Family(phi, _phi_names, "model."),
    "starcoder2": Family(starcoder2, _starcoder2_names, "model."),
    "deepseek_v2": Family(deepseek, _expert_names, "model."),
    "deepseek_v3": Family(deepseek, _expert_names, "model.", ignore=("model.layers.61.*",)),
    "gpt_oss": Family(gpt_oss, _gpt_oss_names, "model.", defaults={"head_dim": 64, "sliding_window": 128}),
    "grok-1": Family(grok, _grok_names, "model.", defaults={"rms_norm_eps": 1e-5}),
    "gpt2": Family(gpt2, _gpt2_names, "transformer.", ignore=HALF_ATTENTION),
    "gpt_bigcode": Family(gpt_bigcode, _bigcode_names, "transformer.", ignore=HALF_ATTENTION),
    "gpt_neo": Family(gpt_neo, _gpt_neo_names, "transformer.", ignore=HALF_ATTENTION),
    "gptj": Family(gptj, _gptj_names, "transformer.", ignore=HALF_ATTENTION),
    "codegen": Family(gptj, _codegen_names, "transformer.", ignore=HALF_ATTENTION),
    "gpt_neox": Family(gpt_neox, _neox_names, "gpt_neox.", ignore=("*.attention.bias", "*.attention.masked_bias")),
    "bloom": Family(bloom, _bloom_names, "transformer."),
    "falcon": Family(falcon, _falcon_names, "transformer."),
    "opt": Family(opt, _opt_names, "model."),
}  # fmt: skip
