"""Our own ear, small and untrained, taught by voices that hum: rows, loss, folder, use, figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from conjure.codecs.plain_letters import SYMBOLS, encode
from conjure.codecs.voice_activity import Floats
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Progress, Result, Warn
from conjure.data import teacher, teaching_speech
from conjure.data.teaching_speech import ESPEAK, GROUP, NAMES, Clip, kept_texts
from conjure.data.telephone_prompts import telephone_prompts
from conjure.media.audio import Audio
from conjure.models.ear import HOP, EarConfig
from conjure.models.listener import Heard
from conjure.models.proof_ear import load_ear
from conjure.models.transformer import TransformerConfig
from conjure.nn.position import Rope
from conjure.tasks import ear_figures as figures
from conjure.tasks.ear import EarData, EarOptions, EarTask
from tests.data.talk import TEXTS, hummed, write_talk
from tests.models import small_ear

STACK = TransformerConfig(
    vocab=0, dim=32, layers=3, heads=2, hidden=48, causal=False, qk_norm=True, rope=Rope(dim=16)
)  # fmt: skip
WRITER = TransformerConfig(
    vocab=len(SYMBOLS), dim=32, layers=1, heads=2, hidden=48, cross=True, qk_norm=True, rope=Rope(dim=16)
)  # fmt: skip
MODEL = EarConfig(stack=STACK, first=1, middle=1, kernel=3, dropout=0.0, writer=WRITER)


@pytest.fixture(scope="module", autouse=True)
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("data")
    write_talk(folder, train=320, val=2)
    for cached in (kept_texts, figures.synthetic, telephone_prompts):
        cached.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONJURE_DATA", str(folder))
        patch.setenv("CONJURE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(teacher, "spoken", hummed)
        for place in (figures, teaching_speech):
            patch.setattr(place, "espeak", lambda text, **how: hummed(text, ESPEAK).samples)
        yield
    for cached in (kept_texts, figures.synthetic, telephone_prompts):
        cached.cache_clear()


@pytest.fixture(scope="module")
def task(talk: None) -> EarTask:
    return EarTask.create(MODEL, EarData(blocks=1), seed=2)


@pytest.fixture(scope="module")
def folder(task: EarTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ear")
    stirred = {n: w + 0.2 * torch.randn(w.shape, generator=torch.Generator().manual_seed(w.numel()))
               for n, w in task.network.state_dict().items()}  # fmt: skip
    task.save(place, weights=stirred)
    return place


def says(text: str, frames_a_letter: int = 3) -> list[int]:
    """Ids of frames that say it, blanks between."""
    return [frame for each in encode(text) for frame in (each, *[0] * (frames_a_letter - 1))]


class Scripted(EarTask):
    """An ear that hears what it is told to."""

    texts: Sequence[str] = ()

    def hear(self, parts: Sequence[Floats]) -> list[Heard]:
        return [Heard(8 * one_hot(torch.tensor(says(self.texts[n % len(self.texts)])), 29).float())
                for n, _ in enumerate(parts)]  # fmt: skip


@pytest.fixture
def scripted(folder: Path) -> Scripted:
    made = Scripted.load(folder)
    assert isinstance(made, Scripted)
    return made


def told(task: EarTask, options: EarOptions, sound: Audio, seeds: Sequence[int] = (0,)) -> list[Event]:
    return list(task.generate([sound], options, seeds))


def phrases() -> Audio:
    """Two hums with six seconds of silence around each."""
    gap = np.zeros(96_000, np.float32)
    hum = [hummed(text, "slt").samples.astype(np.float32) / 32768 for text in TEXTS[:2]]
    return Audio(np.concatenate([gap, hum[0], gap, hum[1], gap])[None], 16_000)


def test_a_batch_has_sounds_texts_and_phones(task: EarTask) -> None:
    batch = task.batch(range(GROUP))
    assert batch["mel"].shape[1] % 8 == 0
    assert batch["mel"].shape[::2] == (GROUP, 80)
    assert task.source is not None
    for n in range(GROUP):
        clip = task.source.example(n)
        assert "".join(SYMBOLS[k] for k in batch["letters"][n, : batch["counts"][n]]) == clip.text
        assert int(batch["lengths"][n]) == 1 + len(clip.samples) // 160
        row = batch["phones"][n]
        if clip.phones is None or clip.ends is None:
            assert bool((row == -1).all())
        else:
            frame = int(np.searchsorted(clip.ends, 10.5 * HOP))
            assert int(row[10]) == int(clip.phones[frame])
            assert int((row >= 0).sum()) <= int(batch["lengths"][n]) // 4 + 1
    assert "every letter carries loss" in task.describe(batch)
    assert task.flops(batch) > 0
    assert task.tokens(batch) == batch["mel"].shape[0] * batch["mel"].shape[1] // 4


def test_a_row_is_the_same_alone_and_again(task: EarTask) -> None:
    one, two = task.batch(range(4)), task.batch([2])
    length = int(two["lengths"][0])
    torch.testing.assert_close(one["mel"][2, :length], two["mel"][0, :length], rtol=0, atol=0)


def test_hidden_stretches_are_part_of_the_example(task: EarTask) -> None:
    plain = EarTask.create(MODEL, EarData(blocks=1), seed=2).batch([3])
    hidden = EarTask.create(MODEL, EarData(blocks=1, spectral=(0, 1)), seed=2).batch([3, 12])
    assert not torch.equal(plain["mel"][0], hidden["mel"][0, : plain["mel"].shape[1]])
    after = task.batch([3, 12])  # the second is of the next group
    assert torch.equal(after["mel"][1], hidden["mel"][1]) and not torch.equal(after["mel"][0], hidden["mel"][0])
    assert torch.equal(after["letters"], hidden["letters"])


def test_the_writer_is_told_some_letters_wrongly() -> None:
    wrong = EarTask.create(MODEL, EarData(blocks=1, swapped=0.3), seed=2).batch(range(4))
    letters, before = wrong["letters"], wrong["before"]
    share = float((letters != before)[letters > 0].float().mean())
    assert 0.2 < share < 0.4 and not (before[letters == 0] != 0).any()
    plain = EarTask.create(MODEL, EarData(blocks=1), seed=2).batch(range(4))
    assert torch.equal(plain["before"], plain["letters"]) and torch.equal(plain["letters"], letters)
    assert (letters.shape[1] + 1) % 16 == 0


def test_training_may_begin_with_an_ear_that_has_no_writer(tmp_path: Path) -> None:
    place = small_ear.folder(tmp_path / "ear")
    old = load_ear(place).state_dict()
    new = EarTask.create(MODEL, EarData(blocks=1, start=str(place)), seed=2).network.state_dict()
    assert all(torch.equal(new[name], weight) for name, weight in old.items())
    assert any(name.startswith("writer.") for name in new)
    with pytest.raises(ConjureError, match="unknown model"):
        EarTask.create(MODEL, EarData(blocks=1, start=str(tmp_path / "nothing")))
    other = replace(MODEL, kernel=5)
    with pytest.raises(ConjureError, match="does not fit"):
        EarTask.create(other, EarData(blocks=1, start=str(place)))


def test_steps_lower_the_loss() -> None:
    task = EarTask.create(MODEL, EarData(blocks=1), seed=2)
    batch = task.batch(range(2))
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=5e-3)
    losses = list[float]()
    for _ in range(10):
        total, count = task.loss(batch)
        loss = total / count
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


def test_a_saved_ear_hears_the_same(task: EarTask, folder: Path) -> None:
    read = EarTask.load(folder)
    assert json.loads((folder / "config.json").read_text())["task"] == "ear"
    assert read.words is not None
    assert "cat" in read.words.ids
    sounds = [clip.samples for clip in figures.synthetic(3)]
    alone, together = [read.hear([each])[0] for each in sounds], read.hear(sounds)
    for a, b in zip(alone, together, strict=True):
        assert float((a.logits_TV - b.logits_TV).abs().max()) < 1e-4 * float(a.logits_TV.abs().max())
        assert a.opinion is not None and b.opinion is not None
        said = [encode("the cat"), encode("the dog sat"), []]
        assert b.opinion(said) == pytest.approx(a.opinion(said), rel=1e-4)
    again = EarTask.load(folder)
    again.save(folder.parent / "again")
    assert (folder.parent / "again" / "words.safetensors").read_bytes() == (folder / "words.safetensors").read_bytes()


def test_segments_come_with_their_times(scripted: Scripted) -> None:
    scripted.texts = ["the cat sat", "i ran"]
    events = told(scripted, EarOptions(format="json", words=True), phrases())
    result = events[-1]
    assert isinstance(result, Result)
    said = json.loads(str(result.media[0]))
    assert [each["text"] for each in said["segments"]] == ["The cat sat.", "I ran."]
    first, second = said["segments"]
    assert 5.7 < first["start"] < first["end"] < second["start"]
    assert [word["text"] for word in first["words"]] == ["The", "cat", "sat."]
    assert result.facts["results"][0]["language"] == "en"
    assert any(isinstance(event, Delta) for event in events)
    assert any(isinstance(event, Progress) for event in events)


def test_captions_have_the_width_that_was_asked_for(scripted: Scripted) -> None:
    scripted.texts = ["the cat sat and the dog ran"]
    result = told(scripted, EarOptions(format="srt", width=12, lines=1), phrases())[-1]
    assert isinstance(result, Result)
    lines = [line for line in str(result.media[0]).splitlines() if line and "-->" not in line and not line.isdigit()]
    assert lines
    assert max(map(len, lines)) <= 12


def test_words_beside_the_letters_decide(scripted: Scripted) -> None:
    clip = Clip(phrases().samples[0], "")
    scripted.texts = ["the cqt sat"]

    def unsure(parts: Sequence[Floats]) -> list[Heard]:
        frames = says("the cqt sat")
        rows = 8 * one_hot(torch.tensor(frames), 29).float()
        place = frames.index(encode("q")[0])
        rows[place, encode("a")[0]] = 7.5
        return [Heard(rows) for _ in parts]

    scripted.hear = unsure  # type: ignore[method-assign]
    assert scripted.heard([clip]) == ["the cqt sat"]
    assert scripted.heard([clip], beams=8) == ["the cat sat"]


def test_silence_says_nothing(folder: Path) -> None:
    events = told(EarTask.load(folder), EarOptions(), Audio(np.zeros((1, 32_000), np.float32), 16_000), (0, 1))
    assert any(isinstance(event, Warn) for event in events)
    assert isinstance(events[-1], Result)
    assert [str(text) for text in events[-1].media] == ["", ""]


def test_what_this_model_cannot_do_is_said(folder: Path) -> None:
    task, silence = EarTask.load(folder), Audio(np.zeros((1, 32_000), np.float32), 16_000)
    with pytest.raises(ConjureError, match="knows English alone, not German"):
        told(task, EarOptions(language="de"), silence)
    options = EarOptions(language="english", translate=True, prompt="Kubrick", temperature=0.4)
    warned = [event.text for event in told(task, options, silence) if isinstance(event, Warn)]
    assert any("--prompt" in each for each in warned)
    assert any("--temperature" in each for each in warned)


def test_what_is_no_single_sound(folder: Path) -> None:
    with pytest.raises(ConjureError, match="expected one sound"):
        list(EarTask.load(folder).generate([phrases(), phrases()], EarOptions(), [0]))


def test_the_likeliest_digit_is_that_of_all_paths() -> None:
    for digit in (0, 3, 8):
        frames = torch.tensor(says(NAMES[digit]))
        logits = 4 * one_hot(frames, 29).float() + 0.1 * torch.randn(len(frames), 29)
        assert figures.digit_of(Heard(logits)) == digit
        other = Heard(logits, lambda texts: [0.0 if n == 5 else -1000.0 for n in range(len(texts))])
        assert (figures.digit_of(other), figures.digit_of(other, 1.0)) == (digit, 5)
    assert figures.digit_of(Heard(torch.zeros(2, 29))) in range(10)  # too short for any


def test_synthetic_sentences_are_said_by_all_voices_in_turn() -> None:
    every = figures.synthetic()
    assert len(every) == 8
    assert len({len(clip.samples) for clip in every}) == 2
    assert [clip.text for clip in figures.synthetic(2)] == [clip.text for clip in every[:2]]
    first, again = every[0], next(clip for clip in every[1:] if clip.text == every[0].text)
    assert not np.array_equal(first.samples, again.samples)


def test_all_figures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "BEAMS", 2)
    monkeypatch.setattr(figures, "NOBODY", 1.0)
    monkeypatch.setattr(figures, "telephone_prompts", lambda part: [("hello", np.zeros(8000, np.float32))])
    found = EarTask.load(folder).evaluate_published()
    for name in ("synthetic", "synthetic_noise", "espeak", "real", "prompts"):
        for ending in ("", "_letters"):
            assert found[f"wer_{name}{ending}"]["value"] >= 0
            assert found[f"cer_{name}{ending}"]["n"] > 0
    for figure in found.values():
        assert set(figure) == {"value", "low", "high", "n", "protocol"}
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert found["digits_grammar"]["n"] == 4
    assert found["invented_silence"]["value"] == 0


def test_the_figure_to_watch_is_the_first(folder: Path) -> None:
    task = EarTask.load(folder)
    assert list(task.evaluate(3)) == ["wer", "cer"]
    assert "said:" in str(task.preview(0)["heard"])
