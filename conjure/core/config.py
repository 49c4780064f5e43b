"""Dataclasses from plain values and back, as strict as a compiler; YAML whose floats are floats.

Recipes, `config.json` of model folders and provenance all pass here. A key nobody knows, a wrong type or a
key given twice is an error that names the path (`model.dim`) and the nearest known name.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from conjure.core.errors import ConjureError, suggest

T = TypeVar("T")


def to_dict(obj: Any) -> Any:
    """Plain values (dict, list, str, int, float, bool, None) of a dataclass; tuples become lists."""
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {f.name: to_dict(getattr(obj, f.name)) for f in dataclasses.fields(obj) if f.init}
    if isinstance(obj, Mapping):
        return {str(key): to_dict(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [to_dict(value) for value in obj]
    if isinstance(obj, Path):
        return str(obj)
    assert obj is None or isinstance(obj, (str, int, float, bool)), f"{type(obj).__name__} is no plain value"
    return obj


def from_dict(cls: type[T], data: Any, where: str = "recipe") -> T:
    """The dataclass `cls` filled from nested plain values.

    An integer is accepted for a float field, an integral float (`1e3`) for an integer field, a list for a
    tuple; nothing else is converted. Unknown and missing keys, wrong types, and what the dataclass itself
    refuses raise `ConjureError`; `where` names the source in the message.
    """
    return _dataclass(cls, data, where, "")


def override(data: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of `data` with each `a.b=value` put in; values follow the YAML rules of `load_yaml`.

    Missing mappings on the way are made, so that `from_dict` can name an unknown key; a number in the path
    points into a list.
    """
    result = copy.deepcopy(dict(data))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise ConjureError(f"expected key=value, got {assignment!r}", hint="write it as train.lr=3e-4")
        _put(result, parts, _assigned(text, assignment), assignment)
    return result


def load_yaml(text_or_path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML text, or in the file if a `Path` or a one-line `*.yaml` name is given.

    YAML 1.2 core schema: `3e-4` is a float, `yes` and `on` are text, `010` is ten. Keys are text and stand
    once. Tags, aliases and depth over 64 are refused, so that no document can build objects or blow up.
    """
    where = "recipe"
    text = text_or_path
    if isinstance(text, Path) or ("\n" not in text and text.endswith((".yaml", ".yml"))):
        where, text = str(text), _read_text(Path(text))
    data = _parse(text, where)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConjureError(f"{where}: expected `key: value` lines, got {_say(data)}")
    return data


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConjureError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConjureError(f"{path}: expected a readable UTF-8 file: {error}") from None


def _parse(text: str, where: str) -> Any:
    from conjure.core.yaml12 import parse

    return parse(text, where)


def _assigned(text: str, assignment: str) -> Any:
    value = _parse(text, assignment)
    if value is None and text.strip() not in ("", "~", "null", "Null", "NULL"):
        raise ConjureError(f"{assignment}: the value is a YAML comment", hint="put it into quotes")
    return value


def _put(node: Any, parts: list[str], value: Any, assignment: str) -> None:
    """Sets `node[parts[0]][parts[1]]... = value` in place."""
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, list):
            if not part.isdecimal() or int(part) >= len(node):
                at = ".".join(parts[:depth])
                raise ConjureError(f"{assignment}: {at} is a list of {len(node)}, it has no place {part!r}")
            key: Any = int(part)
        elif isinstance(node, dict):
            key = part
            if not last and node.get(key) is None:
                node[key] = {}
        else:
            raise ConjureError(f"{assignment}: {'.'.join(parts[:depth])} is {_say(node)}, it has no keys")
        if last:
            node[key] = value
        else:
            node = node[key]


# -- values against types ------------------------------------------------------------------------------------


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=False)


def _dataclass(cls: type[T], data: Any, where: str, path: str) -> T:
    if not isinstance(data, Mapping):
        raise _wrong("keys and values", data, where, path)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            hint = suggest(str(key), fields)
            raise ConjureError(f"{where}: unknown key `{_join(path, str(key))}`", hint=hint)
    missing = [
        _join(path, name)
        for name, f in fields.items()
        if name not in data and f.default is f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConjureError(f"{where}: missing `{'`, `'.join(missing)}`")
    hints = _hints(cls)
    values = {key: _value(hints[key], value, where, _join(path, key)) for key, value in data.items()}
    try:
        return cls(**values)
    except ConjureError as error:
        raise ConjureError(_at(where, path, error.message), hint=error.hint) from None
    except ValueError as error:  # what __post_init__ or pydantic refuses
        raise ConjureError(_at(where, path, str(error))) from None


def _value(kind: Any, value: Any, where: str, path: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is Literal:
        return _literal(args, value, where, path)
    if origin in (Union, types.UnionType):
        return _union(args, value, where, path)
    if origin is tuple or kind is tuple:
        return _tuple(args, value, where, path)
    if origin in (list, Sequence) or kind is list:
        if not isinstance(value, (list, tuple)):
            raise _wrong("a list", value, where, path)
        item = args[0] if args else Any
        return [_value(item, each, where, f"{path}[{i}]") for i, each in enumerate(value)]
    if origin in (dict, Mapping) or kind is dict:
        if not isinstance(value, Mapping):
            raise _wrong("keys and values", value, where, path)
        item = args[1] if args else Any
        return {str(key): _value(item, each, where, _join(path, str(key))) for key, each in value.items()}
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else _dataclass(kind, value, where, path)  # type: ignore[arg-type]
    return _scalar(kind, value, where, path)


def _scalar(kind: Any, value: Any, where: str, path: str) -> Any:
    is_bool = isinstance(value, bool)
    if kind in (None, type(None)) and value is None:
        return None
    if kind is bool and is_bool:
        return value
    if kind is str and isinstance(value, str):
        return value
    if kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    if kind is int and not is_bool:
        if isinstance(value, int):
            return value
        if isinstance(value, float) and value.is_integer():  # 1e3 in YAML
            return int(value)
    if kind is float and not is_bool:
        if isinstance(value, float):
            return value
        if isinstance(value, int) and abs(value) < 2**1023:
            return float(value)
    raise _wrong(_name(kind), value, where, path)


def _literal(options: tuple[Any, ...], value: Any, where: str, path: str) -> Any:
    for option in options:
        if type(option) is type(value) and option == value:
            return value
    listed = ", ".join(repr(option) for option in options)
    hint = suggest(value, [o for o in options if isinstance(o, str)]) if isinstance(value, str) else ""
    raise ConjureError(_at(where, path, f"expected one of {listed}, got {_say(value)}"), hint=hint)


def _union(members: tuple[Any, ...], value: Any, where: str, path: str) -> Any:
    """The member that takes the value unchanged, else the first that takes it at all."""
    nested = [member for member in members if dataclasses.is_dataclass(member)]
    if isinstance(value, Mapping) and nested and not any(typing.get_origin(m) is dict for m in members):
        # The one that knows most of the keys, so that its own message about the others reaches the user.
        likeliest = max(nested, key=lambda m: len({f.name for f in dataclasses.fields(m)} & set(value)))
        return _value(likeliest, value, where, path)
    accepted = []
    for member in members:
        try:
            result = _value(member, value, where, path)
        except ConjureError:
            continue
        if type(result) is type(value):
            return result
        accepted.append(result)
    if accepted:
        return accepted[0]
    raise _wrong(" or ".join(_name(member) for member in members), value, where, path)


def _tuple(items: tuple[Any, ...], value: Any, where: str, path: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _wrong("a list", value, where, path)
    if not items:
        return tuple(value)
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    if items == ((),):
        items = ()
    if len(items) != len(value):
        raise ConjureError(_at(where, path, f"expected {len(items)} values, got {len(value)}"))
    pairs = enumerate(zip(items, value, strict=True))
    return tuple(_value(item, each, where, f"{path}[{i}]") for i, (item, each) in pairs)


# -- words for messages --------------------------------------------------------------------------------------

_NAMES = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    Path: "a path",
}


def _name(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return ", ".join(repr(option) for option in typing.get_args(kind))
    if typing.get_origin(kind) in (tuple, list):
        return "a list"
    return _NAMES.get(kind) or getattr(kind, "__name__", str(kind))


def _say(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}"
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _wrong(expected: str, value: Any, where: str, path: str) -> ConjureError:
    hint = ""
    if isinstance(value, str) and expected in ("an integer", "a number", "true or false"):
        hint = "write it without quotes"
    return ConjureError(_at(where, path, f"expected {expected}, got {_say(value)}"), hint=hint)


def _at(where: str, path: str, message: str) -> str:
    return f"{where}: {path}: {message}" if path else f"{where}: {message}"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
