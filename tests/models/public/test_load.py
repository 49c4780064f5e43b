"""What does not fit is refused with words; old configs say the same as new ones; what a load reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from conjure.core.errors import ConjureError
from conjure.models.checkpoint import Checkpoint
from conjure.models.language import LanguageModel
from conjure.models.public import load
from conjure.models.public.names import per_group, per_head, quarters, regrouped, rule_for
from conjure.models.public.settings import Settings
from tests.models.public.references import batch, close, randomised, saved

TINY: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(randomised(tf.LlamaForCausalLM(tf.LlamaConfig(**TINY))), tmp_path / "llama")


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.update(values)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def tensors(folder: Path, **changes: Any) -> None:
    state = load_file(folder / "model.safetensors")
    state |= {k.replace("__", "."): v for k, v in changes.items() if v is not None}
    kept = {k: v.contiguous() for k, v in state.items() if changes.get(k.replace(".", "__"), 0) is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def test_the_report_says_that_every_tensor_was_used(folder: Path) -> None:
    report = LanguageModel.load(folder).report
    assert report is not None
    assert report.tensors == len(load_file(folder / "model.safetensors")) and not report.ignored and not report.tied
    assert "all 21 tensors found their place" in str(report)


def test_missing_unexpected_and_misshapen_tensors_are_listed_with_the_nearest_names(folder: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    tensors(folder, **{name.replace(".", "__"): None, "model__layers__1__mlp__down_prj__weight": torch.zeros(32, 48),
                       "model__norm__weight": torch.zeros(31)})  # fmt: skip
    with pytest.raises(ConjureError) as error:
        LanguageModel.load(folder)
    message = error.value.message
    assert f"missing {name} [32, 48] (there is model.layers.1.mlp.down_prj.weight)" in message
    assert "unexpected model.layers.1.mlp.down_prj.weight" in message
    assert "misshapen model.norm.weight: expected [32], got [31]" in message


@pytest.mark.parametrize(
    ("change_to", "says"),
    [
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"model_type": 3}, "names no model_type"),
        ({"hidden_size": -32}, "hidden_size: expected a whole number"),
        ({"hidden_size": "32"}, "hidden_size: expected a whole number"),
        ({"num_attention_heads": 5}, "kv_heads to divide heads"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers: expected a whole number"),
        ({"num_hidden_layers": ...}, "expected num_hidden_layers, there is none"),
        ({"hidden_act": "sine"}, "unknown activation"),
        ({"rope_parameters": {"rope_type": "spiral", "rope_theta": 1.0}}, "unknown kind of rotary positions"),
        ({"intermediate_size": 64}, "misshapen"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps: expected a number"),
    ],
)
def test_absurd_configs_are_refused_by_name(folder: Path, change_to: dict[str, Any], says: str) -> None:
    change(folder, **change_to)
    with pytest.raises(ConjureError, match=says):
        LanguageModel.load(folder)


def test_broken_files_are_refused(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConjureError, match="not a whole safetensors file"):
        LanguageModel.load(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(ConjureError, match=r"expected model\.safetensors") as error:
        LanguageModel.load(folder)
    assert "pickle" in error.value.hint
    (folder / "config.json").write_text("{")
    with pytest.raises(ConjureError, match="no valid JSON"):
        LanguageModel.load(folder)


def test_shards_are_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    reference = randomised(tf.LlamaForCausalLM(tf.LlamaConfig(**TINY)))
    reference.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    ids, mask = batch()
    with torch.no_grad():
        close(LanguageModel.load(tmp_path).logits(ids, mask), reference(ids, attention_mask=mask).logits, mask)
    sorted(tmp_path.glob("*.safetensors"))[1].unlink()
    with pytest.raises(ConjureError, match="files are missing"):
        LanguageModel.load(tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    index["weight_map"]["lm_head.weight"] = "../elsewhere.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConjureError, match="outside the folder"):
        LanguageModel.load(tmp_path)


def test_files_without_the_prefix_and_with_leftovers_load(tmp_path: Path) -> None:
    config = tf.GPT2Config(vocab_size=96, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    reference = randomised(tf.GPT2LMHeadModel(config))
    folder = saved(reference, tmp_path)
    state = {k.removeprefix("transformer."): v for k, v in load_file(folder / "model.safetensors").items()}
    state["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    ours = LanguageModel.load(folder)
    assert ours.report is not None and ours.report.ignored == ("h.0.attn.bias",) and ours.report.tied
    ids, mask = batch()
    with torch.no_grad():
        close(ours.logits(ids, mask), reference(ids, attention_mask=mask).logits, mask)


def test_old_spellings_of_rotary_positions_mean_the_same() -> None:
    llama3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    new = Settings({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **llama3}})
    old = Settings({"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **llama3}})
    assert new.rope(64) == old.rope(64)
    assert Settings({"rope_scaling": {"type": "linear", "factor": 4}}).rope(8).scaling == Settings(
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0}}).rope(8).scaling
    gemma = {"model_type": "gemma3_text", **TINY, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 4}
    config = load.FAMILIES["gemma3_text"].config(Settings(
        {**gemma, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
         "rope_scaling": {"rope_type": "linear", "factor": 8.0}}))
    assert config.rope.theta == 1e6 and config.rope.scaling.factor == 8 and config.rope_local.theta == 1e4
    assert config.windows == (4, 4)


def test_grok_runs_with_its_published_knobs() -> None:
    config = load.FAMILIES["grok-1"].config(Settings({**TINY, "num_local_experts": 8}))
    assert config.placement == "sandwich" and config.attention_softcap == 30 and config.tie
    assert config.experts.count == 8 and not config.experts.renormalise and config.activation == "gelu_tanh"
    network = load.FAMILIES["grok-1"].network(config)
    names = load.FAMILIES["grok-1"].names(config)
    assert all(rule_for(name, names) for name in network.state_dict())


def test_packed_experts_of_four_bits_are_unpacked(tmp_path: Path) -> None:
    blocks = torch.randint(0, 256, (2, 6, 3, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scales = torch.randint(120, 134, (2, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    save_file({"w_blocks": blocks, "w_scales": scales}, tmp_path / "model.safetensors")
    disk = Checkpoint(tmp_path)
    assert disk.names() == ["w"] and disk.shape("w") == (2, 96, 6)
    grid = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    values = grid + [-v for v in grid]
    got = disk.tensor("w").float()
    for expert, row, block, byte in ((0, 0, 0, 0), (1, 5, 2, 15), (1, 3, 1, 7)):
        packed, scale = int(blocks[expert, row, block, byte]), 2.0 ** (int(scales[expert, row, block]) - 127)
        column = 32 * block + 2 * byte
        assert got[expert, column, row] == values[packed & 15] * scale
        assert got[expert, column + 1, row] == values[packed >> 4] * scale


def test_eight_bit_floats_are_scaled_by_blocks(tmp_path: Path) -> None:
    weight = torch.randn(200, 130).to(torch.float8_e4m3fn)
    scale = torch.rand(2, 2) + 0.5
    save_file({"a.weight": weight, "a.weight_scale_inv": scale}, tmp_path / "model.safetensors")
    got = Checkpoint(tmp_path).tensor("a.weight").float()
    for row, column in ((0, 0), (199, 129), (127, 128), (128, 127)):
        wanted = weight[row, column].float() * scale[row // 128, column // 128]
        assert abs(got[row, column] - wanted) <= 2**-8 * abs(wanted)


@pytest.mark.parametrize(
    "rule", [per_head("x", 4), per_group("x", 4, 2, 3), quarters("x"), regrouped("x", (2, -1, 3), (1, 0, 2))]
)
def test_rules_read_what_they_write(rule: Any) -> None:
    for shape in ((48, 5), (48,)):
        if rule.disk and rule.read.__qualname__.startswith("per_group"):
            shape = (24, *shape[1:])
        tensor = torch.randn(shape)
        assert torch.equal(rule.read(rule.write(tensor)), tensor)
