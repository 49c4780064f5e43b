"""YAML 1.2 core schema on top of PyYAML's reader: plain values only, no tags, no aliases, no key twice.

PyYAML speaks YAML 1.1, where `3e-4` is text, `no` is false and `010` is eight: all three have spoilt runs.
https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import BaseConstructor
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

from conjure.core.errors import ConjureError

MAX_CHARACTERS = 4 << 20
MAX_DEPTH = 64

_NULL = re.compile(r"|~|null|Null|NULL")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")


def parse(text: str, where: str) -> Any:
    """Plain values of one YAML document; `ConjureError` with line and column where it is none."""
    if len(text) > MAX_CHARACTERS:
        raise ConjureError(
            f"{where}: expected at most {MAX_CHARACTERS:,} characters of YAML, got {len(text):,}"
        )
    try:
        node = _Composer(text).get_single_node()
        return None if node is None else _build(node, where, 0)
    except yaml.MarkedYAMLError as error:
        place = f"{_place(error.problem_mark)}: " if error.problem_mark else ""
        raise ConjureError(f"{where}: {place}no valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConjureError(f"{where}: no valid YAML: {error}") from None


class _Composer(Reader, Scanner, Parser, Composer, BaseConstructor):
    """PyYAML's own stages up to the node tree, without its YAML 1.1 resolver."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise _refused("an alias (*name) is not read: write the value out", self.peek_event().start_mark)
        if self.depth >= MAX_DEPTH:
            raise _refused(f"nested deeper than {MAX_DEPTH}", self.peek_event().start_mark)
        self.depth += 1
        node = Composer.compose_node(self, parent, index)
        self.depth -= 1
        return node

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        """No path resolvers."""

    def ascend_resolver(self) -> None:
        """No path resolvers."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """The tag of a node that was written without one: text in quotes, or plain."""
        if kind is yaml.ScalarNode:
            return "plain" if implicit[0] else "quoted"
        return "collection"


def _build(node: Any, where: str, depth: int) -> Any:
    if isinstance(node, yaml.ScalarNode) and node.tag in ("plain", "quoted"):
        return _quoted(node) if node.tag == "quoted" else _plain(node)
    if isinstance(node, yaml.SequenceNode) and node.tag == "collection":
        return [_build(item, where, depth + 1) for item in node.value]
    if isinstance(node, yaml.MappingNode) and node.tag == "collection":
        return _mapping(node, where, depth)
    raise _refused(f"a tag ({node.tag}) is not read: write plain values", node.start_mark)


def _mapping(node: Any, where: str, depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _build(key_node, where, depth + 1)
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise _refused(f"a key is text, got {key!r}", key_node.start_mark)
        key = key if isinstance(key, str) else str(key_node.value)
        if key in result:
            raise _refused(f"the key '{key}' stands twice", key_node.start_mark)
        result[key] = _build(value_node, where, depth + 1)
    return result


def _quoted(node: Any) -> str:
    """JSON writes characters beyond the first plane as two escapes, which PyYAML leaves apart."""
    text: str = node.value
    if not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _refused("half a surrogate pair is no character", node.start_mark) from None


def _plain(node: Any) -> Any:
    text: str = node.value
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        if len(text) > 1000:
            raise _refused("an integer of more than 1,000 digits", node.start_mark)
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float("-inf") if text.startswith("-") else float("inf")
    if _NAN.fullmatch(text):
        return float("nan")
    return text


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
