"""Trainings as processes of their own, each in a folder below one place: any page can begin, watch, stop and go on with
them, also that of a server that was started later. What a run is, its folder says."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conjure.core import shelf
from conjure.core.config import load_yaml
from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic
from conjure.data import fetch
from conjure.tasks import table
from conjure.train import recipe as book

STARTING, RUNNING, STOPPED, DONE, FAILED = "starting", "running", "stopped", "done", "failed"
FACTS, LOG = "run.json", "run.log"
POLITE = "5"
"""The niceness of a training: the page goes on answering."""
TAIL = 65536  # bytes of a log or of metrics that are looked at, at most
METRICS = 4 << 20
MEANT = {"digits": "mnist", "scenes": "noto_emoji"}
"""What recipes call a source -> the data set behind it."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
_STEP = re.compile(r"step (\d+)/(\d+)")
_LEFT = re.compile(r"([\d hmins]+) left\s*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was begun: written into the folder before the process starts, and again with its number."""

    recipe: str
    assignments: tuple[str, ...] = ()
    pid: int = 0
    began: float = 0.0
    used: bool = False
    """Whether the result was taken among the models."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How a run stands. `left` and `said` are words, `losses` are (step, value), `figures` name -> the same."""

    name: str
    facts: Facts
    state: str
    step: int = 0
    steps: int = 0
    left: str = ""
    said: str = ""
    losses: tuple[tuple[int, float], ...] = ()
    figures: Mapping[str, tuple[tuple[int, float], ...]]


class Runs:
    """The runs below one folder."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def names(self) -> list[str]:
        """The latest first."""
        if not self.place.is_dir():
            return []
        found = [folder for folder in self.place.iterdir() if (folder / FACTS).is_file()]
        return [folder.name for folder in sorted(found, key=lambda each: -(each / FACTS).stat().st_mtime)]

    def folder(self, name: str) -> Path:
        """The folder of a run; `ConjureError` for what is no plain name."""
        if not _NAME.fullmatch(name):
            raise ConjureError(f"expected a name for the folder, got {name!r}",
                               hint="letters, digits, - and _: my-digits")  # fmt: skip
        return self.place / name

    def begin(self, name: str, recipe: str, assignments: Sequence[str]) -> None:
        """Starts a training in a new folder. Whatever stands in its way is a `ConjureError`."""
        folder = self.folder(name)
        if recipe not in book.available():  # a name, never a path
            raise ConjureError(f"there is no recipe {recipe!r}", hint="`conjure recipes` lists them")
        book.load_recipe(recipe, assignments)
        if missing := lacking(needed(recipe, assignments)):
            raise ConjureError(untold(missing))
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            raise ConjureError(f"{name}: there is such a folder already", hint="choose another name") from None
        except OSError as error:
            raise ConjureError(f"{folder}: could not be made: {error.strerror}", hint="choose another place") from None
        self._start(name, Facts(recipe=recipe, assignments=tuple(assignments)), [])

    def resume(self, name: str) -> None:
        """Goes on from the newest checkpoint."""
        if self.running(name):
            raise ConjureError(f"{name}: it is running")
        self._start(name, self.facts(name), ["--resume"])

    def stop(self, name: str) -> None:
        """Ends a run after its step, with a checkpoint."""
        facts = self.facts(name)
        if self.running(name):
            os.kill(facts.pid, signal.SIGINT)

    def facts(self, name: str) -> Facts:
        try:
            given = json.loads((self.folder(name) / FACTS).read_bytes())
            return Facts(**{**given, "assignments": tuple(given["assignments"])})
        except (OSError, ValueError, TypeError, KeyError):
            raise ConjureError(f"{name}: there is no such run in {self.place}") from None

    def used(self, name: str) -> None:
        """Remembers that the result is among the models."""
        self._write(name, Facts(**{**asdict(self.facts(name)), "used": True}))

    def running(self, name: str) -> bool:
        """Whether its process lives."""
        child = self._children.get(name)
        if child is not None:
            return child.poll() is None
        return _alive(self.facts(name).pid, str(self.folder(name)))

    def seen(self, name: str) -> Seen:
        """How the run stands now, by its folder alone."""
        folder, facts = self.folder(name), self.facts(name)
        log = _tail(folder / LOG)
        steps = _STEP.findall(log)
        losses, figures = measures(folder / "metrics.jsonl")
        step, total = (int(steps[-1][0]), int(steps[-1][1])) if steps else (0, 0)
        if self.running(name):
            left = _LEFT.findall(log)
            return Seen(name=name, facts=facts, state=RUNNING if losses else STARTING, step=step, steps=total,
                        left=left[-1].strip() if left else "", losses=losses, figures=figures,
                        said=_last(log))  # fmt: skip
        if finished(folder):
            state, said = DONE, ""
        elif any((folder / "checkpoints").glob("step-*")) and ("stopped at step" in log or "interrupted" in log):
            state, said = STOPPED, f"Step {step} is saved." if step else "What was done is saved."
        else:
            state, said = FAILED, _last(log) or "Its process ended and said nothing."
        return Seen(name=name, facts=facts, state=state, step=step, steps=total, losses=losses, figures=figures,
                    said=said)  # fmt: skip

    def resumable(self, name: str) -> bool:
        return not finished(self.folder(name)) and any((self.folder(name) / "checkpoints").glob("step-*"))

    def previews(self, name: str, most: int = 8) -> list[tuple[int, Path]]:
        """(step, file) of what the run drew or wrote on its way, the latest step first."""
        found = sorted((self.folder(name) / "previews").glob("step-*/*"), reverse=True)
        return [(int(path.parent.name.partition("-")[2]), path) for path in found if path.is_file()][:most]

    def _start(self, name: str, facts: Facts, more: Sequence[str]) -> None:
        folder = self.folder(name)
        polite = ["nice", "-n", POLITE] if shutil.which("nice") else []
        command = [*polite, sys.executable, "-P", "-m", "conjure", "train", facts.recipe, *facts.assignments,
                   "-o", str(folder), *more]  # fmt: skip
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}
        self._write(name, facts)
        with open(folder / LOG, "ab") as log:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                                     cwd=self.place, start_new_session=True)  # fmt: skip
        self._children[name] = child
        self._write(name, Facts(**{**asdict(facts), "pid": child.pid, "began": time.time()}))

    def _write(self, name: str, facts: Facts) -> None:
        write_atomic(self.folder(name) / FACTS, (json.dumps(asdict(facts), indent=1) + "\n").encode())


def models_dir() -> Path:
    """Where trainings go: `CONJURE_MODELS`, else the platform's folder for what programs keep for a user."""
    if chosen := os.environ.get("CONJURE_MODELS", "").strip():
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "conjure" / "models"
    kept = os.environ.get("XDG_DATA_HOME", "").strip()
    return (Path(kept) if kept.startswith("/") else Path.home() / ".local" / "share") / "conjure" / "models"


def finished(folder: Path) -> bool:
    """Whether a folder holds a model."""
    try:
        return shelf.find(folder) == folder
    except ConjureError:
        return False


def needed(recipe: str, assignments: Sequence[str] = ()) -> tuple[str, ...]:
    """The data sets that a recipe reads."""
    read = book.load_recipe(recipe, assignments)
    named = [*_listed(read.data.get("sets")), *_listed(read.data.get("books")), *_listed(read.data.get("set")),
             *_listed(read.data.get("source"))]  # fmt: skip
    if not named:
        own = getattr(table.resolve(table.named(read.task)), "sets", ())
        named = list(own) if isinstance(own, tuple) else []
    return tuple(dict.fromkeys(MEANT.get(name, name.partition("_jpeg")[0]) for name in named))


def chosen(recipe: str) -> tuple[str, ...] | None:
    """The data sets that a recipe lists and that others may take the place of; None where it lists none."""
    sets = load_yaml(book.available()[recipe]).get("data", {}).get("sets")
    return tuple(sets) if isinstance(sets, list | tuple) else None


def lacking(names: Sequence[str]) -> list[str]:
    """Those that are not on this machine."""
    return [name for name in names if fetch.available(name) is None]


def untold(missing: Sequence[str]) -> str:
    """What to do about missing data, in words."""
    get = " && ".join(f"conjure data get {name}" for name in missing)
    where = os.environ.get("CONJURE_DATA", "").strip()
    said = f"CONJURE_DATA is {where}" if where else "CONJURE_DATA is not set"
    return (f"Not on this machine: {', '.join(missing)}. Fetch it with `{get}`, or start the studio with CONJURE_DATA "
            f"naming the folder that holds it ({said}).")  # fmt: skip


def measures(path: Path) -> tuple[tuple[tuple[int, float], ...], dict[str, tuple[tuple[int, float], ...]]]:
    """(losses, evaluation figures by name) of a file of metrics; lines that are not whole are passed over."""
    losses: list[tuple[int, float]] = []
    figures: dict[str, list[tuple[int, float]]] = {}
    if not path.is_file() or path.stat().st_size > METRICS:
        return (), {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values: dict[str, Any] = json.loads(line)
            step = int(values["step"])
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(values.get("loss"), float | int):
            losses.append((step, float(values["loss"])))
        for name, value in values.items():
            if name.startswith("evaluation/") and isinstance(value, float | int):
                figures.setdefault(name.partition("/")[2], []).append((step, float(value)))
    return tuple(losses), {name: tuple(points) for name, points in figures.items()}


def _listed(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(each) for each in value] if isinstance(value, list | tuple) else []


def _tail(path: Path) -> str:
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read().decode("utf-8", "replace")


def _last(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    wrong = [line for line in lines[-12:] if line.startswith(("error:", "hint:"))]
    return " ".join(wrong) or (lines[-1] if lines else "")


def _alive(pid: int, folder: str) -> bool:
    """Whether that process lives and is the training of this folder: numbers of processes come again."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's now
        return False
    said = Path(f"/proc/{pid}/cmdline")
    return folder.encode() in said.read_bytes() if said.is_file() else True
