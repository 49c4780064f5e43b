"""Books as tokens: clean prose, a split by book that never moves, a cache that knows its own content."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from conjure.codecs.tokenizer import Tokenizer, train_bpe, train_characters
from conjure.core.errors import ConjureError
from conjure.data import books
from conjure.data.books import Document, book, documents, held_out, split, tokenize, trained_tokenizer

RAW = """# Title: The Well

## Author: A. Nobody

## Year: 1900

-------

##  CHAPTER I.  DOWN

It was _very_ dark;   the snake_case stayed.
---
"Help!"\u00a0she cried.



## II

The end.
"""
PROSE = """CHAPTER I. DOWN

It was very dark; the snake_case stayed.
---
"Help!" she cried.

II

The end.
"""


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONJURE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CONJURE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_book_as_prose() -> None:
    assert book(RAW) == PROSE
    assert book("No header.\n\nJust text.") == "No header.\n\nJust text.\n"


def test_documents_of_several_sets(places: Path) -> None:
    (places / "data" / "one").mkdir(parents=True)
    (places / "data" / "two").mkdir()
    with zipfile.ZipFile(places / "data" / "one" / "books.zip", "w") as packed:
        packed.writestr("A/x.md", RAW)
        packed.writestr("A/index.tsv", "nothing")
    (places / "data" / "two" / "A").mkdir()
    (places / "data" / "two" / "A" / "x.md").write_text("# Another copy\n")
    (places / "data" / "two" / "y.txt").write_bytes("\ufeff# not a heading\r\nend".encode())
    (places / "data" / "two" / "README.md").write_text("about")
    found = documents(["one", "two"])
    assert [d.name for d in found] == ["A/x.md", "y.txt"]
    assert found[0].text == PROSE and found[1].text == "# not a heading\nend"
    (places / "data" / "empty").mkdir()
    with pytest.raises(ConjureError, match="hold no text"):
        documents(["empty"])
    with pytest.raises(ConjureError, match="no data set"):
        documents(["onee"])


def test_the_split_is_by_name_and_never_moves() -> None:
    texts = [Document(f"book {i}", str(i)) for i in range(800)]
    training, validation = split(texts)
    assert [*training, *validation] == sorted(texts, key=lambda d: (held_out(d.name), texts.index(d)))
    assert 30 <= len(validation) <= 70  # 50 expected, deviation 7
    assert [d.name for d in validation[:3]] == ["book 15", "book 20", "book 26"]
    assert split([*reversed(texts)])[1] == validation[::-1]


def test_a_single_text_is_split_at_nine_tenths() -> None:
    assert split([Document("x", "0123456789" * 2)]) == (
        [Document("x", "012345678901234567")],
        [Document("x", "89")],
    )


def test_too_few_texts_to_split() -> None:
    with pytest.raises(ConjureError, match="too few"):
        split([Document("a", "x"), Document("b", "y")])




def test_the_stream() -> None:
    texts = [Document("a", PROSE * 3), Document("b", "one\n\n\n two 🙂"), Document("c", "")]
    for tokenizer in (train_bpe([PROSE * 9], 280), train_characters(PROSE)):
        for _ in range(2):  # the second time from the cache
            made = tokenize(texts, tokenizer)
            rows = [made.ids[a:b].tolist() for a, b in zip(made.borders[:-1], made.borders[1:], strict=True)]
            assert rows == [[0, *tokenizer.encode(each.text), 0] for each in texts]
            assert made.bytes == tuple(len(each.text.encode()) for each in texts)
            assert made.ids.dtype == np.uint16


def test_the_cache_is_read_and_knows_its_content(places: Path) -> None:
    tokenizer = train_characters("abc")
    first = tokenize([Document("x", "abc")], tokenizer)
    (stored,) = (places / "cache" / "tokens").iterdir()
    np.save(stored, np.array([1, 3, 0, 4, 0], dtype=np.int32))
    assert tokenize([Document("x", "abc")], tokenizer).ids.tolist() == [0, 4, 0]
    assert tokenize([Document("x", "cba")], tokenizer).ids.tolist() == [0, *first.ids[1:-1].tolist()[::-1], 0]
    assert tokenize([Document("x", "abc")], train_characters("abcd")).ids.tolist() == first.ids.tolist()


def test_a_tokenizer_is_trained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [Document("x", PROSE * 5)]
    first = trained_tokenizer(texts, 280, train_bpe)
    assert first.size == 280

    def train_bpe_again(texts: object, size: int) -> Tokenizer:
        raise AssertionError("it was there")

    train_bpe_again.__name__ = "train_bpe"
    assert trained_tokenizer(texts, 280, train_bpe_again).digest() == first.digest()
    assert trained_tokenizer(texts, 281, train_bpe).size == 281
    assert books.cache_dir().is_dir()
