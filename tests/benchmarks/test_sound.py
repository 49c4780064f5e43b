"""The benchmark of hearing: the programs hear the same and write the same, and the result counts right. Nothing is
timed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.sound import __main__ as sound
from benchmarks.sound import conjure_hearer, shapes, transformers_hearer
from benchmarks.sound.work import RATE, Work
from benchmarks.sound.work import sound as noise


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes.write(tmp_path_factory.mktemp("whispers"), "toy")


@torch.inference_mode()
def test_both_programs_write_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONJURE_CACHE", str(Path(tempfile.gettempdir()) / f"conjure-native-{os.getuid()}"))
    works = [Work(str(folder), "toy", program, parts=3, batch=2, tokens=9) for program in ("conjure", "transformers")]
    hearers = (conjure_hearer, transformers_hearer)
    ours, theirs = (hearer.load(work)() for hearer, work in zip(hearers, works, strict=True))
    assert ours["ids"] == theirs["ids"] and [len(row) for row in ours["ids"]] == [9, 9, 9]
    assert list(ours["stages"]) == list(theirs["stages"]) == list(sound.STAGES)
    mels = [Work(str(folder), "toy", work.program, parts=2, mel=True) for work in works]
    ours, theirs = (hearer.load(work)() for hearer, work in zip(hearers, mels, strict=True))
    assert ours["sum"] == pytest.approx(theirs["sum"], rel=1e-4)


def test_a_model_has_whispers_tokens_and_is_written_once(folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    shapes.write(folder.parent, "toy")
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} and "tokenizer.json" in before
    assert len(shapes.marks("tiny")) == shapes.LANGUAGES + 8 and len(set(shapes.marks("tiny"))) == len(
        shapes.marks("tiny")
    )


def test_the_sound_is_the_same_each_time_and_not_too_loud() -> None:
    one, other = noise(3.0), noise(3.0)
    assert one.shape == (3 * RATE,) and np.array_equal(one, other) and 0.04 < np.abs(one).max() < 1
    assert not np.array_equal(one, noise(3.0, seed=1))


def test_parts_that_are_read_together() -> None:
    work = Work("", "tiny", "conjure", parts=26, batch=8)
    assert [len(batch) for batch in work.batches()] == [8, 8, 8, 2] and work.seconds == 780


def test_how_much_of_two_texts_is_alike() -> None:
    assert sound.alike([[1, 2, 3, 4]], [[1, 2, 9, 4]]) == 0.5
    assert sound.alike([[1, 2]], [[1, 2]]) == 1.0
    with pytest.raises(ValueError):
        sound.alike([[1, 2]], [[1, 2, 3]])


def test_the_result() -> None:
    def own(seconds: list[float]) -> sound.Measured:
        stages = {stage: [s / 3 for s in seconds] for stage in sound.STAGES}
        return sound.Measured(seconds, seconds, stages, 1 << 20, [[1, 2]])

    found = {
        "conjure fp32": own([1.0, 2.0]), "faster-whisper fp32": own([2.0, 2.0]), "conjure int8": own([1.0, 1.0]),
        "faster-whisper int8": own([0.5, 0.5]), "transformers fp32": own([3.0, 6.0]),
    }  # fmt: skip
    said = sound.hearing_result("tiny, 30 s", found, 30, batched=False)
    assert "PASS  tiny, 30 s, fp32: speed / transformers fp32: 3.00 (at least 3)  3.00 (3.00-3.00)" in said
    assert "PASS  tiny, 30 s, fp32: speed / faster-whisper fp32: 1.50 (at least 0.9)  1.50 (1.00-2.00)" in said
    assert "FAIL  tiny, 30 s, int8: speed / faster-whisper int8: 0.50 (at least 0.9)" in said
    assert "PASS  tiny, 30 s, fp32: speed / faster-whisper fp32: 1.50 (at least 1)" in sound.hearing_result(
        "tiny, 30 s", found, 30, batched=True
    )
    mels = {"conjure": own([1.0]), "librosa": own([2.0])}
    assert "PASS  spectrogram: speed / librosa: 2.00 (at least 1)  2.00" in sound.mel_result(mels, 30)


def test_what_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sound.parse(["--only", "tiny,sing"])
    assert "sing" in capsys.readouterr().err
    args = sound.parse(["--only", "base,short"])
    assert (args.what, args.sizes) == (["short"], ["base"]) and sound.parse(["--quick"]).sizes == ["toy"]
    works = sound.works(Path("x"), "tiny", "long", sound.parse([]))
    assert works["conjure int8"] == Work("x", "tiny", "conjure", "int8", parts=26, batch=8)
    assert sound.works(Path("x"), "small", "long", sound.parse([]))["conjure fp32"].parts == 8
