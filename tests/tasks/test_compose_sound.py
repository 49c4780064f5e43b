from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import conjure
from conjure.core.errors import ConjureError
from conjure.core.events import Progress, Result
from conjure.media.audio import Audio
from conjure.media.text import Text
from conjure.tasks.abilities import abilities, is_language_model
from conjure.tasks.compose_sound import ComposeSound, ComposeSoundOptions
from tests.models.codecs import encodec
from tests.models.test_musicgen import musicgen
from tests.tasks.small_models import words


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    musicgen(tmp_path)
    words(tmp_path, ends=True)
    return tmp_path


def test_a_text_becomes_sound(folder: Path) -> None:
    assert abilities(folder) == ("compose",) and not is_language_model(folder)
    task, options = ComposeSound.load(folder), ComposeSoundOptions(seconds=0.02)
    *events, last = task.generate([Text("blue sea")], options, [1, 2])
    assert isinstance(last, Result) and last.facts["codes"] == 4 * 13
    assert [e.step for e in events if isinstance(e, Progress)][-1] == 13
    one, other = last.media
    assert isinstance(one, Audio) and one.rate == 16_000 and one.samples.shape == (1, 13 * 24)
    assert one.digest() != other.digest()  # type: ignore[union-attr]
    *_, alone = task.generate([Text("blue sea")], options, [2])
    assert isinstance(alone, Result) and alone.media[0].digest() == other.digest()  # type: ignore[union-attr]
    *_, others = task.generate([Text("red")], options, [2])
    assert isinstance(others, Result) and others.media[0].digest() != other.digest()  # type: ignore[union-attr]


def test_from_the_shell_of_python(folder: Path) -> None:
    made = conjure.make("blue sea", to="audio", model=str(folder), seed=3, seconds=0.01, guidance=1.0)
    assert made.record.task == "compose" and np.abs(made.samples).max() <= 1


def test_no_text_and_no_music_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="describes no music"):
        list(ComposeSound.load(folder).generate([Text("  ")], ComposeSoundOptions(), [1]))
    with pytest.raises(ConjureError, match="no model of music"):
        ComposeSound.load(encodec(tmp_path / "codec"))
