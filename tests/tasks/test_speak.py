from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import conjure
from conjure import media
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Preview, Progress, Result, Warn
from conjure.data.read_sentences import ReadData
from conjure.media.audio import Audio
from conjure.media.text import Text
from conjure.models.istft_vocoder import SPEECH
from conjure.models.proof_ear import Judged
from conjure.tasks.speak import Speak, SpeakOptions
from conjure.tasks.vocoder import Vocode, VocodeOptions
from conjure.tasks.voice_rows import padded
from tests.data import fake_flite
from tests.models import small_voice


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_voice.folder(tmp_path_factory.mktemp("models") / "small")


def events(model: Path, text: str, seeds: tuple[int, ...] = (0,), **options: Any) -> list[Event]:
    how = SpeakOptions(**{"steps": 1, "check": False, **options})
    return list(Speak.load(model).generate([Text(text)], how, seeds))


def test_a_page_becomes_an_mp3(model: Path, tmp_path: Path) -> None:
    page, out = tmp_path / "notes.md", tmp_path / "notes.mp3"
    page.write_text("# Hello\n\nThe **cat** and the bat, at 12:30. One apple!\n")
    conjure.make(page, output=out, model=str(model), seed=1, steps=1, check=False)
    sound = media.read(out)
    assert isinstance(sound, Audio) and sound.rate == 16_000
    record = media.read_provenance(out)
    assert record is not None and record.task == "speak" and record.options["voice"] == "slt"
    again = conjure.make(page, to="audio", model=str(model), seed=1, steps=1, check=False)
    assert again.seconds == pytest.approx(sound.seconds, abs=0.2)
    assert again.digest() == conjure.make(page, to="audio", model=str(model), seed=1, steps=1, check=False).digest()


def test_it_comes_sentence_by_sentence(model: Path) -> None:
    came = events(model, "Hello. The cat. The bat.")
    assert [each.step for each in came if isinstance(each, Progress)] == [1, 2, 3]
    previews = [each.medium for each in came if isinstance(each, Preview)]
    result = came[-1]
    assert isinstance(result, Result) and len(previews) == 3
    whole = result.media[0]
    assert isinstance(whole, Audio)
    for part in previews:
        assert isinstance(part, Audio)
        assert (part.samples == whole.samples[:, : part.samples.shape[1]]).all()
    told = result.facts["results"][0]
    assert [each["text"] for each in told["sentences"]] == ["Hello.", "The cat.", "The bat."]
    assert [each["phones"] for each in told["sentences"]] == [6, 7, 7]
    assert told["sentences"][1]["start"] >= told["sentences"][0]["end"] and told["duration"] == round(whole.seconds, 3)


def test_each_seed_is_the_same_alone(model: Path) -> None:
    both, one = events(model, "Hello world.", (4, 5))[-1], events(model, "Hello world.", (5,))[-1]
    assert isinstance(both, Result) and isinstance(one, Result)
    assert both.media[1].digest() == one.media[0].digest() != both.media[0].digest()


def test_what_cannot_be_read_is_said(model: Path) -> None:
    warned = [each.text for each in events(model, "Hello 😀 你好.") if isinstance(each, Warn)]
    assert len(warned) == 2 and "grinning face" in warned[0] and "Chinese" in warned[1]
    for text, said in (("", "an empty text"), ("你好", "nothing that can be read")):
        with pytest.raises(ConjureError, match=said):
            events(model, text)
    with pytest.raises(ConjureError, match="no voice 'alloy'"):
        events(model, "Hello.", voice="alloy")
    with pytest.raises(ConjureError, match="one text"):
        list(Speak.load(model).generate([], SpeakOptions(), [0]))


class Proof:
    """An ear that doubts the second sentence until it was said so often."""

    def __init__(self, often: int) -> None:
        self.left, self.heard = often, list[tuple[str, ...]]()

    def judge(self, samples_N: np.ndarray, rate: int, words: Sequence[str], speed: float = 1.0) -> Judged:
        self.heard.append(tuple(words))
        wrong = "cat" in words and self.left > 0
        self.left -= "cat" in words
        return Judged(1.0 + self.left, (("cat", "missing"),)) if wrong else Judged(-1.0, ())


def test_it_listens_to_itself(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, plain = "Hello. The cat. The bat.", events(model, "Hello. The cat. The bat.")[-1]
    proof = Proof(1)
    monkeypatch.setattr("conjure.tasks.speak.proof_ear", lambda: proof)
    came = events(model, text, check=True)
    made = came[-1]
    assert isinstance(made, Result) and isinstance(plain, Result)
    assert proof.heard == [("hello",), ("the", "cat"), ("the", "cat"), ("the", "bat")]
    assert {name: made.facts[name] for name in ("checked", "said_again", "doubtful")} == {
        "checked": 3, "said_again": 1, "doubtful": 0}  # fmt: skip
    _, second, third = made.facts["results"][0]["sentences"]
    assert second["said_again"] == 1 and "said_again" not in third and not [e for e in came if isinstance(e, Warn)]
    found, before = made.media[0].samples[0], plain.media[0].samples[0]  # type: ignore[attr-defined]
    at = round(third["start"] * 16_000)
    assert len(found) == len(before) and (found[at:] == before[at:]).all() and (found != before).any()

    monkeypatch.setattr("conjure.tasks.speak.proof_ear", lambda: Proof(9))
    *_, warned, made = events(model, text, check=True)
    assert isinstance(warned, Warn) and "'The cat.', said 3 times: cat (missing)" in warned.text
    assert isinstance(made, Result) and made.facts["doubtful"] == 1
    for how in (dict[str, Any](temperature=0.0), dict[str, Any](speed=2.0)):  # the same again; too fast to be followed
        proof = Proof(9)
        monkeypatch.setattr("conjure.tasks.speak.proof_ear", lambda proof=proof: proof)
        events(model, text, check=True, **how)
        assert len(proof.heard) == (3 if "temperature" in how else 0)


def test_words_said_by_phones_are_not_judged(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = Proof(0)
    monkeypatch.setattr("conjure.tasks.speak.proof_ear", lambda: proof)
    events(model, '<speak>The <phoneme ph="b ae t">cat</phoneme>.</speak>', check=True)
    events(model, "cat" * 133 + "s", check=True)
    assert set(proof.heard) == {()}


def test_a_word_of_400_letters(model: Path) -> None:
    result = events(model, "cat" * 133 + "s")[-1]
    assert isinstance(result, Result) and result.media[0].seconds > 10  # type: ignore[attr-defined]


def test_rows(tmp_path: Path) -> None:
    rows = [(2, np.array([0, 3, 0]), np.array([2.0, 5, 7]), 0, np.ones((7, 80), np.float32)),
            (1, np.array([0, 3]), np.array([2.0, 9]), 4, np.ones((8, 80), np.float32))]  # fmt: skip
    batch = padded(rows, 8)
    assert batch["phones"].tolist() == [[0, 3, 0], [0, 3, -1]] and batch["ends"].tolist() == [[2, 5, 7], [2, 9, 9]]
    assert batch["counted"].sum(1).tolist() == [7, 8] and batch["voice"].tolist() == [2, 1]
    assert batch["mel"].shape == (2, 8, 80) and batch["first"].tolist() == [0, 4]


def test_it_trains_and_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_flite.install(tmp_path, monkeypatch)
    fake_flite.sentences(tmp_path)
    data = ReadData(texts=8, frames=32)
    vocode = Vocode.create(small_voice.VOCODER, data, seed=1)
    batch = vocode.batch([0, 1])
    assert batch["samples"].shape == (2, 32 * SPEECH.hop)
    assert torch.equal(batch["samples"][1], vocode.batch([1])["samples"][0])
    total, count = vocode.loss(batch)
    assert count == 2 and float(total.detach()) > 0 and set(vocode.evaluate(2)) == {"loss", "mel"}
    vocode.save(tmp_path / "vocoder")

    config = small_voice.VOICE.__class__(**{**vars(small_voice.VOICE), "vocoder": str(tmp_path / "vocoder")})
    speak = Speak.create(config, data, seed=1)
    batch = speak.batch([3, 9])
    assert batch["mel"].shape == (2, 32, 80)
    for name, value in speak.batch([9]).items():
        assert torch.equal(value[0], batch[name][1][: value.shape[1]] if value.dim() > 1 else batch[name][1]), name
    total, count = speak.loss(batch)
    parts = speak.parts(batch)
    assert count == 2
    torch.testing.assert_close(total, 0.5 * parts["flow"].sum() + parts["mean"].sum() + 0.5 * parts["duration"].sum())
    total.backward()
    assert list(speak.evaluate(2)) == ["loss", "flow", "mean", "duration"]
    assert "phones, frames" in speak.describe(batch) and speak.flops(batch) > 0
    speak.save(tmp_path / "voice", dtype="bfloat16")
    again = Speak.load(tmp_path / "voice")
    assert again.speaker.pronunciation.of("ships") == ("s", "hh", "ih", "p", "s")
    *_, result = again.generate([Text("Old ships.")], SpeakOptions(check=False), [0])
    assert isinstance(result, Result)


def test_the_vocoder_of_a_voice_sends_sound_through(model: Path) -> None:
    sound = Audio((0.2 * np.sin(np.arange(24_000) / 20)).astype(np.float32)[None].repeat(2, 0), 24_000)
    *_, result = Vocode.load(model).generate([sound], VocodeOptions(), [0, 1])
    assert isinstance(result, Result) and len(result.media) == 2
    made = result.media[0]
    assert isinstance(made, Audio) and (made.rate, made.channels) == (16_000, 1)
    assert made.seconds == pytest.approx(1, abs=0.02)
    with pytest.raises(ConjureError, match="one sound"):
        list(Vocode.load(model).generate([], VocodeOptions(), [0]))
