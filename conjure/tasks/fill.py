"""text -> text: a masked model finds what stands in the gaps of a text."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result
from conjure.decoding.fill import Filling, fill
from conjure.media.text import Text
from conjure.models.language import LanguageModel, Weights
from conjure.tasks.public import WEIGHTS, PublicTask

GAP = re.compile(r"\[MASK\]|<mask>|_{3,}")


@dataclass(frozen=True, kw_only=True)
class FillOptions:
    weights: Weights | None = WEIGHTS
    best: int = Field(default=5, ge=1, le=1000, description="how many fillings to find")
    order: Literal["left", "confidence"] = Field(
        default="confidence", description="which of several gaps is filled first: the left one, or the surest"
    )


class Fill(PublicTask):
    Options = FillOptions

    def generate(self, inputs: Sequence[Text], options: FillOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """The text with its gaps filled, the likeliest way; the others are in the JSON. The same for each seed."""
        began = time.perf_counter()
        text = "\n\n".join(each.text for each in inputs)
        if not GAP.search(text):
            raise ConjureError("there is no gap in the text", hint='write [MASK], <mask> or ___: "Paris is in ___."')
        yield Progress(0, 1, "text")
        model = self.model(options.weights)
        ids = _ids(model, text)
        found = fill(
            model.logits, ids, mask=_mask(model), best=options.best, order=options.order,
            suppress=model.tokenizer.specials,
        )  # fmt: skip
        answers = [_answer(model, text, each) for each in found]
        facts = {"results": [{"fillings": answers}] * len(seeds), "seconds": round(time.perf_counter() - began, 3)}
        yield Result([Text(answers[0]["text"])] * len(seeds), facts)


def _mask(model: LanguageModel) -> int:
    if model.tokenizer.mask is None:
        raise ConjureError("this model's tokenizer has no token for a gap", hint="take a masked model: BERT, RoBERTa")
    return model.tokenizer.mask


def _ids(model: LanguageModel, text: str) -> list[int]:
    mask = model.tokenizer.token(_mask(model))
    ids = model.tokenizer.encode(GAP.sub(lambda _: mask, text), special=True, special_in_text=True)
    if model.context and len(ids) > model.context:
        raise ConjureError(
            f"this model reads at most {model.context} tokens, the text has {len(ids)}",
            hint="give it the paragraph around the gap",
        )
    return ids


def _answer(model: LanguageModel, text: str, found: Filling) -> dict[str, Any]:
    words = [model.tokenizer.token(index) for index in found.fillers]
    made, rest = "", text
    for word in words:
        gap = GAP.search(rest)
        assert gap is not None, "as many fillers as gaps"
        before = rest[: gap.start()]
        made += before.rstrip() + word[2:] if word.startswith("##") else before + word.strip()
        rest = rest[gap.end() :]
    return {
        "text": made + rest, "fillers": [word.removeprefix("##").strip() for word in words], "ids": found.fillers,
        "score": math.exp(found.score), "logprobs": found.logprobs,
    }  # fmt: skip
