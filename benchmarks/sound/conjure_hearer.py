"""conjure, as `conjure make talk.wav -o talk.txt` reads models: features, encoder and writing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.sound.work import RATE, Work, sound
from conjure.codecs.log_mel import Mel, whisper_features
from conjure.models.language import LanguageModel
from conjure.models.transcriber import Hearing, Transcriber


def load(work: Work) -> Callable[[], dict[str, Any]]:
    """What is timed: a function without arguments."""
    samples = sound(work.seconds)
    length = work.seconds // work.parts * RATE
    parts = [samples[at : at + length] for at in range(0, len(samples), length)]
    if work.mel:
        mel = Mel()
        return lambda: _spectrogram(parts, mel)
    model = LanguageModel.load(Path(work.folder), weights="int8" if work.weights == "int8" else None)
    transcriber, how = Transcriber(model), Hearing(language="en")
    transcriber.pack()  # part of loading, as it is with the others
    beginning = transcriber.beginning("en", how, times=False)
    decoding = model.decoding(
        temperature=0.0, tokens=work.tokens, suppress=tuple(transcriber.model.end), suppress_first=()
    )

    def run() -> dict[str, Any]:
        stages, ids = dict.fromkeys(("features", "encoder", "writing"), 0.0), []
        for batch in work.batches():
            marks = [time.perf_counter()]
            features = transcriber.features([parts[n] for n in batch])
            marks.append(time.perf_counter())
            memory = transcriber.read(features)
            marks.append(time.perf_counter())
            heard = transcriber.write(memory, [beginning] * len(batch), list(batch), decoding, times=False)
            marks.append(time.perf_counter())
            for name, begin, end in zip(stages, marks, marks[1:], strict=False):
                stages[name] += end - begin
            ids += [each.ids for each in heard]
        return {"stages": stages, "ids": ids}

    return run


def _spectrogram(parts: list[Any], mel: Mel) -> dict[str, Any]:
    with torch.inference_mode():
        found = [whisper_features(torch.from_numpy(part), mel, len(part) // mel.hop) for part in parts]
    return {"sum": sum(float(each.double().sum()) for each in found)}
