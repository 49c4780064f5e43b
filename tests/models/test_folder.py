"""Model folders: what is saved comes back; what does not fit is refused in words."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from conjure.core.errors import ConjureError
from conjure.core.seeds import normal
from conjure.models.folder import load_weights, read_config, save_weights, weights_digest, write_config
from conjure.models.transformer import Transformer, TransformerConfig

CONFIG = TransformerConfig(vocab=20, dim=8, layers=1, heads=2)


def network(seed: int = 0) -> Transformer:
    made = Transformer(CONFIG)
    with torch.no_grad():
        for i, parameter in enumerate(made.parameters()):
            parameter.copy_(normal([seed + 100 * i], parameter.shape)[0])
    return made


def broken(folder: Path, **change: torch.Tensor | None) -> Path:
    """The weights with some tensors replaced, added, or (None) left out; `__` stands for a dot."""
    tensors = dict(network().state_dict())
    for name, tensor in change.items():
        dotted = name.replace("__", ".")
        tensors.pop(dotted, None)
        if tensor is not None:
            tensors[dotted] = tensor
    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    saved, other = network(0), network(1)
    save_weights(tmp_path, "model", saved)
    load_weights(other, tmp_path / "model.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_half_the_size_and_loads_into_float32(tmp_path: Path, dtype: str) -> None:
    saved, other = network(0), network(1)
    full = save_weights(tmp_path / "full", "model", saved).stat().st_size
    half = save_weights(tmp_path / "half", "model", saved, dtype=dtype).stat().st_size
    count = sum(p.numel() for p in saved.parameters())
    assert full - half == pytest.approx(2 * count, abs=100)
    load_weights(other, tmp_path / "half" / "model.safetensors")
    for a, b in zip(saved.parameters(), other.parameters(), strict=True):
        assert b.dtype == torch.float32 and torch.equal(a.to(getattr(torch, dtype)).float(), b)


def test_missing(tmp_path: Path) -> None:
    path = broken(tmp_path, embed__weight=None, embedding__weight=torch.zeros(20, 8))
    with pytest.raises(ConjureError) as caught:
        load_weights(network(), path)
    assert "missing embed.weight [20, 8] (there is embedding.weight)" in caught.value.message
    assert "unexpected embedding.weight [20, 8]" in caught.value.message and caught.value.hint


def test_extra(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match=r"unexpected head\.weight \[2\]"):
        load_weights(network(), broken(tmp_path, head__weight=torch.zeros(2)))


def test_misshapen_and_nothing_is_half_loaded(tmp_path: Path) -> None:
    target = network(1)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(ConjureError, match=r"misshapen norm\.weight: expected \[8\], got \[9\]"):
        load_weights(target, broken(tmp_path, norm__weight=torch.zeros(9)))
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated(tmp_path: Path, keep: int) -> None:
    path = save_weights(tmp_path, "model", network())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ConjureError, match="not a whole safetensors file"):
        load_weights(network(), path)


class Trap:
    """Were it unpickled, it would raise."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (exec, ("raise SystemExit('the pickle ran')",))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pickle_is_never_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ConjureError) as caught:
        load_weights(network(), tmp_path / "model.safetensors")
    assert name == "model.safetensors" or "pickle" in caught.value.hint


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="no such file"):
        load_weights(network(), tmp_path / "model.safetensors")


def test_config(tmp_path: Path) -> None:
    write_config(tmp_path, kind="k", task="t", network=network(), sections={"model": {"dim": 8}})
    saved = read_config(tmp_path)
    assert saved["format"] == 1 and saved["kind"] == "k" and saved["task"] == "t" and saved["model"] == {"dim": 8}
    assert saved["parameters"] == sum(p.numel() for p in network().parameters())
    assert saved["licence"] == "unstated" and saved["summary"] == ""


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"format": 99}), "\xff"])
def test_a_config_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConjureError, match=r"config\.json is not"):
        read_config(tmp_path)


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="does not exist"):
        read_config(tmp_path)


def test_the_digest_is_of_all_weights(tmp_path: Path) -> None:
    save_weights(tmp_path, "model", network(0))
    first = weights_digest(tmp_path)
    assert first == weights_digest(tmp_path) and first.startswith("sha256:")
    save_weights(tmp_path, "codec", network(0))
    second = weights_digest(tmp_path)
    save_weights(tmp_path, "codec", network(1))
    assert len({first, second, weights_digest(tmp_path)}) == 3


def test_matrices_are_stored_in_eight_bits_and_come_back_within_half_a_step(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Embedding(40, 64), nn.Linear(64, 7), nn.LayerNorm(7))
    path = save_weights(tmp_path, "model", network, dtype="int8")
    assert path.stat().st_size < 40 * 64 + 7 * 64 + 2 * (40 + 7) * 2 + 700
    again = nn.Sequential(nn.Embedding(40, 64), nn.Linear(64, 7), nn.LayerNorm(7))
    load_weights(again, path)
    for old, new in zip(network.parameters(), again.parameters(), strict=True):
        steps = old.abs().amax() / 127
        assert (old - new).abs().max() <= (0.51 * steps if old.dim() == 2 else 2**-8 * old.abs().max())
    with pytest.raises(ConjureError, match=r"unexpected 1\.weight"):
        load_weights(nn.Sequential(nn.Embedding(40, 64)), path)
