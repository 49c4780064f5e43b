"""Both stages of a VQ-VAE: the codes, and the transformer that draws them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conjure.core.errors import ConjureError
from conjure.core.events import Preview, Progress, Result
from conjure.core.seeds import rng
from conjure.media.image import Image
from conjure.media.text import Text
from conjure.models.transformer import TransformerConfig
from conjure.models.vq_vae import VQVAEConfig
from conjure.tasks.vq_prior import CodePriorConfig, CodePriorData, SampleCodes, SampleCodesOptions, chosen
from conjure.tasks.vq_vae import Quantise, QuantiseOptions, VQVAEData
from tests.data.photographs import write_binary

MODEL = VQVAEConfig(width=8, blocks=1, codes=16, code_dim=4)
PRIOR = TransformerConfig(
    vocab=27, dim=16, layers=2, heads=2, positions="learned", max_length=64, norm="layer", gated=False
)


@pytest.fixture(scope="module", autouse=True)
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("data")
    write_binary(folder / "cifar10", 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONJURE_DATA", str(folder))
        yield


@pytest.fixture(scope="module")
def first(photographs: None) -> Quantise:
    task = Quantise.create(MODEL, VQVAEData(), seed=3)
    task.network.eval()
    return task


@pytest.fixture(scope="module")
def prior(first: Quantise, tmp_path_factory: pytest.TempPathFactory) -> SampleCodes:
    folder = tmp_path_factory.mktemp("codes")
    first.save(folder)
    return SampleCodes.create(CodePriorConfig(codec=str(folder), transformer=PRIOR), CodePriorData(), seed=1)


def test_examples_and_loss(first: Quantise) -> None:
    together, alone = first.batch([4, 120]), first.batch([120])
    assert together["pixels"].dtype == torch.uint8 and torch.equal(together["pixels"][1:], alone["pixels"])
    total, count = first.loss(together)
    single = [first.loss({"pixels": each[None]})[0].item() for each in together["pixels"]]
    assert int(count) == 2 and total.item() == pytest.approx(sum(single), rel=1e-5)
    assert first.tokens(together) == 128 and first.flops(together) == 3 * first.network.flops(128)
    assert first.describe(together).startswith("2 pictures of 32 x 32 pixels, 64 codes each")


def test_bits_are_those_of_the_values_and_of_the_codes(first: Quantise) -> None:
    found, figures = first.evaluate_published(), first.evaluate()
    assert found["bits_per_dimension"]["value"] == pytest.approx(figures["bits_per_dimension"], rel=1e-5)
    codes = 64 * 4 / 3072  # 64 codes of 4 bits
    assert figures["bits_per_dimension"] == pytest.approx(figures["reconstruction_bits"] + codes)
    nats = first.loss(first.batch([0]))[0].item()
    assert nats / math.log(2) > figures["reconstruction_bits"] / 3
    assert 1 < figures["codes_used"] <= 16 and 1 < figures["perplexity"] <= figures["codes_used"]
    assert found["psnr_db"]["low"] <= found["psnr_db"]["value"] and found["codes_used"]["n"] == 20
    assert first.preview(0)["reconstructions"].pixels.shape == (4 * 32, 8 * 32, 3)


@pytest.mark.parametrize("shape", [(21, 13, 3), (8, 16, 4), (1, 1, 1)])
def test_any_picture_keeps_its_size(first: Quantise, shape: tuple[int, int, int]) -> None:
    picture = Image(rng(0).integers(0, 256, shape).astype(np.uint8))
    *_, result = first.generate([picture], QuantiseOptions(), [1, 2])
    assert isinstance(result, Result)
    one, other = result.media
    assert isinstance(one, Image) and one.pixels.shape == (*shape[:2], 3) and one.digest() == other.digest()
    assert result.facts["codes"] == math.ceil(shape[0] / 4) * math.ceil(shape[1] / 4)


def test_the_codes_come_back_from_their_folder(first: Quantise, prior: SampleCodes, tmp_path: Path) -> None:
    first.save(tmp_path / "a")
    prior.save(tmp_path / "b")
    for folder in ("a", "b"):
        again = Quantise.load(tmp_path / folder)
        assert torch.equal(again.network.quantiser.codes_CD, first.network.quantiser.codes_CD)


def test_a_row_is_the_class_and_the_codes(first: Quantise, prior: SampleCodes) -> None:
    batch = prior.batch(range(60))
    pixels = first.batch(range(1))["pixels"]  # another seed: only for the shape
    assert pixels.shape == (1, 32, 32, 3) and batch["ids"].shape == batch["targets"].shape == (60, 64)
    assert torch.equal(batch["ids"][:, 1:], batch["targets"][:, :-1]) and int(batch["targets"].max()) < 16
    told = batch["ids"][:, 0] - 16
    _, labels_B = prior.source.batch(range(60))  # type: ignore[union-attr]
    hidden = told == 10
    assert 1 <= int(hidden.sum()) <= 15 and told[~hidden].tolist() == labels_B[~hidden.numpy()].tolist()
    assert torch.equal(prior.batch([7])["ids"][0], batch["ids"][7])
    total, count = prior.loss(batch)
    expected = F.cross_entropy(prior.logits(batch).flatten(0, 1), batch["targets"].flatten(), reduction="sum")
    assert int(count) == 60 * 64 and total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert "60 pictures of 64 codes" in prior.describe(batch)


def test_the_prior_counts_its_own_bits(prior: SampleCodes) -> None:
    figures, found = prior.evaluate(), prior.evaluate_published()
    parts = found["code_bits_per_dimension"]["value"] + found["picture_bits_per_dimension"]["value"]
    assert found["bits_per_dimension"]["value"] == pytest.approx(parts, rel=1e-6)
    assert figures["bits_per_dimension"] == pytest.approx(parts, rel=1e-4)
    # A new transformer thinks all 27 tokens about equally likely.
    assert figures["nats_per_code"] == pytest.approx(math.log(27), abs=0.2)


def test_drawn_pictures_are_their_seeds_own(prior: SampleCodes, tmp_path: Path) -> None:
    with torch.no_grad():
        for parameter in prior.network.parameters():  # an untrained one does not look at the class
            draw = torch.Generator().manual_seed(parameter.numel())
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    prior.save(tmp_path)
    again = SampleCodes.load(tmp_path)
    *events, result = again.generate([Text("a frog")], SampleCodesOptions(), [4, 5])
    assert isinstance(result, Result) and isinstance(result.media[1], Image)
    assert result.media[1].pixels.shape == (32, 32, 3) and result.facts["evaluations"] == 64
    assert [e.step for e in events if isinstance(e, Progress)] == list(range(1, 65))
    previews = [event for event in events if isinstance(event, Preview)]
    assert len(previews) == 3 and previews[0].medium.kind == "image"
    alone = list(prior.generate([Text("frog")], SampleCodesOptions(), [5]))[-1]
    other = list(prior.generate([Text("any")], SampleCodesOptions(), [5]))[-1]
    assert isinstance(alone, Result) and isinstance(other, Result)
    assert alone.media[0].digest() == result.media[1].digest() != other.media[0].digest()


def test_draws_follow_the_distribution() -> None:
    logits_BV = torch.tensor([0.1, 0.0, 0.6, 0.3]).log().expand(1000, 4)
    draws_B = (torch.arange(1000) + 0.5) / 1000
    counts = torch.bincount(chosen(logits_BV, draws_B, SampleCodesOptions()), minlength=4)
    assert counts.tolist() == [100, 0, 600, 300]
    kept = torch.bincount(chosen(logits_BV, draws_B, SampleCodesOptions(top_k=2)), minlength=4)
    assert kept[:2].tolist() == [0, 0] and abs(int(kept[2]) - 667) <= 1
    assert set(chosen(logits_BV, draws_B, SampleCodesOptions(temperature=0)).tolist()) == {2}
    sharper = torch.bincount(chosen(logits_BV, draws_B, SampleCodesOptions(temperature=0.5)), minlength=4)
    assert abs(int(sharper[2]) - 1000 * 0.36 / 0.46) < 2


def test_what_does_not_belong_together(prior: SampleCodes) -> None:
    config = CodePriorConfig(codec=prior.config.codec, transformer=TransformerConfig(vocab=30, dim=16, layers=1))
    with pytest.raises(ConjureError, match="codes and classes are 27"):
        SampleCodes.create(config, CodePriorData())
    with pytest.raises(ConjureError, match="3 channels, mnist has 1"):
        SampleCodes.create(prior.config, CodePriorData(set="mnist"))
    with pytest.raises(ConjureError, match=r"model\.channels"):
        Quantise.create(VQVAEConfig(channels=1), VQVAEData())
