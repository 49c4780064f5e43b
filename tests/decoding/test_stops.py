"""Stop strings found across any borders, and nothing of them shown."""

from __future__ import annotations

import itertools

import pytest

from conjure.decoding.stops import StopStrings


def run(pieces: list[str], stops: list[str]) -> tuple[list[str], bool]:
    filter_ = StopStrings(stops)
    shown = [filter_.push(piece) for piece in pieces]
    stopped = filter_.stopped
    return [*shown, filter_.finish()], stopped


def test_text_that_could_begin_a_stop_string_waits() -> None:
    assert run(["one EN", "D", "OF", " two"], ["ENDED"]) == (["one ", "", "ENDOF", " two", ""], False)
    assert run(["one EN", "DE", "D two"], ["ENDED"]) == (["one ", "", "", ""], True)
    assert run(["tail EN"], ["ENDED"]) == (["tail ", "EN"], False)


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("aab tail", ["ab"], "a"),
        ("abababc!", ["ababc"], "ab"),
        ("one\n\ntwo", ["\n\n", "two"], "one"),
        ("xabc", ["abc", "b"], "xa"),
        ("xabc", ["bc", "abc"], "x"),
        ("🍎 stop 🍏", ["stop 🍏"], "🍎 "),
        ("no match here", ["matchbox"], "no match here"),
        ("empty stops stop nothing", ["", ""], "empty stops stop nothing"),
    ],
)
def test_every_cut_into_pieces_shows_the_same(text: str, stops: list[str], expected: str) -> None:
    cuts = range(1, len(text))
    ways = [list(text), *([text[:a], text[a:b], text[b:]] for a, b in itertools.combinations(cuts, 2))]
    for pieces in ways:
        assert "".join(run(pieces, stops)[0]) == expected, pieces


def test_nothing_comes_after_a_stop() -> None:
    filter_ = StopStrings(["."])
    assert [filter_.push("a. b"), filter_.push("c"), filter_.finish()] == ["a", "", ""]
    assert filter_.stopped
