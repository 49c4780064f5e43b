"""A suite's rows as prompts: solved examples in front of each question, as the LM Evaluation Harness draws them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from conjure.core.errors import ConjureError
from conjure.data.suites import Row, Suite

SEED = 1234
"""Of the harness: `fewshot_random_seed`."""


@dataclass(frozen=True)
class Item:
    """One question, ready to be asked."""

    index: int
    row: Row
    requests: tuple[tuple[str, str], ...]
    """(context, continuation): one for each choice; ("", text) for a whole text; (prompt, "") for writing."""
    choices: tuple[str, ...] = ()
    gold: int = 0
    """The right one of the choices."""
    target: str = ""


def items(suite: Suite, rows: Sequence[Row], pool: Sequence[Row], shots: int, *, seed: int = SEED) -> Iterator[Item]:
    """The items of `rows`, in order, each behind `shots` examples out of `pool`.

    All come from one stream of draws, so item k is the same however many follow it. Raises `ConjureError` where the
    pool is too small or a row lacks a field.
    """
    ready = [_prepared(suite, row, index) for index, row in enumerate(rows)]
    examples = [_prepared(suite, row, index) for index, row in enumerate(pool)] if shots else []
    draw = random.Random(seed)
    for index, row in enumerate(ready):
        try:
            solved = "".join(_solved(suite, each) for each in _drawn(suite, examples, row, shots, draw))
            yield _item(suite, index, row, suite.description + solved)
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise _unfit(suite, index, error) from error


def _item(suite: Suite, index: int, row: Row, before: str) -> Item:
    text, target = suite.text(row), suite.target(row)
    choices = tuple(suite.choices(row)) if suite.choices else ()
    if suite.kind == "choices":
        gold = target if isinstance(target, int) else choices.index(target)
        asked = tuple((before + text, suite.delimiter + choice) for choice in choices)
        return Item(index, row, asked, choices, gold)
    if suite.kind == "contexts":
        asked = tuple((before + choice, suite.delimiter + target) for choice in choices)
        return Item(index, row, asked, choices, int(text))
    if suite.kind == "continuation":
        return Item(index, row, ((before + text, target),), target=target)
    if suite.kind == "rolling":
        return Item(index, row, (("", target),), target=target)
    return Item(index, row, ((before + text, ""),), target=target)


def _solved(suite: Suite, row: Row) -> str:
    """An example: question, answer, and what stands between it and the next."""
    question, answer = suite.text(row), suite.target(row)
    choices = suite.choices(row) if suite.choices else []
    if suite.kind == "contexts":
        question = choices[question]
    elif isinstance(answer, int):
        answer = choices[answer]
    return f"{question}{suite.delimiter}{answer}{suite.between}" if answer else question


def _drawn(suite: Suite, pool: list[Row], row: Row, shots: int, draw: random.Random) -> list[Row]:
    """One more is drawn than needed where the question itself may be among them, even if it turns out not to be."""
    if not shots:
        return []
    if suite.first:
        found = [each for each in pool if not suite.exclude or each != row][:shots]
    elif suite.exclude:
        found = draw.sample(pool, shots + 1) if len(pool) > shots else []
        found = [each for each in found if each != row][:shots]
        if len(found) < shots:
            others = [each for each in pool if each != row]
            found = draw.sample(others, shots) if len(others) >= shots else []
    else:
        found = draw.sample(pool, shots) if len(pool) >= shots else []
    if len(found) < shots:
        raise ConjureError(
            f"{suite.name}: {shots} examples are asked for, there are {len(pool)} to draw from", hint="lower --shots"
        )
    return found


def _prepared(suite: Suite, row: Row, index: int) -> Row:
    try:
        return suite.prepare(row) if suite.prepare else row
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise _unfit(suite, index, error) from error


def _unfit(suite: Suite, index: int, error: Exception) -> ConjureError:
    what: Any = f"it has no field {error}" if isinstance(error, KeyError) else error
    source = suite.hub or suite.local
    return ConjureError(
        f"{suite.name}: row {index} does not fit: {what}", hint=f"the rows must have the fields of {source}"
    )
