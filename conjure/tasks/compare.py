"""`compare`: the same prompt, seeds, size and budget through several systems, with what each of them took.

Each system runs in a process of its own (`python -m conjure.tasks.compare`, one job as JSON on stdin, events as JSON
lines on stdout, pictures as files), so that its peak of memory is its own and its end is not that of the others.

Legend: N pictures of a system, M reference pictures, F features.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from conjure import media
from conjure.core import shelf
from conjure.core.config import to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Warn
from conjure.core.provenance import digest
from conjure.core.version import __version__
from conjure.media.image import Image
from conjure.media.image import decode as read_picture
from conjure.metrics.frechet import frechet_distance
from conjure.metrics.kernel_distance import kernel_distance
from conjure.metrics.manifold import precision, recall
from conjure.metrics.measured import FEWEST, Measured
from conjure.metrics.neighbours import distances
from conjure.tasks.make import Plan, finished, forecast, plan, record, weights
from conjure.tasks.options import knobs
from conjure.tasks.table import resolve

Tell = Callable[[Event], None]
STEPS = "steps"
FORMAT = "conjure-comparison-v1"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What every system is asked for. `inputs` are texts, or names of files."""

    inputs: tuple[str, ...]
    seed: int = 0
    count: int = 4
    evaluations: int = 0
    """Most evaluations of the network for one picture; 0 leaves each system its own."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Knobs (size, steps, guidance, ...) as on the command line, for the systems that have them."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one system: plain facts, and its pictures as PNG with their records, or an error."""

    name: str
    facts: Mapping[str, Any]
    pictures: tuple[bytes, ...] = ()
    error: str = ""
    hint: str = ""
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All systems with the same wish."""

    wish: Wish
    outcomes: tuple[Outcome, ...]
    features: str
    """How the features behind the metrics were made."""

    @property
    def seeds(self) -> range:
        return range(self.wish.seed, self.wish.seed + self.wish.count)

    def plain(self) -> dict[str, Any]:
        """For the JSON beside the page: everything but the pictures, which stand by their digests."""
        systems = [
            {
                "name": each.name, "error": each.error, "hint": each.hint, **each.facts, "metrics": dict(each.metrics),
                "pictures": [digest(picture) for picture in each.pictures],
            }
            for each in self.outcomes
        ]  # fmt: skip
        machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
        return {"format": FORMAT, "version": __version__, **asdict(self.wish), "seeds": list(self.seeds),
                "machine": machine, "features": self.features, "systems": systems}  # fmt: skip


Run = Callable[[Wish, str, Tell], Outcome]
Extract = Callable[[np.ndarray], np.ndarray]
"""uint8 [N, H, W, C] -> float32 [N, F]"""


def compare(
    wish: Wish,
    models: Sequence[str],
    *,
    features: Extract | None = None,
    protocol: str = "",
    reference_MF: np.ndarray | None = None,
    on_event: Tell | None = None,
    run: Run | None = None,
) -> Comparison:
    """The pictures and the figures of all `models`; one that fails is kept with its error, and the others go on.

    `features` and their `protocol` line are what metrics are computed from (`pixel_features` unless given), against
    `reference_MF` where that is given. Unknown models, and none that made a picture, are a `ConjureError`.
    """
    if not models:
        raise ConjureError("nothing to compare", hint="name the systems: --models starter/pictograms,./folder")
    if len(set(models)) < len(models):
        raise ConjureError(f"a system is named twice: {', '.join(models)}", hint="name each of them once")
    for name in models:
        shelf.find(name)
    tell = on_event or (lambda event: None)
    extract, said = (features, protocol) if features is not None else (pixel_features, PIXELS)
    outcomes = []
    for place, name in enumerate(models):
        tell(Progress(place, len(models), "system", name))
        came = (run or apart)(wish, name, tell)
        if came.error:
            tell(Warn(f"{name}: {came.error}"))
        outcomes.append(replace(came, metrics=measured(came, wish, extract, said, reference_MF)))
    tell(Progress(len(models), len(models), "system", "done"))
    if all(each.error for each in outcomes):
        raise ConjureError(f"no system made a picture. {outcomes[0].name}: {outcomes[0].error}", hint=outcomes[0].hint)
    return Comparison(wish=wish, outcomes=tuple(outcomes), features=said)


# -- metrics: functions of features ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a metric may look at. Whoever has embeddings of text and pictures adds them here, and a line to METRICS."""

    inputs: tuple[str, ...]
    features_NF: np.ndarray
    reference_MF: np.ndarray | None = None


def spread(sample: Sample) -> Measured | None:
    """How far apart pictures of different seeds are; near 0 where the system draws the same thing again and again."""
    n = len(sample.features_NF)
    if n < 2:
        return None
    apart = distances(sample.features_NF, sample.features_NF)[np.triu_indices(n, 1)]
    said = f"mean distance of the features of two seeds, {len(apart)} pairs, from the nearest to the farthest pair"
    return Measured(value=float(apart.mean()), low=float(apart.min()), high=float(apart.max()), n=n, protocol=said)


def _against(metric: Callable[[np.ndarray, np.ndarray], Measured]) -> Callable[[Sample], Measured | None]:
    """A metric of two sets, where there are two sets to compare."""

    def function(sample: Sample) -> Measured | None:
        if sample.reference_MF is None or len(sample.features_NF) < FEWEST:
            return None
        return metric(sample.features_NF, sample.reference_MF)

    return function


METRICS: Mapping[str, Callable[[Sample], Measured | None]] = {
    "spread": spread,
    "frechet": _against(frechet_distance),
    "kernel": _against(kernel_distance),
    "precision": _against(precision),
    "recall": _against(recall),
}
"""Name in the table -> function of a sample, None where it has nothing to say."""

PIXELS = "features are pixels, RGB at 16x16 (box filter), in 0..1"


def pixel_features(images_NHWC: np.ndarray) -> np.ndarray:
    """Small pictures as they are: float32 [N, 768]. Enough to see whether two of them are the same."""
    from PIL import Image as Pillow

    rows = [Pillow.fromarray(image).convert("RGB").resize((16, 16), Pillow.Resampling.BOX) for image in images_NHWC]
    return np.stack([np.asarray(row, np.float32).ravel() / 255 for row in rows])


def measured(
    came: Outcome, wish: Wish, extract: Extract, protocol: str, reference_MF: np.ndarray | None
) -> dict[str, dict[str, Any]]:
    """The figures of one system, by name."""
    if not came.pictures:
        return {}
    pictures = [read_picture(data, came.name).rgb() for data in came.pictures]
    features_NF = np.concatenate([extract(picture[None]) for picture in pictures])
    sample = Sample(inputs=wish.inputs, features_NF=features_NF, reference_MF=reference_MF)
    found = {name: metric(sample) for name, metric in METRICS.items()}
    return {name: value.figure(protocol) for name, value in found.items() if value is not None}


# -- one system ------------------------------------------------------------------------------------------------------


def apart(wish: Wish, model: str, tell: Tell) -> Outcome:
    """One system in a process of its own; whatever ends that process is the outcome's error."""
    with tempfile.TemporaryDirectory(prefix="conjure-") as folder:
        job = {"wish": asdict(wish), "model": model, "folder": folder}
        # With -P no file of the current folder is taken for a module, so the process is told where this package lies.
        command = [sys.executable, "-P", "-m", "conjure.tasks.compare"]
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        with open(Path(folder, "stderr"), "w+b") as complaints:
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, env=env
            )
            try:
                last = _followed(child, job, tell)
                code = child.wait()
            except BaseException:
                child.kill()
                child.wait()
                raise
            said = _tail(complaints)
        if not last:
            return Outcome(name=model, facts=_about(model), error=_ended(code, said))
        return _outcome(model, last, Path(folder))


def _tail(stream: IO[bytes]) -> list[str]:
    """The last lines that a process wrote to its stderr."""
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - 2000))
    return stream.read().decode("utf-8", "replace").strip().splitlines()


def _followed(child: subprocess.Popen[bytes], job: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Hands over the job and passes on the events; returns the last line, empty where it did not come to one."""
    assert child.stdin is not None and child.stdout is not None
    with contextlib.suppress(BrokenPipeError), child.stdin:  # a process that died at once says so by its status
        child.stdin.write(json.dumps(job).encode())
    with child.stdout:
        for line in child.stdout:
            came = json.loads(line)
            if "progress" in came:
                tell(Progress(*came["progress"]))
            elif "warn" in came:
                tell(Warn(f"{job['model']}: {came['warn']}"))
            else:
                return came
    return {}


def _outcome(model: str, last: Mapping[str, Any], folder: Path) -> Outcome:
    about = {**_about(model), **last.get("facts", {})}
    if "error" in last:
        return Outcome(name=model, facts=about, error=last["error"], hint=last["hint"])
    pictures = tuple((folder / name).read_bytes() for name in last["pictures"])
    return Outcome(name=model, facts=about, pictures=pictures)


def _ended(code: int, said: Sequence[str]) -> str:
    """Why a process ended that said nothing about it."""
    if code == -signal.SIGKILL:
        return "its process was killed: most likely there was not enough memory"
    reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"its process ended with {reason}" + (f": {said[-1]}" if said else "")


def here(wish: Wish, model: str, tell: Tell) -> Outcome:
    """One system in this process, whose peak of memory may be older than the system."""
    with tempfile.TemporaryDirectory(prefix="conjure-") as folder:
        try:
            last = drawn(wish, model, Path(folder), tell)
        except ConjureError as error:
            last = {"error": error.message, "hint": error.hint}
        return _outcome(model, last, Path(folder))


def drawn(wish: Wish, model: str, folder: Path, tell: Tell) -> dict[str, Any]:
    """The pictures of one system as files in `folder`, and what is known about their making."""
    planned, notes = settled(wish, model)
    (edge,) = planned.edges
    began = time.perf_counter()
    task = resolve(edge).load(shelf.find(model))
    loaded = time.perf_counter()
    given = [each.medium for each in planned.inputs]
    result = finished(task.generate(given, planned.options, list(planned.seeds)), tell)
    done = time.perf_counter()
    names = []
    for index, medium in enumerate(result.media):
        assert isinstance(medium, Image)
        names.append(f"{index}.png")
        (folder / names[-1]).write_bytes(media.encode(medium, ".png", record(planned, index)))
    own = dict(result.facts)
    facts = {
        "task": edge.task, "options": to_dict(planned.options), "weights": weights(model), "notes": notes,
        "evaluations": own.get("evaluations"), "seconds": round(done - loaded, 3),
        "load_seconds": round(loaded - began, 3), "peak_memory_bytes": _peak(),
        "sizes": [[medium.width, medium.height] for medium in result.media if isinstance(medium, Image)],
    }  # fmt: skip
    return {"facts": facts, "pictures": names}


def settled(wish: Wish, model: str) -> tuple[Plan, list[str]]:
    """The plan for one system, and what of the wish it cannot do."""

    def planned(**options: Any) -> Plan:
        return plan(*wish.inputs, to="image", model=model, seed=wish.seed, count=wish.count, **options)

    first = planned()
    if len(first.edges) != 1:
        stations = " -> ".join([first.edges[0].inputs[0], *(edge.output for edge in first.edges)])
        raise ConjureError(f"it does not lead there, only {stations}", hint="choose a model that makes pictures")
    known = {knob.name for knob in knobs(resolve(first.edges[0]).Options)}
    given = {name: value for name, value in wish.options.items() if name in known}
    notes = [f"has no --{name.replace('_', '-')}" for name in wish.options if name not in known]
    if not wish.evaluations:
        return planned(**given), notes
    if STEPS not in known:
        return planned(**given), [*notes, "has no --steps: the budget could not be set"]
    if "evaluations" not in forecast(planned(**{**given, STEPS: 1})):
        notes.append("makes no forecast: the budget went into --steps")
        return planned(**{**given, STEPS: wish.evaluations}), notes
    costs = _Costs(lambda steps: forecast(planned(**{**given, STEPS: steps}))["evaluations"], wish.evaluations)
    steps = bisect_right(costs, wish.evaluations)
    if steps == 0:
        notes.append(f"one step takes {costs[0]} evaluations, over the budget of {wish.evaluations}")
    return planned(**{**given, STEPS: max(1, steps)}), notes


@dataclass(frozen=True)
class _Costs(Sequence[int]):
    """What 1, 2, 3, ... steps cost, asked for when looked at; more steps than evaluations there are never."""

    of: Callable[[int], int]
    most: int

    def __len__(self) -> int:
        return self.most

    def __getitem__(self, index: Any) -> Any:
        return self.of(int(index) + 1)


def _peak() -> int:
    """The most memory that this process ever held. On Linux `ru_maxrss` begins with its parent's, VmHWM does not."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _about(model: str) -> dict[str, Any]:
    info = shelf.info(model)
    return {"parameters": info.parameters, "file_bytes": info.bytes, "licence": info.licence, "summary": info.summary}


# -- the process of one system ---------------------------------------------------------------------------------------


def _work() -> None:
    """Reads one job from stdin and does it, one JSON object a line. What libraries print on stdout goes to stderr."""
    job = json.loads(sys.stdin.read())
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(what: Mapping[str, Any]) -> None:
        own.write(json.dumps(what) + "\n")
        own.flush()

    def tell(event: Event) -> None:
        if isinstance(event, Progress):
            say({"progress": [event.step, event.total, event.unit, event.note]})
        elif isinstance(event, Warn):
            say({"warn": event.text})

    wish = Wish(**{**job["wish"], "inputs": tuple(job["wish"]["inputs"])})
    with own:
        try:
            say(drawn(wish, job["model"], Path(job["folder"]), tell))
        except ConjureError as error:
            say({"error": error.message, "hint": error.hint})


if __name__ == "__main__":
    _work()
