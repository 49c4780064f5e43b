"""text + question -> text: the words of a text that answer a question, found by an extractive model (Devlin et al.
2019, arXiv 1810.04805, section 4.3), or an answer written by a model for chats.

Legend: T tokens of a window, S start and E end of an answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result
from conjure.media.text import Text
from conjure.models.encoder_decoder import EncoderDecoder
from conjure.models.headed import Headed
from conjure.models.language import LanguageModel
from conjure.tasks.public import PublicTask
from conjure.tasks.windows import beside, read, spread
from conjure.tasks.writing import WritingOptions, instructed, knobs, told, write

NONE = "no answer"
INSTRUCTION = (
    "Answer the question from the text, in as few words as it needs. If the text does not say, answer: no answer."
)


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(WritingOptions):
    longest: int = Field(default=30, ge=1, le=1000, description="tokens of an answer that is found in the text")
    must: bool = Field(default=False, description="name the likeliest words even where the text seems not to say")


class Answer(PublicTask):
    Options = AnswerOptions

    def generate(self, inputs: Sequence[Text], options: AnswerOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """The last input is the question, those before it are the text."""
        began = time.perf_counter()
        *texts, question = [each.text.strip("\n") for each in inputs]
        text = "\n\n".join(texts)
        if not question.strip():
            raise ConjureError("expected a question, got an empty text", hint='as in letter.txt "Who wrote it?"')
        model = self.model(options.weights)
        if isinstance(model.network, Headed):
            if not text.strip():
                raise ConjureError(
                    "this model finds answers in a text: expected a text and a question",
                    hint='conjure make letter.txt "Who wrote it?" --task answer',
                )
            yield Progress(0, 1, "text")
            found = _found(model, text, question, options)
            made = [Text(found["answer"] or NONE)] * len(seeds)
            results = [found] * len(seeds)
        else:
            answers = yield from write(
                model, _asked(model, text, question), seeds, knobs(options), draft=options.draft
            )
            made = [Text(each[0].text.strip()) for each in answers]
            results = [{"question": question, **told(model, each, options)} for each in answers]
        yield Result(made, {"results": results, "seconds": round(time.perf_counter() - began, 3)})


def _asked(model: LanguageModel, text: str, question: str) -> list[int]:
    if isinstance(model.network, EncoderDecoder):
        said = f"question: {question} context: {text}" if text.strip() else question
        return model.tokenizer.encode(said, special=True)
    if not text.strip():
        return instructed(model, "", question)
    return instructed(model, INSTRUCTION, f"Text:\n{text}\n\nQuestion: {question}")


def _found(model: LanguageModel, text: str, question: str, options: AnswerOptions) -> dict[str, Any]:
    """The best span over all windows. A window also scores "not here" by its first token; the text has no answer where
    that wins in the window of the best span."""
    framed = beside(model.tokenizer, text, question, first=False)
    offsets = model.tokenizer.offsets(text)
    room = framed.room(model.context)
    spans = spread(len(framed.ids), room, room // 4)
    ahead = len(framed.before)
    best: tuple[float, float, float, int, int] | None = None
    for (start, end), logits_T2 in zip(spans, read(model, [framed.window(*span) for span in spans]), strict=True):
        begins_S, ends_E = logits_T2[ahead : ahead + end - start].unbind(-1)
        pairs_SE = begins_S[:, None] + ends_E[None, :]
        count = end - start
        allowed_SE = torch.ones(count, count, dtype=torch.bool).triu().tril(options.longest - 1)
        pairs_SE = pairs_SE.masked_fill(~allowed_SE, -math.inf)
        at = int(pairs_SE.argmax())
        value, none = float(pairs_SE.flatten()[at]), float(logits_T2[0].sum())
        total = float(torch.cat([pairs_SE.flatten(), logits_T2[0].sum()[None]]).logsumexp(0))
        if best is None or value > best[0]:
            best = value, none, total, start + at // count, start + at % count
    assert best is not None
    value, none, total, first, last = best
    begin, finish = offsets[first][0], offsets[last][1]
    while begin < finish and text[begin].isspace():
        begin += 1
    silent = not options.must and none >= value
    return {
        "question": question,
        "answer": None if silent else text[begin:finish],
        "score": math.exp((none if silent else value) - total),
        "start": None if silent else begin,
        "end": None if silent else finish,
    }
