from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from conjure.core.errors import ConjureError
from conjure.tasks import table
from conjure.tasks.table import TABLE, Edge, find, named, path

WATCH = Edge(("dance",), "text", "describe", "ballet.watching:Watch", "starter/eye", "writes down the steps")
PERFORM = Edge(("text",), "dance", "perform", "ballet.dancing:Dance", "starter/dancer", "dances it")
ANIMATE = Edge(("image",), "video", "animate", "film.motion:Animate", "starter/motion", "moves it")
EDIT = Edge(("image", "text"), "image", "retouch", "paint.edit:Edit", "starter/edit", "does what it is told")


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Four edges of another package, one entry alone and one of three."""
    monkeypatch.setattr(sys.modules[__name__], "MORE", [PERFORM, ANIMATE, EDIT], raising=False)
    entries = EntryPoints(
        [EntryPoint("a", f"{__name__}:WATCH", table.GROUP), EntryPoint("b", f"{__name__}:MORE", table.GROUP)]
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries.select(group=group))
    real = table.plugins
    real.cache_clear()
    yield
    real.cache_clear()


def test_the_table_names_an_edge_for_each_starter_task() -> None:
    ways = {(edge.inputs, edge.output, edge.task) for edge in TABLE}
    told_apart = {(edge.inputs, edge.output, edge.task, edge.public, edge.model or edge.module) for edge in TABLE}
    assert {
        (("text",), "text", "continue"), (("text",), "image", "draw"), (("image",), "image", "reconstruct")
    } <= ways  # fmt: skip
    assert len(told_apart) == len(TABLE)


@pytest.mark.parametrize("edge", TABLE, ids=str)
def test_every_target_is_a_task(edge: Edge) -> None:
    task = table.resolve(edge)
    assert callable(task.generate) and (edge.by_rule or callable(task.load))
    assert hasattr(task.Options, "__pydantic_fields__")


def test_an_edge_is_found_by_kinds_and_by_task() -> None:
    assert find(["text"], "image").task == "draw"
    assert find(["text"], "text").task == "continue"
    assert find(["text"], "image", "draw") == find(["text"], "image", "text_to_image")
    assert named("text_to_image") == named("draw")


def test_plugins_are_asked_on_a_miss_only(plugins: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(["image", "text"], "image", "retouch") is EDIT
    assert find(["dance"], "text") is WATCH
    assert named("watching") is WATCH
    monkeypatch.setattr(table, "plugins", lambda: pytest.fail("the table had it"))
    assert find(["text"], "image").task == "draw"


def test_the_path_with_the_fewest_edges(plugins: None) -> None:
    assert [edge.task for edge in path(["dance"], "image")] == ["describe", "draw"]
    assert [edge.task for edge in path(["dance"], "video")] == ["describe", "draw", "animate"]
    assert [edge.task for edge in path(["text"], "video")] == ["draw", "animate"]
    assert [edge.task for edge in path(["text"], "image", "reconstruct")] == ["draw", "reconstruct"]
    assert [edge.task for edge in path(["text"], "text")] == ["continue"]


@pytest.mark.parametrize(
    ("inputs", "output", "task", "message", "hint"),
    [
        (["video"], "image", None, "no way leads from video to image", "possible are"),
        (["text"], "shape", None, "no way leads from text to shape", "text can become text, image, music, audio"),
        (["text", "text"], "image", None, "no way leads from text + text to image", "text + text can become text"),
        (["text", "video"], "image", None, "no way leads from text + video to image", "possible are"),
        (["text"], "image", "drow", "no task is called 'drow'", "did you mean 'draw'?"),
        (["text"], "text", "retouch", "the task 'retouch' does not lead from text to text", "image + text -> image"),
    ],
)
def test_what_cannot_be_says_what_can(
    plugins: None, inputs: list[str], output: str, task: str | None, message: str, hint: str
) -> None:
    with pytest.raises(ConjureError) as caught:
        path(inputs, output, task)
    assert message in caught.value.message and hint in caught.value.hint


def test_a_broken_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("odd", "no_such_package.here:EDGES", table.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: EntryPoints([entry]))
    table.plugins.cache_clear()
    with pytest.raises(ConjureError, match="the plugin 'odd'"):
        table.plugins()
    table.plugins.cache_clear()


def test_unknown_task_of_a_recipe() -> None:
    with pytest.raises(ConjureError, match="no task is called 'text_to_imag'") as caught:
        named("text_to_imag")
    assert caught.value.hint == "did you mean 'text_to_image'?"


def test_the_table_imports_no_task() -> None:
    code = "import sys, conjure.tasks.table; print(sorted(m for m in sys.modules if m == 'torch' or 'text_to' in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
