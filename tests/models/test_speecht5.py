"""Tiny random SpeechT5s against transformers: the encoder, every step of the decoder, frames and text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor
from transformers.models.speecht5 import modeling_speecht5

from conjure.codecs.tokenizer import Tokenizer
from conjure.core.errors import ConjureError
from conjure.models.checkpoint import Checkpoint
from conjure.models.language import read_config
from conjure.models.public.load import build
from conjure.models.speecht5 import SpeechT5
from tests.models.public.references import close
from tests.models.speech_t5s import speecht5

Pair = tuple[Any, SpeechT5, Path]


def opened(folder: Path) -> SpeechT5:
    network, _ = build(read_config(folder), Checkpoint(folder), torch.float32)
    assert isinstance(network, SpeechT5)
    return network


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    made: dict[str, Pair] = {}

    def find(form: str) -> Pair:
        if form not in made:
            folder, model = speecht5(tmp_path_factory.mktemp(form), form, over=-3.0)
            made[form] = model, opened(folder), folder
        return made[form]

    return find


def waves(count: int = 5000) -> Tensor:
    return torch.randn(1, count, generator=torch.Generator().manual_seed(4))


IDS = torch.tensor([[5, 9, 4, 4, 11, 20, 7, 3, 15, 2]])


@pytest.mark.parametrize("form", ["text", "voice", "change"])
def test_the_encoder(make: Callable[[str], Pair], form: str) -> None:
    theirs, ours, _ = make(form)
    given = IDS if form == "voice" else waves()
    mask = torch.ones_like(given, dtype=torch.long)
    wanted = theirs.speecht5.encoder(given, attention_mask=mask).last_hidden_state
    assert wanted.shape[1] > 2 * theirs.config.encoder_max_relative_position - 1
    close(ours.encoder(given), wanted)


@pytest.mark.parametrize("form", ["voice", "change"])
@pytest.mark.parametrize("over", [9.0, 0.03, 0.001])
def test_frames_are_those_of_the_reference(make: Callable[[str], Pair], form: str, over: float) -> None:
    theirs, ours, _ = make(form)
    given = IDS if form == "voice" else waves()
    speaker = torch.randn(1, 10, generator=torch.Generator().manual_seed(1))
    generator, masks = torch.Generator().manual_seed(2), list[Tensor]()

    def bernoulli(values: Tensor, p: float) -> Tensor:
        masks.append((torch.rand(values.shape, generator=generator) < p).float())
        return masks[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_speecht5.torch, "bernoulli", bernoulli)
        wanted = theirs.generate_speech(given, speaker, threshold=over, maxlenratio=6.0)
    replayed = iter(masks)
    memory = ours.encoder(given)
    mel, ended = ours.speak(
        memory, speaker[0], lambda units: next(replayed)[-1].bool(), over=over, longest=6.0
    )
    assert next(replayed, None) is None and ended == (over < 1)
    close(mel, wanted)
    assert (len(mel) == 2 * int(memory.shape[1] * 3)) == (not ended)


def test_it_stops_at_the_last_place_there_is(make: Callable[[str], Pair]) -> None:
    _, ours, _ = make("change")
    mel, ended = ours.speak(ours.encoder(waves(5000)), torch.ones(10), lambda units: torch.ones(units) > 0, over=9.0)
    assert not ended and len(mel) == 2 * 60


def test_text_is_that_of_the_reference(make: Callable[[str], Pair]) -> None:
    theirs, ours, _ = make("text")
    for count in (5000, 9000):
        memory = ours.encoder(waves(count))
        ids = torch.tensor([[2, 7, 9, 12, 5]])
        wanted = theirs(input_values=waves(count), decoder_input_ids=ids).logits
        close(ours.decoder.logits(ours.decoder.hidden(ids, memory=memory)), wanted)
        made = theirs.generate(waves(count), max_new_tokens=30, do_sample=False, num_beams=1)[0].tolist()
        found, chances = ours.write(memory, 30)
        assert made[1 : 1 + len(found)] == found and len(chances) in (len(found), len(found) + 1)
        logits = theirs(input_values=waves(count), decoder_input_ids=torch.tensor([[2, *found]])).logits
        steps = logits[0].log_softmax(-1).max(-1).values[: len(chances)]
        assert chances == pytest.approx(steps.tolist(), rel=1e-4)


def test_characters_are_those_of_the_reference(make: Callable[[str], Pair]) -> None:
    _, _, folder = make("text")
    ours, theirs = Tokenizer.load(folder), tf.SpeechT5Tokenizer.from_pretrained(folder)
    for text in ("Alice was blue", "  who  is it? 😀你 no ", "zzz, X!", ""):
        ids = theirs(text)["input_ids"]
        assert ours.encode(text, special=True) == ids, text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert (ours.bos, ours.pad, ours.eos, ours.unk) == (0, 1, 2, 3) and ours.size == theirs.vocab_size + 2
    assert ours.id("<mask>") == ours.size - 2


def test_what_cannot_be(make: Callable[[str], Pair], tmp_path: Path) -> None:
    _, ours, _ = make("voice")
    with pytest.raises(ConjureError, match="reads at most 60 characters, got 61"):
        ours.encoder(torch.ones(1, 61, dtype=torch.long))
    with pytest.raises(ConjureError, match="too few for a frame"):
        make("change")[1].encoder(waves(200))
    folder, _ = speecht5(tmp_path / "even", "voice", speech_decoder_postnet_kernel=5)
    config = (folder / "config.json").read_text()
    for old, new, wrong in (("SpeechT5ForTextToSpeech", "SpeechT5Model", "cannot run SpeechT5Model"),
                            ('"hidden_size": 16', '"hidden_size": 15', "2 heads do not divide"),
                            ('"encoder_layers": 2', '"encoder_layers": 3', "missing speecht5.encoder.wrapped_encoder"),
                            ('"speech_decoder_postnet_kernel": 5', '"speech_decoder_postnet_kernel": 4', "odd kernel"),
                            ('prenet_dropout": 0.5', 'prenet_dropout": 1.0', "a chance between 0 and 1")):  # fmt: skip
        assert old in config
        (folder / "config.json").write_text(config.replace(old, new))
        with pytest.raises(ConjureError, match=wrong):
            opened(folder)
