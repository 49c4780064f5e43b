"""Tiny random vocoders and voices as the hub has them: both forms of weight norm, and files that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.checkpoint import Checkpoint
from conjure.models.language import read_config
from conjure.models.public.load import build
from conjure.models.public.weight_norm import Folded
from tests.models.public.references import close, randomised, saved
from tests.models.voices import VITS, vits, vits_reference

SMALL: dict[str, Any] = {"model_in_dim": 6, "upsample_initial_channel": 16, "upsample_rates": [4, 2],
                         "upsample_kernel_sizes": [8, 4], "resblock_kernel_sizes": [3, 5],
                         "resblock_dilation_sizes": [[1, 3], [1, 2]]}  # fmt: skip


def vocoder(**more: Any) -> Any:
    model: Any = randomised(tf.SpeechT5HifiGan(tf.SpeechT5HifiGanConfig(**SMALL, **more)))
    model.mean.copy_(torch.linspace(-1, 1, 6))
    model.scale.copy_(torch.linspace(0.5, 2, 6))
    return model


def opened(folder: Path) -> Any:
    network, report = build(read_config(folder), Checkpoint(folder), torch.float32)
    assert set(report.ignored) <= {"mean", "scale"} or report.family == "vits"
    return network


def frames() -> Tensor:
    return torch.randn(2, 11, 6, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("normed", [True, False])
def test_the_wave_of_a_vocoder(tmp_path: Path, normed: bool) -> None:
    model = vocoder(normalize_before=normed)
    ours = opened(saved(model, tmp_path))
    close(ours(frames().mT), model(frames()))


@pytest.mark.parametrize("form", ["new", "old"])
def test_weight_norm_in_both_forms(tmp_path: Path, form: str) -> None:
    model = vocoder()
    wanted = model(frames())
    model.apply_weight_norm()
    saved(model, tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    assert any(name.endswith("parametrizations.weight.original0") for name in tensors)
    # Not only lengths of 1: a direction may be of any length.
    tensors = {name: 3 * each if name.endswith("original1") else each for name, each in tensors.items()}
    if form == "old":
        for new, old in (("parametrizations.weight.original0", "weight_g"),
                         ("parametrizations.weight.original1", "weight_v")):  # fmt: skip
            tensors = {name.replace(new, old): each for name, each in tensors.items()}
    save_file(tensors, file, {"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "hifigan"}))  # as the released one
    close(opened(tmp_path)(frames().mT), wanted)


def test_a_length_for_each_tap() -> None:
    """weight_norm with dim=2, as in convolutions of places."""
    direction = torch.randn(4, 3, 5)
    length = torch.rand(1, 1, 5)

    class Two:
        def names(self) -> list[str]:
            return ["a.weight_g", "a.weight_v", "a.bias", "b.weight_g"]

        def shape(self, name: str) -> tuple[int, ...]:
            return tuple(self.tensor(name).shape)

        def tensor(self, name: str) -> Tensor:
            return length if name.endswith("_g") else direction

    folded = Folded(Two())
    assert list(folded.names()) == ["a.bias", "a.weight", "b.weight_g"] and folded.shape("a.weight") == (4, 3, 5)
    close(folded.tensor("a.weight"), torch._weight_norm(direction, length, 2))
    assert folded.tensor("a.bias") is direction


def test_every_tensor_of_a_voice_finds_its_place(tmp_path: Path) -> None:
    folder = vits(tmp_path, vits_reference(num_speakers=3, speaker_embedding_size=6))
    _, report = build(read_config(folder), Checkpoint(folder), torch.float32)
    assert all(name.startswith(("posterior_encoder.", "duration_predictor.post_", "duration_predictor.flows.1."))
               for name in report.ignored)  # fmt: skip
    tensors = load_file(folder / "model.safetensors")
    lacking = {name: each for name, each in tensors.items() if name != "decoder.resblocks.1.convs2.0.bias"}
    save_file(lacking, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConjureError, match=r"missing decoder\.resblocks\.1\.convs2\.0\.bias"):
        opened(folder)
    more = {**tensors, "decoder.strange": torch.zeros(2), "flow.flows.0.conv_pre.bias": torch.zeros(3)}
    save_file(more, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConjureError, match=r"unexpected decoder\.strange") as caught:
        opened(folder)
    assert "misshapen flow.flows.0.conv_pre.bias: expected [16], got [3]" in str(caught.value)


@pytest.mark.parametrize(("said", "wrong"), [
    ({"architectures": ["VitsForSomething"]}, "cannot run VitsForSomething"),
    ({"upsample_rates": [4, 0]}, "upsample_rates: expected whole numbers above 0"),
    ({"resblock_dilation_sizes": 3}, "resblock_dilation_sizes: expected lists"),
    ({"num_attention_heads": 3}, "3 heads do not divide the width 16"),
    ({"depth_separable_channels": 4}, "depth_separable_channels"), ({"flow_size": 13}, "even width of latents"),
    ({"num_speakers": 3}, "3 speakers take an embedding"), ({"hidden_act": "tan"}, "unknown activation 'tan'"),
    ({"model_type": "vitz"}, "family 'vitz' cannot be run yet"),
])  # fmt: skip
def test_configs_that_cannot_be(tmp_path: Path, said: dict[str, Any], wrong: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vits", **VITS, **said}))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ConjureError, match=wrong):
        opened(tmp_path)
