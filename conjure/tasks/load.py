"""`conjure.load`: a model by name, ready for use from Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from conjure.core import shelf
from conjure.core.errors import ConjureError
from conjure.tasks import make
from conjure.tasks.abilities import is_language_model

if TYPE_CHECKING:
    from conjure.core.protocol import Generative
    from conjure.models.language import LanguageModel, Weights


def load(name: str | Path, *, weights: Weights | None = None) -> LanguageModel | Generative:
    """A `LanguageModel` for what is one (a folder in the hub's layout, a GGUF file, a transformer of ours), for any
    other model the task it was made for, with `generate` and `evaluate_published`.

    `name` is `starter/NAME`, `org/name[@revision]`, a folder, or a GGUF file; `weights` ("fp32", "bf16", "int8",
    "int4") is the type in which a language model's matrices are held, to write faster.
    """
    path = shelf.find(name)
    if is_language_model(path):
        from conjure.models.language import LanguageModel

        return LanguageModel.load(shelf.gguf_file(path) or path, weights=weights)
    if weights is not None:
        raise ConjureError(f"{name}: only language models are held in {weights}", hint="leave weights out")
    return make.load(name)
