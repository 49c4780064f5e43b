from __future__ import annotations

import pytest

from conjure.codecs.markdown_text import blocks
from conjure.codecs.spoken_text import LONGEST, Pause, Script, Word, read, sentences, shorter, spelled
from conjure.core.errors import ConjureError


def words(text: str) -> list[str]:
    return [each.words for each in read(text).utterances]


def test_sentences_end_where_they_end() -> None:
    text = (
        'Mr. Smith met Dr. J. R. Jones. "Go home!" he said. Is it 3.5 km? Yes... No. 5 is alive. '
        "At 9 a.m. we left. The end"
    )
    assert sentences(text) == [
        "Mr. Smith met Dr. J. R. Jones.",
        '"Go home!" he said.',
        "Is it 3.5 km?",
        "Yes...",
        "No. 5 is alive.",
        "At 9 a.m. we left.",
        "The end",
    ]


def test_long_sentences_are_cut_and_nothing_is_lost() -> None:
    for text in ("word " * 100, "clause of some words, " * 30, "x" * 700, "a " + "b" * 500 + " c"):
        parts = shorter(text.strip())
        assert max(map(len, parts)) <= LONGEST
        assert "".join("".join(parts).split()) == "".join(text.split())
    assert shorter("clause of some words, " * 30)[0].endswith(",")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Mr. and Mrs. Smith vs. Dr. No", "mister and missus smith versus doctor no"),
        ("e.g. this, i.e. that", "for example this that is that"),
        ("cats, dogs, etc.", "cats dogs et cetera"),
        ("the USA and NASA", "the you ess ay and nasa"),
        ("two GPUs", "two gee pee you's"),
        ("U.S. law", "you ess law"),
        ("J. R. R. Tolkien", "jay are are tolkien"),
        ("plan B, vitamin A", "plan bee vitamin ay"),
        ("A cat and I", "a cat and i"),
        ("R&D @ 5%", "are and dee at five percent"),
        ("Chapter IV", "chapter four"),
        ("Henry VIII", "henry the eighth"),
        ("Page #3, no. 7, p. 9", "page number three number seven page nine"),
        ("https://www.example.com/a_b.", "double you double you double you dot example dot com slash a underscore bee"),
        ("mail me@x-y.org", "mail me at ex dash why dot org"),
        ("café naïve Øre Straße", "cafe naive ore strasse"),
        ("don't stop 'quoted'", "don't stop quoted"),
        ("THE QUICK BROWN FOXES", "the quick brown foxes"),
        ("MP3 and B2B", "em pee three and bee two bee"),
        ("well-known\u2014really", "well known really"),
        ("it\u2019s", "it's"),
        ("half\u00a0past", "half past"),
        ("soft\u00adhyphen", "softhyphen"),
        ("x = 3 + 4", "ex equals three plus four"),
        ("Mr. Smith paid $3.50. Twice!", "mister smith paid three dollars and fifty cents twice"),
    ],
)
def test_as_people_read_it(text: str, said: str) -> None:
    assert read(text).words == said


def test_pauses() -> None:
    (one,) = read("Well, yes (maybe); no.").utterances
    assert one.parts == (Word("well"), Pause(), Word("yes"), Pause(), Word("maybe"), Pause(), Word("no"))
    first, second, third = read("One. Two.\n\nThree.").utterances
    assert first.after < second.after == third.after


def test_markdown() -> None:
    text = """---
title: x
---
# A *title*

Some **bold**, `code` and a [link](http://x.org/y "t") ![a picture](x.png).
Same _paragraph_ with 5 * 3.

- first [x](y)
- [ ] second
3. third

> quoted
> text

| a | b |
|---|---|
| 1 | 2 |

***
<!-- hidden --> last<br>line
```python
x = 1
y = 2
```
~~~
never closed
"""
    found, warnings = blocks(text)
    assert found == [
        "A title",
        "Some bold, code and a link a picture. Same paragraph with 5 * 3.",
        "first x",
        "second",
        "3: third",
        "quoted text",
        "a, b",
        "1, 2",
        "last line",
    ]
    assert warnings == ["the front matter is not read aloud", "a block of code is not read aloud (2 lines)",
                        "a block of code that does not end is not read aloud (1 lines)"]  # fmt: skip
    assert blocks("Just two\nlines.\n\nAnd more.") == (["Just two lines.", "And more."], [])


def test_what_cannot_be_read_is_said_to_be() -> None:
    script = read("Hello 😀 你好 and Привет 😀!")
    assert script.utterances[0].words == "hello and"
    assert script.warnings == (
        "not read aloud, for the voice knows English only: 2 signs (😀 grinning face)",
        "not read aloud, for the voice knows English only: 2 letters of Chinese (你好)",
        "not read aloud, for the voice knows English only: 6 letters of Cyrillic (Привет)",
    )
    assert read("plain text, nothing more - really").warnings == ()


def test_nothing_to_say() -> None:
    for text, said in (
        ("", "an empty text"),
        (" \n", "an empty text"),
        ("😀", "nothing that can be read"),
        ("...", "nothing"),
    ):
        with pytest.raises(ConjureError, match=said):
            read(text)
    with pytest.raises(ConjureError) as error:
        read("你好")
    assert "Chinese" in error.value.hint


def test_a_word_of_400_letters() -> None:
    script: Script = read("a" * 400)
    assert sum(len(part.text) for each in script.utterances for part in each.parts if isinstance(part, Word)) == 400


def test_private_characters_are_nothing_of_ours() -> None:
    assert words("one \ue000 two") == ["one two"]


def test_spelling() -> None:
    assert spelled("ab1") == "ay bee  one "
