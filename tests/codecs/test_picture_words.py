from __future__ import annotations

import json
from pathlib import Path

import pytest

from conjure.codecs.picture_words import NAME, NAMES, PAD, SPECIAL, START, UNKNOWN, Name, PictureWords
from conjure.core.errors import ConjureError
from conjure.data.phrases import spoken

WORDS = ("a", "red", "left", "of", "to", "the", "two")
NAMED = (
    Name("fire", 0), Name("fire engine", 1), Name("fire engine red", 2), Name("fires", 0, plural=True),
    Name("red", 3), Name("cat", 4), Name("cat", 5), Name("kitten", 4),
)  # fmt: skip


@pytest.fixture
def words() -> PictureWords:
    return PictureWords(WORDS, NAMED, spoken)


def rows(words: PictureWords, caption: str, length: int = 10) -> list[tuple[str, int]]:
    encoded, pages = (each[0].tolist() for each in words.encode([caption], length))
    assert len(encoded) == len(pages) == length
    return [(words.vocabulary[row], page) for row, page in zip(encoded, pages, strict=True) if row != PAD]


@pytest.mark.parametrize(
    "caption, tokens",
    [
        ("the fire", [("the", -1), ("<name>", 0)]),
        ("a fire engine", [("a", -1), ("<name>", 1)]),
        ("Fire-engine RED!", [("<name>", 2)]),
        ("fire engine engine", [("<name>", 1), ("<unknown>", -1)]),
        ("two fires", [("two", -1), ("<names>", 0)]),
        ("a red cat", [("a", -1), ("red", -1), ("<name>", 4)]),  # "red" is a word before it is a name
        ("kitten fire fire engine", [("<name>", 4), ("<name>", 0), ("<name>", 1)]),
        ("", []),
    ],
)
def test_the_longest_name_wins_reading_from_the_left(
    words: PictureWords, caption: str, tokens: list[tuple[str, int]]
) -> None:
    assert rows(words, caption) == [("<start>", -1), *tokens]


def test_rows_are_padded_and_long_captions_cut(words: PictureWords) -> None:
    encoded, pages = words.encode(["a cat", "to the left of the cat"], 4)
    assert encoded.shape == pages.shape == (2, 4)
    assert encoded[0].tolist() == [START, words.vocabulary.index("a"), NAME, PAD]
    assert pages[0].tolist() == [-1, -1, 4, -1]
    assert (encoded[1] > UNKNOWN).sum() == 3
    assert words.cut("to the left of the cat", 4) == "of the cat" and words.cut("a cat", 4) == ""
    assert words.cut("to the left fire engine", 4) == "fire engine"


def test_unknown_words_and_the_nearest_known(words: PictureWords) -> None:
    assert words.unknown("the cat left of two fires") == {}
    assert words.unknown("a fire engin and a zzz") == {"engin": ["fire engine"], "and": [], "zzz": []}
    assert words.unknown("kittn") == {"kittn": ["kitten"]}
    assert words.unknown("<name> pad") == {"name": [], "pad": []}, "special rows are no words"


def test_reading_back(words: PictureWords) -> None:
    encoded, pages = words.encode(["a kitten, to the LEFT of a qqq"], 12)
    assert words.read(encoded[0].tolist(), pages[0].tolist()) == "<start> a [cat] to the left of a <unknown>"


def test_save_and_load(words: PictureWords, tmp_path: Path) -> None:
    words.save(tmp_path)
    again = PictureWords.load(tmp_path, spoken, pages=6)
    assert again.vocabulary == words.vocabulary == (*SPECIAL, *sorted(WORDS))
    for caption in ("two fires to the left of a fire engine red", "a kitten", "cat cats"):
        for one, other in zip(words.encode([caption], 9), again.encode([caption], 9), strict=True):
            assert (one == other).all()
    assert NAMES in again.encode(["fires"], 3)[0]
    (tmp_path / "again").mkdir()
    again.save(tmp_path / "again")
    assert (tmp_path / "again/words.json").read_bytes() == (tmp_path / "words.json").read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"words": "abc", "names": []}',
        '{"words": [1], "names": []}',
        '{"words": [["a"]], "names": []}',
        '{"words": [], "names": [["cat", 0]]}',
        '{"words": [], "names": [[5, 0, 0]]}',
        '{"words": [], "names": [["cat", "0", 0]]}',
        '{"words": [], "names": [["cat", 0.5, 0]]}',
        '{"words": [], "names": [["cat", true, 0]]}',
        '{"words": [], "names": [["cat", -1, 0]]}',
        '{"words": [], "names": [["cat", 6, 0]]}',
        '{"words": [], "names": {"cat": 1}}',
        "[" * 100_000,
        "\ud800",
    ],
)
def test_hostile_vocabularies_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "words.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConjureError, match=r"words\.json is no vocabulary"):
        PictureWords.load(tmp_path, spoken, pages=6)


def test_a_missing_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match=r"words\.json is no vocabulary"):
        PictureWords.load(tmp_path, spoken)


def test_the_file_is_plain_json(words: PictureWords, tmp_path: Path) -> None:
    words.save(tmp_path)
    data = json.loads((tmp_path / "words.json").read_text())
    assert data == {"words": sorted(WORDS), "names": [[n.phrase, n.page, int(n.plural)] for n in NAMED
                                                      if n.phrase != "red" and n.page != 5]}  # fmt: skip
