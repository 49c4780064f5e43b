"""Models that are loaded: those used last, within a budget of memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from conjure.core import shelf
from conjure.core.errors import ConjureError
from conjure.core.protocol import Generative
from conjure.core.shelf import ModelInfo
from conjure.serve.errors import ApiError
from conjure.serve.settings import Settings
from conjure.tasks.table import Edge, resolve

if TYPE_CHECKING:
    from conjure.serve.texts import Writer

T = TypeVar("T")
FRESH = 2.0  # seconds for which a list of the models on the disk holds good
FLOAT = 4  # bytes of a parameter once it is loaded


class Keeper:
    """Which models may be named, and which are in memory. `ready` is called by the worker's thread alone."""

    def __init__(self, settings: Settings) -> None:
        self._budget = settings.memory_bytes
        self._own = {folder.name: folder.absolute() for folder in settings.models}
        self._listed: tuple[float, dict[str, ModelInfo]] | None = None
        self._loaded: OrderedDict[tuple[Edge | None, str], tuple[Any, int]] = OrderedDict()

    def offered(self) -> dict[str, ModelInfo]:
        """All that a client may name: the models of this machine and the folders the server was given. Looked for on
        the disk at most every `FRESH` seconds."""
        listed, now = self._listed, time.monotonic()
        if listed is not None and now - listed[0] < FRESH:
            return listed[1]
        own = {name: shelf.info(folder) for name, folder in self._own.items() if folder.is_dir()}
        found = {info.name: info for info in shelf.installed()} | own
        self._listed = (now, found)
        return found

    def offer(self, folder: Path) -> str:
        """Takes the model in a folder in beside the others; the name by which clients find it."""
        self._own = {**self._own, folder.name: folder.absolute()}
        self.changed()
        return folder.name

    def changed(self) -> None:
        """A model came or went: the next one who asks sees it."""
        self._listed = None

    def path(self, name: str) -> str:
        """The name or folder that `make` takes for a model a client names; 404 for any other, a path above all."""
        if name in self._own:
            return str(self._own[name])
        if name not in self.offered():
            raise ApiError(404, f"there is no model {name!r} here; GET /v1/models lists them", param="model",
                           code="model_not_found")  # fmt: skip
        return name

    def ready(self, edge: Edge, model: str) -> Generative:
        """The task with its model loaded, after those used longest ago have made room for it."""
        if not model:
            return resolve(edge)()
        return self._held((edge, model), lambda: resolve(edge).load(Path(shelf.find(model))))

    def writer(self, model: str) -> Writer:
        """A language model with the engine in which all its texts are written."""
        from conjure.serve.texts import Writer
        from conjure.tasks.load import load

        def loaded() -> Writer:
            found = load(model)
            if not hasattr(found, "decoding"):
                raise ConjureError(f"{model} is no model of language", hint="GET /v1/models lists what each can")
            return Writer(found)  # type: ignore[arg-type]

        return self._held((None, model), loaded)

    def _held(self, key: tuple[Edge | None, str], make: Callable[[], T]) -> T:
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key][0]
        model = key[1]
        info = shelf.info(model)
        need = max(FLOAT * info.parameters, info.bytes)
        if need > self._budget:
            raise ConjureError(f"{model} takes {need >> 20:,} MiB, the server may use {self._budget >> 20:,}",
                               hint="start it with a larger --memory, or choose a smaller model")  # fmt: skip
        while sum(size for _, size in self._loaded.values()) + need > self._budget:
            idle = next((key for key, (held, _) in self._loaded.items() if not _busy(held)), None)
            if idle is None:
                raise ApiError(503, "the models in memory are all at work; ask again in a moment",
                               code="overloaded", headers={"Retry-After": "2"})  # fmt: skip
            del self._loaded[idle]
        made = make()
        self._loaded[key] = (made, need)
        return made

    @property
    def held(self) -> dict[str, int]:
        """Name of each model in memory -> bytes of its weights."""
        return {model: size for (_, model), (_, size) in list(self._loaded.items())}


def _busy(held: Any) -> bool:
    """Whether texts are being written by it."""
    engine = getattr(held, "engine", None)
    return engine is not None and engine.load != (0, 0)
