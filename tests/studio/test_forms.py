from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from conjure.core.errors import ConjureError
from conjure.serve.making import route
from conjure.studio.forms import Field, Form, fields, form, options_of
from conjure.tasks import table

SCHEMA = {
    "properties": {
        "steps": {"type": "integer", "default": 8, "minimum": 1, "maximum": 1000, "description": "needs --top-p"},
        "top_p": {"type": "number", "default": 0.95, "minimum": 0, "maximum": 1},
        "pull": {"anyOf": [{"type": "number", "maximum": 100, "minimum": 0}, {"type": "null"}], "default": None},
        "fast": {"type": "boolean", "default": False},
        "sampler": {"type": "string", "enum": ["euler", "heun"], "default": "euler"},
        "guide": {"type": "array", "items": {"type": "string", "enum": ["edges", "depth"]}, "default": ["edges"]},
        "stop": {"type": "array", "items": {"type": "string"}, "default": []},
        "mask": {"type": "string", "default": "", "file": "image", "description": "where"},
        "lora": {"type": "array", "items": {"type": "string"}, "default": [], "local": True},
    }
}  # fmt: skip
DEFAULTS = [8, 0.95, None, False, "euler", ["edges"], "", None]


def test_a_schema_says_what_each_field_is() -> None:
    kinds = {field.name: field.kind for field in fields(SCHEMA)}
    assert kinds == {"steps": "whole", "top_p": "number", "pull": "number", "fast": "switch", "sampler": "choice",
                     "guide": "choices", "stop": "lines", "mask": "picture"}  # fmt: skip


def test_bounds_labels_and_what_may_be_empty() -> None:
    by_name = {field.name: field for field in fields(SCHEMA)}
    assert (by_name["steps"].low, by_name["steps"].high, by_name["steps"].empty) == (1, 1000, False)
    assert (by_name["pull"].low, by_name["pull"].high, by_name["pull"].empty) == (0, 100, True)
    assert by_name["top_p"].label == "Top p"
    assert by_name["steps"].help == "needs top p"


def test_files_of_the_server_are_no_fields() -> None:
    assert "lora" not in {field.name for field in fields(SCHEMA)}


def test_what_is_left_at_its_default_is_not_said() -> None:
    assert options_of(fields(SCHEMA), DEFAULTS) == {}


def test_what_differs_is_said_in_its_type(tmp_path: Path) -> None:
    picture = tmp_path / "mask.png"
    picture.write_bytes(b"some bytes")
    values = [20.0, 0.5, 3, True, "heun", ["edges", "depth"], "one\n\n two \n", str(picture)]
    found = options_of(fields(SCHEMA), values)
    packed = base64.b64encode(b"some bytes").decode("ascii")
    assert found == {"steps": 20, "top_p": 0.5, "pull": 3.0, "fast": True, "sampler": "heun",
                     "guide": ["edges", "depth"], "stop": ["one", " two "], "mask": {"b64": packed}}  # fmt: skip
    assert isinstance(found["steps"], int)


def test_an_emptied_number_is_its_default_or_none() -> None:
    values = [None, None, None, False, "euler", ["edges"], "", None]
    assert options_of(fields(SCHEMA), values) == {}


@pytest.mark.parametrize("value", [2.5, float("nan"), float("inf"), "many", True])
def test_what_is_no_whole_number_is_refused_by_name(value: object) -> None:
    with pytest.raises(ConjureError, match="steps: expected a"):
        options_of(fields(SCHEMA), [value, *DEFAULTS[1:]])


def test_choices_keep_their_type() -> None:
    (field,) = fields({"properties": {"scale": {"type": "integer", "enum": [2, 4], "default": 2}}})
    assert options_of([field], [4]) == {"scale": 4}
    assert options_of([field], [2]) == {}


def test_a_default_in_words_is_the_choice_of_these_words() -> None:
    (field,) = fields({"properties": {"scale": {"type": "integer", "enum": [2, 4], "default": "2"}}})
    assert field.default == 2
    assert options_of([field], ["4"]) == {"scale": 4}
    assert options_of([field], ["2"]) == options_of([field], ["7"]) == {}


def test_a_choice_that_may_be_empty_can_be_emptied() -> None:
    schema = {"properties": {"weights": {"anyOf": [{"enum": ["int8"], "type": "string"}, {"type": "null"}],
                                         "default": None}}}  # fmt: skip
    made = built(schema)
    assert made.components[0].choices == [("none", ""), ("int8", "int8")]
    assert made.components[0].value == ""
    assert made.options([""]) == {}
    assert made.options(["int8"]) == {"weights": "int8"}


@pytest.mark.parametrize(("typed", "options"), [
    ("", {}), ("  ", {}), (None, {}), ("3", {"pull": 3.0}), (" 0.25 ", {"pull": 0.25}), ("0", {"pull": 0.0}),
])  # fmt: skip
def test_a_number_that_may_be_none_is_typed(typed: str | None, options: dict[str, float]) -> None:
    found = options_of(fields(SCHEMA), [*DEFAULTS[:2], typed, *DEFAULTS[3:]])
    assert found == options


@pytest.mark.parametrize(("value", "shown"), [(None, ""), (7.5, "7.5"), (4294967295, "4294967295"), ("7.", "7.")])
def test_a_number_that_may_be_none_shows_nothing_for_none(value: object, shown: str) -> None:
    made = built({"properties": {"pull": SCHEMA["properties"]["pull"]}}, given={"pull": value})
    assert made.components[0].value == shown


def test_one_and_true_are_not_the_same() -> None:
    field = Field(name="n", kind="switch", default=1, help="")
    assert options_of([field], [True]) == {"n": True}


def built(schema: dict[str, Any], **more: Any) -> Form:
    """A form on a page; in an event loop, as Gradio would begin one and leave it open."""

    async def build() -> Form:
        with gr.Blocks(analytics_enabled=False):
            return form(schema, **more)

    return asyncio.run(build())


def folded(component: Any) -> bool:
    """Whether it lies in something that is closed at first."""
    above = component.parent
    while above is not None and not isinstance(above, gr.Accordion):
        above = above.parent
    return above is not None


def test_the_form_shows_pictures_and_a_few_and_folds_the_rest() -> None:
    made = built(SCHEMA, prefix="own")
    assert [field.name for field in made.fields][:4] == ["mask", "steps", "top_p", "pull"]
    assert [component.elem_id for component in made.components] == [f"own-{field.name}" for field in made.fields]
    kinds = [type(component).__name__ for component in made.components]
    assert kinds == ["Image", "Number", "Slider", "Textbox", "Checkbox", "Dropdown", "Dropdown", "Textbox"]
    assert [folded(component) for component in made.components] == [False] * 4 + [True] * 4
    assert all(component.label for component in made.components)


def test_values_that_were_given_stand_in_the_form() -> None:
    made = built(SCHEMA, given={"steps": 3, "stop": "a\nb", "fast": True})
    values = {field.name: component.value for field, component in zip(made.fields, made.components, strict=True)}
    assert (values["steps"], values["stop"], values["fast"]) == (3, "a\nb", True)


@pytest.mark.parametrize("edge", {edge.target: edge for edge in table.TABLE}.values(), ids=lambda edge: edge.target)
def test_every_way_of_the_table_has_a_form_whose_defaults_are_none_said(edge: table.Edge) -> None:
    made = built(route(edge)["options"])
    assert made.options([None if each.kind == "picture" else each.default for each in made.fields]) == {}
