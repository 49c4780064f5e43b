"""Tiny GGUF files, written as llama.cpp's converter writes them: names by the gguf package's own table, values changed
by what convert_hf_to_gguf.py does to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import load_file

COMMON = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
          "num_attention_heads": 4,
              "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
LL = COMMON | {"num_key_value_heads": 2, "pad_token_id": 0}
GEMMA = LL | {"head_dim": 16, "num_key_value_heads": 1}
MOE = LL | {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 64,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", LL | {"attention_bias": True, "mlp_bias": True, "rope_theta": 5000.0}),
    "llama-tied": ("Llama", LL | {"head_dim": 16, "tie_word_embeddings": True}),
    "mixtral": ("Mixtral", LL | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen2": ("Qwen2", LL),
    "qwen3": ("Qwen3", LL | {"head_dim": 16}),
    "qwen2moe": ("Qwen2Moe", MOE),
    "qwen3moe": ("Qwen3Moe", MOE | {"norm_topk_prob": True, "head_dim": 16}),
    "gemma": ("Gemma", GEMMA),
    "gemma2": ("Gemma2", GEMMA | {"query_pre_attn_scalar": 16, "sliding_window": 4, "attn_logit_softcapping": 5.0,
                                      "final_logit_softcapping": 3.0}),
    "gemma3": ("Gemma3", GEMMA | {"query_pre_attn_scalar": 16, "sliding_window": 4, "num_hidden_layers": 7}),
    "phi3": ("Phi3", LL | {"head_dim": 8, "partial_rotary_factor": 0.5}),
    "starcoder2": ("Starcoder2", LL | {"sliding_window": 5}),
    "gpt2": ("GPT2", {"vocab_size": 96, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1,
                       "eos_token_id": 2}),
    "gptneox": ("GPTNeoX", COMMON | {"rotary_pct": 0.5, "use_parallel_residual": False}),
    "bloom": ("Bloom", {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": ("Falcon", COMMON | {"ffn_hidden_size": 128}),
    "falcon-groups": ("Falcon", COMMON | {"ffn_hidden_size": 128, "new_decoder_architecture": True, "num_kv_heads": 2}),
}  # fmt: skip


def build(name: str, folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """A random model of a family, saved into `folder`, and the tensors of its file."""
    torch.manual_seed(0)
    kind, options = MODELS[name]
    config_class = getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(kind, f"{kind}Config"))
    head = {"GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM")
    config = config_class(**options)
    config._attn_implementation = "eager"
    model = getattr(transformers, head)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    return model, load_file(folder / "model.safetensors")


# -- what the converter does to values ---------------------------------------------------------------------------------


def rotary(weight: np.ndarray, heads: int) -> np.ndarray:
    """LlamaModel.permute."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def of_heads(weight: np.ndarray, heads: int) -> np.ndarray:
    """q, k, v of each head -> all q, all k, all v (GPT-NeoX, BLOOM)."""
    parts = weight.reshape(heads, 3, weight.shape[0] // heads // 3, *weight.shape[1:])
    return np.concatenate([parts[:, i].reshape(-1, *weight.shape[1:]) for i in range(3)])


def of_groups(weight: np.ndarray, heads: int, groups: int) -> np.ndarray:
    """The same of Falcon: several q, one k, one v of each group."""
    parts = weight.reshape(groups, heads // groups + 2, -1, *weight.shape[1:])
    q, k, v = parts[:, :-2], parts[:, [-2]], parts[:, [-1]]
    return np.concatenate([each.reshape(-1, *weight.shape[1:]) for each in (q, k, v)])


def changed(name: str, hub: str, weight: np.ndarray, config: Any) -> np.ndarray:
    heads = config.num_attention_heads
    if name.startswith(("llama", "mixtral")) and ".q_proj." in hub:
        return rotary(weight, heads)
    if name.startswith(("llama", "mixtral")) and ".k_proj." in hub:
        return rotary(weight, config.num_key_value_heads)
    if name.startswith("gemma") and hub.endswith("norm.weight"):
        return weight + 1
    if name == "gpt2" and hub.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return weight.T
    if name in ("gptneox", "bloom") and "query_key_value" in hub:
        return of_heads(weight, heads)
    if name.startswith("falcon") and "query_key_value" in hub:
        return of_groups(weight, heads, config.num_kv_heads if config.new_decoder_architecture else 1)
    return weight.squeeze() if "shared_expert_gate" in hub else weight


def stacked(tensors: Mapping[str, np.ndarray], layers: int) -> dict[str, np.ndarray]:
    """The experts of a layer become one tensor."""
    found = {name: data for name, data in tensors.items() if ".experts." not in name}
    parts = {name.rsplit(".", 2)[-2] for name in tensors if ".experts." in name}
    for layer in range(layers):
        for part in parts:
            own = [name for name in tensors if f"layers.{layer}." in name and name.endswith(f".{part}.weight")
                   and ".experts." in name]  # fmt: skip
            inside = own[0].split(".experts.")[0]
            own.sort(key=lambda name: int(name.split(".experts.")[1].split(".")[0]))
            found[f"{inside}.experts.{part}.weight"] = np.stack([tensors[name] for name in own])
    return found


def write(
    path: Path, name: str, model: Any, tensors: Mapping[str, torch.Tensor], *,
    stored: Callable[[str, np.ndarray], gguf.GGMLQuantizationType] = lambda name, data: gguf.GGMLQuantizationType.F32,
    more: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
) -> Path:  # fmt: skip
    """`stored(name in the file, values)` says how a matrix is quantised."""
    arch = {"llama-tied": "llama", "mixtral": "llama", "falcon-groups": "falcon"}.get(name, name)
    kind = {text: number for number, text in gguf.MODEL_ARCH_NAMES.items()}[arch]
    layers = model.config.num_hidden_layers
    table = gguf.get_tensor_name_map(kind, layers)
    writer = gguf.GGUFWriter(path, arch)
    metadata(writer, arch, model.config)
    more(writer)
    arrays = {hub: changed(name, hub, data.float().numpy(), model.config) for hub, data in tensors.items()}
    for hub, data in stacked(arrays, layers).items():
        # BLOOM's converter takes the prefix off before it looks a name up
        found = table.get_name(
            hub.removeprefix("transformer." if name == "bloom" else ""), try_suffixes=(".weight", ".bias")
        )
        assert found is not None, hub
        want = stored(found, data) if data.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(found, gguf.quantize(np.ascontiguousarray(data), want), raw_dtype=want)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def metadata(writer: gguf.GGUFWriter, arch: str, config: Any) -> None:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(getattr(config, "max_position_embeddings", 64))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    fixed = arch in ("gpt2", "bloom", "falcon")
    writer.add_feed_forward_length(4 * config.hidden_size if fixed else config.intermediate_size)
    writer.add_head_count(heads)
    if arch == "falcon":
        writer.add_head_count_kv(config.num_kv_heads if config.new_decoder_architecture else 1)
    elif hasattr(config, "num_key_value_heads"):
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(width)
        writer.add_value_length(width)
    if arch in ("gpt2", "gptneox", "bloom", "falcon", "starcoder2"):
        names = ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon")
        writer.add_layer_norm_eps(next(getattr(config, each) for each in names if hasattr(config, each)))
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    if rope:
        writer.add_rope_freq_base(rope["rope_theta"])
        writer.add_rope_dimension_count(int(width * rope.get("partial_rotary_factor", 1)))
    if getattr(config, "sliding_window", None) and arch in ("gemma2", "gemma3", "starcoder2"):
        writer.add_sliding_window(config.sliding_window)
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if arch == "gptneox":
        writer.add_parallel_residual(config.use_parallel_residual)
    if experts := getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None):
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if arch in ("qwen2moe", "qwen3moe"):
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    for role in ("bos", "eos"):
        if (token := getattr(config, f"{role}_token_id", None)) is not None:
            writer.add_uint32(f"tokenizer.ggml.{role}_token_id", token)
