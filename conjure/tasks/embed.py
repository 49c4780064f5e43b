"""text -> text: vectors of texts, and how alike the texts are."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result, Warn
from conjure.media.text import Text
from conjure.models.language import Weights
from conjure.tasks.public import WEIGHTS, PublicTask

AT_ONCE = 256
"""Texts between two reports of progress."""
SHOWN = 40
"""Letters of a text in the table."""


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    weights: Weights | None = WEIGHTS
    lines: bool = Field(default=False, description="each line that is not blank is a text of its own")


class Embed(PublicTask):
    Options = EmbedOptions

    def generate(self, inputs: Sequence[Text], options: EmbedOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One text: its vector as JSON; several: the table of their cosines. The JSON has both."""
        began = time.perf_counter()
        texts = [each.text for each in inputs]
        if options.lines:
            texts = [line for text in texts for line in text.splitlines()]
        texts = [text for text in texts if text.strip()]
        if not texts:
            raise ConjureError("expected a text, got an empty one", hint="name a file, or write the text")
        model = self.model(options.weights)
        most = model.context
        if most and any(len(model.tokenizer.encode(text, special=True)) > most for text in texts):
            yield Warn(f"this model reads {most} tokens: of longer texts the beginning counts; --lines takes each line")
        parts = []
        for start in range(0, len(texts), AT_ONCE):
            parts.append(model.embed(texts[start : start + AT_ONCE]))
            yield Progress(min(start + AT_ONCE, len(texts)), len(texts), "text")
        vectors_ND = torch.cat(parts)
        unit_ND = F.normalize(vectors_ND, dim=-1)
        like_NN = unit_ND @ unit_ND.T if len(texts) <= AT_ONCE else None
        found = {"texts": texts, "vectors": vectors_ND.tolist()}
        if like_NN is not None and len(texts) > 1:
            found["similarities"] = like_NN.tolist()
        made = _table(texts, like_NN) if like_NN is not None and len(texts) > 1 else _lines(vectors_ND)
        facts = {"results": [found] * len(seeds), "seconds": round(time.perf_counter() - began, 3)}
        yield Result([Text(made)] * len(seeds), facts)


def _lines(vectors_ND: Tensor) -> str:
    """A JSON list on each line."""
    return "\n".join(json.dumps(vector) for vector in vectors_ND.tolist())


def _table(texts: Sequence[str], like_NN: Tensor) -> str:
    width = max(6, len(str(len(texts))))
    head = " ".join(f"{n:>{width}}" for n in range(1, len(texts) + 1))
    lines = [f"{'':{len(str(len(texts)))}} {head}"]
    for n, (text, like_N) in enumerate(zip(texts, like_NN.tolist(), strict=True), start=1):
        short = " ".join(text.split())
        short = short if len(short) <= SHOWN else f"{short[: SHOWN - 3]}..."
        cells = " ".join(f"{value:>{width}.3f}" for value in like_N)
        lines.append(f"{n:>{len(str(len(texts)))}} {cells}  {short}")
    return "\n".join(lines)
