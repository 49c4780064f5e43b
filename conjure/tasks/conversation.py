"""text -> text by a public model: answers, or does as it is told, through the chat template that came with the model.

An encoder-decoder has no template: it was taught to do what its source says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core.errors import ConjureError
from conjure.core.events import Event, Result
from conjure.media.text import Text
from conjure.tasks.inputs import LOCAL
from conjure.tasks.public import PublicTask
from conjure.tasks.writing import WritingOptions, constrained, instructed, knobs, told, unfinished, write


@dataclass(frozen=True, kw_only=True)
class ConversationOptions(WritingOptions):
    system: str = Field(default="", description="what the system turn says: how to behave")
    schema: str = Field(
        default="", json_schema_extra=LOCAL, description="a file with the JSON schema that the answer keeps to"
    )
    regex: str = Field(default="", description="a regular expression that the answer matches as a whole")
    grammar: str = Field(
        default="", json_schema_extra=LOCAL, description="a file with a grammar (Lark) that the answer keeps to"
    )


class Conversation(PublicTask):
    Options = ConversationOptions

    def generate(self, inputs: Sequence[Text], options: ConversationOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One answer per seed; a single one comes piece by piece. Several inputs are one message."""
        began = time.perf_counter()
        prompt = "\n\n".join(each.text for each in inputs)
        if not prompt.strip():
            raise ConjureError("expected a question, got an empty text", hint='for example: "What is 3 plus 4?"')
        model = self.model(options.weights)
        ids = instructed(model, "", prompt, options.system)
        limits = constrained(
            model, len(seeds), schema=options.schema, regex=options.regex, grammar=options.grammar
        )  # fmt: skip
        made = yield from write(
            model, ids, seeds, knobs(options), constraints=limits, draft=options.draft,
            prompt_cache=options.prompt_cache, held=options.weights or "",
        )  # fmt: skip
        yield from unfinished(limits, made)
        seconds = time.perf_counter() - began
        yield Result(
            [Text(each[0].text) for each in made],
            {"results": [told(model, each, options) for each in made], "seconds": round(seconds, 3)},
        )
