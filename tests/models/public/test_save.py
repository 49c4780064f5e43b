"""What we train opens in the reference, where a family of the hub can say its config, and gives the same logits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers as tf

from conjure.models.folder import write_config
from conjure.models.ngram import NGram
from conjure.models.public.save import hub_config, load_transformer, save_transformer
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.position import Rope
from tests.models.public.references import batch, close, randomised

LLAMA = TransformerConfig(vocab=96, dim=32, layers=2, heads=4, kv_heads=2, hidden=48, rope=Rope(dim=8))
TRAINED = {
    "llama": LLAMA,
    "llama_untied": replace(LLAMA, tie=False, qkv_bias=True, out_bias=True, mlp_bias=True),
    "qwen3": replace(LLAMA, qk_norm=True, kv_heads=None, hidden=None),
    "mistral": replace(LLAMA, windows=(5, 5)),
    "gpt2": TransformerConfig(vocab=96, dim=32, layers=2, heads=4, gated=False, activation="gelu_tanh", norm="layer",
                              norm_eps=1e-5, qkv_bias=True, out_bias=True, mlp_bias=True, positions="learned",
                              max_length=24),
}  # fmt: skip


@pytest.mark.parametrize("kind", TRAINED)
def test_a_trained_network_opens_in_the_reference(kind: str, tmp_path: Path) -> None:
    network = randomised(Transformer(TRAINED[kind]))
    assert isinstance(network, Transformer)
    said = save_transformer(tmp_path, network, None, dtype="float32", length=24)
    assert said["model_type"] == kind.split("_")[0]
    write_config(tmp_path, kind="transformer", task="text_to_text", network=network, sections={**said, "model": {}})
    ids, mask = batch()
    theirs = tf.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager", dtype=torch.float32)
    with torch.no_grad():
        wanted = network(ids, mask_BT=mask)
        close(theirs(ids, attention_mask=mask, use_cache=False).logits, wanted, mask)
    again = load_transformer(tmp_path, json.loads((tmp_path / "config.json").read_text()))
    close(again(ids, mask_BT=mask), wanted, mask)


def test_what_no_family_can_say_stays_in_our_own_layout(tmp_path: Path) -> None:
    config = replace(LLAMA, ngram=NGram(rows=31, dim=8))
    assert hub_config(config, 24) is None
    network = randomised(Transformer(config))
    assert isinstance(network, Transformer)
    assert save_transformer(tmp_path, network, None, dtype="float32", length=24) == {}
    ids, _ = batch()
    from conjure.core.config import to_dict

    close(load_transformer(tmp_path, {"model": to_dict(config)})(ids), network(ids))
