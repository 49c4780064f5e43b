"""Gaps: nothing is lost, everything fits, and row i is the same whoever asks."""

from __future__ import annotations

import numpy as np
import pytest

from conjure.core.errors import ConjureError
from conjure.core.seeds import rng
from conjure.data.fill_middle import FillMiddle, Gaps, Marks, arranged, gap
from conjure.data.packing import IGNORED, Packed

MARKS = Marks(prefix=1, suffix=2, middle=3, end=0)
TEXT = "def f(x):\n    return x + 1\n\n\nclass A:\n    y = 2\n"


def encode(text: str) -> list[int]:
    return [ord(character) + 10 for character in text]


def decode(ids: object) -> str:
    return "".join(chr(i - 10) for i in ids if i >= 10)  # type: ignore[attr-defined]


def source(gaps: Gaps, length: int = 40, seed: int = 0) -> FillMiddle:
    documents = [[0, *encode(TEXT * (n + 1)), 0] for n in range(6)]
    borders = np.cumsum([0, *map(len, documents)]).tolist()
    packed = Packed(np.concatenate(documents), borders, length, seed)
    return FillMiddle(packed, encode=encode, decode=decode, marks=MARKS, gaps=gaps)


def joined(ids: list[int]) -> str:
    """The text that an arranged row stands for."""
    body = ids[: ids.index(0)] if 0 in ids else ids
    if body[:2] == [1, 2]:
        suffix, rest = body[2 : body.index(3)], body[body.index(3) + 1 :]
        return decode(rest) + decode(suffix)
    prefix = body[1 : body.index(2)]
    suffix, middle = body[body.index(2) + 1 : body.index(3)], body[body.index(3) + 1 :]
    return decode(prefix) + decode(middle) + decode(suffix)


def test_the_two_orders() -> None:
    assert arranged([11], [12], [13], MARKS, "psm") == [1, 11, 2, 13, 3, 12, 0]
    assert arranged([11], [12], [13], MARKS, "spm") == [1, 2, 13, 3, 11, 12, 0]
    for order in ("psm", "spm"):
        assert joined(arranged(encode("ab"), encode("cd"), encode("ef"), MARKS, order)) == "abcdef"


def test_gaps_lie_in_the_text_and_those_of_lines_end_with_their_line() -> None:
    whole = 0
    for i in range(200):
        begin, end = gap(TEXT, rng(i), 0.0)
        assert 0 <= begin <= end <= len(TEXT)
        begin, end = gap(TEXT, rng(i), 1.0)
        assert 0 <= begin <= end and (end == len(TEXT) or TEXT[end] == "\n") and "\n" not in TEXT[begin:end]
        whole += TEXT[begin:end] == "return x + 1"
    assert whole > 20


def test_rows_with_gaps_hold_pieces_of_the_text() -> None:
    rows = source(Gaps(rate=1.0, spm=0.5))
    orders = set()
    for index in range(60):
        for ids, targets in rows.row(index):
            whole = [*ids.tolist(), int(targets[-1])]
            assert len(ids) <= 40 and ids[1:].tolist() == targets[:-1].tolist()
            if 3 in whole:
                orders.add(whole[:2] == [1, 2])
                assert whole[-1] == 0 and joined(whole) in TEXT * 7 and len(joined(whole)) > 3
    assert orders == {True, False}


def test_without_gaps_the_rows_are_those_of_packing() -> None:
    rows = source(Gaps(rate=0.0))
    found, wanted = rows.batch(range(9)), rows.packed.batch([rows.packed.row(i) for i in range(9)])
    assert all(found[name].equal(wanted[name]) for name in wanted)


def test_about_so_many_have_one() -> None:
    rows = source(Gaps(rate=0.5), length=60)
    pieces = [3 in ids or targets[-1] == 3 for i in range(200) for ids, targets in rows.row(i) if len(ids) > 30]
    assert 0.35 < np.mean(pieces) < 0.65


def test_a_row_depends_on_its_index_and_the_seed_alone() -> None:
    rows, other = source(Gaps()), source(Gaps(), seed=1)
    together = rows.batch(range(20, 24))
    assert together["ids"][2].equal(source(Gaps()).batch([22])["ids"][0])
    assert not together["ids"].equal(other.batch(range(20, 24))["ids"])
    assert (together["targets"] != IGNORED).any()


def test_wrong_shares_are_named() -> None:
    with pytest.raises(ConjureError, match=r"data\.gaps\.spm"):
        Gaps(spm=1.5)


def test_short_stretches_teach_the_middle_alone() -> None:
    rows = source(Gaps(rate=1.0, spm=0.0, lines=1.0, span=33, loss="middle"), length=100)
    seen = 0
    for index in range(40):
        for ids, targets in rows.row(index):
            assert len(ids) == len(targets) < 33
            if ids[0] != MARKS.prefix or ids[1] == MARKS.suffix:
                continue
            middle = ids.tolist().index(MARKS.middle)
            assert (targets[:middle] == IGNORED).all()
            assert targets[middle:].tolist() == [*ids[middle + 1 :].tolist(), MARKS.end]
            seen += 1
    assert seen > 20
    with pytest.raises(ConjureError, match="at least 32"):
        Gaps(span=8)
