"""Our networks in the hub's own layout, so that other libraries open them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from conjure.core.config import from_dict
from conjure.core.files import write_atomic
from conjure.models.checkpoint import Checkpoint
from conjure.models.folder import load_weights, save_weights
from conjure.models.public.decoders import FAMILIES
from conjure.models.public.load import build, stored
from conjure.models.public.settings import Settings
from conjure.models.transformer import Transformer, TransformerConfig

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "vocab.txt",
    "added_tokens.json", "*.model", "source.spm", "target.spm", "chat_template.jinja", "generation_config.json",
    "preprocessor_config.json", "modules.json", "sentence_bert_config.json",
)  # fmt: skip
CLASSES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen3": "Qwen3ForCausalLM",
           "gpt2": "GPT2LMHeadModel"}  # fmt: skip
SPELLED = {"gelu_tanh": "gelu_pytorch_tanh"}


def hub_config(config: TransformerConfig, length: int) -> dict[str, Any] | None:
    """config.json of the first family that can say all of `config`; None where none can (hashed n-grams, say). `length`
    is the most tokens that the model was trained on."""
    for kind in CLASSES:
        said = {"model_type": kind, "architectures": [CLASSES[kind]], **_said(kind, config, length)}
        family = FAMILIES[kind]
        if family.config(Settings(said, family.defaults)) == _settled(config):
            return said
    return None


def _settled(config: TransformerConfig) -> TransformerConfig:
    """With every default worked out, as reading a file gives it."""
    if config.positions == "learned":
        return replace(config, hidden=config.feedforward, head_dim=None)
    return replace(config, kv_heads=config.key_heads, head_dim=config.width, hidden=config.feedforward)


def _said(kind: str, c: TransformerConfig, length: int) -> dict[str, Any]:
    activation = SPELLED.get(c.activation, c.activation)
    if kind == "gpt2":
        return {"vocab_size": c.vocab, "n_embd": c.dim, "n_layer": c.layers, "n_head": c.heads,
                "n_inner": c.feedforward, "n_positions": c.max_length or 1, "activation_function": activation,
                "layer_norm_epsilon": c.norm_eps, "tie_word_embeddings": c.tie}
    said = {
        "vocab_size": c.vocab, "hidden_size": c.dim, "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
        "num_key_value_heads": c.key_heads, "head_dim": c.width, "intermediate_size": c.feedforward,
        "hidden_act": activation, "rms_norm_eps": c.norm_eps, "max_position_embeddings": length,
        "attention_bias": c.qkv_bias, "mlp_bias": c.mlp_bias, "tie_word_embeddings": c.tie,
        "rope_theta": c.rope.theta if c.rope else 10_000.0,
    }  # fmt: skip
    said["rope_parameters"] = {"rope_type": "default", "rope_theta": said["rope_theta"]}
    if kind == "mistral":
        said["sliding_window"] = c.windows[0] if c.windows else None
    return said


def save_transformer(
    folder: Path, network: Transformer, weights: Mapping[str, Tensor] | None, *, dtype: str, length: int
) -> dict[str, Any]:
    """model.safetensors of a transformer (with `weights` in place of its own if given), by the names of the hub where a
    family can say its config: returns what config.json must say then, else nothing. Eight bits are our own layout."""
    state = network.state_dict() if weights is None else weights
    said = hub_config(network.config, length) if dtype != "int8" else None
    if said is None:
        save_weights(folder, "model", state, dtype=dtype)
        return {}
    config = FAMILIES[said["model_type"]].config(Settings(said))
    save_weights(folder, "model", dict(stored(state, config, FAMILIES[said["model_type"]])), dtype=dtype)
    return {**said, "dtype": dtype}


def load_transformer(folder: Path, config: Mapping[str, Any]) -> Transformer:
    """The transformer of a folder that `save_transformer` wrote, ready for use."""
    if "model_type" in config:
        network, _ = build(dict(config), Checkpoint(folder), torch.float32)
        assert isinstance(network, Transformer)
        return network
    network = Transformer(from_dict(TransformerConfig, config.get("model", {}), where=f"{folder}: model"))
    load_weights(network, folder / "model.safetensors")
    return network.eval().requires_grad_(False)


def copied(source: Path, target: Path, tensors: dict[str, Tensor], ignored: tuple[str, ...]) -> None:
    """A loaded model written again: `tensors` as it has them now, and from its folder what the network had no use for
    and the files of its tokenizer."""
    target.mkdir(parents=True, exist_ok=True)
    disk = Checkpoint(source) if ignored else None
    rest = {name: disk.tensor(name) for name in ignored} if disk is not None else {}
    kept = {k: v.detach().cpu().contiguous().clone() for k, v in {**rest, **tensors}.items()}
    write_atomic(target / "model.safetensors", to_bytes(kept, metadata={"format": "pt"}))
    for pattern in TOKENIZER_FILES:
        for file in sorted(source.glob(pattern)):
            if file.resolve() != (target / file.name).resolve():
                shutil.copyfile(file, target / file.name)
