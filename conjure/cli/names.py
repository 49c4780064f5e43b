"""What the shell completes: names of models, data sets, recipes, tasks. Looked up only when a key is pressed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def models() -> Iterable[str]:
    from conjure.core import shelf

    return (info.name for info in shelf.installed())


def sets() -> Iterable[str]:
    from conjure.data.catalogue import CATALOGUE

    return (entry.name for entry in CATALOGUE)


def recipes() -> Iterable[str]:
    from conjure.train.recipe import available

    return available()


def tasks() -> Iterable[str]:
    from conjure.tasks.table import everything

    return (edge.task for edge in everything())


def kinds() -> Iterable[str]:
    from conjure.tasks import table

    return table.kinds()


def completing(names: Callable[[], Iterable[str]]) -> Callable[[Any, Any, str], list[str]]:
    """For click's `shell_complete`."""
    return lambda ctx, param, incomplete: [name for name in names() if name.startswith(incomplete)]
