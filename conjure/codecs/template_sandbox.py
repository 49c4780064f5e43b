"""Where templates from strangers are rendered: Jinja without reach into Python, and with an end.

Jinja's own sandbox keeps a template from the attributes of Python's objects. It does not keep it from running for ever
or from filling the memory, so everything that can grow or repeat is counted here: loops, calls, filters, operators,
literals and output all `spend` from one budget of work, where a unit is about a character made or an item visited.
Values are weighed where they are made or written, so none is ever larger than the budget. Filters and methods of text
that are not on the lists below do not exist.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import TemplateError, Undefined, nodes, pass_context
from jinja2.environment import Template
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

FILTERS = (
    "abs count d default dictsort first float groupby int items last length list map max min reject rejectattr "
    "reverse round select selectattr sort unique"
)
"""Filters that make nothing larger than what they are given."""
TEXT_FILTERS = "capitalize e escape indent join lower replace safe string striptags title trim truncate upper wordcount"
"""Filters that read their value as text."""
STRING_METHODS = frozenset(
    "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric "
    "isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition "
    "rsplit rstrip split splitlines startswith strip swapcase title upper".split()
)
SPAN_START, SPAN_END = "\ufdd1", "\ufdd2"
"""Around what stands in `{% generation %}`; Unicode says that these two are never text."""
DEPTH = 100
BITS = 4096
"""The longest whole number that an operator may make."""


class TooMuch(TemplateError):
    """The template went beyond its budget."""


class Meter:
    """What one rendering may still do."""

    def __init__(self, work: int, seconds: float) -> None:
        self.left, self.deadline, self.calls = work, time.monotonic() + seconds, 0

    def spend(self, units: int) -> None:
        self.left -= 1 + units
        self.calls += 1
        if self.left < 0:
            raise TooMuch("it does not come to an end, or writes far more than a chat needs")
        if not self.calls & 63 and time.monotonic() > self.deadline:
            raise TooMuch("it takes too long")

    def weigh(self, value: object) -> int:
        """Characters and items in a value, all that it holds included, which are spent too."""
        weight, waiting = 0, [(value, 0)]
        while waiting and weight <= self.left:
            value, depth = waiting.pop()
            weight += 1
            if isinstance(value, (str, bytes)):
                weight += len(value)
            elif isinstance(value, Names):
                waiting.append((_held(value), depth))
            elif isinstance(value, Mapping):
                waiting += [(each, depth + 1) for pair in value.items() for each in pair]
            elif isinstance(value, (list, tuple)):
                waiting += [(each, depth + 1) for each in value]
            if depth > DEPTH:
                raise TooMuch(f"it nests values more than {DEPTH} deep")
        self.spend(weight)
        return weight


_METER: ContextVar[Meter] = ContextVar("meter")


@contextmanager
def metered(work: int, seconds: float) -> Iterator[Meter]:
    """Renders inside spend from this meter."""
    meter = Meter(work, seconds)
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


class Names(Namespace):
    """Jinja's `namespace`, which would also take names such as `__class__`."""

    def __init__(*args: Any, **named: Any) -> None:
        self, rest = args[0], args[1:]
        values = dict(*rest, **named)
        for name in values:
            _plain_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _plain_name(name)
        super().__setitem__(name, value)


def _held(names: Names) -> dict[str, Any]:
    return object.__getattribute__(names, "_Namespace__attrs")


def _plain_name(name: str) -> None:
    if name.startswith("_"):
        raise SecurityError(f"names in a namespace may not begin with an underscore, {name!r} does")


class Generation(Extension):
    """`{% generation %}` ... `{% endgeneration %}` is around what the model itself wrote."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own declaration)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("marked"), [], [], body).set_lineno(line)

    @staticmethod
    def marked(caller: Callable[[], str]) -> str:
        return f"{SPAN_START}{caller()}{SPAN_END}"


class _Counting(NodeTransformer):
    """Puts counters into a template: around what loops run over, what is joined, and literals that hold values."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        cost = 1 + sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        node.iter = _filtered(node.iter, "_each", nodes.Const(cost))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_filtered(each, "_weighed") for each in node.nodes]
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "_weighed")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "_weighed")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, "_weighed") if node.ctx == "load" else node


def _filtered(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    assert isinstance(node, nodes.Expr)  # Jinja's types call what a loop runs over any node
    counted = nodes.Filter(node, name, list(args), [], None, None)
    counted.set_lineno(node.lineno)
    return counted


class Sandbox(ImmutableSandboxedEnvironment):
    """Compiles one template, which can only be rendered inside `metered`."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, optimized=False, finalize=_shown,
            extensions=[Generation, LoopControlExtension],
        )  # fmt: skip
        self.written = 0
        """Characters of plain text in the template, which a call of a macro may write."""
        texts = {name: _on_text(name, self.filters[name]) for name in TEXT_FILTERS.split()}
        plain = {name: _shallow(name, self.filters[name]) for name in FILTERS.split()}
        self.filters = {**texts, **plain, "tojson": _to_json, "_each": _each, "_weighed": _weighed}
        kept = {name: self.globals[name] for name in ("range", "cycler", "joiner")}
        own = {"dict": _dict, "namespace": Names, "raise_exception": _raise, "strftime_now": _strftime_now}
        self.globals = {**kept, **own}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        self.written = sum(len(data.data) for data in tree.find_all(nodes.TemplateData))
        return _Counting().visit(tree)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr not in STRING_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        raise SecurityError(f"a chat template may not reach {attribute!r} of a {type(obj).__name__}")

    def wrap_str_format(self, value: Any) -> None:
        """Jinja would let `str.format` through, which writes fields of any width."""
        if isinstance(value, (MethodType, BuiltinMethodType)) and value.__name__ in ("format", "format_map"):
            raise SecurityError("a chat template may not reach 'format' of a str")

    def call(self, context: Context, called: Any, /, *args: Any, **named: Any) -> Any:
        meter, owner = _METER.get(), getattr(called, "__self__", None)
        meter.spend(self.written if isinstance(called, Macro) else 1)
        if isinstance(owner, str):
            meter.spend(len(owner))
            args = _bounded(getattr(called, "__name__", ""), owner, args, meter)
        made = super().call(context, called, *args, **named)
        return _made(made, deep=called is _dict)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter, numbers = _METER.get(), isinstance(left, int) and isinstance(right, int)
        if operator == "*" and not numbers:
            for many, count in ((left, right), (right, left)):
                if isinstance(count, int):
                    meter.spend(max(0, count) * meter.weigh(many))
        elif operator in ("*", "**") and numbers:
            bits, more = left.bit_length(), right.bit_length()
            if (bits + more if operator == "*" else bits * abs(right)) > BITS:
                raise TooMuch("it makes numbers without end")
        elif operator == "%" and isinstance(left, str):
            meter.weigh(right)
            if re.search(r"%[^a-zA-Z%]*(\*|\d{4})", left):
                raise SecurityError("a chat template may not write fields as wide as that")
        return _made(super().call_binop(context, operator, left, right), deep=operator in "+*")


def compiled(source: str) -> Template:
    """The template, ready to render; Jinja's errors as they are."""
    return Sandbox().from_string(source)


# -- what templates call ----------------------------------------------------------------------------------


def _made(value: Any, *, deep: bool) -> Any:
    """A value that was just made; what a list holds was weighed when that was made, unless lists can nest here."""
    meter = _METER.get()
    if deep or isinstance(value, str):
        meter.weigh(value)
    elif isinstance(value, (list, tuple, dict)):
        meter.spend(len(value))
    return value


def _bounded(name: str, owner: str, args: tuple[Any, ...], meter: Meter) -> tuple[Any, ...]:
    """Spend what `owner.name(*args)` is going to make; the arguments to call it with."""
    if name == "join" and args:
        parts = [part for part in _each(args[0], len(owner)) if meter.weigh(part)]
        return (parts, *args[1:])
    if name == "replace" and len(args) > 1 and isinstance(args[0], str) and isinstance(args[1], str):
        meter.spend(owner.count(args[0]) * len(args[1]))
    return args


def _on_text(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose value is weighed first, and whose result is too."""
    position = 1 if hasattr(function, "jinja_pass_arg") else 0  # some take Jinja's environment in front

    @wraps(function)
    def run(*args: Any, **named: Any) -> Any:
        meter = _METER.get()
        before, value, rest = args[:position], args[position], args[position + 1 :]
        if name == "join":
            glue = rest[0] if rest else named.get("d", "")
            value = list(_each(value, meter.weigh(glue)))
        meter.weigh(value)
        if name == "replace":
            _bounded(name, str(value), tuple(map(str, (*rest, *named.values())))[:2], meter)
        if name == "indent" and any(isinstance(each, int) and each > 100 for each in (*rest, *named.values())):
            raise SecurityError("a chat template may not indent as far as that")
        return _made(function(*before, value, *rest, **named), deep=False)

    return run


def _shallow(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def run(*args: Any, **named: Any) -> Any:
        if name == "round" and any(isinstance(each, int) and each > 100 for each in (*args[1:], *named.values())):
            raise SecurityError("a chat template may not round to so many digits")
        return _made(function(*args, **named), deep=False)

    return run


def _each(values: Any, cost: int) -> Iterator[Any]:
    meter = _METER.get()
    for value in values:
        meter.spend(cost)
        yield value


def _weighed(value: Any) -> Any:
    _METER.get().weigh(value)
    return value


@pass_context
def _shown(context: Context, value: Any) -> Any:
    """What is about to be written. Takes the context only so that Jinja calls it while rendering, not before."""
    _METER.get().weigh(value)
    return value


def _dict(*args: Any, **named: Any) -> dict[Any, Any]:
    return dict(*args, **named)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None,
    separators: tuple[str, str] | None = None, sort_keys: bool = False,
) -> str:  # fmt: skip
    """JSON without HTML's escapes."""
    width = indent if isinstance(indent, int) else len(indent or "")
    if width > 16:
        raise SecurityError("a chat template may not indent as far as that")
    meter = _METER.get()
    meter.spend(meter.weigh(value) * (1 + width))
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
