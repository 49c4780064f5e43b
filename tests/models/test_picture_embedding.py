from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.core.seeds import normal, uniform
from conjure.diffusion.flow import RectifiedFlow
from conjure.diffusion.guidance import guided
from conjure.diffusion.samplers import euler
from conjure.models.dit import DiTConfig
from conjure.models.picture_embedding import PAD, START, PictureEmbedding, PictureEmbeddingConfig

CONFIG = PictureEmbeddingConfig(
    vocab=9, length=5, text_layers=1, image_layers=1, patch=4, embedding=8, prior_layers=1, tokens=2, wrong=2,
    decoder=DiTConfig(channels=3, size=8, patch=4, dim=16, layers=1, heads=2, hidden=32),
)  # fmt: skip
WORDS = torch.tensor([[START, 4, PAD, PAD, PAD], [START, 5, 6, 7, 8], [START, 8, PAD, PAD, PAD]])


def network(config: PictureEmbeddingConfig = CONFIG) -> PictureEmbedding:
    made = PictureEmbedding(config)
    with torch.no_grad():
        for k, parameter in enumerate(made.parameters()):
            parameter.copy_(0.3 * normal([k], parameter.shape)[0])
    return made.eval()


def test_embeddings_have_values_that_spread_by_one() -> None:
    made = network()
    for found in (made.look(normal([1, 2, 3], (3, 8, 8))), made.read(WORDS).embedding_BE):
        assert found.shape == (3, 8) and torch.allclose(found.square().mean(1), torch.ones(3), atol=1e-5)


def test_padding_is_not_read() -> None:
    made = network()
    short, long = made.read(WORDS[:1, :2]), made.read(WORDS[:1])
    assert torch.allclose(short.embedding_BE, long.embedding_BE, atol=1e-5)
    assert long.mask_BT.tolist() == [[True, True, False, False, False]]


def test_one_pass_is_what_the_parts_give_one_by_one() -> None:
    made, x = network(), normal([1, 2], (3, 8, 8))
    words = torch.stack([WORDS, WORDS.flip(0)])
    noisy, noise, grain = normal([3, 4], (3, 8, 8)), normal([5, 6], (8,)), normal([7, 8], (8,))
    time, prior_time = torch.tensor([0.3, 0.6]), torch.tensor([0.2, 0.9])
    out = made(x, words, torch.tensor([True, False]), noisy, time, noise, grain, prior_time)
    z = made.look(x)
    for k in range(3):
        cosine = (z * made.read(words[:, k]).embedding_BE).sum(1) / 8
        assert torch.allclose(out.logits_BK[:, k], made.towers.scale.exp() * cosine, atol=1e-4)
    empty = torch.tensor([[START, PAD, PAD, PAD, PAD]])
    own = CONFIG.flow.noisy(z, noise, prior_time)[..., None, None]
    for b, told in enumerate((words[:1, 0], empty)):
        alone = made.predict(own[b : b + 1], prior_time[b : b + 1], *made.read(told))
        assert torch.allclose(out.prior_BE[b], alone[0, :, 0, 0], atol=1e-4)
    assert torch.allclose(out.decoder_B3HW, made.decode(noisy, time, z + CONFIG.noise * grain), atol=1e-4)


def test_only_the_decoder_and_the_contrast_teach_the_encoder_of_pictures() -> None:
    made = network()
    x, words = normal([1], (3, 8, 8)), WORDS[None]
    half, vector = torch.tensor([0.5]), normal([2], (8,))

    def taught(part: str) -> bool:
        made.zero_grad()
        out = made(x, words, torch.tensor([True]), normal([3], (3, 8, 8)), half, vector, vector, half)
        getattr(out, part).square().sum().backward()
        grad = made.towers.image.patch.weight.grad
        return grad is not None and bool(grad.abs().max() > 0)

    assert [taught(part) for part in ("logits_BK", "decoder_B3HW", "prior_BE")] == [True, True, False]


def test_the_prior_learns_a_gaussian_for_each_text() -> None:
    """Two captions, two Gaussians in closed form: samples have their means and spreads."""
    config = replace(CONFIG, embedding=2, prior_layers=2, decoder=replace(CONFIG.decoder, dim=32, hidden=64),
                     flow=RectifiedFlow())  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = PictureEmbedding(config)
    means, spreads = torch.tensor([[1.5, -0.5], [-1.0, 1.0]]), torch.tensor([[0.5, 0.2], [0.2, 0.6]])
    trained = [*made.prior.parameters(), *made.text_summary.parameters(), *made.towers.text.parameters()]
    optimiser = torch.optim.Adam(trained, 4e-3)
    steps, which = 250, torch.arange(64) % 2
    for step in range(steps):
        x0 = means[which] + spreads[which] * normal([step], (64, 2))[0]
        noise, time = normal([10**6 + step], (64, 2))[0], uniform([step], (64,))[0]
        told = [each[which] for each in made.read(WORDS[[0, 2]])]
        loss = config.flow.loss(lambda x, t, told=told: made.predict(x, t, *told), x0[..., None, None],
                                noise[..., None, None], time)  # fmt: skip
        optimiser.param_groups[0]["lr"] = 4e-3 * (1 - step / steps)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    with torch.no_grad():
        for which in range(2):
            told = [each.expand(400, *each.shape[1:]) for each in made.read(WORDS[[0, 2]][which : which + 1])]
            denoise = guided(config.flow.denoise(made.predict), 1, condition=told, unconditional=())
            made_x = euler(denoise, normal(range(400), (2, 1, 1)), config.flow.sigmas(20))[..., 0, 0]
            assert torch.allclose(made_x.mean(0), means[which], atol=0.15)
            assert torch.allclose(made_x.std(0), spreads[which], atol=0.12)


@pytest.mark.parametrize("change", [{"patch": 3}, {"wrong": 0}, {"drop": 1.0}, {"noise": -1.0}, {"tokens": 0}])
def test_what_cannot_be_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConjureError):
        replace(CONFIG, **change)  # type: ignore[arg-type]
