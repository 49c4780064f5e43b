"""A compiled decoder that reads across, and a compiled encoder, give what the transformers give."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.compiled_encoder import CompiledEncoder
from conjure.models.compiled_reading import Writer
from conjure.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, Reading
from conjure.models.transformer import TransformerConfig
from conjure.nn.native.build import native
from conjure.nn.position import Rope
from conjure.nn.quantised import quantise
from tests.models.decoders import apart, ids

SHAPE: dict[str, Any] = {"vocab": 97, "dim": 64, "layers": 2, "heads": 4, "hidden": 96, "gated": False, "norm": "layer",
                         "activation": "gelu", "qkv_bias": True, "out_bias": True, "mlp_bias": True}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "whisper": {"positions": "learned", "max_length": 64},
    "marian": {"placement": "post", "positions": "sinusoid", "max_length": 64, "activation": "relu"},
    "widths that fill no panel": {"dim": 48, "heads": 2, "head_dim": 24, "hidden": 112, "norm": "rms"},
}
LONG = 37
"""Tokens of a source: no whole tile."""


@pytest.fixture(autouse=True)
def one_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests of compiled code share a folder, so that it is compiled once."""
    monkeypatch.setenv("CONJURE_CACHE", str(Path(tempfile.gettempdir()) / f"conjure-native-{os.getuid()}"))


def pair(name: str) -> EncoderDecoder:
    """Random weights everywhere, norms and biases too."""
    shape = {**SHAPE, **CASES[name]}
    network = EncoderDecoder(EncoderDecoderConfig(
        encoder=TransformerConfig(**{**shape, "vocab": 0}, causal=False), shared=False,
        decoder=TransformerConfig(**shape, cross=True),
    ))  # fmt: skip
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            centre, size = (1.0, 0.3) if parameter.dim() == 1 else (0.0, parameter.shape[-1] ** -0.5)
            parameter.copy_(centre + size * torch.randn(parameter.shape, generator=random))
    return network.eval().requires_grad_(False)


def source(network: EncoderDecoder, rows: int) -> Tensor:
    return torch.randn(rows, LONG, network.config.encoder.dim, generator=torch.Generator().manual_seed(5))


def written(reading: Any) -> list[Tensor]:
    """What is read at once, step by step, after rows are left out, and with rows that come twice."""
    cache = reading.cache(3, 24)
    made = [reading(ids(3, 5), cache=cache, last_only=False), reading(ids(3, 1, 1), cache=cache, last_only=True)]
    cache.keep([2, 0])
    made.append(reading(ids(2, 9, 2), cache=cache, last_only=True))
    cache.keep([1, 1, 0])
    return [*made, reading(ids(3, 1, 3), cache=cache, last_only=True)]


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_float32_is_the_decoder(name: str) -> None:
    network = pair(name)
    if native().library is None:
        assert "compiler" in Writer.supports(network)
        return
    memory, before = source(network, 3), [each.clone() for each in network.parameters()]
    slow, fast = Reading(network, memory, None), Writer(network)(memory)
    assert apart(written(fast), written(slow)) <= 1e-5
    assert all(torch.equal(*both) for both in zip(before, network.parameters(), strict=True))


@torch.inference_mode()
def test_sources_of_their_own_lengths_and_one_for_all() -> None:
    network = pair("whisper")
    if native().library is None:
        return
    memory, lengths, writer = source(network, 3), [LONG, 12, 16], Writer(network)
    mask_BM = torch.arange(LONG) < torch.tensor(lengths)[:, None]
    assert apart(written(writer(memory, lengths)), written(Reading(network, memory, mask_BM))) <= 1e-5
    assert apart(written(writer(memory[:1])), written(Reading(network, memory[:1], None))) <= 1e-5


@torch.inference_mode()
def test_small_weights() -> None:
    network = pair("whisper")
    if native().library is None:
        return
    memory = source(network, 3)
    wanted = written(Reading(network, memory, None))
    assert 1e-6 < apart(written(Writer(network, "bf16")(memory)), wanted) <= 0.03
    small = quantise(pair("whisper"), "int8", group=0)
    assert isinstance(small, EncoderDecoder)
    held = {name: tensor.clone() for name, tensor in small.decoder.state_dict().items()}
    # The rounded weights are the same; what is left is the rounding of activations and of the table.
    assert apart(written(Writer(small)(memory)), written(Reading(small, memory, None))) <= 0.05
    assert all(torch.equal(tensor, held[name]) for name, tensor in small.decoder.state_dict().items())


def test_what_is_not_written_in_it() -> None:
    network = pair("whisper")
    network.decoder.config = TransformerConfig(**SHAPE, cross=True, parallel="shared")
    assert "beside other layers" in Writer.supports(network)
    with pytest.raises(ConjureError, match="beside other layers"):
        Writer(network)


# -- the encoder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "long"), [("whisper", 50), ("widths that fill no panel", LONG), ("whisper", 1)])
@torch.inference_mode()
def test_float32_is_the_encoder(name: str, long: int) -> None:
    network = pair(name).encoder
    if CompiledEncoder.supports(network):
        assert native().library is None
        return
    given = torch.randn(3, long, network.config.dim, generator=torch.Generator().manual_seed(5))
    before = given.clone()
    assert apart([CompiledEncoder(network)(given)], [network.hidden(embedded=given)]) <= 1e-5
    assert torch.equal(given, before)


@torch.inference_mode()
def test_heads_as_wide_as_those_of_the_fast_attention() -> None:
    torch.manual_seed(1)
    shape = {**SHAPE, "vocab": 0, "dim": 128, "heads": 2, "layers": 1}
    config = EncoderDecoderConfig(encoder=TransformerConfig(**shape, causal=False), shared=False,
                                  decoder=TransformerConfig(**SHAPE, cross=True))  # fmt: skip
    network = EncoderDecoder(config).encoder.eval()
    for block in network.blocks:
        for parameter in block.parameters():
            parameter.normal_(0, 0.1)
    given = torch.randn(1, 1100, 128)
    if not CompiledEncoder.supports(network):
        assert apart([CompiledEncoder(network)(given)], [network.hidden(embedded=given)]) <= 1e-5


@torch.inference_mode()
def test_rounded_matrices_of_the_encoder() -> None:
    network = pair("whisper").encoder
    small = quantise(pair("whisper").encoder, "int8", group=0)
    if CompiledEncoder.supports(small):  # type: ignore[arg-type]
        assert native().library is None
        return
    given = source(pair("whisper"), 2)
    made = CompiledEncoder(small)(given)  # type: ignore[arg-type]
    rounded, wanted = small.hidden(embedded=given), network.hidden(embedded=given)  # type: ignore[operator]
    assert apart([made], [rounded]) <= 0.03  # activations are rounded too
    assert apart([made], [wanted]) <= 0.05
    alone = CompiledEncoder(small)(given[1:])  # type: ignore[arg-type]
    assert torch.equal(alone[0], made[1])


def test_encoders_that_are_not_written_in_it() -> None:
    network = pair("whisper").encoder
    for knobs in ({"gated": True}, {"rope": Rope(dim=8)}, {"placement": "post"}, {"dim": 72, "heads": 4}):
        network.config = TransformerConfig(**{**SHAPE, "vocab": 0, "causal": False, **knobs})
        assert CompiledEncoder.supports(network)
    grouped = quantise(pair("whisper").encoder, "int8", group=32)
    assert "type or size" in CompiledEncoder.supports(grouped)  # type: ignore[arg-type]
