from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import conjure
from conjure.core.events import Delta, Progress, Result
from conjure.tasks import make as room
from conjure.tasks.make import finished, numbered, plan, run
from conjure.tasks.training import evaluate
from tests.conftest import write_model


def test_the_line_of_the_readme(workshop: Path) -> None:
    conjure.make("a red apple", to="image", seed=1).save("a.png")
    assert conjure.read("a.png").pixels[0, 0, 0] == 1
    record = conjure.remake("a.png").record
    assert record.prompt == "a red apple" and record.seed == 1 and record.task == "draw"


def test_several_come_as_a_list_each_with_its_record(workshop: Path) -> None:
    made = conjure.make("x", to="image", seed=5, count=3)
    assert [picture.record.seed for picture in made] == [5, 6, 7]
    assert [int(picture.pixels[0, 0, 0]) for picture in made] == [5, 6, 7]
    assert [picture.record.seeds for picture in made] == [(5, 6, 7)] * 3


def test_output_names_the_kind_and_the_files(workshop: Path) -> None:
    conjure.make("x", output="a.png", seed=5, count=2)
    assert sorted(path.name for path in workshop.iterdir()) == ["a-1.png", "a-2.png"]
    assert numbered("b/c.png", 2) == [Path("b/c-1.png"), Path("b/c-2.png")]
    assert numbered("c.png", 1) == [Path("c.png")]


def test_options_are_checked_like_flags(workshop: Path) -> None:
    assert conjure.make("x", to="text", seed=2, tokens=2).text == "x 2 2"
    with pytest.raises(conjure.ConjureError, match="--steps belongs to draw"):
        conjure.make("x", to="text", steps=3)
    with pytest.raises(conjure.ConjureError, match="--tokens: expected a whole number from 1 to 100, got 0"):
        conjure.make("x", to="text", tokens=0)


def test_media_bytes_paths_and_strings_are_inputs(workshop: Path) -> None:
    picture = conjure.Image(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    picture.save("in.png")
    for given in (picture, Path("in.png"), "in.png", Path("in.png").read_bytes()):
        assert (conjure.make(given).pixels == picture.pixels[:, ::-1]).all()
    assert conjure.make(conjure.Text("in.png"), to="text", seed=1, tokens=1).text == "in.png 1"
    with pytest.raises(conjure.ConjureError, match="no such file"):
        conjure.make(Path("out.png"))


def test_the_model_decides_where_nothing_else_does(workshop: Path) -> None:
    assert plan("x").output == "text"
    assert plan("x", model="starter/daub").output == "image"
    assert plan("x", task="mirror").output == "image"
    assert plan("x", to="png").output == "image"


def test_events_come_as_they_happen_and_closing_cancels(workshop: Path) -> None:
    seen: list[object] = []
    conjure.make("x", to="text", seed=1, tokens=2, on_event=seen.append)
    assert [type(event) for event in seen] == [Delta, Progress, Delta, Progress, Delta, Result]
    events = run(plan("x", to="image", seed=1, steps=9))
    next(events)
    events.close()
    assert list(events) == []


def test_intermediate_texts_of_a_path_are_not_shown(workshop: Path) -> None:
    planned = plan("abc", to="image", task="mirror", seed=3)
    assert [edge.task for edge in planned.edges] == ["draw", "mirror"]
    assert finished(run(planned)).media[0].pixels.shape == (8, 11, 3)


def test_a_model_is_loaded_once_until_its_files_change(workshop: Path) -> None:
    room._load.cache_clear()
    first = conjure.load("starter/daub")
    assert conjure.load("starter/daub") is first
    write_model(workshop.parent / "starters" / "daub", task="draw", value=22.0)
    assert conjure.load("starter/daub") is not first


def test_published_figures(workshop: Path) -> None:
    seen: list[object] = []
    assert evaluate("starter/parrot", ["a"], seen.append)["bits_per_byte"]["n"] == 10
    assert seen == [Progress(1, 1, "book")]
