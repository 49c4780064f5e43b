"""EnCodec and DAC against transformers: the same codes, the same wave, from any form in which weights are stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from conjure.core.errors import ConjureError
from conjure.models.codec_folder import load_codec, load_public
from conjure.models.encodec import Encodec, EncodecConfig, joined
from conjure.models.sound_codes import SoundCodes, books_for
from tests.models.codecs import dac, encodec, sound
from tests.models.public.references import close

STEREO: dict[str, Any] = dict(  # noqa: C408
    audio_channels=2, norm_type="time_group_norm", use_causal_conv=False, normalize=True, chunk_length_s=0.05,
    overlap=0.1, target_bandwidths=[10.0, 40.0],
)  # fmt: skip


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"use_causal_conv": False, "upsampling_ratios": [5, 3], "num_residual_layers": 2, "num_lstm_layers": 1},
        {"trim_right_ratio": 0.5, "pad_mode": "constant", "use_conv_shortcut": False, "kernel_size": 5},
        {"normalize": True, "dilation_growth_rate": 3, "num_residual_layers": 2, "compress": 4},
    ],
)
def test_codes_and_waves_are_those_of_the_reference(tmp_path: Path, more: dict[str, Any]) -> None:
    theirs: Any = tf.EncodecModel.from_pretrained(encodec(tmp_path, **more))
    ours = load_public(tmp_path)
    assert (ours.config.hop, ours.config.books) == (theirs.config.hop_length, theirs.config.num_quantizers)
    x_BCN = sound(samples=701)  # no whole number of frames
    for kilobits in theirs.config.target_bandwidths:
        wanted = theirs.encode(x_BCN, bandwidth=kilobits)
        found = ours.encode(x_BCN, books_for(ours.config, kilobits))
        assert torch.equal(found.parts[0], wanted.audio_codes[0]) and len(found.parts[0].unique()) > 8
        made = theirs.decode(wanted.audio_codes, wanted.audio_scales)[0][..., :701]
        close(ours.decode(found), made)


@pytest.mark.parametrize("samples", [800, 1530, 2250, 90])
def test_stereo_in_overlapping_parts(tmp_path: Path, samples: int) -> None:
    theirs: Any = tf.EncodecModel.from_pretrained(encodec(tmp_path, **STEREO))
    ours, x_BCN = load_public(tmp_path), sound(2, 2, samples)
    wanted, found = theirs.encode(x_BCN, bandwidth=40.0), ours.encode(x_BCN)
    assert len(found.parts) == len(wanted.audio_codes) == -(-samples // 720)
    for part, its in zip(found.parts, wanted.audio_codes, strict=True):
        assert torch.equal(part, its[..., : part.shape[-1]])
    for scale, its in zip(found.scales, wanted.audio_scales, strict=True):
        assert scale is not None
        close(scale, its)
    last = wanted.last_frame_pad_length
    made = theirs.decode(wanted.audio_codes, wanted.audio_scales, last_frame_pad_length=last)[0]
    close(ours.decode(found), made[..., :samples])


@pytest.mark.parametrize("more", [{}, {"downsampling_ratios": [2, 8], "n_codebooks": 2}])
def test_dac(tmp_path: Path, more: dict[str, Any]) -> None:
    theirs: Any = tf.DacModel.from_pretrained(dac(tmp_path, **more))
    ours, hop = load_public(tmp_path), theirs.config.hop_length
    x_BCN = sound(samples=20 * hop)
    for books in (1, ours.config.books):
        wanted = theirs.encode(x_BCN, n_quantizers=books).audio_codes
        found = ours.encode(x_BCN, books)
        assert torch.equal(found.parts[0], wanted) and len(wanted.unique()) >= 3
        made = theirs.decode(audio_codes=wanted).audio_values
        close(ours.decode(found)[:, 0, : made.shape[-1]], made)
    odd = ours.encode(x_BCN[..., :-5])
    assert odd.samples == 20 * hop - 5 and odd.parts[0].shape[-1] == 20 and ours.decode(odd).shape[-1] == odd.samples


def rewritten(folder: Path, how: Any) -> Path:
    path = folder / "model.safetensors"
    state = load_file(path)
    made = {new: tensor.contiguous() for name, each in state.items() for new, tensor in how(name, each, state)}
    save_file(made, path, metadata={"format": "pt"})
    return folder


def old(name: str, tensor: Any, state: Any) -> Any:
    ends = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, was in ends.items():
        name = name.replace(new, was)
    return [(name, tensor)]


def folded(name: str, tensor: Any, state: Any) -> Any:
    if name.endswith("original0"):
        return []
    if name.endswith("original1"):
        length = state[name[:-1] + "0"]
        weight = tensor * (length / tensor.flatten(1).norm(dim=1).view(length.shape))
        return [(name.replace("parametrizations.weight.original1", "weight"), weight)]
    return [(name, tensor)]


def original(name: str, tensor: Any, state: Any) -> Any:
    """Names of the first files."""
    ((name, _),) = old(name, tensor, state)
    decoder, at = name.startswith("decoder"), name.split(".")[2]
    up = decoder and at in ("3", "6", "9") and ".block." not in name and ".shortcut." not in name
    name = name.replace(".conv.", ".convtr.convtr." if up else ".conv.conv.").replace(".layers.", ".model.", 1)
    if name.startswith("quantizer"):
        name = name.replace("quantizer.model.", "quantizer.vq.layers.").replace(".codebook.", "._codebook.")
    return [(name, tensor)]


@pytest.mark.parametrize("how", [old, folded, original])
def test_every_form_of_weights(tmp_path: Path, how: Any) -> None:
    new, other = encodec(tmp_path / "new"), rewritten(encodec(tmp_path / "other"), how)
    x_BCN = sound()
    wanted, found = load_public(new), load_public(other)
    codes = wanted.encode(x_BCN)
    assert torch.equal(found.encode(x_BCN).parts[0], codes.parts[0])
    close(found.decode(codes), wanted.decode(codes))


def test_dac_with_weight_norm(tmp_path: Path) -> None:
    dac(tmp_path)
    theirs: Any = tf.DacModel.from_pretrained(tmp_path)
    theirs.apply_weight_norm()
    state = {name: tensor.contiguous() for name, tensor in theirs.state_dict().items()}
    assert any("original0" in name for name in state)
    plain = load_public(tmp_path)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    codes = plain.encode(sound(samples=480))
    close(load_public(tmp_path).decode(codes), plain.decode(codes))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    encodec(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"norm_type": "batch_norm"}, "norm_type 'batch_norm'"), ({"codebook_dim": 8}, "codebook_dim"),
        ({"upsampling_ratios": []}, "upsampling_ratios"), ({"num_filters": 8}, "misshapen"),
        ({"model_type": "bert"}, "no codec of sound"), ({"target_bandwidths": "all"}, "target_bandwidths"),
    ):  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ConjureError, match=message):
            load_public(tmp_path)
    with pytest.raises(ConjureError):
        load_codec(tmp_path)


def test_channels_and_empty_sounds_are_refused() -> None:
    ours = Encodec(EncodecConfig(filters=2, ratios=(2, 2), dim=4, books=1, codes=4))
    for shape in ((1, 2, 100), (1, 1, 0)):
        with pytest.raises(ConjureError, match="expected sound of 1 channel"):
            ours.encode(torch.zeros(shape))
    with pytest.raises(ConjureError, match="trim"):
        EncodecConfig(causal=False, trim=0.5)
    with pytest.raises(ConjureError, match="books"):
        EncodecConfig(books=0)


def test_bits_and_books() -> None:
    ours = Encodec(EncodecConfig(rate=16_000, filters=2, ratios=(8, 5, 4, 2), dim=4, books=6, codes=1024))
    codes = ours.encode(sound(1, 1, 16_000))
    assert codes.bits(1024) == 50 * 6 * 10
    assert [books_for(ours.config, kilobits) for kilobits in (0, 0.1, 1.0, 2.9, 3.0, 99)] == [6, 1, 2, 5, 6, 6]
    both = SoundCodes((codes.parts[0],) * 2, (torch.ones(1, 1),) * 2, 32_000)
    assert both.bits(1024) == 2 * (3000 + 32)


def test_parts_that_agree_are_joined_without_a_seam() -> None:
    x_BCN = sound(samples=100)
    parts = [x_BCN[..., start : start + 40] for start in range(0, 100, 30)]
    close(joined(parts, 30), x_BCN)
