"""Who speaks: turns, names, comparisons, layouts and bad input, with pitch in the place of a voice; training, saving
and figures on stand-ins."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import conjure
from conjure.core.errors import ConjureError
from conjure.core.events import Progress, Result, Warn
from conjure.data import pseudo_speakers
from conjure.data.pseudo_speakers import SpeakerData
from conjure.media.audio import Audio
from conjure.media.recording import Live, Recording
from conjure.models import who
from conjure.models.diarisation import Turn
from conjure.models.who import Calibration, WhoConfig
from conjure.tasks import speakers, speakers_figures
from conjure.tasks.speakers import Speakers, SpeakersOptions
from conjure.tasks.speakers_written import named
from tests.data.sounds import RATE, buzz, placed

MODEL = WhoConfig(dim=16, hidden=24, kernel=3, dilations=(1,), channels=12, attention=6, embedding=16)
DATA = SpeakerData(speakers=6, sentences=2, seconds=(0.4, 0.6), texts=4)
ANN, BEN, CY = 1, 6, 12


def by_pitch(network: Any, sounds: Sequence[np.ndarray]) -> np.ndarray:
    """A vector whose only 1 stands where the pitch of `buzz` is."""
    made = np.zeros((len(sounds), 16), np.float32)
    for row, sound in zip(made, sounds, strict=True):
        spectrum = np.abs(np.fft.rfft(sound, 1 << 17))
        row[round((spectrum.argmax() / (1 << 17) * RATE - 100) / 17) % 16] = 1
    return made


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Speakers:
    monkeypatch.setattr(speakers, "embedded", by_pitch)
    monkeypatch.setattr(who, "embedded", by_pitch)
    torch.manual_seed(0)
    return Speakers(who.Who(MODEL).eval(), DATA, Calibration(taken=0.05, refused=0.125))


def pause(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def talk(*voices: int, seconds: float = 4.0) -> Audio:
    parts = [part for each in voices for part in (pause(0.4), buzz(seconds, each), pause(0.4))]
    return Audio(np.concatenate(parts)[None], RATE)


def run(task: Speakers, *sounds: Any, **options: Any) -> tuple[str, dict[str, Any], list[str]]:
    events = list(task.generate(sounds, SpeakersOptions(**options), [0]))
    result = events[-1]
    assert isinstance(result, Result) and all(isinstance(each, Progress | Warn) for each in events[:-1])
    told = [event.text for event in events if isinstance(event, Warn)]
    return str(result.media[0]), result.facts["results"][0], told


def test_turns_of_three_people(task: Speakers) -> None:
    text, found, told = run(task, talk(ANN, BEN, ANN, CY))
    assert [each["speaker"] for each in found["segments"]] == ["Speaker 1", "Speaker 2", "Speaker 1", "Speaker 3"]
    assert found["speakers"] == 3 and not told and found["duration"] == pytest.approx(19.2)
    for n, each in enumerate(found["segments"]):
        assert each["start"] == pytest.approx(4.8 * n, abs=0.6)
        assert each["end"] == pytest.approx(4.8 * n + 4.8, abs=0.6)
    assert [each["name"] for each in found["voices"]] == ["Speaker 1", "Speaker 2", "Speaker 3"]
    assert found["voices"][0]["seconds"] == pytest.approx(8.5, abs=1)
    lines = text.splitlines()
    assert lines[0].startswith("3 people speak in 19.2 s: Speaker 1 ") and len(lines) == 6
    assert lines[2].startswith("00:00:00.") and lines[2].endswith("  Speaker 1")


def test_layouts(task: Speakers) -> None:
    sound = talk(ANN, BEN)
    assert run(task, sound, format="srt")[0].startswith("1\n00:00:00,") and "\nSpeaker 2\n" in run(
        task, sound, format="srt")[0]  # fmt: skip
    assert run(task, sound, format="vtt")[0].startswith("WEBVTT\n\n00:00:00.")
    assert "| Speaker 2 |" in run(task, sound, format="md")[0]
    rows = [line.split() for line in run(task, sound, format="rttm")[0].splitlines()]
    assert [row[0] for row in rows] == ["SPEAKER"] * 2 and [row[7] for row in rows] == ["Speaker_1", "Speaker_2"]
    assert float(rows[1][3]) + float(rows[1][4]) == pytest.approx(9.3, abs=0.5) and len(rows[0]) == 10


def test_known_people_and_a_stranger(task: Speakers, tmp_path: Path) -> None:
    for name, seed in (("ann", ANN), ("cy", CY)):
        soundfile.write(tmp_path / f"{name}.wav", np.concatenate([pause(0.3), buzz(3.0, seed), pause(0.3)]), RATE)
    known = tuple(str(tmp_path / f"{name}.wav") for name in ("ann", "cy"))
    _, found, _ = run(task, talk(ANN, BEN, CY), known=known)
    assert [each["speaker"] for each in found["segments"]] == ["ann", "unknown", "cy"]
    assert found["voices"][0]["likeness"] == pytest.approx(1, abs=0.05) and "likeness" not in found["voices"][1]
    _, found, _ = run(task, talk(ANN, CY, ANN), known=known, alike=1.0)
    assert [each["speaker"] for each in found["segments"]] == ["ann", "cy", "ann"]
    _, found, _ = run(task, talk(BEN, 9), known=known)
    assert [each["speaker"] for each in found["segments"]] == ["unknown 1", "unknown 2"]


def test_two_speakers_of_one_name_are_one() -> None:
    turns = [Turn(0, 1, 0), Turn(1, 2, 1), Turn(2, 3, 2), Turn(3, 4, 0)]
    made = named(turns, [{"ann": 0.9, "cy": 0.1}, {"ann": 0.7, "cy": 0.2}, {"ann": 0.1, "cy": 0.3}], 0.6, ["ann"], 4.0)
    assert made.turns == (Turn(0, 2, 0), Turn(2, 3, 1), Turn(3, 4, 0)) and made.names == ("ann", "unknown")
    assert made.likeness == (0.9, None) and made.seconds("ann") == 3


def test_known_files_that_do_not_serve(task: Speakers, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mute.wav", pause(2.0), RATE)
    soundfile.write(tmp_path / "mute.flac", pause(2.0) + buzz(2.0, 1), RATE)
    with pytest.raises(ConjureError, match="the known voice mute: nobody speaks"):
        run(task, talk(ANN), known=(str(tmp_path / "mute.wav"),))
    with pytest.raises(ConjureError, match="no such file"):
        run(task, talk(ANN), known=(str(tmp_path / "gone.wav"),))
    with pytest.raises(ConjureError, match="one name"):
        run(task, talk(ANN), known=(str(tmp_path / "mute.flac"), str(tmp_path / "mute.flac")))


def test_a_number_that_is_told(task: Speakers) -> None:
    assert run(task, talk(ANN, BEN, CY), speakers=2)[1]["speakers"] == 2
    _, found, told = run(task, talk(ANN, seconds=1.0), speakers=4)
    assert found["speakers"] == 1 and told == ["4 speakers were asked for, but there is speech for 1 alone"]


@pytest.mark.parametrize("samples", [16_000, 160, 1])
@pytest.mark.parametrize("gate", [True, False])
def test_silence_and_next_to_nothing(task: Speakers, samples: int, gate: bool) -> None:
    sound = Audio(np.zeros((1, samples), np.float32), RATE)
    if samples == 16_000 and not gate:
        assert run(task, sound, gate=False)[1]["speakers"] == 1  # it was told to listen to all of it
        return
    text, found, told = run(task, sound, gate=gate)
    assert text == "Nobody speaks.\n" and found["segments"] == [] and found["speakers"] == 0
    assert len(told) == 1 and told[0].startswith("nobody speaks")
    for layout in ("srt", "vtt", "rttm", "md"):
        assert "-->" not in run(task, sound, gate=gate, format=layout)[0]


def test_one_window(task: Speakers) -> None:
    _, found, _ = run(task, talk(BEN, seconds=0.6))
    assert found["speakers"] == 1 and len(found["segments"]) == 1


def test_two_sounds_are_compared(task: Speakers) -> None:
    text, same, told = run(task, talk(ANN), talk(ANN, seconds=5.0))
    assert same["same"] and same["score"] == pytest.approx(1, abs=1e-6) and same["probability"] > 0.9 and not told
    assert same["taken_of_two"] == 0.05 and same["refused_of_one"] == 0.125
    assert "one voice" in text and "5.0 % of pairs of two" in text and "12.5 % of pairs of one" in text
    _, other, told = run(task, talk(ANN), talk(BEN, seconds=1.0))
    assert not other["same"] and other["probability"] < 0.1 and len(told) == 1 and "sound 2 holds" in told[0]
    text, three, _ = run(task, talk(ANN), talk(BEN), talk(ANN), alike=0.3)
    found = [(each["first"], each["second"], each["same"]) for each in three["pairs"]]
    assert found == [(1, 2, False), (1, 3, True), (2, 3, False)]
    assert three["threshold"] == 0.3 and "same" not in three and "readers" not in text  # a threshold of one's own
    assert run(task, talk(ANN), talk(BEN), format="md")[0].startswith("| sounds |")


def test_comparisons_that_make_no_sense(task: Speakers) -> None:
    with pytest.raises(ConjureError, match="sound 2: nobody speaks"):
        run(task, talk(ANN), Audio(np.zeros((1, 9000), np.float32), RATE))
    with pytest.raises(ConjureError, match="for one sound"):
        run(task, talk(ANN), talk(ANN), speakers=2)
    with pytest.raises(ConjureError, match="not written as srt"):
        run(task, talk(ANN), talk(ANN), format="srt")
    with pytest.raises(ConjureError, match="one sound"):
        run(task, conjure.Text("hello"))


def test_long_sound_and_live_sound_are_as_short_sound(
    task: Speakers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = talk(ANN, BEN, ANN, CY)
    wanted = run(task, sound)[1]
    soundfile.write(tmp_path / "long.wav", sound.samples[0], RATE, subtype="FLOAT")
    live = Live(iter(np.split(sound.samples[0], 16)), RATE)
    monkeypatch.setattr(speakers, "STRETCH", 7.0)
    for same in (sound, Recording(tmp_path / "long.wav", sound.seconds), live):
        found = run(task, same)[1]
        assert [each["speaker"] for each in found["segments"]] == [each["speaker"] for each in wanted["segments"]]
        for one, other in zip(found["segments"], wanted["segments"], strict=True):
            assert one["start"] == pytest.approx(other["start"], abs=0.8)
    stereo = Audio(np.repeat(sound.samples, 2, 0), RATE)
    assert run(task, stereo)[1]["speakers"] == 3


# -- training


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Speakers]:
    voices = {"people a": 1, "flite b": 5, "espeak c": 9}
    sounds = {name: [buzz(1.0, seed + k) for k in range(3)] for name, seed in voices.items()}

    def few(part: str, texts: int) -> dict[str, list[np.ndarray]]:
        return sounds

    with pytest.MonkeyPatch.context() as patch:
        placed(tmp_path_factory.mktemp("data"), patch)
        patch.setattr(pseudo_speakers, "voices", few)
        small = {"SPEAKERS": 4, "DIALOGUES": 2, "SECONDS": 6.0, "GRID": (0.3, 0.9), "RESAMPLES": 20}
        for name, value in small.items():
            patch.setattr(speakers_figures, name, value)
        speakers_figures.synthetic.cache_clear()
        yield Speakers.create(MODEL, DATA, seed=1)
    speakers_figures.synthetic.cache_clear()


def test_batches_and_the_loss(trained: Speakers) -> None:
    batch = trained.batch(range(8))
    assert batch["mel"].shape[0] == 8 and batch["speakers"][0::2].tolist() == batch["speakers"][1::2].tolist()
    one = trained.batch([3])
    torch.testing.assert_close(one["mel"][0], batch["mel"][3, : one["mel"].shape[1]])
    total, count = trained.loss(batch)
    assert count == 8 and 0 < float(total.detach()) < 8 * math.log(4) + 8
    assert trained.tokens(batch) == int(batch["lengths"].sum()) and trained.flops(batch) > 0
    assert "8 clips" in trained.describe(batch) and set(trained.preview(0)) == {"alike"}


def test_what_is_saved_has_its_thresholds_and_does_the_same(trained: Speakers, tmp_path: Path) -> None:
    trained.save(tmp_path, weights=trained.network.state_dict())
    loaded = Speakers.load(tmp_path)
    assert loaded.source is None and loaded.calibration == trained.calibration and loaded.calibration.taken is not None
    assert json.loads((tmp_path / "config.json").read_text())["calibration"]["alike"] in (0.3, 0.6, 0.9)
    sound = talk(ANN, BEN, seconds=2.0)
    trained.network.eval()
    assert run(loaded, sound)[1] == run(trained, sound)[1]
    assert 0 <= trained.evaluate(3)["equal_error"] <= 1


def test_figures(trained: Speakers) -> None:
    seen: list[Any] = []
    found = trained.evaluate_published(on_progress=seen.append)
    assert len(found) == 12 and len(seen) == 8
    for name, figure in found.items():
        assert 0 <= figure["low"] <= figure["value"] <= figure["high"], name
    assert found["equal_error_real_whole"]["n"] == 8 * 7 // 2 and found["diarisation_error_real"]["n"] == 4
    assert "none heard" in found["equal_error_real_3s"]["protocol"]


def test_thresholds_by_two_normal_distributions() -> None:
    draw = np.random.default_rng(0)
    same = np.arange(6000) % 6 == 0  # few pairs of one count as much as many of two
    scores = np.where(same, 0.7, 0.3) + 0.1 * draw.standard_normal(6000)
    middle, slope = speakers_figures.logistic(scores, same)
    assert middle == pytest.approx(0.5, abs=0.02) and slope == pytest.approx(0.4 / 0.1**2, rel=0.15)


def test_halves_share_nobody() -> None:
    clips = [(name, np.zeros(1, np.float32)) for name in "cabdca"]
    first, second = speakers_figures.halves(clips)
    assert [name for name, _ in first] == ["a", "b", "a"] and [name for name, _ in second] == ["c", "d", "c"]


def test_from_the_shell(task: Speakers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(folder: Path) -> Speakers:
        return task

    loader: Callable[[Path], Speakers] = load
    monkeypatch.setattr(Speakers, "load", staticmethod(loader))
    trained_folder = tmp_path / "who"
    task.save(trained_folder)
    soundfile.write(tmp_path / "talk.wav", talk(ANN, BEN).samples[0], RATE)
    made = conjure.make(tmp_path / "talk.wav", task="speakers", output=tmp_path / "who.json", model=str(trained_folder))
    assert made.kind == "text"
    written = json.loads((tmp_path / "who.json").read_text())
    assert written["task"] == "speakers" and written["speakers"] == 2 and len(written["segments"]) == 2
    two = [tmp_path / "talk.wav", tmp_path / "talk.wav"]
    conjure.make(*two, task="speakers", output=tmp_path / "same.json", model=str(trained_folder))
    assert json.loads((tmp_path / "same.json").read_text())["same"] is True
