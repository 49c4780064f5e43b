"""Architectures of GGUF files: metadata -> config.json of the hub's family, and where each of its tensors lies.

llama.cpp's converter (convert_hf_to_gguf.py) renames everything and changes some values; what it does is undone here:
rows of q and k of the llama architecture (its rotary positions turn neighbours, the hub's turn halves), the order of
fused q, k and v, (out, in) instead of (in, out) for GPT-2, one added to Gemma's norms, experts stacked into one tensor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conjure.core.errors import ConjureError, suggest


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a file says: its keys, the shapes of its tensors (rows first), and the values of small ones."""

    metadata: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    vector: Callable[[str], np.ndarray]

    @property
    def name(self) -> str:
        return str(self.metadata["general.architecture"])

    def get(self, key: str, default: Any = None) -> Any:
        """A key of this architecture; a list with one value per layer must hold the same in all."""
        value = self.metadata.get(f"{self.name}.{key}", default)
        if isinstance(value, np.ndarray | list):
            values = {each.item() if isinstance(each, np.generic) else each for each in value}
            if len(values) != 1:
                raise ConjureError(f"GGUF: {self.name}.{key} differs from layer to layer, which cannot be run")
            return values.pop()
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
            raise ConjureError(f"GGUF: {self.name}.{key}: expected a positive whole number, got {value!r}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A float32 as short as it was once written: 1e-06 and not 9.999999974752427e-07."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConjureError(f"GGUF: {self.name}.{key}: expected a number, got {value!r}")
        return float(str(np.float32(value)))

    @property
    def heads(self) -> int:
        return self.integer("attention.head_count")

    @property
    def kv_heads(self) -> int:
        return self.integer("attention.head_count_kv", self.heads)

    @property
    def head_dim(self) -> int:
        return self.integer("attention.key_length", self.integer("embedding_length") // self.heads)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tensor of the hub lies in the file, and what to do with it.

    Row i of the hub is row `rows[i]` of the file; `turned` swaps the two axes; `offset` is taken off the values.
    """

    source: str
    shape: tuple[int, ...]
    width: int
    """Values in a row of the file; 1 where the rows of a vector change places."""
    rows: np.ndarray | None = None
    turned: bool = False
    offset: float = 0.0
    expert: int | None = None


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """`config` makes config.json; `top` and `layer` map the file's names to the hub's, without `.weight`."""

    config: Callable[[Source], dict[str, Any]]
    top: Mapping[str, str]
    layer: Mapping[str, str]
    inside: str = "model.layers"
    experts: Mapping[str, str] = field(default_factory=dict)
    """Stacked tensors -> the hub's name of one expert, with {} for its number."""
    rows: Mapping[str, Callable[[Source], np.ndarray]] = field(default_factory=dict)
    turned: tuple[str, ...] = ()
    norm_offset: float = 0.0

    def places(self, source: Source) -> dict[str, Place]:
        """Every tensor of the hub; a tensor of the file that has no place raises `ConjureError`."""
        found: dict[str, Place] = {}
        for name, shape in source.shapes.items():
            if not _IGNORED.search(name):
                found.update(self._places(source, name, shape))
        return found

    def _places(self, source: Source, name: str, shape: tuple[int, ...]) -> dict[str, Place]:
        stem, _, kind = name.rpartition(".")
        match = re.fullmatch(r"blk\.(\d+)\.(.+)", stem)
        part = match[2] if match else stem
        prefix = f"{self.inside}.{match[1]}." if match else ""
        one = re.fullmatch(r"(ffn_\w+)\.(\d+)", part)  # old files have a tensor for each expert
        if part in self.experts:
            return {
                f"{prefix}{self.experts[part].format(j)}.{kind}":
                    Place(source=name, shape=shape[1:], width=shape[-1], expert=j) for j in range(shape[0])
            }  # fmt: skip
        if one and f"{one[1]}_exps" in self.experts:
            hub = self.experts[f"{one[1]}_exps"].format(one[2])
        else:
            two = f"{stem}_2.{kind}" in source.shapes  # Falcon: one norm for each half, or one for both
            hub = (self.layer if match else self.top).get(f"{part} of two" if two else part, "")
        if not hub:
            raise ConjureError(f"GGUF: {source.name}: no place is known for the tensor {name}",
                               hint="the file may be of a newer form; use the model's safetensors")  # fmt: skip
        turned = part in self.turned and kind == "weight"
        rows = self.rows[part](source) if part in self.rows else None
        if rows is not None and len(rows) != shape[0]:
            raise ConjureError(f"GGUF: {name}: expected {len(rows)} rows, got {shape[0]}", hint="the file is damaged")
        return {f"{prefix}{hub}.{kind}": Place(
            source=name, shape=(1, *shape) if part in _FLAT else shape[::-1] if turned else shape,
            width=1 if rows is not None and len(shape) == 1 else shape[-1], rows=rows, turned=turned,
            offset=self.norm_offset if "norm" in part else 0.0,
        )}  # fmt: skip


_IGNORED = re.compile(r"^rope_(freqs|factors_\w+)\.|attn_rot_embd|\.masked_bias$")
_FLAT = ("ffn_gate_inp_shexp",)  # a matrix of one row, of which the file keeps the row


def architecture(metadata: Mapping[str, Any], path: str) -> Architecture:
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ConjureError(
            f"{path}: models of the architecture '{name}' cannot be read from GGUF ({len(ARCHITECTURES)} can)",
            hint=suggest(str(name), ARCHITECTURES),
        )
    return ARCHITECTURES[name]


# -- rows -------------------------------------------------------------------------------------------------------------


def _halves(heads: int, width: int) -> np.ndarray:
    """The hub's order of the rows of q or k: its rotary positions pair i with i + width/2, the file's 2i with 2i+1."""
    return np.arange(heads * width).reshape(heads, width // 2, 2).swapaxes(1, 2).reshape(-1)


def _per_head(s: Source) -> np.ndarray:
    """The file has all q, all k, all v; the hub q, k, v of each head (GPT-NeoX, BLOOM)."""
    return np.arange(3 * s.heads * s.head_dim).reshape(3, s.heads, -1).swapaxes(0, 1).reshape(-1)


def _per_group(s: Source) -> np.ndarray:
    """As above for Falcon: the queries of a group, its key, its value."""
    groups, width = s.kv_heads, s.head_dim
    q = np.arange(s.heads * width).reshape(groups, -1)
    k = s.heads * width + np.arange(groups * width).reshape(groups, -1)
    return np.concatenate([q, k, k + groups * width], axis=1).reshape(-1)


# -- config.json ------------------------------------------------------------------------------------------------------


def _ids(s: Source) -> dict[str, Any]:
    """The tokens that begin and end; a chat's end of turn ends too."""
    key = "tokenizer.ggml.{}_token_id"
    bos, eos, eot = (s.metadata.get(key.format(name)) for name in ("bos", "eos", "eot"))
    ends = [each for each in dict.fromkeys((eos, eot)) if each is not None]
    said = {"bos_token_id": bos, "eos_token_id": ends if len(ends) > 1 else eos}
    pad = s.metadata.get(key.format("padding"))  # stated even where there is none: some families have a default
    return {name: value for name, value in said.items() if value is not None} | {"pad_token_id": pad}


def _shape(s: Source, model_type: str, class_name: str) -> dict[str, Any]:
    """What all say in the same words."""
    if "token_embd.weight" not in s.shapes:
        raise ConjureError("GGUF: there is no token_embd.weight", hint="the file holds no language model")
    return {
        "model_type": model_type, "architectures": [class_name], "vocab_size": s.shapes["token_embd.weight"][0],
        "hidden_size": s.integer("embedding_length"), "num_hidden_layers": s.integer("block_count"),
        "num_attention_heads": s.heads, "max_position_embeddings": s.integer("context_length", 2048),
        "tie_word_embeddings": "output.weight" not in s.shapes, **_ids(s),
    }  # fmt: skip


def _llama_like(s: Source, model_type: str, class_name: str, **more: Any) -> dict[str, Any]:
    said = _shape(s, model_type, class_name) | {
        "num_key_value_heads": s.kv_heads, "head_dim": s.head_dim,
        "intermediate_size": s.integer("feed_forward_length", s.get("expert_feed_forward_length")),
        "hidden_act": "silu", "rope_theta": s.number("rope.freq_base", 10_000.0), "rope_scaling": _scaling(s),
    }  # fmt: skip
    if s.get("attention.layer_norm_rms_epsilon") is not None:
        said["rms_norm_eps"] = s.number("attention.layer_norm_rms_epsilon")
    if s.get("attention.sliding_window"):
        said["sliding_window"] = s.integer("attention.sliding_window")
    return said | more


def _scaling(s: Source) -> dict[str, Any] | None:
    kind, factor = s.get("rope.scaling.type", "none"), s.get("rope.scaling.factor", 1.0)
    if "rope_freqs.weight" in s.shapes:
        return _llama3(s, s.vector("rope_freqs.weight"))
    if kind == "linear" and factor not in (0, 1.0):
        return {"rope_type": "linear", "type": "linear", "factor": float(factor)}
    if kind == "yarn":
        original = s.integer("rope.scaling.original_context_length", s.integer("context_length"))
        return {
            "rope_type": "yarn",
            "type": "yarn",
            "factor": float(factor),
            "original_max_position_embeddings": original,
        }
    return None


def _llama3(s: Source, factors: np.ndarray) -> dict[str, Any]:
    """Llama 3.1's change of frequencies, of which the file keeps the factors and not the four numbers behind them.

    The numbers are those of all Llama 3 models if they give these factors, else the factors themselves are used.
    """
    factor, low, high, original = float(factors.max()), 1.0, 4.0, 8192
    frequency = s.number("rope.freq_base", 10_000.0) ** (-np.arange(len(factors)) / len(factors))
    turns = original * frequency / (2 * math.pi)
    mixed = np.clip((turns - low) / (high - low), 0, 1)
    expected = 1 / ((1 - mixed) / factor + mixed)
    if np.allclose(expected, factors, rtol=1e-4):
        return {"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": original}  # fmt: skip
    listed = [float(each) for each in factors]
    return {"rope_type": "longrope", "type": "longrope", "short_factor": listed, "long_factor": listed,
            "attention_factor": 1.0, "factor": 1.0}  # fmt: skip


def _llama(s: Source) -> dict[str, Any]:
    """Llama, Mistral and Mixtral share one architecture."""
    more: dict[str, Any] = {
        "attention_bias": "blk.0.attn_q.bias" in s.shapes, "mlp_bias": "blk.0.ffn_up.bias" in s.shapes,
    }  # fmt: skip
    if not s.get("expert_count"):
        return _llama_like(s, "llama", "LlamaForCausalLM", **more)
    experts = {"num_local_experts": s.integer("expert_count"), "num_experts_per_tok": s.integer("expert_used_count")}
    return _llama_like(s, "mixtral", "MixtralForCausalLM", **experts)


def _qwen_moe(s: Source, model_type: str, class_name: str, **more: Any) -> dict[str, Any]:
    width = s.shapes["blk.0.ffn_down_exps.weight"][-1] if "blk.0.ffn_down_exps.weight" in s.shapes else 0
    return _llama_like(
        s, model_type, class_name, num_experts=s.integer("expert_count"),
        num_experts_per_tok=s.integer("expert_used_count"),
        moe_intermediate_size=s.integer("expert_feed_forward_length", width), **more,
    )  # fmt: skip


def _qwen2_moe(s: Source) -> dict[str, Any]:
    shared = s.shapes.get("blk.0.ffn_down_shexp.weight", (0, 0))[-1]
    width = s.integer("expert_shared_feed_forward_length", shared)
    return _qwen_moe(s, "qwen2_moe", "Qwen2MoeForCausalLM", norm_topk_prob=False, shared_expert_intermediate_size=width)


def _gemma(s: Source) -> dict[str, Any]:
    return _llama_like(s, "gemma", "GemmaForCausalLM", hidden_act="gelu_pytorch_tanh",
                       hidden_activation="gelu_pytorch_tanh")  # fmt: skip


def _gemma2(s: Source) -> dict[str, Any]:
    large = s.integer("block_count") == 46  # the 27B alone divides by the width of all heads; the file does not say so
    return _gemma(s) | {
        "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"],
        "query_pre_attn_scalar": s.integer("embedding_length") // s.heads if large else s.head_dim,
        "attn_logit_softcapping": s.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": s.number("final_logit_softcapping", 30.0),
        "sliding_window": s.integer("attention.sliding_window", 4096),
    }  # fmt: skip


def _gemma3(s: Source) -> dict[str, Any]:
    large = s.integer("block_count") == 62  # as above
    return _gemma(s) | {
        "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"],
        "query_pre_attn_scalar": s.integer("embedding_length") // s.heads if large else s.head_dim,
        "sliding_window": s.integer("attention.sliding_window", 1024), "sliding_window_pattern": 6,
        "rope_theta": s.number("rope.freq_base", 1_000_000.0),
        "rope_local_base_freq": s.number("rope.freq_base_swa", 10_000.0),
    }  # fmt: skip


def _phi3(s: Source) -> dict[str, Any]:
    said = _llama_like(s, "phi3", "Phi3ForCausalLM")
    said["partial_rotary_factor"] = s.integer("rope.dimension_count", s.head_dim) / s.head_dim
    said["original_max_position_embeddings"] = s.integer(
        "rope.scaling.original_context_length", said["max_position_embeddings"]
    )
    if "rope_factors_long.weight" in s.shapes:
        said["rope_scaling"] = {
            "rope_type": "longrope", "type": "longrope", "attention_factor": s.number("rope.scaling.attn_factor", 1.0),
            "short_factor": [float(each) for each in s.vector("rope_factors_short.weight")],
            "long_factor": [float(each) for each in s.vector("rope_factors_long.weight")],
        }  # fmt: skip
    return said


def _starcoder2(s: Source) -> dict[str, Any]:
    return _llama_like(s, "starcoder2", "Starcoder2ForCausalLM", hidden_act="gelu_pytorch_tanh",
                       norm_epsilon=s.number("attention.layer_norm_epsilon", 1e-5),
                       use_bias="blk.0.attn_q.bias" in s.shapes)  # fmt: skip


def _gpt2(s: Source) -> dict[str, Any]:
    return _shape(s, "gpt2", "GPT2LMHeadModel") | {
        "n_embd": s.integer("embedding_length"), "n_layer": s.integer("block_count"), "n_head": s.heads,
        "n_positions": s.integer("context_length"), "n_inner": s.integer("feed_forward_length"),
        "activation_function": "gelu_new", "layer_norm_epsilon": s.number("attention.layer_norm_epsilon", 1e-5),
    }  # fmt: skip


def _gptneox(s: Source) -> dict[str, Any]:
    return _shape(s, "gpt_neox", "GPTNeoXForCausalLM") | {
        "intermediate_size": s.integer("feed_forward_length"), "hidden_act": "gelu",
        "rotary_pct": s.integer("rope.dimension_count", s.head_dim) / s.head_dim,
        "rotary_emb_base": s.number("rope.freq_base", 10_000.0),
        "layer_norm_eps": s.number("attention.layer_norm_epsilon", 1e-5),
        "use_parallel_residual": bool(s.get("use_parallel_residual", True)),
    }  # fmt: skip


def _bloom(s: Source) -> dict[str, Any]:
    return _shape(s, "bloom", "BloomForCausalLM") | {
        "n_layer": s.integer("block_count"), "n_head": s.heads,
        "layer_norm_epsilon": s.number("attention.layer_norm_epsilon", 1e-5),
        "tie_word_embeddings": "output.weight" not in s.shapes,
    }  # fmt: skip


def _falcon(s: Source) -> dict[str, Any]:
    grouped = s.kv_heads > 1
    return _shape(s, "falcon", "FalconForCausalLM") | {
        "num_kv_heads": s.kv_heads, "multi_query": not grouped, "new_decoder_architecture": grouped,
        "num_ln_in_parallel_attn": 2 if "blk.0.attn_norm_2.weight" in s.shapes else 1, "parallel_attn": True,
        "alibi": False, "bias": False, "rope_theta": s.number("rope.freq_base", 10_000.0),
        "ffn_hidden_size": s.integer("feed_forward_length", 4 * s.integer("embedding_length")),
        "layer_norm_epsilon": s.number("attention.layer_norm_epsilon", 1e-5),
    }  # fmt: skip


# -- names ------------------------------------------------------------------------------------------------------------

_LLAMA_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LLAMA = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_ROTARY: dict[str, Callable[[Source], np.ndarray]] = {
    "attn_q": lambda s: _halves(s.heads, s.head_dim),
    "attn_k": lambda s: _halves(s.kv_heads, s.head_dim),
}
_SANDWICH = _LLAMA | {
    "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
_GPT2 = {
    "attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
}  # fmt: skip
_BLOOM = {
    "attn_norm": "input_layernorm", "attn_qkv": "self_attention.query_key_value", "attn_output": "self_attention.dense",
    "ffn_norm": "post_attention_layernorm", "ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h",
}  # fmt: skip
_NEOX = _BLOOM | {"attn_qkv": "attention.query_key_value", "attn_output": "attention.dense"}
_FALCON = _BLOOM | {"attn_norm of two": "ln_mlp", "attn_norm_2": "ln_attn"}
_MIXTRAL_EXPERTS = {
    "ffn_gate_exps": "block_sparse_moe.experts.{}.w1", "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
    "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
}  # fmt: skip
_QWEN_EXPERTS = {f"ffn_{part}_exps": f"mlp.experts.{{}}.{part}_proj" for part in ("gate", "up", "down")}
_QWEN_MOE = (
    _LLAMA
    | {"ffn_gate_inp": "mlp.gate", "ffn_gate_inp_shexp": "mlp.shared_expert_gate"}
    | {f"ffn_{part}_shexp": f"mlp.shared_expert.{part}_proj" for part in ("gate", "up", "down")}
)

ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(config=_llama, top=_LLAMA_TOP, layer=_LLAMA | {"ffn_gate_inp": "block_sparse_moe.gate"},
                          experts=_MIXTRAL_EXPERTS, rows=_ROTARY),
    "qwen2": Architecture(config=lambda s: _llama_like(s, "qwen2", "Qwen2ForCausalLM"), top=_LLAMA_TOP, layer=_LLAMA),
    "qwen3": Architecture(config=lambda s: _llama_like(s, "qwen3", "Qwen3ForCausalLM"), top=_LLAMA_TOP, layer=_LLAMA),
    "qwen2moe": Architecture(config=_qwen2_moe, top=_LLAMA_TOP, layer=_QWEN_MOE, experts=_QWEN_EXPERTS),
    # the hub's own files of this family all ask for it, and llama.cpp knows nothing else
    "qwen3moe": Architecture(config=lambda s: _qwen_moe(s, "qwen3_moe", "Qwen3MoeForCausalLM", norm_topk_prob=True),
                             top=_LLAMA_TOP, layer=_QWEN_MOE, experts=_QWEN_EXPERTS),
    "gemma": Architecture(config=_gemma, top=_LLAMA_TOP, layer=_LLAMA, norm_offset=1.0),
    "gemma2": Architecture(config=_gemma2, top=_LLAMA_TOP, layer=_SANDWICH, norm_offset=1.0),
    "gemma3": Architecture(config=_gemma3, top=_LLAMA_TOP, layer=_SANDWICH, norm_offset=1.0),
    "phi3": Architecture(config=_phi3, top=_LLAMA_TOP,
                         layer=_LLAMA | {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}),
    "starcoder2": Architecture(config=_starcoder2, top=_LLAMA_TOP,
                               layer=_LLAMA | {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}),
    "gpt2": Architecture(config=_gpt2, inside="transformer.h", layer=_GPT2,
                         turned=("attn_qkv", "attn_output", "ffn_up", "ffn_down"),
                         top={"token_embd": "transformer.wte", "position_embd": "transformer.wpe",
                              "output_norm": "transformer.ln_f", "output": "lm_head"}),
    "gptneox": Architecture(config=_gptneox, inside="gpt_neox.layers", layer=_NEOX, rows={"attn_qkv": _per_head},
                            top={"token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm",
                                 "output": "embed_out"}),
    "bloom": Architecture(config=_bloom, inside="transformer.h", layer=_BLOOM, rows={"attn_qkv": _per_head},
                          top={"token_embd": "transformer.word_embeddings", "output": "lm_head",
                               "token_embd_norm": "transformer.word_embeddings_layernorm",
                               "output_norm": "transformer.ln_f"}),
    "falcon": Architecture(config=_falcon, inside="transformer.h", layer=_FALCON, rows={"attn_qkv": _per_group},
                           top={"token_embd": "transformer.word_embeddings", "output": "lm_head",
                                "output_norm": "transformer.ln_f"}),
}  # fmt: skip
