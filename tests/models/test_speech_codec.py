"""The codec of speech: its transform gives back what it took, its codes are the nearest, and no row sees another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from conjure.core import seeds as randomness
from conjure.core.errors import ConjureError
from conjure.models.speech_codec import SpeechCodec, SpeechCodecConfig
from conjure.nn.convnext import TimeConvolution

TINY = SpeechCodecConfig(
    window=64, bands=12, fine=16, encoder=16, encoder_layers=1, dim=8, books=3, codes=16, coarse=16, coarse_layers=1,
    decoder=16, decoder_layers=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def codec() -> SpeechCodec:
    with randomness.drawing_weights(0):
        network = SpeechCodec(TINY)
    network.start_from(randomness.normal(range(4), (1, 3200)))
    return network.eval().requires_grad_(False)


def test_a_spectrum_gives_back_its_sound(codec: SpeechCodec) -> None:
    x_BN = randomness.normal([0, 1], (960,))
    spectrum = codec.spectrum(x_BN)
    assert spectrum.shape == (2, 60, 33)
    assert float((codec.samples(spectrum) - x_BN).abs().max()) < 1e-5 * float(x_BN.abs().max())


def test_frames_are_those_of_torch(codec: SpeechCodec) -> None:
    x_N, side = randomness.normal([0], (960,))[0], (TINY.window - TINY.step) // 2
    padded_N = torch.nn.functional.pad(x_N, (side, side))
    wanted_FT = torch.stft(padded_N, 64, 16, window=torch.hann_window(64), center=False, return_complex=True)
    found_TF = codec.spectrum(x_N[None])[0]
    assert float((found_TF.T - wanted_FT).abs().max()) < 1e-5 * float(wanted_FT.abs().max())


def test_codes_are_the_nearest_book_by_book(codec: SpeechCodec) -> None:
    x_B1N = randomness.normal([5], (1, 640))
    (ids_BQS,) = codec.encode(x_B1N).parts
    level = x_B1N.square().mean().sqrt()
    left_SD = codec.vectors(x_B1N[:, 0] / level)[0].T
    for place, book in enumerate(codec.quantiser.books):
        apart_SC = (left_SD[:, None] - book.codes_CD).square().sum(-1)  # type: ignore[operator]
        assert torch.equal(apart_SC.argmin(1), ids_BQS[0, place])
        left_SD = left_SD - book.codes_CD[ids_BQS[0, place]]  # type: ignore[index]
    (few_BQS,) = codec.encode(x_B1N, 2).parts
    assert torch.equal(few_BQS, ids_BQS[:, :2])


def test_rows_are_as_they_are_alone_and_training_gives_what_use_gives(codec: SpeechCodec) -> None:
    x_B1N = randomness.normal([1, 2, 3], (1, 640)) * torch.tensor([0.01, 0.1, 1.0])[:, None, None]
    together = codec.encode(x_B1N)
    made_B1N = codec.decode(together)
    passed_B1N, ids_BQS, commitment_B = codec(x_B1N)
    assert torch.equal(ids_BQS, together.parts[0]) and torch.allclose(passed_B1N, made_B1N, atol=1e-5)
    assert commitment_B.shape == (3,)
    for row in range(3):
        alone = codec.encode(x_B1N[row : row + 1])
        assert torch.equal(alone.parts[0][0], together.parts[0][row])
        assert torch.allclose(codec.decode(alone)[0], made_B1N[row], atol=1e-5)
    assert torch.equal(codec.decode(together), made_B1N)


def test_loudness_is_kept_apart(codec: SpeechCodec) -> None:
    x_B1N = randomness.normal([1], (1, 640))
    loud, soft = codec.encode(x_B1N), codec.encode(x_B1N / 64)
    assert torch.equal(loud.parts[0], soft.parts[0])
    assert torch.allclose(codec.decode(loud), 64 * codec.decode(soft), rtol=1e-4, atol=1e-6)
    silence = codec.encode(torch.zeros(1, 1, 640))
    assert float(codec.decode(silence).abs().max()) < 1e-2


@pytest.mark.parametrize("samples", [1, 31, 33, 640])
def test_any_length(codec: SpeechCodec, samples: int) -> None:
    codes = codec.encode(randomness.normal([samples], (1, samples)))
    assert codes.parts[0].shape == (1, 3, -(-samples // 32)) and codec.decode(codes).shape == (1, 1, samples)
    assert codes.bits(16) == codes.parts[0].numel() * 4 + 32


def test_nothing_comes_from_beyond_its_reach(codec: SpeechCodec) -> None:
    x_1N = randomness.normal([7], (1600,))
    frame, reach = 25, TINY.reach
    changed_1N = x_1N.clone()
    changed_1N[:, : (frame - reach) * 32] += 1
    assert torch.equal(codec.vectors(changed_1N)[..., frame:], codec.vectors(x_1N)[..., frame:])
    assert not torch.equal(codec.vectors(changed_1N)[..., :frame], codec.vectors(x_1N)[..., :frame])
    q_BDS = codec.quantiser.decode(codec.quantiser.encode(codec.vectors(x_1N)))
    other_BDS = q_BDS.clone()
    other_BDS[..., : frame - reach] += 1
    assert torch.allclose(codec.sound(other_BDS)[:, frame * 32 :], codec.sound(q_BDS)[:, frame * 32 :], atol=1e-6)


def test_flops_count_the_layers(codec: SpeechCodec) -> None:
    counted = [2 * 20 * TINY.books * TINY.codes * TINY.dim]

    def count(layer: nn.Module, _: object, made: Tensor) -> None:
        assert isinstance(layer.weight, Tensor)
        counted.append(2 * made.numel() * layer.weight[0].numel())

    layers = [each for each in codec.modules() if isinstance(each, nn.Linear | TimeConvolution)]
    hooks = [each.register_forward_hook(count) for each in layers]
    codec(randomness.normal([1], (1, 640)))
    for hook in hooks:
        hook.remove()
    assert codec.flops(640) == sum(counted)


def test_what_cannot_be(codec: SpeechCodec) -> None:
    for wrong in ({"window": 60}, {"kernel": 4}, {"dead": 1.0}, {"books": 0}):
        with pytest.raises(ConjureError, match="codec"):
            SpeechCodecConfig(**wrong)  # type: ignore[arg-type]
    for shape in ((1, 2, 640), (1, 1, 0)):
        with pytest.raises(ConjureError, match="1 channel"):
            codec.encode(torch.zeros(shape))
