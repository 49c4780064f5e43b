"""A form from the JSON schema of a task's Options, and the options from what was filled in.

    made = form(route(edge)["options"])        # inside a Blocks context; the components are in `made.components`
    made.options(values)                       # {"steps": 20}: what differs from the defaults

What a schema says is all there is to a form: type, range, default and description of each option. Options that name
files of the server's machine are left out, as clients may not set them; options that take a picture are uploads.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from conjure.core.errors import ConjureError

SHOWN = 3
"""Options that a form shows at once; the rest is folded."""
SLIDER_STEPS = 400
"""A range of more steps than a slider has pixels is a number to type."""
_FLAG = re.compile(r"--([a-z][a-z-]*)")


@dataclass(frozen=True, kw_only=True)
class Field:
    """One option. `kind` is "whole", "number", "switch", "text", "choice", "choices", "lines", "picture" or "sound";
    `low` and `high` are None where there is no such bound; `empty` says that nothing may stand there."""

    name: str
    kind: str
    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    empty: bool = False

    @property
    def label(self) -> str:
        """`no_repeat_ngram` -> "No repeat ngram"."""
        words = self.name.replace("_", " ")
        return words[:1].upper() + words[1:]


@dataclass(frozen=True)
class Form:
    """Components of a form in the order of its fields; a listener takes `components` as (part of) its inputs."""

    fields: tuple[Field, ...]
    components: tuple[Any, ...]

    def options(self, values: Sequence[Any]) -> dict[str, Any]:
        """The options as `/v1/make` takes them, from the components' values in their order: those alone that are not
        the defaults. A picture comes as `{"b64": ...}`. Errors are `ConjureError`, which name the option."""
        return options_of(self.fields, values)


def fields(schema: Mapping[str, Any], leave_out: Collection[str] = ()) -> tuple[Field, ...]:
    """The options of a schema that a page may set."""
    names = schema.get("properties", {})
    return tuple(_field(name, its) for name, its in names.items() if name not in leave_out and not its.get("local"))


def options_of(known: Sequence[Field], values: Sequence[Any]) -> dict[str, Any]:
    """What `Form.options` gives, for fields without a form."""
    assert len(values) == len(known), "values come in the order of their fields"
    found = {field.name: _read(field, value) for field, value in zip(known, values, strict=True)}
    return {field.name: found[field.name] for field in known if not _same(found[field.name], field.default)}


def form(
    schema: Mapping[str, Any], *, leave_out: Collection[str] = (), given: Mapping[str, Any] | None = None,
    shown: int = SHOWN, prefix: str = "option",
) -> Form:  # fmt: skip
    """Builds the form where it is called: pictures and the first `shown` options open, the rest folded. `given` are
    values that differ from the defaults; the components' ids begin with `prefix`, which is unique on the page."""
    all_of_it = fields(schema, leave_out)
    pictures = [field for field in all_of_it if field.kind == "picture"]
    rest = [field for field in all_of_it if field.kind != "picture"]
    given = given or {}
    ordered: list[Field] = [*pictures, *rest]
    open_ones, folded = ordered[: len(pictures) + shown], ordered[len(pictures) + shown :]
    made = [component(field, given.get(field.name, field.default), prefix) for field in open_ones]
    if folded:
        with gr.Accordion(f"More options ({len(folded)})", open=any(field.name in given for field in folded)):
            made += [component(field, given.get(field.name, field.default), prefix) for field in folded]
    return Form(tuple(ordered), tuple(made))


def component(field: Field, value: Any, prefix: str = "option") -> Any:
    """The component for one option, built where it is called."""
    about: dict[str, Any] = {"label": field.label, "info": field.help, "elem_id": f"{prefix}-{field.name}",
                             "interactive": True}  # fmt: skip
    if field.kind == "switch":
        return gr.Checkbox(bool(value), **about)
    if field.kind == "choice":
        # A choice is known by its words, as some schemas give the default of a number in words.
        choices = [*([("none", "")] if field.empty else []), *((str(each), each) for each in field.choices)]
        return gr.Dropdown(choices, value=_chosen(field, value, "" if field.empty else None), **about)
    if field.kind == "choices":
        return gr.Dropdown(list(field.choices), value=list(value or ()), multiselect=True, **about)
    if field.kind == "lines":
        said = {**about, "info": f"{field.help} (one a line)"}
        return gr.Textbox(value if isinstance(value, str) else "\n".join(value or ()), lines=1, max_lines=4, **said)
    if field.kind == "text":
        return gr.Textbox(str(value or ""), lines=1, max_lines=4, **about)
    if field.kind == "sound":
        del about["info"]
        return gr.Audio(type="filepath", sources=["upload", "microphone"],
                        **{**about, "label": f"{field.label}: {field.help}".removesuffix(": ")})  # fmt: skip
    if field.kind == "picture":
        del about["info"]
        return gr.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], height=180, buttons=[],
                        **{**about, "label": f"{field.label}: {field.help}".removesuffix(": ")})  # fmt: skip
    step = 1.0 if field.kind == "whole" else 0.05
    width = float("inf") if field.low is None or field.high is None or field.empty else field.high - field.low
    if width / step <= SLIDER_STEPS and value is not None:
        fine = step if field.kind == "whole" or width > 2 else 0.01
        return gr.Slider(field.low or 0, field.high or 0, value, step=fine, buttons=["reset"], **about)
    if field.empty:  # an empty field of numbers would show 0, and send it
        typed = "" if value is None else value if isinstance(value, str) else f"{value:.12g}"
        return gr.Textbox(typed, placeholder="none", max_lines=1, **about)
    # The bounds are checked with the plan, which says what was expected; the browser's own would cut the number off.
    return gr.Number(value, precision=0 if field.kind == "whole" else None, step=step, **about)


def _field(name: str, its: Mapping[str, Any]) -> Field:
    parts = [part for part in its.get("anyOf", [its]) if part.get("type") != "null"]
    main: Mapping[str, Any] = {**its, **parts[0]} if parts else its
    kind, items = main.get("type", "string"), main.get("items", {})
    choices = main.get("enum") or ([main["const"]] if "const" in main else items.get("enum", ()))
    if its.get("file"):
        kind = "sound" if its["file"] == "audio" else "picture"
    elif kind == "array":
        kind = "choices" if choices else "lines"
    elif choices:
        kind = "choice"
    else:
        kind = {"integer": "whole", "number": "number", "boolean": "switch"}.get(kind, "text")
    low, high = main.get("minimum", main.get("exclusiveMinimum")), main.get("maximum", main.get("exclusiveMaximum"))
    default = its.get("default")
    if kind == "choice":
        default = next((each for each in choices if str(each) == str(default)), default)
    return Field(name=name, kind=kind, default=default, help=_help(its.get("description", "")),
                 choices=tuple(choices), low=low, high=high, empty=len(parts) < len(its.get("anyOf", [its])),
                 )  # fmt: skip


def _help(text: str) -> str:
    """The flags of the command line as the names they have in a form."""
    return _FLAG.sub(lambda found: found[1].replace("-", " "), text)


def _read(field: Field, value: Any) -> Any:
    """What a component gives, as the value of the option."""
    if field.kind == "picture":
        if not value:
            return field.default
        return {"b64": base64.b64encode(Path(value).read_bytes()).decode("ascii")}
    if field.kind == "lines":
        lines = value.splitlines() if isinstance(value, str) else value or ()
        return [line for line in lines if line.strip()]
    if field.kind == "choices":
        return list(value or ())
    if field.kind in ("whole", "number"):
        return _number(field, value)
    if field.kind == "choice":
        return _chosen(field, value, field.default)
    return field.default if value is None else value


def _chosen(field: Field, value: Any, otherwise: Any) -> Any:
    """The choice of these words, in its own type."""
    return next((each for each in field.choices if str(each) == str(value)), otherwise)


def _number(field: Field, value: Any) -> Any:
    if isinstance(value, str):
        value = _typed(field, value.strip())
    if value is None:
        return None if field.empty else field.default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConjureError(f"{field.name}: expected a number, got {value!r}", hint=field.help)
    if field.kind == "whole" and value != int(value):
        raise ConjureError(f"{field.name}: expected a whole number, got {value:g}", hint=field.help)
    return int(value) if field.kind == "whole" else float(value)


def _typed(field: Field, words: str) -> float | None:
    """A number as somebody wrote it, None for nothing."""
    try:
        return float(words) if words else None
    except ValueError:
        raise ConjureError(f"{field.name}: expected a number, got {words!r}", hint=field.help) from None


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, list) and isinstance(default, list | tuple):
        return value == list(default)
    return value == default and isinstance(value, bool) == isinstance(default, bool)
