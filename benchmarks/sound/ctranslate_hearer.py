"""faster-whisper's parts: its feature extractor, and the Whisper of CTranslate2 that it drives."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sound.work import CHUNK, RATE, Work, sound


def load(work: Work) -> Callable[[], dict[str, Any]]:
    """What is timed: a function without arguments."""
    import ctranslate2
    from faster_whisper.feature_extractor import FeatureExtractor
    from tokenizers import Tokenizer

    samples = sound(work.seconds)
    length = work.seconds // work.parts * RATE
    parts = [samples[at : at + length] for at in range(0, len(samples), length)]
    extractor, frames = FeatureExtractor(chunk_length=CHUNK[work.size]), 100 * CHUNK[work.size]
    if work.mel:
        return lambda: {"sum": float(sum(extractor(part)[:, :frames].astype(np.float64).sum() for part in parts))}
    kind = "float32" if work.weights == "fp32" else "int8"
    model = ctranslate2.models.Whisper(
        str(Path(work.folder) / "ctranslate2"), compute_type=kind, intra_threads=work.threads, inter_threads=1
    )
    marks_of = Tokenizer.from_file(str(Path(work.folder) / "tokenizer.json")).token_to_id
    prompt = [marks_of(f"<|{name}|>") for name in ("startoftranscript", "en", "transcribe", "notimestamps")]

    def run() -> dict[str, Any]:
        stages, ids = dict.fromkeys(("features", "encoder", "writing"), 0.0), []
        for batch in work.batches():
            marks = [time.perf_counter()]
            features = np.ascontiguousarray(np.stack([extractor(parts[n])[:, :frames] for n in batch]))
            marks.append(time.perf_counter())
            memory = model.encode(ctranslate2.StorageView.from_array(features))
            marks.append(time.perf_counter())
            made = model.generate(
                memory, [prompt] * len(batch), beam_size=1, max_length=2 * work.tokens,  # it writes half of that
                suppress_blank=False, suppress_tokens=[marks_of("<|endoftext|>")],
            )  # fmt: skip
            marks.append(time.perf_counter())
            for name, begin, stop in zip(stages, marks, marks[1:], strict=False):
                stages[name] += stop - begin
            ids += [each.sequences_ids[0] for each in made]
        return {"stages": stages, "ids": ids}

    return run
