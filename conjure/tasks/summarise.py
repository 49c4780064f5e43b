"""text -> text: the same in fewer words, by BART and its kin, by T5, or by a model for chats; long texts in parts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic.dataclasses import dataclass

from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Progress, Result
from conjure.core.seeds import derive
from conjure.media.text import Text
from conjure.models.encoder_decoder import EncoderDecoder
from conjure.models.language import LanguageModel
from conjure.tasks.passages import passages
from conjure.tasks.public import PublicTask, parted
from conjure.tasks.writing import WritingOptions, instructed, knobs, silently, told, write

INSTRUCTION = "Summarise the following text."
READ_AT_ONCE = 1000
"""Tokens of a part where the model states no limit."""
USUAL = 150
"""Tokens of a summary where neither the model nor the user says."""


@dataclass(frozen=True, kw_only=True)
class SummariseOptions(WritingOptions):
    """Those of all that is written."""


class Summarise(PublicTask):
    Options = SummariseOptions

    def generate(self, inputs: Sequence[Text], options: SummariseOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One summary per seed; of a text longer than the model reads one for each part, with a line between them."""
        began = time.perf_counter()
        text, told_to = parted(inputs, "summari")
        if not text.strip():
            raise ConjureError("expected a text to summarise, got an empty one", hint="name a file, or write the text")
        model = self.model(options.weights)
        prefix, settings = _customs(model)

        def ids(part: str) -> list[int]:
            if isinstance(model.network, EncoderDecoder):
                return model.tokenizer.encode(prefix + part, special=True)
            return instructed(model, told_to or INSTRUCTION, part)

        given = knobs(options, **settings)
        room = _room(model, len(ids("")), given["tokens"])
        cut = passages(text, lambda each: len(model.tokenizer.encode(each)), room)
        parts = [part for part, _ in cut if part]
        made: list[list[str]] = [[] for _ in seeds]
        details: list[list[dict[str, Any]]] = [[] for _ in seeds]
        for done, part in enumerate(parts):
            own = [seed if done == 0 else derive(seed, "part", done) for seed in seeds]
            found = yield from silently(write(model, ids(part), own, given, draft=options.draft))
            for n, answers in enumerate(found):
                details[n].append({"letters": len(part), **told(model, answers, options)})
                made[n].append(answers[0].text.strip())
            if len(seeds) == 1:
                yield Delta(("\n" if done else "") + made[0][-1])
            yield Progress(done + 1, len(parts), "part")
        facts = {"results": [{"parts": each} for each in details], "seconds": round(time.perf_counter() - began, 3)}
        yield Result([Text("\n".join(each)) for each in made], facts)


def _customs(model: LanguageModel) -> tuple[str, dict[str, Any]]:
    """(what stands before the text, how the model is decoded): from `task_specific_params`, the config, the family."""
    listed = model.config.get("task_specific_params") or {}
    said = {**model.config, **listed.get("summarization", {})}
    prefix = str(said.get("prefix") or ("summarize: " if model.family in ("t5", "mt5", "umt5") else ""))
    most, least = said.get("max_length"), said.get("min_length")
    settings: dict[str, Any] = {"tokens": most if isinstance(most, int) and most > 20 else USUAL}
    if isinstance(least, int) and least > 0:
        settings["min_tokens"] = min(least, settings["tokens"])
    for ours, theirs in (("beams", "num_beams"), ("length_penalty", "length_penalty"),
                         ("no_repeat_ngram", "no_repeat_ngram_size")):  # fmt: skip
        if "summarization" in listed and listed["summarization"].get(theirs) is not None:
            settings[ours] = listed["summarization"][theirs]
    return prefix, settings


def _room(model: LanguageModel, around: int, tokens: int) -> int:
    pair = isinstance(model.network, EncoderDecoder)
    most = (model.context or READ_AT_ONCE + around + tokens) - around - (0 if pair else tokens) - 1
    if most < 2:
        raise ConjureError(
            f"this model reads {model.context} tokens at most: no text fits in beside a summary of {tokens}",
            hint="--tokens asks for less",
        )
    return most
