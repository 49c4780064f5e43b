"""Python files as documents: a folder of .py files, archives of them, or Debian packages of the standard library."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

from conjure.core.errors import ConjureError
from conjure.data import fetch
from conjure.data.archives import deb_files, files
from conjure.data.books import Document

LEFT_OUT = re.compile(
    r"(^|/)(tests?|idlelib|lib2to3|pydoc_data|encodings|__phello__)/|html/entities\.py$|stringprep\.py$|_casefix\.py$"
    r"|_sysconfigdata|sitecustomize\.py$|(^|/)test_[^/]*\.py$"
)
"""Tests, tables that programs wrote, and the many near copies of one codec: nothing to learn writing from."""

_LIBRARY = re.compile(r"^(usr/)?(lib|share)/python3(\.\d+)?/")
_CODE = (tokenize.NAME, tokenize.OP, tokenize.NUMBER)


def code_documents(names: Sequence[str]) -> list[Document]:
    """The Python files of these data sets, in order of name; `name` is the path below the library's folder."""
    found: dict[str, Document] = {}
    for name in names:
        for path, data in _files(fetch.path(name)):
            path = _LIBRARY.sub("", path)
            if LEFT_OUT.search(path) or not data.strip():
                continue
            text = data.decode("utf-8", errors="replace").replace("\r\n", "\n")
            found.setdefault(path, Document(path, text))
    if not found:
        raise ConjureError(f"the data sets {', '.join(names) or '(none)'} hold no Python", hint="conjure data list")
    return [found[path] for path in sorted(found)]


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    yield from files(folder, "*.py")
    for package in sorted(folder.glob("*.deb")):
        yield from deb_files(package, "*.py")


def code_lines(text: str) -> list[tuple[int, int]]:
    """(first character behind the indentation, end of the line) of every line that holds code alone: no text of
    several lines, no comment, and more than a text of its own."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    held: dict[int, bool] = {}
    said: set[int] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            plain = token.type in _CODE or (token.type == tokenize.STRING and token.start[0] == token.end[0])
            if token.type in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
                continue
            if token.type in (tokenize.NAME, tokenize.OP):
                said.add(token.start[0])
            for row in range(token.start[0], token.end[0] + 1):
                held[row] = held.get(row, True) and plain
    except (tokenize.TokenError, SyntaxError):  # a file of another Python: what was read until there will do
        pass
    found = []
    for row in sorted(row for row, code in held.items() if code and row in said):
        line = text[starts[row - 1] : starts[row]]
        begin = starts[row - 1] + len(line) - len(line.lstrip())
        end = starts[row - 1] + len(line.rstrip())
        if re.search(r"\w", text[begin:end]):
            found.append((begin, end))
    return found
