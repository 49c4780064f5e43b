"""Tiny random VITS against transformers, part by part and as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.vits import modeling_vits

from conjure.models.checkpoint import Checkpoint
from conjure.models.language import read_config
from conjure.models.public.load import build
from conjure.models.vits import Vits
from tests.models.public.references import close
from tests.models.voices import Noises, vits, vits_reference

IDS = torch.tensor([[0, 5, 0, 9, 0, 17, 0, 4, 0, 5, 0, 22, 0, 11, 0]])
KINDS: dict[str, dict[str, Any]] = {
    "one": {},
    "several": {"num_speakers": 3, "speaker_embedding_size": 6},
    "steady": {"use_stochastic_duration_prediction": False},
    "steady_several": {"use_stochastic_duration_prediction": False, "num_speakers": 3, "speaker_embedding_size": 6},
    "plain": {"window_size": 1, "use_bias": False, "hidden_act": "gelu", "ffn_kernel_size": 4},
}


def loaded(folder: Path) -> Vits:
    network, _ = build(read_config(folder), Checkpoint(folder), torch.float32)
    assert isinstance(network, Vits)
    return network


@pytest.fixture(scope="module", params=list(KINDS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Vits]]:
    model = vits_reference(**KINDS[request.param])
    yield model, loaded(vits(tmp_path_factory.mktemp(request.param), model))


def wide(*shape: int, seed: int = 3) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_text_is_read_as_there(pair: tuple[Any, Vits]) -> None:
    theirs, ours = pair
    for ids in (IDS, IDS[:, :2], IDS[:, :1]):  # shorter than the window too
        wanted = theirs.text_encoder(ids, padding_mask=torch.ones(*ids.shape, 1))
        states, mean, deviation = ours.text(ids)
        close(states.mT, wanted.last_hidden_state)
        close(mean.mT, wanted.prior_means)
        close(deviation.mT, wanted.prior_log_variances)


def test_durations_and_flow(pair: tuple[Any, Vits]) -> None:
    theirs, ours = pair
    states, mask, embedding = wide(1, 16, 11), torch.ones(1, 1, 11), ours.speaker(0)
    noise = wide(1, 2, 11, seed=4)  # wide enough to leave the splines on both sides
    if theirs.config.use_stochastic_duration_prediction:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "randn", lambda *_: noise)
            wanted = theirs.duration_predictor(states, mask, embedding, reverse=True, noise_scale=0.8)
        found = ours.durations(states, embedding, 0.8 * noise)
        assert (noise.abs() > 5 / 0.8).any()
    else:
        wanted, found = theirs.duration_predictor(states, mask, embedding), ours.durations(states, embedding, None)
    close(found[:, None], wanted)
    latents = wide(1, 12, 11, seed=6)
    close(ours.flow.inverse(latents, embedding), theirs.flow(latents, mask, embedding, reverse=True))
    close(ours.decoder(latents, embedding)[:, None], theirs.decoder(latents, embedding))


@pytest.mark.parametrize("speed", [None, 0.6])
def test_the_wave_is_that_of_the_reference(pair: tuple[Any, Vits], speed: float | None) -> None:
    theirs, ours = pair
    noises = Noises()
    speaker = 2 if theirs.config.num_speakers > 1 else 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_vits.torch, "randn", noises.randn)
        patch.setattr(modeling_vits.torch, "randn_like", noises.randn_like)
        wanted = theirs(IDS, speaker_id=speaker, speaking_rate=speed).waveform[0]
    replayed = iter(noises.drawn)
    found = ours.speak(IDS[0].tolist(), lambda shape: next(replayed), speaker=speaker, speed=speed)
    assert len(found) > 8 * IDS.shape[1] and next(replayed, None) is None
    close(found, wanted)
