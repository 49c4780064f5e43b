"""Markdown as paragraphs of plain text to be read aloud. Text without marks is paragraphs as it is."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_RULE = re.compile(r"^ {0,3}(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,}|=+|-+)\s*$")
_HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_ITEM = re.compile(r"^\s*(?:[-*+]|(\d{1,9})[.)])\s+(?:\[[ xX]\]\s+)?(.*)$")
_ROW = re.compile(r"^\s*\|(.*)\|\s*$")
_BETWEEN_ROWS = re.compile(r"^[\s|:-]+$")
_INLINE = (
    (re.compile(r"!\[([^\]]*)\]\([^)]*\)"), r"\1"),
    (re.compile(r"\[([^\]]+)\]\([^)]*\)"), r"\1"),
    (re.compile(r"\[([^\]]+)\]\[[^\]]*\]"), r"\1"),
    (re.compile(r"\[\^[^\]]+\]"), ""),
    (re.compile(r"<(https?://[^>]+)>"), r"\1"),
    (re.compile(r"`+([^`]+)`+"), r"\1"),
    (re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*]+?)(?<=\S)\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<!\w)_(?=\S)([^_]+?)(?<=\S)_(?!\w)"), r"\1"),
    (re.compile(r"~~(?=\S)(.+?)(?<=\S)~~"), r"\1"),
    (re.compile(r"</?(?:b|i|em|strong|u|sub|sup|span|p|br|kbd|small)\b[^>]*/?>", re.IGNORECASE), " "),
    (re.compile(r"\\([\\`*_{}\[\]()#+.!|-])"), r"\1"),
)  # fmt: skip
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_FRONT = re.compile(r"\A---[ \t]*\r?\n.*?^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)


def blocks(text: str) -> tuple[list[str], list[str]]:
    """(paragraphs without marks, what was left out): headings and items of lists are paragraphs of their own, rows of
    tables have commas between cells; blocks of code and front matter are left out, and said to be."""
    warnings, found, current = list[str](), list[str](), list[str]()
    front = _FRONT.match(text)
    if front and ":" in front.group():
        text = text[front.end() :]
        warnings.append("the front matter is not read aloud")
    fence, code = "", 0
    for line in [*_COMMENT.sub(" ", text).splitlines(), ""]:
        opening = _FENCE.match(line)
        if fence:
            if opening and opening[1].startswith(fence):
                fence = ""
                warnings.append(f"a block of code is not read aloud ({code} line{'s' * (code != 1)})")
            code += 1
            continue
        if opening:
            fence, code = opening[1], 0
            _close(found, current)
            continue
        _line(line, found, current)
    _close(found, current)
    if fence:
        warnings.append(f"a block of code that does not end is not read aloud ({code - 1} lines)")
    return [each for each in map(_inline, found) if each], warnings


def _line(line: str, found: list[str], current: list[str]) -> None:
    heading, item, row = _HEADING.match(line), _ITEM.match(line), _ROW.match(line)
    if not line.strip() or _RULE.match(line):
        _close(found, current)
    elif heading:
        _close(found, current)
        found.append(heading[1])
    elif item:
        _close(found, current)
        current.append(f"{item[1]}: {item[2]}" if item[1] else item[2])
    elif row:
        _close(found, current)
        if not _BETWEEN_ROWS.match(line):
            found.append(", ".join(cell.strip() for cell in row[1].split("|") if cell.strip()))
    else:
        current.append(re.sub(r"^\s*(?:>\s?)+", "", line))


def _close(found: list[str], current: list[str]) -> None:
    if current:
        found.append(" ".join(current))
        current.clear()


def _inline(text: str) -> str:
    for pattern, plain in _INLINE:
        text = pattern.sub(plain, text)
    return " ".join(text.split())
