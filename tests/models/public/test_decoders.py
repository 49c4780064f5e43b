"""Every decoder family against tiny random models of the reference implementation, padded on either side."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from conjure.decoding.generate import Decoding, generate
from conjure.models.checkpoint import Checkpoint
from conjure.models.language import LanguageModel
from conjure.models.public.load import build
from tests.models.public.references import batch, close, randomised, saved

BFLOAT = 0.02

LL: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GP: dict[str, Any] = {
    "vocab_size": 96, "n_positions": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
OPT: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FALCON: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
DEEPSEEK: dict[str, Any] = LL | {
    "num_key_value_heads": 4, "q_lora_rank": 12, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
    "v_head_dim": 6, "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 3,
    "moe_intermediate_size": 24, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.7,
    "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16,
                        "beta_fast": 32, "beta_slow": 1, "mscale": 0.7, "mscale_all_dim": 1.0},
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 1.2, 1.5, 2.0],
    "long_factor": [1.5, 2.0, 3.0, 4.0],
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


VARIANTS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: tf.GPT2Config(**GP),
    "gpt2_scaled_by_layer": lambda: tf.GPT2Config(**GP, scale_attn_by_inverse_layer_idx=True),
    "gpt2_unscaled": lambda: tf.GPT2Config(**GP, scale_attn_weights=False, n_inner=40),
    "gpt_neo": lambda: tf.GPTNeoConfig(vocab_size=96, hidden_size=32, num_layers=2, num_heads=4, window_size=4,
                                       max_position_embeddings=64, attention_types=[[["global", "local"], 1]]),
    "gptj": lambda: tf.GPTJConfig(**GP, rotary_dim=4),
    "codegen": lambda: tf.CodeGenConfig(**{**GP, "n_head": 8, "n_embd": 64}, rotary_dim=4),
    "gpt_neox": lambda: tf.GPTNeoXConfig(**{k: v for k, v in LL.items() if k != "num_key_value_heads"}, rotary_pct=0.5),
    "gpt_neox_sequential": lambda: tf.GPTNeoXConfig(
        **{k: v for k, v in LL.items() if k != "num_key_value_heads"}, rotary_pct=0.25, use_parallel_residual=False),
    "opt": lambda: tf.OPTConfig(**OPT),
    "opt_350m": lambda: tf.OPTConfig(**OPT, do_layer_norm_before=False, word_embed_proj_dim=16),
    "galactica": lambda: tf.OPTConfig(**OPT, enable_bias=False, layer_norm_elementwise_affine=False,
                                      activation_function="gelu"),
    "bloom": lambda: tf.BloomConfig(vocab_size=96, hidden_size=48, n_layer=3, n_head=6),
    "bloom_residual": lambda: tf.BloomConfig(vocab_size=96, hidden_size=48, n_layer=3, n_head=6,
                                             apply_residual_connection_post_layernorm=True),
    "falcon_7b": lambda: tf.FalconConfig(**FALCON),
    "falcon_40b": lambda: tf.FalconConfig(**FALCON, new_decoder_architecture=True, num_kv_heads=2),
    "falcon_11b": lambda: tf.FalconConfig(**FALCON, new_decoder_architecture=True, num_kv_heads=2,
                                          num_ln_in_parallel_attn=1, tie_word_embeddings=False),
    "falcon_rw": lambda: tf.FalconConfig(**FALCON, alibi=True, bias=True, multi_query=False, parallel_attn=False),
    "starcoder": lambda: tf.GPTBigCodeConfig(**GP),
    "starcoder_many_heads": lambda: tf.GPTBigCodeConfig(**GP, multi_query=False),
    "starcoder2": lambda: tf.Starcoder2Config(**LL, sliding_window=5),
    "llama": lambda: tf.LlamaConfig(**LL),
    "llama_biases_linear": lambda: tf.LlamaConfig(**LL, attention_bias=True, mlp_bias=True, rope_parameters={
        "rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}),
    "llama_dynamic": lambda: tf.LlamaConfig(**{**LL, "max_position_embeddings": 8}, rope_parameters={
        "rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
    "llama3": lambda: tf.LlamaConfig(**LL, head_dim=16, tie_word_embeddings=True, rope_parameters=LLAMA3),
    "mistral": lambda: tf.MistralConfig(**LL, sliding_window=5),
    "mixtral": lambda: tf.MixtralConfig(**LL, num_local_experts=4, num_experts_per_tok=2),
    "qwen2": lambda: tf.Qwen2Config(**LL, use_sliding_window=True, sliding_window=4, max_window_layers=1),
    "qwen3": lambda: tf.Qwen3Config(**LL, head_dim=16),
    "qwen2_moe": lambda: tf.Qwen2MoeConfig(**LL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24,
                                           shared_expert_intermediate_size=40, mlp_only_layers=[1]),
    "qwen3_moe": lambda: tf.Qwen3MoeConfig(**LL, head_dim=16, num_experts=4, num_experts_per_tok=2,
                                           moe_intermediate_size=24, norm_topk_prob=True),
    "gemma": lambda: tf.GemmaConfig(**{**LL, "num_key_value_heads": 1}, head_dim=16),
    "gemma2": lambda: tf.Gemma2Config(**LL, head_dim=16, query_pre_attn_scalar=24, sliding_window=4,
                                      attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
    "gemma3": lambda: tf.Gemma3TextConfig(
        **LL, head_dim=16, query_pre_attn_scalar=24, sliding_window=4,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                         "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}}),
    "phi3": lambda: tf.Phi3Config(**LL, rope_parameters={
        "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
    "phi3_longrope_long": lambda: tf.Phi3Config(**LL, original_max_position_embeddings=8, rope_parameters=dict(
        **LONGROPE, original_max_position_embeddings=8)),
    "phi3_longrope_short": lambda: tf.Phi3Config(**LL, original_max_position_embeddings=32, rope_parameters=dict(
        **LONGROPE, original_max_position_embeddings=32)),
    "phi": lambda: tf.PhiConfig(**LL),
    "phi_qk_norm": lambda: tf.PhiConfig(**LL, qk_layernorm=True),
    "deepseek_v2": lambda: tf.DeepseekV2Config(**DEEPSEEK, topk_method="group_limited_greedy"),
    "deepseek_v2_lite": lambda: tf.DeepseekV2Config(**{**DEEPSEEK, "q_lora_rank": None}, topk_method="greedy"),
    "deepseek_v3": lambda: tf.DeepseekV3Config(**DEEPSEEK),
    "gpt_oss": lambda: tf.GptOssConfig(**LL, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=4),
}  # fmt: skip
SDPA = {"falcon_rw"}  # the reference's other path adds its linear biases twice


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, LanguageModel]:
    config = VARIANTS[request.param]()
    kind = "sdpa" if request.param in SDPA else "eager"
    reference = randomised(tf.AutoModelForCausalLM.from_config(config, attn_implementation=kind))
    return reference, LanguageModel.load(saved(reference, tmp_path_factory.mktemp(request.param)))


@pytest.mark.parametrize("left", [False, True])
def test_logits_equal_the_reference(pair: tuple[Any, LanguageModel], left: bool) -> None:
    reference, ours = pair
    ids, mask = batch(left=left)
    with torch.no_grad():
        wanted = reference(ids, attention_mask=mask, use_cache=False).logits
    close(ours.logits(ids, mask), wanted, mask)


def test_hidden_states_equal_the_reference(pair: tuple[Any, LanguageModel]) -> None:
    reference, ours = pair
    ids, mask = batch()
    with torch.no_grad():
        wanted = reference.base_model(ids, attention_mask=mask, use_cache=False).last_hidden_state
    got = ours.hidden(ids, mask)
    if ours.network.project_out is not None:  # OPT-350m: the reference counts this as part of the stack
        got = ours.network.project_out(got)
    close(got, wanted, mask)


def test_greedy_text_equals_the_reference_in_a_padded_batch_and_alone(pair: tuple[Any, LanguageModel]) -> None:
    reference, ours = pair
    ids, mask = batch(left=True)
    with torch.no_grad():
        wanted = reference.generate(
            ids, attention_mask=mask, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0
        )[:, ids.shape[1] :]
    prompts = [row[real.bool()].tolist() for row, real in zip(ids, mask, strict=True)]
    greedy = Decoding(tokens=12, temperature=0)
    together = generate(ours.network, Silent(), prompts, greedy, seeds=[0, 1, 2])
    if ours.network.config.rope is not None and ours.network.config.rope.scaling is not None and \
            ours.network.config.rope.scaling.kind in ("dynamic", "longrope"):
        # Their rotation depends on the longest text of the batch: only that one is the same in both.
        assert together[0].ids == wanted[0].tolist()
        return
    assert [each.ids for each in together] == wanted.tolist()
    alone = [generate(ours.network, Silent(), [prompt], greedy, seeds=[0])[0].ids for prompt in prompts]
    assert alone == wanted.tolist()


def test_what_is_saved_opens_in_the_reference_and_comes_back(pair: tuple[Any, LanguageModel], tmp_path: Path) -> None:
    reference, ours = pair
    folder = ours.save(tmp_path / "again")
    ids, mask = batch()
    kind = reference.config._attn_implementation
    theirs = tf.AutoModelForCausalLM.from_pretrained(folder, attn_implementation=kind, dtype=torch.float32)
    with torch.no_grad():
        close(theirs(ids, attention_mask=mask, use_cache=False).logits, ours.logits(ids, mask), mask)
    assert torch.equal(LanguageModel.load(folder).logits(ids, mask), ours.logits(ids, mask))


def test_bfloat16_errs_by_two_percent_or_as_the_reference_does(pair: tuple[Any, LanguageModel]) -> None:
    reference, ours = pair
    if ours.network.config.experts is not None:
        return  # which experts are chosen may flip: nothing continuous to compare
    ids, mask = batch()
    half, _ = build(ours.config, Checkpoint(ours.folder), torch.bfloat16)
    theirs = copy.deepcopy(reference).to(torch.bfloat16)
    with torch.no_grad():
        rounded = theirs(ids, attention_mask=mask, use_cache=False).logits.float()
    wanted, real = ours.logits(ids, mask), mask.bool()
    largest = wanted[real].abs().max()
    with torch.no_grad():
        got = half(ids, mask_BT=mask)
    error = (got - wanted)[real].abs().max() / largest
    assert error <= max(BFLOAT, 1.5 * ((rounded - wanted)[real].abs().max() / largest).item())


class Silent:
    """A tokenizer of no words."""

    def encode(self, text: str) -> list[int]:
        return []

    def decode(self, ids: Any) -> str:
        return ""
