"""`conjure compare`: the same prompt through several systems, as one page and a JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conjure.cli import names
from conjure.cli.names import completing
from conjure.cli.render import Follower, note, out, table
from conjure.core.errors import ConjureError
from conjure.core.files import size

if TYPE_CHECKING:
    import numpy as np

    from conjure.models.features import Extractor
    from conjure.tasks.compare import Comparison

EPILOG = """\b
Examples:
  conjure compare "a red apple" --models starter/pictograms,./folder -o compare.html
  conjure compare "seven" --recipe mnist-flow --recipe mnist-vae --seeds 8 -o digits.html
  conjure compare "a red apple" --models starter/pictograms,org/name --evaluations 16 --size 256 -o budget.html
  conjure compare "seven" --recipe mnist-flow --seeds 200 --features starter/features-mnist --reference mnist -o f.html
  conjure compare photo.png "make it green" --models ./one,./other -O strength=0.6 -o edits.html

Sample k of each system has the seed plus k. A system that fails is shown with its error, the others go on. Knobs go to
the systems that have them, and the page says which have not. With --features and --reference, and ten seeds or more,
Frechet distance, kernel distance, precision and recall stand beside the rest."""

REFERENCES = 10_000
"""Pictures of a reference at most."""
INCEPTION = "inception"


def _references() -> Iterable[str]:
    return ("mnist", "cifar10", "cifar10_jpeg")


def _features() -> Iterable[str]:
    return (INCEPTION, *(name for name in names.models() if "features-" in name))


@click.command("compare", epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option(
    "--models", multiple=True, metavar="NAME,...", shell_complete=completing(names.models),
    help="starter/NAME, a folder, or org/name; several with commas, or the flag again.",
)  # fmt: skip
@click.option(
    "--recipe", "recipes", multiple=True, metavar="NAME", shell_complete=completing(names.recipes),
    help="What that recipe trained, from runs/NAME; may be given again.",
)  # fmt: skip
@click.option("--seeds", type=click.IntRange(1, 1000), default=4, show_default=True, help="Pictures of each system.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The first of the seeds.")
@click.option("--size", type=click.IntRange(1), help="Side of the pictures in pixels. Default: each system's own.")
@click.option("--evaluations", type=click.IntRange(1), help="Budget: passes of the network for one picture, at most.")
@click.option("-O", "--option", "options", multiple=True, metavar="NAME=VALUE", help="Any other knob; may be repeated.")
@click.option(
    "--features", metavar="NAME", shell_complete=completing(_features),
    help="What metrics are computed from: a model of a features-... recipe, or inception[:FILE]. Default: pixels.",
)  # fmt: skip
@click.option(
    "--reference", metavar="NAME", shell_complete=completing(_references),
    help="Real pictures to measure against: a folder of pictures, or mnist, cifar10, cifar10_jpeg (their test part).",
)  # fmt: skip
@click.option("-o", "--output", metavar="FILE.html", required=True, help="The page; FILE.json is written beside it.")
@click.option("-y/-n", "--yes/--no", "overwrite", default=None, help="Overwrite existing files, or never.")
@click.option("--json", "as_json", is_flag=True, help="The JSON on stdout too.")
def compare(
    inputs: tuple[str, ...],
    models: tuple[str, ...],
    recipes: tuple[str, ...],
    seeds: int,
    seed: int,
    size: int | None,
    evaluations: int | None,
    options: tuple[str, ...],
    features: str | None,
    reference: str | None,
    output: str,
    overwrite: bool | None,
    as_json: bool,
) -> None:
    """Compare systems: the same prompt, seeds, size and budget, on one page."""
    if not inputs:
        raise ConjureError("nothing to make it from", hint='give a text: conjure compare "a red apple" --models ...')
    page, beside = _targets(output, overwrite)
    systems = [*_listed(models), *map(_run, recipes)]
    given = dict(map(_option, options)) | ({"size": str(size)} if size else {})
    from conjure.tasks.compare import Wish, compare
    from conjure.tasks.comparison_page import page as written

    wish = Wish(inputs=inputs, seed=seed, count=seeds, evaluations=evaluations or 0, options=given)
    extract = _extractor(features) if features else None
    real = _reference(reference, extract) if reference else None
    protocol = extract.protocol if extract else ""
    with Follower() as follow:
        made = compare(wish, systems, features=extract, protocol=protocol, reference_MF=real, on_event=follow)
    from conjure.core.files import write_atomic

    plain = made.plain()
    write_atomic(page, written(made).encode())
    write_atomic(beside, (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode())
    out(json.dumps(plain, ensure_ascii=False) if as_json else table(_rows(made)))
    note(f"wrote {page} and {beside.name}")


def _targets(output: str, overwrite: bool | None) -> tuple[Path, Path]:
    """The page and the JSON beside it, after every check that can be made before the work."""
    from conjure.cli.make import may_write

    page = Path(output)
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConjureError(f"{output}: expected a name that ends in .html", hint=f"-o {page.stem or 'compare'}.html")
    beside = page.with_suffix(".json")
    for path in (page, beside):
        may_write(path, overwrite)
    return page, beside


def _listed(models: Sequence[str]) -> list[str]:
    """The names between commas; a folder may have a comma in its name."""
    found: list[str] = []
    for each in models:
        found += [each] if Path(each).is_dir() else [name.strip() for name in each.split(",") if name.strip()]
    return found


def _run(recipe: str) -> str:
    """The folder of what a recipe trained."""
    from conjure.tasks.training import default_folder
    from conjure.train.recipe import find

    folder = default_folder(find(recipe))
    if not (folder / "config.json").is_file():
        raise ConjureError(f"{recipe}: {folder} holds no finished model", hint=f"conjure train {recipe}")
    return str(folder)


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConjureError(f"--option: expected NAME=VALUE, got {text!r}", hint="-O guidance=3")
    return name.lstrip("-").replace("-", "_"), value


def _extractor(name: str) -> Extractor:
    from conjure.core.shelf import find
    from conjure.models.features import load_extractor
    from conjure.models.inception import load_inception

    if name.partition(":")[0] == INCEPTION:
        return load_inception(name.partition(":")[2] or None)
    return load_extractor(find(name))


def _reference(name: str, extract: Extractor | None) -> np.ndarray:
    """The features of real pictures, [M, F]."""
    import numpy as np

    from conjure import media
    from conjure.data.pictures_small import SHAPES, SmallPictures
    from conjure.media.image import Image
    from conjure.tasks.compare import pixel_features

    taken = extract or pixel_features
    if name in SHAPES:
        return taken(SmallPictures(name, "test").pixels_NHWC[:REFERENCES])  # type: ignore[arg-type]
    folder = Path(name)
    paths = [path for path in sorted(folder.iterdir()) if path.is_file()] if folder.is_dir() else []
    pictures = [media.read(path, "image") for path in paths
                if media.kinds.SUFFIXES.get(path.suffix.lower()) == "image"]
    rows = [taken(picture.rgb()[None]) for picture in pictures[:REFERENCES] if isinstance(picture, Image)]
    if not rows:
        known = ", ".join(SHAPES)
        raise ConjureError(f"--reference {name}: found no pictures there", hint=f"a folder of pictures, or {known}")
    return np.concatenate(rows)


def _rows(made: Comparison) -> list[list[str]]:
    metrics = list(dict.fromkeys(name for each in made.outcomes for name in each.metrics))
    rows = [["system", "seconds", "evaluations", "memory", "parameters", "licence", *metrics]]
    for each in made.outcomes:
        facts = each.facts
        if each.error:
            rows.append([each.name, "failed"])
            continue
        rows.append([
            each.name, f"{facts['seconds']:.2f}", _or_dash(facts.get("evaluations")),
            size(facts["peak_memory_bytes"]) if facts.get("peak_memory_bytes") else "-",
            f"{facts['parameters']:,}", facts["licence"] or "unstated",
            *(f"{each.metrics[name]['value']:.4g}" if name in each.metrics else "-" for name in metrics),
        ])  # fmt: skip
    return rows


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)
