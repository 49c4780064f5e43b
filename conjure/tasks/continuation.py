"""text -> text by a public decoder: writes on from where a text stops."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core import shelf
from conjure.core.device import read_rate
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Result
from conjure.media.text import Text
from conjure.tasks.inputs import LOCAL
from conjure.tasks.public import PublicTask
from conjure.tasks.writing import WritingOptions, constrained, knobs, told, unfinished, write


@dataclass(frozen=True, kw_only=True)
class ContinuationOptions(WritingOptions):
    schema: str = Field(
        default="", json_schema_extra=LOCAL, description="a file with the JSON schema that the new text keeps to"
    )
    regex: str = Field(default="", description="a regular expression that the new text matches as a whole")
    grammar: str = Field(
        default="", json_schema_extra=LOCAL, description="a file with a grammar (Lark) that the new text keeps to"
    )


class Continuation(PublicTask):
    Options = ContinuationOptions

    @staticmethod
    def forecast(folder: Path, options: ContinuationOptions, count: int) -> dict[str, Any]:
        """`seconds`: every token reads every weight once, as fast as memory gives them."""
        return {"seconds": (options.tokens or 200) * shelf.info(folder).bytes / read_rate()}

    def generate(self, inputs: Sequence[Text], options: ContinuationOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One text per seed, the prompt included; a single one comes piece by piece."""
        began = time.perf_counter()
        prompt = "\n\n".join(each.text for each in inputs)
        if not prompt.strip():
            raise ConjureError("expected a prompt, got an empty text", hint='for example: conjure make "The sea was"')
        model = self.model(options.weights)
        limits = constrained(
            model, len(seeds), schema=options.schema, regex=options.regex, grammar=options.grammar
        )  # fmt: skip
        if len(seeds) == 1:
            yield Delta(prompt)
        ids = model.tokenizer.encode(prompt, special=True)
        made = yield from write(
            model, ids, seeds, knobs(options), constraints=limits, draft=options.draft,
            prompt_cache=options.prompt_cache, held=options.weights or "",
        )  # fmt: skip
        yield from unfinished(limits, made)
        seconds = time.perf_counter() - began
        yield Result(
            [Text(prompt + each[0].text) for each in made],
            {"results": [told(model, each, options) for each in made], "seconds": round(seconds, 3)},
        )
