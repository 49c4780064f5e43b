from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers as tf
from hypothesis import given
from hypothesis import strategies as st

from conjure.codecs.voice_characters import VoiceCharacters, parts
from conjure.core.errors import ConjureError

LETTERS = "kZ_aeioubcdfgţhlmnprst '-"


def folder(path: Path, **said: Any) -> Path:
    path.mkdir(exist_ok=True)
    vocabulary = {each: index for index, each in enumerate(LETTERS)} | {"<unk>": len(LETTERS)}
    (path / "vocab.json").write_text(json.dumps(vocabulary))
    plain = {"phonemize": False, "pad_token": "k", "unk_token": "<unk>", "language": "eng"}
    (path / "tokenizer_config.json").write_text(json.dumps({**plain, **said}))
    return path


@pytest.mark.parametrize("said", [{}, {"add_blank": False}, {"normalize": False}, {"language": "ron"}])
def test_ids_are_those_of_the_reference(tmp_path: Path, said: dict[str, Any]) -> None:
    ours = VoiceCharacters.load(folder(tmp_path, **said))
    theirs = tf.VitsTokenizer.from_pretrained(tmp_path, **said)
    for text in ("Hello there", "  ZEBRA's  Zoo - (1, 2)! ", "ațâ ÉMIGRÉ", "İstanbul 😀"):
        assert ours.encode(text) == theirs(text)["input_ids"], text
    assert ours.encode("😀" if said.get("normalize", True) else "") == []


def test_what_is_left_out(tmp_path: Path) -> None:
    assert VoiceCharacters.load(folder(tmp_path)).known("Oh, 你好, 你 😀!") == ("oh", ",你好😀!")
    ids = VoiceCharacters.load(folder(tmp_path, normalize=False, add_blank=False)).encode("a?")
    assert ids == [LETTERS.index("a"), len(LETTERS)]


def test_romanised_voices_read_latin_letters_alone(tmp_path: Path) -> None:
    voice = VoiceCharacters.load(folder(tmp_path, is_uroman=True))
    assert voice.known("salut") == ("salut", "")
    with pytest.raises(ConjureError, match="Latin letters") as caught:
        voice.encode("привет")
    assert "uroman" in caught.value.hint


def test_voices_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="reads phonemes"):
        VoiceCharacters.load(folder(tmp_path, phonemize=True))
    (tmp_path / "vocab.json").write_text('{"a": "b"}')
    with pytest.raises(ConjureError, match="expected an id for each character"):
        VoiceCharacters.load(tmp_path)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(ConjureError, match=r"has no vocab\.json"):
        VoiceCharacters.load(tmp_path)


def test_sentences() -> None:
    assert parts('One. Two? "Three!" he said.\n\nFour', 99) == ["One.", "Two?", '"Three!', "he said.", "Four"]
    assert parts("3.14 is pi, 2.71 is e", 99) == ["3.14 is pi, 2.71 is e"]
    assert parts("aaa bbb, ccc ddd", 8) == ["aaa bbb,", "ccc ddd"]
    assert parts("aaa bbb ccc", 8) == ["aaa bbb", "ccc"] and parts("a" * 20, 8) == ["a" * 8, "a" * 8, "a" * 4]
    assert parts(" \n ", 9) == []


@given(st.text(alphabet="ab .,!?\n", max_size=80), st.integers(1, 12))
def test_nothing_is_lost_and_nothing_is_long(text: str, longest: int) -> None:
    found = parts(text, longest)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(each.strip() and len(each) <= longest for each in found)
