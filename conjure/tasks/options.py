"""A task's `Options` as knobs: from one pydantic dataclass come the flags of the command line, the check of what was
given, and the words of its errors. No knob is declared twice."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union

from conjure.core.errors import ConjureError, nearest
from conjure.tasks import table
from conjure.tasks.table import Edge, resolve


@dataclass(frozen=True)
class Knob:
    """One field of an Options class, in words and as a type."""

    name: str
    type: Any
    default: Any
    doc: str
    expects: str
    many: bool = False

    @property
    def default_text(self) -> str:
        """The default in words: `on`, `none`, `12`."""
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        if isinstance(self.default, (tuple, list)):
            return ", ".join(map(repr, self.default)) or "none"
        return "none" if self.default in (None, "") else str(self.default)

    @property
    def flag(self) -> str:
        """`top_p` -> `--top-p`."""
        return f"--{self.name.replace('_', '-')}"


def knobs(options: type[Any]) -> tuple[Knob, ...]:
    """The fields of a pydantic dataclass in their order."""
    fields = getattr(options, "__pydantic_fields__", {})
    return tuple(_knob(name, field) for name, field in fields.items())


def check(edge: Edge, options: type[Any], given: Mapping[str, Any]) -> Any:
    """The Options made from `given` (strings are read as the field's type); `ConjureError` that names the option, what
    it expects and what came."""
    from pydantic import ValidationError

    known = {knob.name: knob for knob in knobs(options)}
    for name in given:
        if name not in known:
            raise unknown(name, edge, options)
    for name, value in given.items():
        if (isinstance(value, float) and not math.isfinite(value)) or value in ("nan", "inf", "-inf"):
            raise _refused(known[name], value)
    try:
        return options(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if name in known:
            raise _refused(known[name], given.get(name, first["input"])) from None
        raise ConjureError(f"the options do not fit together: {first['msg']}") from None


def unknown(name: str, edge: Edge, options: type[Any]) -> ConjureError:
    """The error for an option this edge has not: which edges have it, and what this one has."""
    mine = [knob.name for knob in knobs(options)]
    others = [other for other in table.everything() if other != edge and name in _names(other)]
    flag = f"--{name.replace('_', '-')}"
    where = f"; {flag} belongs to {', '.join(f'{other.task} ({other})' for other in others)}" if others else ""
    close = nearest(name, mine, n=1)
    listed = ", ".join(f"--{each.replace('_', '-')}" for each in mine) or "none"
    meant = f"did you mean --{close[0].replace('_', '-')}? " if close and not others else ""
    return ConjureError(
        f"{edge.task} ({edge}) has no option {flag}{where}", hint=f"{meant}options of {edge.task}: {listed}"
    )


def _names(edge: Edge) -> set[str]:
    return {knob.name for knob in knobs(resolve(edge).Options)}


def _refused(knob: Knob, value: Any) -> ConjureError:
    shown = repr(value) if isinstance(value, str) and not _is_number(value) else str(value)
    return ConjureError(
        f"{knob.flag}: expected {knob.expects}, got {shown}", hint=f"{knob.doc} (default {knob.default_text})"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _knob(name: str, field: Any) -> Knob:
    bounds: dict[str, Any] = {}
    for constraint in field.metadata:
        for key in ("ge", "gt", "le", "lt"):
            if hasattr(constraint, key):
                bounds[key] = getattr(constraint, key)
    default = field.get_default(call_default_factory=True)
    kind, optional = _without_none(field.annotation)
    many = typing.get_origin(kind) in (tuple, list)
    expects = _expects(typing.get_args(kind)[0] if many else kind, bounds)
    return Knob(
        name=name,
        type=kind,
        default=default,
        doc=field.description or "",
        expects=expects + (", or none" if optional and default is None else ""),
        many=many,
    )


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        return (kinds[0] if len(kinds) == 1 else str), True
    return annotation, False


def _expects(kind: Any, bounds: Mapping[str, Any]) -> str:
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    words = {int: "a whole number", float: "a number", bool: "on or off", str: "a text"}.get(kind, "a value")
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    above, below = " above" if "gt" in bounds else " from", " below" if "lt" in bounds else " to"
    if low is not None and high is not None:
        if "lt" in bounds and "gt" not in bounds:
            below = " to below"
        if "gt" in bounds:
            below = " and below" if "lt" in bounds else " and at most"
        return f"{words}{above} {low:g}{below} {high:g}"
    if low is not None:
        return f"{words}{above if 'gt' in bounds else ' of at least'} {low:g}"
    if high is not None:
        return f"{words}{below if 'lt' in bounds else ' of at most'} {high:g}"
    return words
