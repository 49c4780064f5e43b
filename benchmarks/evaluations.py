"""How near are a diffusion model's pictures to real ones, by sampler and network evaluations? A table and a curve.

Every setting draws the same classes from the same noise; the distance is Frechet's over the features of `conjure eval`,
to test pictures. The dashed line is as many training pictures at their place: what a perfect model would have.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.curves import Panel, Point, svg
from benchmarks.processes import tell
from benchmarks.report import heading, table
from benchmarks.sampling import Setting, settings
from conjure.core.errors import ConjureError
from conjure.core.shelf import find

if TYPE_CHECKING:
    import numpy as np

    from conjure.models.features import Extractor
    from conjure.tasks.pixel_diffusion import SamplePixels

SAMPLERS = ("euler", "heun", "dpmpp_2m", "unipc", "ddpm")
EVALUATIONS = (5, 10, 20, 50, 100)
LABELS = {
    "euler": "DDIM = Euler",
    "ddim": "DDIM",
    "heun": "Heun",
    "dpmpp_2m": "DPM++ 2M",
    "unipc": "UniPC",
    "ddpm": "DDPM = Euler ancestral",
    "euler_ancestral": "Euler ancestral",
}
"""What the legend says; `ddpm` and `euler_ancestral` are one algorithm, and on an ODE DDIM is Euler's method."""
PACKAGES = ("conjure", "torch", "numpy")
REAL = 2000  # test pictures


@dataclass(frozen=True)
class Distance:
    """With its 95 % interval, and seconds of drawing per picture."""

    value: float
    low: float
    high: float
    seconds: float


Found = dict[str, list[tuple[Setting, Distance]]]
"""By the model's name."""


@dataclass(frozen=True)
class Judge:
    """What pictures are held against."""

    extractor: Extractor
    real_NF: np.ndarray

    def __call__(self, made_NHWC: np.ndarray, seconds: float = 0.0) -> Distance:
        from conjure.metrics.frechet import frechet_distance

        found = frechet_distance(self.extractor(made_NHWC), self.real_NF)
        return Distance(found.value, found.low, found.high, seconds / len(made_NHWC))


def judge_of(task: SamplePixels) -> Judge:
    """Test pictures of the model's own data, by their feature network."""
    from conjure.data.pictures_small import SmallPictures
    from conjure.tasks.picture_figures import judge, spread

    extractor = judge(task.data.set)
    return Judge(extractor, extractor(spread(SmallPictures(task.data.set, "test"), REAL)))


def perfect(task: SamplePixels, judge: Judge, count: int) -> Distance:
    """Training pictures in place of drawn ones."""
    from conjure.data.pictures_small import SmallPictures
    from conjure.tasks.picture_figures import spread

    return judge(spread(SmallPictures(task.data.set), count))


def measured(task: SamplePixels, judge: Judge, setting: Setting, count: int) -> Distance:
    """Of so many pictures; every setting draws from the same noise."""
    options = task.Options(steps=setting.steps, sampler=setting.sampler, guidance=setting.guidance)
    began = time.perf_counter()
    made_NHWC = task.many(count, options)
    return judge(made_NHWC, time.perf_counter() - began)


def result(found: Found, floors: dict[str, Distance]) -> str:
    """One row per model and sampler, one column per number of evaluations."""
    columns = sorted({setting.evaluations for rows in found.values() for setting, _ in rows})
    rows = []
    for model, each in found.items():
        by_sampler: dict[str, dict[int, Distance]] = {}
        for setting, distance in each:
            by_sampler.setdefault(setting.sampler, {})[setting.evaluations] = distance
        for sampler, at in by_sampler.items():
            cells = [said(at[n]) if n in at else "" for n in columns]
            rows.append([f"{model}, {LABELS.get(sampler, sampler)}", *cells])
        rows.append([f"{model}, training pictures", *[said(floors[model])] * len(columns)])
    return table(["Frechet distance", *(f"{most} evaluations" for most in columns)], rows)


def said(distance: Distance) -> str:
    return f"{distance.value:.2f} ({distance.low:.2f}-{distance.high:.2f})"


def picture(found: Found, floors: dict[str, Distance]) -> str:
    """The same as curves, a panel for each model."""
    panels = []
    for model, rows in found.items():
        lines: dict[str, list[Point]] = {}
        for setting, d in rows:
            lines.setdefault(LABELS.get(setting.sampler, setting.sampler), []).append(
                Point(setting.spent, d.value, d.low, d.high)
            )
        panels.append(Panel(model, lines, floors[model].value))
    ticks = sorted({setting.evaluations for rows in found.values() for setting, _ in rows})
    return svg(panels, ticks=ticks, x="network evaluations a picture", y="Frechet distance", floor="training pictures")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: `python -m benchmarks.evaluations MODEL... -o curve.svg`."""
    asked = parsed(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", str(asked.threads))
    import torch

    from conjure.tasks.pixel_diffusion import SamplePixels

    torch.set_num_threads(asked.threads)
    facts = {"threads": str(asked.threads), "pictures": f"{asked.count} a setting against {REAL} test pictures, 95 % "
             "bootstrap intervals", "guidance": f"{asked.guidance:g}"}  # fmt: skip
    head = heading("Distance to real pictures by network evaluations", "evaluations", arguments, packages=PACKAGES,
                   facts=facts)  # fmt: skip
    print(head, flush=True)
    found: Found = {}
    floors: dict[str, Distance] = {}
    for model in asked.models:
        task, name = SamplePixels.load(find(model)), Path(model).name
        judge = judge_of(task)
        floors[name] = perfect(task, judge, asked.count)
        for setting in settings(asked.samplers, asked.evaluations, [asked.guidance]):
            found.setdefault(name, []).append((setting, measured(task, judge, setting, asked.count)))
            tell(f"{name}, {setting.sampler}, {setting.spent} evaluations: {said(found[name][-1][1])}")
            written(asked.output, head, judge.extractor.protocol, found, floors)
    print(result(found, floors))


def written(output: Path, head: str, protocol: str, found: Found, floors: dict[str, Distance]) -> None:
    """The curve, and its figures in a JSON file beside it."""
    output.write_text(picture(found, floors), encoding="utf-8")
    rows = {name: [asdict(s) | asdict(d) for s, d in each] for name, each in found.items()}
    floor = {name: asdict(each) for name, each in floors.items()}
    data = {"about": head.splitlines(), "protocol": protocol, "models": rows, "training_pictures": floor}
    output.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluations", description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folders of models trained by pixel_diffusion")
    parser.add_argument("--samplers", type=_words, default=SAMPLERS, metavar="A,B")
    parser.add_argument("--evaluations", type=_numbers, default=EVALUATIONS, metavar="N,M")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--count", type=int, default=500, help="pictures a setting")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few pictures and evaluations: only whether it runs")
    parser.add_argument("-o", "--output", type=Path, default=Path("evaluations.svg"), help="a .svg file")
    asked = parser.parse_args(arguments)
    if asked.output.suffix != ".svg":
        raise ConjureError(f"expected a .svg file, got {asked.output}", hint="figures go into a .json beside it")
    if asked.quick:
        asked.count, asked.evaluations = 20, (3, 5)
    return asked


def _words(text: str) -> Iterable[str]:
    return text.split(",")


def _numbers(text: str) -> Iterable[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
