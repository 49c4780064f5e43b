"""How good are the pictures for the work they cost: known things by sampler, network evaluations and guidance?

The measure is that of `conjure eval` (each of some pictograms asked for by name in three phrasings; the nearest of all
pictograms must be the right one), on a fixed part of the things. All settings draw from the same noise.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.processes import tell
from benchmarks.report import heading, table
from conjure.core.errors import ConjureError
from conjure.core.shelf import find
from conjure.tasks.table import named, resolve

if TYPE_CHECKING:
    from conjure.data.scenes import SceneSource
    from conjure.media.image import Image

SAMPLERS = ("euler", "heun", "dpmpp_2m")
EVALUATIONS = (4, 6, 8, 12)
GUIDANCE = (1.0, 1.5, 2.0)
PACKAGES = ("conjure", "torch", "numpy", "pillow")

Draw = Callable[[Sequence[str], Sequence[int]], "list[Image]"]


@dataclass(frozen=True)
class Setting:
    """`evaluations` is how many the sampler may make; `steps` how many steps those are."""

    sampler: str
    guidance: float
    evaluations: int
    steps: int
    spent: int
    """Network evaluations a picture really takes; guidance evaluates everything twice."""


@dataclass(frozen=True)
class Share:
    """Pictures that showed the right thing, with their 95 % interval, and seconds of drawing per picture."""

    value: float
    low: float
    high: float
    n: int
    seconds: float


def settings(
    samplers: Sequence[str], evaluations: Sequence[int], guidance: Sequence[float]
) -> list[Setting]:
    """Every combination; steps are as many as the evaluations allow (Heun's method takes two for all but the last)."""
    from conjure.diffusion.samplers import SAMPLERS as known

    found = []
    for scale, sampler, most in product(guidance, samplers, evaluations):
        steps = max(n for n in range(1, most + 1) if known[sampler].evaluations(n) <= most)
        spent = known[sampler].evaluations(steps) * (1 if scale == 1 else 2)
        found.append(Setting(sampler, scale, most, steps, spent))
    return found


def measured(draw: Draw, source: SceneSource, things: int) -> Share:
    """Known things over a fixed choice of so many of them."""
    from conjure.tasks.picture_evaluation import known_things

    seconds = 0.0

    def timed(prompts: Sequence[str], seeds: Sequence[int]) -> list[Image]:
        nonlocal seconds
        began = time.perf_counter()
        pictures = draw(prompts, seeds)
        seconds += time.perf_counter() - began
        return pictures

    found: dict[str, Any] = known_things(timed, source, limit=things)
    return Share(found["value"], found["low"], found["high"], found["n"], seconds / found["n"])


def result(found: Iterable[tuple[Setting, Share]]) -> str:
    """One row per sampler and guidance, one column per number of evaluations."""
    shares = {(s.guidance, s.sampler, s.evaluations): (s, share) for s, share in found}
    columns = sorted({most for _, _, most in shares})
    rows = []
    for scale, sampler in dict.fromkeys((scale, sampler) for scale, sampler, _ in shares):
        cells = [cell(*shares[scale, sampler, most]) for most in columns]
        rows.append([f"{sampler}, guidance {scale:g}", *cells])
    header = ["right pictures, %", *(f"{most} evaluations" for most in columns)]
    best = max(shares.values(), key=lambda each: (each[1].value, -each[0].spent))
    close = [each for each in shares.values() if each[1].high >= best[1].value]
    cheap = min(close, key=lambda each: (each[0].spent, -each[1].value))
    said = [f"best: {describe(*best)}", f"cheapest whose interval reaches the best: {describe(*cheap)}"]
    return "\n".join([table(header, rows), "", *said])


def cell(setting: Setting, share: Share) -> str:
    """Share, interval, evaluations spent and milliseconds of drawing."""
    interval = f"{100 * share.value:.1f} ({100 * share.low:.0f}-{100 * share.high:.0f})"
    return f"{interval}; {setting.spent} ev, {1000 * share.seconds:.0f} ms"


def describe(setting: Setting, share: Share) -> str:
    return (
        f"{setting.sampler}, {setting.steps} steps, guidance {setting.guidance:g}: {100 * share.value:.1f} % "
        f"at {setting.spent} network evaluations"
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="five things, four evaluations, two guidances")
    parser.add_argument("--model", default="starter/pictograms", metavar="NAME", help="starter/NAME or a folder")
    parser.add_argument("--things", type=int, default=60, help="how many things to ask for (default 60)")
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS, metavar="NAME")
    parser.add_argument("--evaluations", nargs="+", type=int, default=EVALUATIONS, metavar="N")
    parser.add_argument("--guidance", nargs="+", type=float, default=GUIDANCE, metavar="SCALE")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="(default all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    asked = parse(arguments)
    if asked.quick:
        asked.things, asked.evaluations, asked.guidance = 5, (4,), (1.0, 2.0)
    import torch

    from conjure.data.scenes import SceneSource

    torch.set_num_threads(asked.threads)
    try:
        folder = find(asked.model)
        kind = resolve(named("text_to_image"))
        task = kind.load(folder)
        source = SceneSource.load(task.data.size)
    except ConjureError as error:
        raise SystemExit(f"error: {error}") from None
    facts = {
        "threads": str(asked.threads), "model": asked.model,
        "pictures": f"{3 * asked.things} a setting, of {asked.things} things in three phrasings, 95 % intervals",
    }  # fmt: skip
    title = "Quality against network evaluations"
    print(heading(title, "sampling", arguments, packages=PACKAGES, facts=facts), flush=True)
    found: list[tuple[Setting, Share]] = []
    for setting in settings(asked.samplers, asked.evaluations, asked.guidance):
        options = kind.Options(steps=setting.steps, guidance=setting.guidance, sampler=setting.sampler)
        draw: Draw = lambda prompts, seeds, options=options: task.draw(prompts, options, seeds)  # noqa: E731
        found.append((setting, measured(draw, source, asked.things)))
        tell(describe(*found[-1]))
        if asked.json:
            asked.json.write_text(json.dumps([asdict(s) | asdict(share) for s, share in found], indent=1))
    print(result(found))


if __name__ == "__main__":
    main()
