"""transformers: WhisperFeatureExtractor, the encoder, and `generate` with what it made."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.sound.work import RATE, Work, sound


def load(work: Work) -> Callable[[], dict[str, Any]]:
    """What is timed: a function without arguments."""
    import transformers

    samples = sound(work.seconds)
    length = work.seconds // work.parts * RATE
    parts = [samples[at : at + length] for at in range(0, len(samples), length)]
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(work.folder)
    if work.mel:
        return lambda: _spectrogram(parts, extractor)
    model: Any = transformers.WhisperForConditionalGeneration.from_pretrained(work.folder).eval()
    end = model.config.eos_token_id

    def run() -> dict[str, Any]:
        stages, ids = dict.fromkeys(("features", "encoder", "writing"), 0.0), []
        for batch in work.batches():
            marks = [time.perf_counter()]
            features = extractor([parts[n] for n in batch], sampling_rate=RATE, return_tensors="pt").input_features
            marks.append(time.perf_counter())
            memory = model.model.encoder(features)
            marks.append(time.perf_counter())
            made = model.generate(
                encoder_outputs=memory, language="en", task="transcribe", return_timestamps=False, do_sample=False,
                num_beams=1, max_new_tokens=work.tokens, suppress_tokens=[end], begin_suppress_tokens=[],
            )  # fmt: skip
            marks.append(time.perf_counter())
            for name, begin, stop in zip(stages, marks, marks[1:], strict=False):
                stages[name] += stop - begin
            ids += [row[-work.tokens :] for row in made.tolist()]
        return {"stages": stages, "ids": ids}

    return run


def _spectrogram(parts: list[Any], extractor: Any) -> dict[str, Any]:
    features = extractor(parts, sampling_rate=RATE, return_tensors="pt").input_features
    return {"sum": float(features.double().sum())}

