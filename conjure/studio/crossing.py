"""The same prompt along two axes: what each cell of a grid is, how it looks while it is drawn, and the comparison that
comes of it."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from conjure import media
from conjure.core import shelf
from conjure.core.config import to_dict
from conjure.core.errors import ConjureError
from conjure.media.canvas import scaled
from conjure.media.image import Image
from conjure.serve.making import Made
from conjure.tasks.compare import PIXELS, Comparison, Outcome, Wish, measured, pixel_features
from conjure.tasks.make import record

MODEL, SEED = "model", "seed"
CELLS = 64
"""Of a grid at most."""
THUMB = 224  # pixels of the longer side, in the grid
STYLE = """
#compare-grid .crossing { width: 100%; overflow-x: auto; }
#compare-grid .crossing table { width: auto; border-collapse: separate; border-spacing: 6px; }
#compare-grid .crossing caption { text-align: left; padding: 0 6px 4px; overflow-wrap: anywhere; }
#compare-grid .crossing th { font-weight: 600; font-size: 14px; text-align: left; vertical-align: top; padding: 4px 6px;
  overflow-wrap: anywhere; min-width: 5.5em; max-width: 13em; }
#compare-grid .crossing thead th { text-align: center; min-width: 0; }
#compare-grid .crossing td { width: 168px; min-width: 96px; height: 96px; vertical-align: middle; padding: 0;
  text-align: center;
  border: 1px solid var(--border-color-primary); border-radius: 8px; background: var(--block-background-fill);
  font-size: 13px; color: var(--body-text-color-subdued); }
#compare-grid .crossing td.corner { border: 0; background: none; width: auto; min-width: 0; height: auto; }
#compare-grid .crossing img { display: block; width: 100%; height: auto; border-radius: 7px; background: #fff; }
#compare-grid .crossing progress { width: 80%; }
#compare-grid .crossing .wrong { color: #8c1c1c; padding: 6px; display: block; overflow-wrap: anywhere; }
.dark #compare-grid .crossing .wrong { color: #ffb3ad; }
"""


@dataclass(frozen=True)
class Axis:
    """One direction of a grid: what changes along it ("model", "seed", or the name of an option), and to what."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What one cell is asked for."""

    row: int
    column: int
    model: str
    seed: int
    options: Mapping[str, Any]


@dataclass
class Cell:
    """How far a cell is. `link` leads to the whole picture."""

    words: str = "waiting"
    share: float | None = None
    error: str = ""
    made: Made | None = None
    thumb: str = ""
    link: str = ""


@dataclass
class Grid:
    """All cells of one wish, row by row."""

    prompt: str
    down: Axis
    across: Axis
    model: str
    seed: int
    options: Mapping[str, Any]
    cells: dict[tuple[int, int], Cell] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in range(len(self.down.values)):
            for column in range(len(self.across.values)):
                self.cells[row, column] = Cell()

    def asked(self) -> list[Asked]:
        """What each cell is asked for, in an order in which a model is loaded once where that can be."""
        found = []
        for row, column in self.cells:
            own = {self.down.name: self.down.values[row], self.across.name: self.across.values[column]}
            model = own.pop(MODEL, self.model)
            seed = int(own.pop(SEED, self.seed))
            own.pop("", None)
            found.append(Asked(row=row, column=column, model=model, seed=seed, options={**self.options, **own}))
        return sorted(found, key=lambda each: each.model) if self.across.name == MODEL else found


def axis(name: str, values: Sequence[Any]) -> Axis:
    """The axis a reader has chosen; `ConjureError` where its values cannot be."""
    said = tuple(dict.fromkeys(text for each in values for text in map(str.strip, str(each).split(",")) if text))
    if not name:
        return Axis("", ("",))
    if not said:
        raise ConjureError(f"{label(name)}: there are no values", hint="choose some, or type them")
    if name == SEED:
        if not all(text.isdecimal() for text in said):
            raise ConjureError(f"Seeds: expected whole numbers, got {', '.join(said)}")
        numbers = sorted(map(int, said))
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise ConjureError("Seeds: expected numbers that follow one another", hint="as in 0, 1, 2, 3")
        said = tuple(map(str, numbers))
    return Axis(name, said)


def crossed(down: Axis, across: Axis) -> None:
    """Refuses what makes no grid."""
    if down.name and down.name == across.name:
        raise ConjureError(f"{label(down.name)} stands on both axes", hint="choose another for one of them")
    if (count := len(down.values) * len(across.values)) > CELLS:
        raise ConjureError(f"{count} pictures are too many for a page", hint=f"{CELLS} at most")


def label(name: str) -> str:
    """`sampler` -> "Sampler"."""
    words = {"": "One row", MODEL: "Models", SEED: "Seeds"}.get(name, name.replace("_", " "))
    return words[:1].upper() + words[1:]


def thumbnail(picture: Image) -> str:
    """A small picture as a `data:` link."""
    longest = max(picture.height, picture.width)
    pixels = picture.pixels
    if longest > THUMB:
        height, width = (max(1, side * THUMB // longest) for side in (picture.height, picture.width))
        pixels = scaled(pixels, height, width)
    return f"data:image/png;base64,{base64.b64encode(media.encode(Image(pixels), '.png')).decode('ascii')}"


def shown(grid: Grid) -> str:
    """The grid as HTML, all of it escaped."""
    heads = "".join(f'<th scope="col">{html.escape(_named(grid.across, value))}</th>' for value in grid.across.values)
    rows = []
    for row, value in enumerate(grid.down.values):
        cells = "".join(_cell(grid, row, column) for column in range(len(grid.across.values)))
        rows.append(f'<tr><th scope="row">{html.escape(_named(grid.down, value))}</th>{cells}</tr>')
    caption = f'<caption class="quiet">{html.escape(grid.prompt)}</caption>'
    return (f'<div class="crossing" tabindex="0" role="region" aria-label="The pictures"><table>{caption}<thead><tr>'
            f'<td class="corner"></td>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>')  # fmt: skip


def comparison(grid: Grid) -> Comparison:
    """What came of the grid as systems with the same seeds: a system is a model with its own values of the axes."""
    seeds = next((list(map(int, each.values)) for each in (grid.down, grid.across) if each.name == SEED), [grid.seed])
    said = {name: str(value) for name, value in grid.options.items()}
    wish = Wish(inputs=(grid.prompt,), seed=seeds[0], count=len(seeds), options=said)
    systems: dict[str, list[Cell]] = {}
    models: dict[str, str] = {}
    for each in sorted(grid.asked(), key=lambda each: (each.row, each.column)):
        own = [f"{name} {each.options[name]}" for name in (grid.down.name, grid.across.name) if name in each.options]
        name = ", ".join([each.model, *own])
        systems.setdefault(name, []).append(grid.cells[each.row, each.column])
        models[name] = each.model
    outcomes = [_outcome(name, models[name], cells, wish) for name, cells in systems.items()]
    return Comparison(wish=wish, outcomes=tuple(outcomes), features=PIXELS)


def _outcome(name: str, model: str, cells: Sequence[Cell], wish: Wish) -> Outcome:
    info = shelf.info(model)
    facts: dict[str, Any] = {"parameters": info.parameters, "file_bytes": info.bytes, "licence": info.licence,
                             "summary": info.summary}  # fmt: skip
    wrong = next((each.error or each.words for each in cells if each.made is None), "")
    if wrong:
        return Outcome(name=name, facts=facts, error=wrong)
    made = [each.made for each in cells if each.made is not None]
    pictures = tuple(media.encode(picture_in(each), ".png", record(each.plan, 0)) for each in made)
    last = made[-1]
    facts |= {
        "task": last.plan.edges[-1].task, "options": to_dict(last.plan.options),
        "evaluations": last.result.facts.get("evaluations"),
        "seconds in the studio, one picture after the other": round(sum(each.seconds for each in made), 3),
        "notes": sorted({text for each in made for text in each.warnings}),
    }  # fmt: skip
    came = Outcome(name=name, facts=facts, pictures=pictures)
    return Outcome(name=name, facts=facts, pictures=pictures,
                   metrics=measured(came, wish, pixel_features, PIXELS, None))  # fmt: skip


def picture_in(made: Made) -> Image:
    """What an edge to a picture has made."""
    picture = made.result.media[0]
    assert isinstance(picture, Image), "an edge to a picture"
    return picture


def _named(axis: Axis, value: str) -> str:
    return value if axis.name in ("", MODEL) else f"{axis.name.replace('_', ' ')} {value}"


def _cell(grid: Grid, row: int, column: int) -> str:
    cell = grid.cells[row, column]
    if cell.error:
        return f'<td><span class="wrong">{html.escape(cell.error)}</span></td>'
    if cell.made is not None:
        where = ", ".join(filter(None, (_named(grid.down, grid.down.values[row]),
                                        _named(grid.across, grid.across.values[column]))))  # fmt: skip
        alt = html.escape(f"{grid.prompt}: {where}")
        return f'<td><a href="{cell.link}" target="_blank" rel="noopener"><img alt="{alt}" src="{cell.thumb}"></a></td>'
    if cell.words == "waiting":
        return "<td>waiting</td>"
    value = "" if cell.share is None else f' value="{cell.share:.3f}"'
    return f'<td><progress aria-label="Progress" max="1"{value}></progress><br>{html.escape(cell.words)}</td>'
