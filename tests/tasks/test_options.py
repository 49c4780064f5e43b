from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.core.errors import ConjureError
from conjure.tasks.options import check, knobs
from conjure.tasks.table import Edge

EDGE = Edge(("text",), "image", "draw", "somewhere:Task", "starter/x", "draws")


@dataclass(frozen=True, kw_only=True)
class Options:
    steps: int = Field(12, ge=1, le=100, description="steps of the sampler")
    top_p: float = Field(1.0, gt=0, le=1, description="share to draw from")
    share: float = Field(0.5, ge=0, lt=1, description="a share")
    least: int = Field(0, ge=0, description="no end")
    limit: int | None = Field(None, ge=1, description="no limit")
    sampler: Literal["euler", "heun"] = Field("euler", description="how")
    stop: tuple[str, ...] = Field((), description="where to stop")
    fast: bool = Field(False, description="hurry")
    negative: str = Field("", description="what not")


def test_knobs_say_type_range_and_default() -> None:
    found = {knob.name: (knob.flag, knob.expects, knob.default_text, knob.many) for knob in knobs(Options)}
    assert found == {
        "steps": ("--steps", "a whole number from 1 to 100", "12", False),
        "top_p": ("--top-p", "a number above 0 and at most 1", "1.0", False),
        "share": ("--share", "a number from 0 to below 1", "0.5", False),
        "least": ("--least", "a whole number of at least 0", "0", False),
        "limit": ("--limit", "a whole number of at least 1, or none", "none", False),
        "sampler": ("--sampler", "one of euler, heun", "euler", False),
        "stop": ("--stop", "a text", "none", True),
        "fast": ("--fast", "on or off", "off", False),
        "negative": ("--negative", "a text", "none", False),
    }
    assert next(knob.doc for knob in knobs(Options) if knob.name == "steps") == "steps of the sampler"


def test_strings_are_read_as_the_type_of_the_field() -> None:
    made = check(EDGE, Options, {"steps": "7", "top_p": "0.25", "limit": "3", "stop": ("a",), "fast": True})
    assert (made.steps, made.top_p, made.limit, made.stop, made.fast) == (7, 0.25, 3, ("a",), True)
    assert check(EDGE, Options, {}) == Options()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "--steps: expected a whole number from 1 to 100, got 0"),
        ({"steps": "1.5"}, "--steps: expected a whole number from 1 to 100, got 1.5"),
        ({"top_p": 0}, "--top-p: expected a number above 0 and at most 1, got 0"),
        ({"share": float("nan")}, "--share: expected a number from 0 to below 1, got nan"),
        ({"least": float("inf")}, "--least: expected a whole number of at least 0, got inf"),
        ({"sampler": "ddim"}, "--sampler: expected one of euler, heun, got 'ddim'"),
        ({"negative": 3}, "--negative: expected a text, got 3"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConjureError) as caught:
        check(EDGE, Options, given)
    assert caught.value.message == message
    assert "default" in caught.value.hint


def test_unknown_options_list_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conjure.tasks.table.everything", lambda: (EDGE,))
    with pytest.raises(ConjureError, match="has no option --step") as caught:
        check(EDGE, Options, {"step": 1})
    assert caught.value.hint.startswith("did you mean --steps? options of draw: --steps, --top-p")
