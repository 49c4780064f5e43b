from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.core.events import Result
from conjure.media.image import Image
from conjure.serve.making import Made
from conjure.studio.crossing import CELLS, Grid, axis, comparison, crossed, shown, thumbnail
from conjure.tasks.comparison_page import page
from conjure.tasks.make import plan


def grid() -> Grid:
    return Grid("<i>two</i> words", axis("steps", ["1", "2"]), axis("seed", ["3", "4"]), "starter/daub", 0, {})


def made(seed: int, steps: str) -> Any:
    planned = plan("a dot", to="image", model="starter/daub", seed=seed, steps=steps)
    picture = Image(np.full((4, 5, 3), seed * 10, np.uint8))
    return Made(plan=planned, result=Result([picture], {"evaluations": 2}), warnings=(), seconds=0.5, numbers=())


def test_axes_are_read() -> None:
    assert axis("guidance", ["1, 2", "2", 3]).values == ("1", "2", "3")
    assert axis("seed", ["2", "0", "1"]).values == ("0", "1", "2") and axis("", ["x"]).values == ("",)


@pytest.mark.parametrize(("name", "values", "said"), [
    ("seed", ["0", "2"], "follow one another"), ("seed", ["one"], "whole numbers"), ("steps", [" "], "no values"),
])  # fmt: skip
def test_axes_that_cannot_be(name: str, values: list[str], said: str) -> None:
    with pytest.raises(ConjureError, match=said):
        axis(name, values)


def test_grids_that_cannot_be() -> None:
    with pytest.raises(ConjureError, match="both axes"):
        crossed(axis("seed", ["0"]), axis("seed", ["1"]))
    many = axis("seed", [str(k) for k in range(CELLS)])
    with pytest.raises(ConjureError, match="too many"):
        crossed(axis("steps", ["1", "2"]), many)
    crossed(axis("", []), axis("", []))  # a single picture is a grid


def test_each_cell_is_asked_for_its_own() -> None:
    asked = grid().asked()
    assert [(each.row, each.column, each.seed, each.options) for each in asked] == [
        (0, 0, 3, {"steps": "1"}), (0, 1, 4, {"steps": "1"}), (1, 0, 3, {"steps": "2"}), (1, 1, 4, {"steps": "2"}),
    ]  # fmt: skip
    by_model = Grid("p", axis("seed", ["0", "1"]), axis("model", ["b", "a"]), "", 0, {}).asked()
    assert [each.model for each in by_model] == ["a", "a", "b", "b"]  # each is loaded once
    assert [(each.row, each.column) for each in by_model] == [(0, 1), (1, 1), (0, 0), (1, 0)]


def test_the_grid_is_shown_as_text(workshop: Path) -> None:
    some = grid()
    some.cells[0, 0].error = "<b>no</b>"
    some.cells[0, 1].words, some.cells[0, 1].share = "Step 1", 0.5
    some.cells[1, 0].made, some.cells[1, 0].link = made(3, "2"), "/media/x.png"
    html = shown(some)
    assert "<i>two</i>" not in html and "<b>no</b>" not in html and "&lt;b&gt;no&lt;/b&gt;" in html
    assert 'value="0.500"' in html and "waiting" in html
    assert 'alt="&lt;i&gt;two&lt;/i&gt; words: steps 2, seed 3"' in html
    assert '<th scope="row">steps 1</th>' in html and '<th scope="col">seed 4</th>' in html


def test_it_becomes_a_comparison_with_its_page(workshop: Path) -> None:
    some = grid()
    for (row, column), cell in some.cells.items():
        cell.made = made(3 + column, some.down.values[row])
    some.cells[1, 1].made, some.cells[1, 1].error = None, "It was cancelled."
    came = comparison(some)
    assert [each.name for each in came.outcomes] == ["starter/daub, steps 1", "starter/daub, steps 2"]
    assert came.seeds == range(3, 5) and len(came.outcomes[0].pictures) == 2
    assert came.outcomes[0].metrics["spread"]["n"] == 2 and came.outcomes[0].facts["evaluations"] == 2
    assert came.outcomes[1].error == "It was cancelled." and came.outcomes[1].pictures == ()
    document = page(came)
    assert "starter/daub, steps 2" in document and "&lt;i&gt;two&lt;/i&gt;" in document and "<i>two</i>" not in document
    assert came.plain()["systems"][0]["options"]["steps"] == 1


def test_large_pictures_are_shown_small() -> None:
    small = thumbnail(Image(np.zeros((10, 10, 3), np.uint8)))
    large = thumbnail(Image(np.random.default_rng(0).integers(0, 255, (900, 300, 3), np.uint8)))
    assert small.startswith("data:image/png;base64,") and len(large) < 900 * 300
