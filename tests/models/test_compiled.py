"""The compiled decoder gives what the transformer gives, for every knob it knows."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.models.compiled import Compiled
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.linear import Linear
from conjure.nn.native.build import native
from conjure.nn.position import Rope
from conjure.nn.quantised import quantise
from conjure.nn.rope_scaling import RopeScaling
from conjure.nn.rounding import restored, rounded
from tests.models.decoders import BASE, CASES, apart, ids, made, said


@pytest.fixture(autouse=True)
def one_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests of compiled code share a folder, so that it is compiled once."""
    monkeypatch.setenv("CONJURE_CACHE", str(Path(tempfile.gettempdir()) / f"conjure-native-{os.getuid()}"))


def twin(network: Transformer, weights: Any = "fp32") -> Compiled | None:
    """The compiled network; None without a compiler, where it has to refuse with the reason."""
    if native().library is not None:
        return Compiled(copy.deepcopy(network), weights, threads=2)
    with pytest.raises(ConjureError, match="cannot run in compiled code"):
        Compiled(copy.deepcopy(network), weights)
    return None


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_float32_is_the_transformer(name: str) -> None:
    network = made(**CASES[name])
    if (compiled := twin(network)) is not None:
        for padding in ([0, 0, 0], [0, 4, 2]):
            assert apart(said(compiled, padding), said(network, padding)) <= 1e-5


@pytest.mark.parametrize(("weights", "bound"), [("bf16", 0.02), ("int8", 0.06), ("int4", 0.06)])
@pytest.mark.parametrize("name", ["plain", "biases", "gemma", "own head"])
@torch.inference_mode()
def test_small_weights_are_those_of_the_rounded_transformer(name: str, weights: Any, bound: float) -> None:
    network = made(**CASES[name])
    compiled = twin(network, weights)
    assert network.embed is not None
    for module in [*network.modules()]:
        if isinstance(module, Linear) or module is network.embed:
            weight = module.weight
            module.weight.data = weight.bfloat16().float() if weights == "bf16" else restored(*rounded(weight, weights))
    if compiled is not None:  # what is left is the rounding of activations
        assert apart(said(compiled, [0, 4, 2]), said(network, [0, 4, 2])) <= bound


@torch.inference_mode()
def test_networks_that_are_quantised_already() -> None:
    for weights in ("int8", "int4"):
        network = made(tie=False)
        compiled_before = twin(network, weights)
        small = quantise(copy.deepcopy(network), weights, embeddings=weights)
        assert isinstance(small, Transformer)
        if compiled_before is not None:
            again = Compiled(small, weights, threads=2)
            for a, b in zip(said(compiled_before, [0, 4, 2]), said(again, [0, 4, 2]), strict=True):
                assert torch.equal(a, b)


@torch.inference_mode()
def test_greedy_decoding_and_long_prompts() -> None:
    network = made(kv_heads=2)
    if (compiled := twin(network)) is None:
        return
    for B, T in ((1, 300), (3, 60)):
        found = []
        for each in (network, compiled):
            cache, tokens = each.cache(B, T + 20), []
            last = each(ids(B, T), cache=cache, last_only=True)[:, -1].argmax(-1)
            for _ in range(20):
                tokens.append(last)
                last = each(last[:, None], cache=cache, last_only=True)[:, -1].argmax(-1)
            found.append(torch.stack(tokens))
        assert torch.equal(*found)
    whole = [each(ids(1, 300), cache=each.cache(1, 300), last_only=False) for each in (compiled, network)]
    assert apart([whole[0]], [whole[1]]) <= 1e-5


@torch.inference_mode()
def test_a_row_alone_and_in_a_batch() -> None:
    if (compiled := twin(made(), "int8")) is None:
        return
    given = ids(5, 9)
    together = compiled(given, cache=compiled.cache(5, 9), last_only=True)
    for row in range(5):
        own = compiled(given[row : row + 1], cache=compiled.cache(1, 9), last_only=True)
        assert apart([own[0]], [together[row]]) <= 1e-5


@torch.inference_mode()
def test_the_state_of_a_cache_goes_into_another() -> None:
    for name in ("plain", "n-grams"):
        if (compiled := twin(made(**CASES[name]), "bf16")) is None:
            return
        first = compiled.cache(2, 40, [0, 3])
        compiled(ids(2, 19), cache=first, last_only=True)
        second = compiled.cache(2, 64)
        second.restore({name: tensor.clone() for name, tensor in first.state().items()})
        after = [compiled(ids(2, 3, seed=1), cache=cache, last_only=True) for cache in (first, second)]
        assert torch.equal(*after)
        with pytest.raises(ConjureError, match="holds 16"):
            compiled.cache(2, 16).restore(first.state())
        with pytest.raises(ConjureError, match="another way"):
            compiled.cache(2, 40).restore({"length": torch.tensor(3), "padding": torch.tensor([0, 0])})


def test_what_it_cannot_do_is_said() -> None:
    refused = {
        "causal": {"causal": False}, "residual_from_norm": {"residual_from_norm": True}, "types": {"types": 2},
        "clamped_swish": {"activation": "clamped_swish"}, "positions": {"rope": None, "alibi": "falcon"},
        "longrope": {"rope": Rope(dim=2, scaling=RopeScaling(kind="longrope", original=9, short=(1.0,), long=(2.0,)))},
    }  # fmt: skip
    for word, knobs in refused.items():
        config = TransformerConfig(**{**BASE, **knobs})
        assert word in Compiled.supports(config)
    with pytest.raises(ConjureError, match="types"):
        Compiled(Transformer(TransformerConfig(**{**BASE, "types": 2})))
    assert Compiled.supports(TransformerConfig(**BASE)) == native().reason


def test_it_is_not_there_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_NATIVE", "0")
    assert "CONJURE_NATIVE" in Compiled.supports(TransformerConfig(**BASE))
    with pytest.raises(ConjureError, match="CONJURE_NATIVE"):
        Compiled(made())


@torch.inference_mode()
def test_bad_calls_are_refused() -> None:
    if (compiled := twin(made(rope=None, positions="learned", max_length=8))) is None:
        return
    with pytest.raises(ConjureError, match="the cache holds 4"):
        compiled(ids(1, 5), cache=compiled.cache(1, 4), last_only=True)
    with pytest.raises(ConjureError, match="at most 8"):
        compiled(ids(1, 9), cache=compiled.cache(1, 20), last_only=True)
    for wrong in (-1, 97):
        with pytest.raises(ConjureError, match="expected 0 to 96"):
            compiled(torch.tensor([[3, wrong]]), cache=compiled.cache(1, 4), last_only=True)


@torch.inference_mode()
def test_parts_can_be_filled_as_they_are_needed() -> None:
    network, asked = made(tie=False), []
    if native().library is not None:
        compiled = Compiled(copy.deepcopy(network), fill=asked.append)
        assert asked == ["blocks.0", "blocks.1", "embed", "head"]
        assert apart(said(compiled, [0, 4, 2]), said(network, [0, 4, 2])) <= 1e-5
