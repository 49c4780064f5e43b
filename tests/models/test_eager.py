"""The decoder without modules gives what the transformer gives, for every knob it knows."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.models.eager import ROWS, Eager, normaliser
from conjure.models.language import LanguageModel, shrunk
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.norm import RMSNorm
from conjure.nn.packed import Choice
from conjure.nn.position import Rope
from conjure.nn.quantised import prepare, quantise
from conjure.nn.rope_scaling import RopeScaling
from tests.models.decoders import BASE, CASES, apart, ids, made, said

PADDINGS = ([0, 0, 0], [0, 4, 2])


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path))


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_float32_is_the_transformer(name: str) -> None:
    network = made(**CASES[name])
    for padding in PADDINGS:
        assert apart(said(Eager(network), padding), said(network, padding)) <= 1e-5


@pytest.mark.parametrize(("weights", "group"), [("bf16", 32), ("int8", 0), ("int8", 32), ("int4", 32)])
@pytest.mark.parametrize("name", ["plain", "biases", "gemma", "own head"])
@torch.inference_mode()
def test_small_weights_are_those_of_the_transformer(name: str, weights: Any, group: int) -> None:
    network = made(**CASES[name])
    small = quantise(network, weights, group=group, embeddings=None if weights == "bf16" else "int8")
    wanted = said(small, [0, 4, 2])  # float32 activations
    for int8 in ("w8a8", "int8"):
        prepare(small, Choice(int8, "int4", 8))
        assert apart(said(Eager(network), [0, 4, 2]), wanted) <= 0.06
        if weights == "bf16" or group:
            break


@torch.inference_mode()
def test_greedy_decoding_and_prompts_in_pieces() -> None:
    network = made(kv_heads=2, windows=(20, 0))
    eager = Eager(network)
    for B, T in ((1, ROWS + 44), (3, ROWS // 3 + 9)):
        found = []
        for each in (network, eager):
            cache, tokens = each.cache(B, T + 20), []
            last = each(ids(B, T), cache=cache, last_only=True)[:, -1].argmax(-1)
            for _ in range(20):
                tokens.append(last)
                last = each(last[:, None], cache=cache, last_only=True)[:, -1].argmax(-1)
            found.append(torch.stack(tokens))
        assert torch.equal(*found)
    long = ids(1, ROWS + 44)
    whole = [each(long, cache=each.cache(1, len(long[0])), last_only=False) for each in (eager, network)]
    assert apart([whole[0]], [whole[1]]) <= 1e-5


@pytest.mark.parametrize("name", ["plain", "gemma", "n-grams"])
@torch.inference_mode()
def test_the_state_of_a_cache_goes_into_another(name: str) -> None:
    network = made(**CASES[name])
    eager = Eager(network)
    for before, after in ((eager, eager), (eager, network), (network, eager)):
        first, second = before.cache(2, 200, [0, 3]), after.cache(2, 220)
        before(ids(2, 150), cache=first, last_only=True)
        second.restore({name: tensor.clone() for name, tensor in first.state().items()})
        said = [each(ids(2, 3, seed=1), cache=cache) for each, cache in ((before, first), (after, second))]
        assert apart([said[1]], [said[0]]) <= 1e-5
    with pytest.raises(ConjureError, match="holds 16"):
        eager.cache(2, 16).restore(first.state())
    network.int8_cache = True
    eight = network.cache(2, 40)
    network(ids(2, 3), cache=eight)
    for state in ({"length": torch.tensor(3), "padding": torch.tensor([0, 0])}, eight.state()):
        with pytest.raises(ConjureError, match="another way"):
            eager.cache(2, 40).restore(state)


@torch.inference_mode()
def test_rows_whose_padding_sees_nothing_give_numbers() -> None:
    eager = Eager(made())
    assert eager(ids(2, 5), cache=eager.cache(2, 9, [0, 4])).isfinite().all()


@torch.inference_mode()
def test_a_norm_of_zeros_and_of_what_is_no_number() -> None:
    rms = normaliser(RMSNorm(8, eps=0.0))
    assert rms is not None and normaliser(None) is None
    assert not rms(torch.zeros(1, 8)).any()
    assert rms(torch.full((1, 8), torch.nan)).isnan().all()
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    assert apart([torch.cat([rms(row) for row in x.split(1)])], [rms(x)]) <= 1e-6


def test_what_it_cannot_do_is_said() -> None:
    refused: dict[str, dict[str, Any]] = {
        "causal": {"causal": False}, "residual_from_norm": {"residual_from_norm": True},
        "longrope": {"rope": Rope(dim=2, scaling=RopeScaling(kind="longrope", original=9, short=(1.0,), long=(2.0,)))},
    }  # fmt: skip
    for word, knobs in refused.items():
        assert word in Eager.supports(Transformer(TransformerConfig(**{**BASE, **knobs})))
    network = made()
    assert Eager.supports(network) == ""
    network.int8_cache = True
    assert "eight bits" in Eager.supports(network)
    with torch.device("meta"):
        assert "CPU" in Eager.supports(Transformer(TransformerConfig(**BASE)))


@torch.inference_mode()
def test_bad_calls_are_refused() -> None:
    eager = Eager(made(rope=None, positions="learned", max_length=8))
    with pytest.raises(ConjureError, match="the cache holds 4"):
        eager(ids(1, 5), cache=eager.cache(1, 4), last_only=True)
    with pytest.raises(ConjureError, match="at most 8"):
        eager(ids(1, 9), cache=eager.cache(1, 20), last_only=True)
    for wrong in (-1, 97):
        with pytest.raises(ConjureError, match="expected 0 to 96"):
            eager(torch.tensor([[3, wrong]]), cache=eager.cache(1, 4), last_only=True)


@torch.inference_mode()
def test_a_model_writes_with_it_where_nothing_can_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_NATIVE", "0")
    network = made()
    for held in (network, shrunk(copy.deepcopy(network), "int8")):
        model = LanguageModel(held, {}, Path())
        assert isinstance(model.writer, Eager) and model.network is held
        assert apart(said(model.writer, [0, 4, 2]), said(network, [0, 4, 2])) <= 0.06
    network.int8_cache = True
    assert LanguageModel(network, {}, Path()).writer is network
