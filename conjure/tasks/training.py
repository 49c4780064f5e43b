"""`train` and `evaluate`: a recipe's name leads through the table to the task, which the one loop then trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conjure.core.errors import ConjureError
from conjure.core.events import Event
from conjure.tasks import table
from conjure.tasks.make import load

if TYPE_CHECKING:
    from conjure.core.protocol import Trainable
    from conjure.train.audit import Finding
    from conjure.train.recipe import Recipe


def train(
    recipe: str | Path, *assignments: str, folder: str | Path | None = None, resume: bool = False
) -> dict[str, float]:
    """Trains a recipe (a name that `conjure recipes` lists, or a file) and saves the model in `folder`.

    `assignments` are "train.steps=100" and the like. The folder is runs/NAME unless given; with `resume` a run that was
    stopped goes on. Returns the last loss and the validation figures.
    """
    from conjure.tasks.cards import write_card
    from conjure.train.loop import train as loop
    from conjure.train.recipe import find, header

    read, task = prepare(recipe, assignments)
    place = Path(folder) if folder is not None else default_folder(recipe)
    figures = loop(task, read.train, place, resume=resume, seed=read.seed, recipe=read.settings())
    if (place / "config.json").is_file():  # of several processes only the first one saves
        file = find(recipe)
        write_card(place, file, header(file), task.sets, figures)
        if hasattr(task, "memorisation_sets"):
            check_copies(place)
    return figures


def check_copies(
    model: str | Path, on_event: Callable[[Event], None] | None = None
) -> Mapping[str, Mapping[str, Any]]:
    """Whether a generator copies its training pictures; writes the sheet and the paragraph into its folder."""
    from conjure.core.shelf import find
    from conjure.tasks.memorisation import write

    task = load(model)
    if not hasattr(task, "memorisation_sets"):
        raise ConjureError(f"{model}: this model draws nothing that could be a copy")
    return write(find(model), task.memorisation_sets(on_event))  # type: ignore[attr-defined]


def check(recipe: str | Path, *assignments: str) -> list[Finding]:
    """The audit of a run before it costs anything: what it reads, whether its gradients, its resuming and its causality
    hold, and a forecast of memory, time and size."""
    from conjure.train.audit import audit

    read, task = prepare(recipe, assignments)
    return audit(task, read.train, seed=read.seed)


def prepare(recipe: str | Path, assignments: Sequence[str] = ()) -> tuple[Recipe, Trainable]:
    """The recipe, checked to its last key, and its task with a new network."""
    from conjure.train.recipe import load_recipe

    read = load_recipe(recipe, assignments)
    kind = table.resolve(table.named(read.task))
    if not hasattr(kind, "create"):
        raise ConjureError(f"{recipe}: the task {read.task} cannot be trained")
    return read, kind.create(*read.resolve(kind, str(recipe)), read.seed)


def default_folder(recipe: str | Path) -> Path:
    """Where a run goes unless told otherwise: runs/NAME."""
    return Path("runs") / Path(recipe).stem


def evaluate(
    model: str | Path, data: Sequence[str] = (), on_event: Callable[[Event], None] | None = None
) -> Mapping[str, Mapping[str, Any]]:
    """The published figures of a model, measured again: name -> {"value", "low", "high", "n", "protocol"}."""
    return load(model).evaluate_published(list(data), on_event)
