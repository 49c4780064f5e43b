"""conjure: any medium in, any medium out, on your own machine.

    import conjure
    conjure.make("a red apple", to="image", seed=1).save("a.png")

Names load when they are first used, so `import conjure` costs next to nothing and never imports torch.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import conjure.train as _train
from conjure.core.version import __version__

__all__ = [
    "ConjureError",
    "Image",
    "Text",
    "__version__",
    "load",
    "make",
    "plan",
    "read",
    "remake",
    "train",
    "write",
]

_HOMES = {
    "ConjureError": "conjure.core.errors",
    "Image": "conjure.media.image",
    "Text": "conjure.media.text",
    "load": "conjure.tasks.load",
    "make": "conjure.tasks.make",
    "plan": "conjure.tasks.make",
    "read": "conjure.media",
    "remake": "conjure.tasks.remake",
    "write": "conjure.media",
}

if TYPE_CHECKING:
    from conjure.core.errors import ConjureError
    from conjure.media import read, write
    from conjure.media.image import Image
    from conjure.media.text import Text
    from conjure.tasks.load import load
    from conjure.tasks.make import make, plan
    from conjure.tasks.remake import remake
    from conjure.tasks.training import train


class _Room(ModuleType):
    """The room `conjure.train`, which is also the verb: a package and a function share the name, and whichever of
    them were bound last would hide the other. So the room can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return importlib.import_module("conjure.tasks.training").train(*args, **kwargs)


setattr(_train, "__class__", _Room)  # noqa: B010  (a plain assignment is refused by type checkers)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'conjure' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
