"""Llama shapes with random weights, written in the hub's layout and, from the same numbers, as GGUF files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


@dataclass(frozen=True)
class Shape:
    vocab: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int

    @property
    def width(self) -> int:
        return self.dim // self.heads

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Name on the hub -> outputs and inputs, of all that a token is multiplied by."""
        found, keys = {}, self.kv_heads * self.width
        for layer in range(self.layers):
            at = f"model.layers.{layer}"
            found |= {
                f"{at}.self_attn.{part}_proj.weight": (self.dim if part in "qo" else keys, self.dim) for part in "qkvo"
            }
            found |= {f"{at}.mlp.{part}_proj.weight": (self.hidden, self.dim) for part in ("gate", "up")}
            found[f"{at}.mlp.down_proj.weight"] = (self.dim, self.hidden)
        return found | {"lm_head.weight": (self.vocab, self.dim)}

    @property
    def read(self) -> int:
        """Weights that are read for each token: all but the embedding."""
        return sum(rows * cols for rows, cols in self.matrices.values())

    @property
    def parameters(self) -> int:
        return self.read + self.vocab * self.dim + (2 * self.layers + 1) * self.dim


SHAPES = {
    "toy": Shape(512, 64, 2, 4, 2, 96),
    "15m": Shape(8192, 288, 6, 6, 6, 768),
    "125m": Shape(32000, 768, 12, 12, 12, 2048),
    "1.1b": Shape(32000, 2048, 22, 32, 4, 5632),
}
BITS = {"fp32": 32.0, "bf16": 16.0, "f16": 16.0, "int8": 8.5, "q8_0": 8.5, "int4": 4.5, "q4_0": 4.5}
"""Bits that a weight takes, scales included."""


def config(shape: Shape) -> dict[str, object]:
    """config.json."""
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": shape.vocab, "hidden_act": "silu",
        "hidden_size": shape.dim, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "intermediate_size": shape.hidden, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "bos_token_id": 1, "eos_token_id": 2, "attention_bias": False, "mlp_bias": False,
    }  # fmt: skip


def write(shape: Shape, folder: Path, seed: int = 1) -> Path:
    """config.json and model.safetensors in bfloat16."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (rows, cols) in {**shape.matrices, "model.embed_tokens.weight": (shape.vocab, shape.dim)}.items():
        tensors[name] = torch.empty(rows, cols, dtype=torch.bfloat16).normal_(0, cols**-0.5, generator=random)
    for layer in range(shape.layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{norm}.weight"] = torch.ones(shape.dim, dtype=torch.bfloat16)
    tensors["model.norm.weight"] = torch.ones(shape.dim, dtype=torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config(shape)), encoding="utf-8")
    return folder


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
GGUF_TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(shape: Shape, folder: Path, kind: str) -> Path:
    """The weights of `folder` in a GGUF file of this kind (bf16, f16, q8_0, q4_0) beside them; norms are float32."""
    import gguf

    to = folder / f"{kind}.gguf"
    out = gguf.GGUFWriter(str(to), "llama")
    out.add_context_length(2048)
    out.add_embedding_length(shape.dim)
    out.add_block_count(shape.layers)
    out.add_feed_forward_length(shape.hidden)
    out.add_head_count(shape.heads)
    out.add_head_count_kv(shape.kv_heads)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(shape.width)
    out.add_rope_freq_base(10000.0)
    out.add_vocab_size(shape.vocab)
    out.add_tokenizer_model("no_vocab")
    numbered = gguf.GGMLQuantizationType[kind.upper()]
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  (it is no mapping)
            tensor, stem = file.get_tensor(name).float(), name.removesuffix(".weight")
            if stem.endswith(("q_proj", "k_proj")):  # llama.cpp turns neighbouring pairs
                heads = shape.heads if stem.endswith("q_proj") else shape.kv_heads
                tensor = tensor.view(heads, 2, shape.width // 2, -1).transpose(1, 2).reshape(tensor.shape)
            if stem.startswith("model.layers."):
                layer, _, rest = stem.removeprefix("model.layers.").partition(".")
                stem = f"blk.{layer}.{GGUF_NAMES[rest]}"
            else:
                stem = GGUF_TOP[stem]
            made = gguf.GGMLQuantizationType.F32 if tensor.dim() == 1 else numbered
            data = gguf.quants.quantize(tensor.contiguous().numpy(), made)
            out.add_tensor(f"{stem}.weight", data, raw_dtype=made)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return to
