"""The recogniser that voices are judged by hears what is said."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.core.events import Progress
from conjure.core.shelf import find
from conjure.metrics.recogniser import RATE, heard
from conjure.models.speaker import Speaker
from conjure.tasks.speak_figures import spoken_by


def test_what_is_said_is_heard_and_silence_is_not() -> None:
    speaker, said, told = Speaker.load(find("starter/voice")), "the old man and the sea", []
    sounds = [spoken_by(speaker, said, "rms"), np.zeros(RATE, np.int16)]
    spoken, silence = heard(sounds, 2, "sentences", told.append)
    assert len(set(said.split()) & set(spoken.split())) >= 3 and len(silence.split()) < 2, (spoken, silence)
    assert told == [Progress(1, 2, "sentence", "sentences"), Progress(2, 2, "sentence", "sentences")]


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ConjureError, match="needs pocketsphinx"):
        next(heard([], 0, ""))
