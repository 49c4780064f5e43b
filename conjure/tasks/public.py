"""What the tasks of public language models share: the model, in the type of weights that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from conjure.core.errors import ConjureError
from conjure.core.events import Event
from conjure.media.text import Text
from conjure.models.language import LanguageModel, Weights
from conjure.models.transformer import Transformer
from conjure.tasks.text_evaluation import published

WEIGHTS: Any = Field(default=None, description="the type in which matrices are held (none: fp32): smaller is faster")
"""The option `weights` of each of these tasks."""
CONTEXT = 1024
"""Tokens of the windows in which texts are measured, where a model has no longest."""


class PublicTask:
    """A task of the model at `path`, which is read when it is first needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: tuple[Weights | None, LanguageModel] | None = None

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls(folder)

    def model(self, weights: Weights | None = None) -> LanguageModel:
        """One at a time is kept."""
        if self._held is None or self._held[0] != weights:
            from conjure.tasks.load import load

            self._held = None
            found = load(self.path, weights=weights)
            assert isinstance(found, LanguageModel)
            self._held = weights, found
        return self._held[1]

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Bits per byte and perplexity of the texts (sets or files) that are given: public models publish no figures in
        a form that could be measured again."""
        model = self.model()
        if data and isinstance(model.network, Transformer):
            return published(model.network, model.tokenizer, (), model.context or CONTEXT, data, on_progress)
        raise ConjureError(
            f"{self.path.name}: a public model has no published figures of ours",
            hint="measure a decoder on texts, --data FILE, or any by a suite: conjure eval MODEL --suite NAME",
        )


def parted(inputs: Sequence[Text], verb: str) -> tuple[str, str]:
    """(the text, what to do with it): of several inputs the last is the instruction if it begins with the verb."""
    texts = [each.text for each in inputs]
    told = texts.pop() if len(texts) > 1 and texts[-1].strip().casefold().startswith(verb) else ""
    return "\n\n".join(texts), told.strip()
