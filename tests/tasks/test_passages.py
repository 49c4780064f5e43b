from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from conjure.tasks.passages import passages, sentences

LETTERS = st.text(alphabet="ab .!?\n\t。」é\u3000\"", max_size=80)


@given(LETTERS, st.integers(1, 12), st.booleans())
def test_nothing_is_lost_and_nothing_is_too_long(text: str, room: int, together: bool) -> None:
    found = list(passages(text, len, room, together))
    assert "".join(part + blank for part, blank in found) == text
    assert all(len(part) <= room for part, _ in found)
    assert all(not blank or blank.isspace() for _, blank in found)


def test_sentences_end_where_they_should() -> None:
    text = 'One. "Two?" Three\nfour 3.5 five。六。 '
    assert [part for part, _ in sentences(text)] == ["One.", '"Two?"', "Three", "four 3.5 five。", "六。", ""]
    assert [part for part, _ in passages("a. b. c.\n\nd.", len, 5)] == ["a. b.", "c.", "d."]
    assert [part for part, _ in passages("a. b.", len, 6, together=False)] == ["a.", "b."]


def test_a_long_text_takes_no_more_than_its_length() -> None:
    assert sum(len(part) + len(blank) for part, blank in sentences("a" * 10**6 + " " * 10**6 + "b.")) == 2 * 10**6 + 2
