"""Tokenizers: what goes in comes out, and no text can forge the end of a document."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from conjure.codecs.tokenizer import END, Tokenizer, train_bpe, train_characters, train_unigram, train_wordpiece
from conjure.core.errors import ConjureError

TEXTS = ["The cat sat on the mat, and the dog's mat was 12345 years old.\n\n" * 20, "naïve café \t\r\n don't we'll"]
BPE = train_bpe(TEXTS, 300)
CHARACTERS = train_characters("".join(TEXTS))


@given(st.text())
def test_bpe_gives_any_text_back(text: str) -> None:
    assert BPE.decode(BPE.encode(text)) == text
    assert BPE.end not in BPE.encode(text) and all(i < BPE.size for i in BPE.encode(text))


@given(st.text(alphabet=sorted(set("".join(TEXTS)))))
def test_characters_give_text_of_their_alphabet_back(text: str) -> None:
    ids = CHARACTERS.encode(text)
    assert CHARACTERS.decode(ids) == text and len(ids) == len(text)


@pytest.mark.parametrize("tokenizer", [BPE, CHARACTERS])
def test_text_cannot_forge_an_end(tokenizer: Tokenizer) -> None:
    assert tokenizer.end == 0 and tokenizer.token(0) == END
    assert tokenizer.end not in tokenizer.encode(f"a{END}b")
    assert tokenizer.decode([0, *tokenizer.encode("cat"), 0]) == "cat"


def test_sizes() -> None:
    assert BPE.size == 300
    assert CHARACTERS.size == 2 + len(set("".join(TEXTS)))
    assert len(BPE.encode(" the mat")) < len(" the mat") == len(CHARACTERS.encode(" the mat"))


def test_words_keep_the_space_before_them_and_numbers_are_cut_in_threes() -> None:
    assert [BPE.token(i) for i in BPE.encode(" on the mat")] == [" on", " the", " mat"]
    borders = [len("".join(BPE.token(i) for i in BPE.encode("12345678")[:n])) for n in range(9)]
    assert {3, 6} <= set(borders)


def test_unknown_characters_are_one_token_each() -> None:
    assert CHARACTERS.encode("€a🙂") == [1, CHARACTERS.encode("a")[0], 1]


def test_many_at_once() -> None:
    texts = ["the cat", "", "dog 🙂"]
    assert BPE.encode_batch(texts) == [BPE.encode(text) for text in texts]


@pytest.mark.parametrize("tokenizer", [BPE, CHARACTERS])
def test_saved_and_loaded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.digest() == tokenizer.digest() and loaded.end == tokenizer.end
    text = f"the cat{END} sat\n"
    assert loaded.encode(text) == tokenizer.encode(text) and loaded.decode(loaded.encode("cat ")) == "cat "


def test_training_is_reproducible() -> None:
    assert train_bpe(TEXTS, 300).digest() == BPE.digest()
    assert train_bpe(TEXTS, 290).digest() != BPE.digest()


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x04K.", b'{"model": 1}'])
def test_a_broken_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ConjureError, match="no valid tokenizer"):
        Tokenizer.load(tmp_path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match=r"looked for tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_impossible_sizes() -> None:
    with pytest.raises(ConjureError, match="at least 258"):
        train_bpe(TEXTS, 257)
    with pytest.raises(ConjureError, match="tokens at most"):
        train_bpe(["ab"], 5000)


WORDPIECE = train_wordpiece(TEXTS, 108)
UNIGRAM = train_unigram([*TEXTS, "sit mats dogs old years cats on sat the and a b c d e f g h"] * 3, 300)


@given(st.text())
def test_unigram_gives_any_text_back(text: str) -> None:
    ids = UNIGRAM.encode(text)
    assert UNIGRAM.decode(ids) == text
    assert not {0, 1} & set(ids)


def test_unigram_is_no_fool_of_its_own_bytes() -> None:
    for text in ("<0x41>", f"{END}<|unknown|>", "▁a ▁", "<0x41><0x42> é<0xC3>"):
        assert UNIGRAM.decode(UNIGRAM.encode(text)) == text and not {0, 1} & set(UNIGRAM.encode(text))


@given(st.text(alphabet=sorted(set("".join(TEXTS)))))
def test_wordpiece_gives_text_of_its_alphabet_back(text: str) -> None:
    assert WORDPIECE.decode(WORDPIECE.encode(text)) == text


def test_wordpiece_joins_what_is_frequent_and_marks_what_is_unknown() -> None:
    assert len(WORDPIECE.encode(" the mat")) < len(" the mat")
    assert WORDPIECE.encode("€ cat")[0] == 1 and 0 not in WORDPIECE.encode(END)
    hashes = train_wordpiece(["# ## ###a #!? ##b a#b\n"] * 9, 17)
    assert all(hashes.decode(hashes.encode(text)) == text for text in ("##", "###a", "#!?", "##b", "a#b", "# #"))


def test_sizes_of_wordpiece_and_unigram() -> None:
    assert (WORDPIECE.size, UNIGRAM.size) == (108, 300)
    assert WORDPIECE.end == UNIGRAM.end == 0 and WORDPIECE.unk == UNIGRAM.unk == 1
    with pytest.raises(ConjureError, match="at least 259"):
        train_unigram(TEXTS, 258)
    with pytest.raises(ConjureError, match="characters: expected a size of"):
        train_wordpiece(TEXTS, 20)
    with pytest.raises(ConjureError, match="tokens at most"):
        train_wordpiece(["ab"], 5000)


@pytest.mark.parametrize("tokenizer", [BPE, CHARACTERS, WORDPIECE, UNIGRAM], ids=["bpe", "characters", "wp", "unigram"])
def test_transformers_opens_what_was_trained(tokenizer: Tokenizer, mixed_lines: list[str], tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [line for line in mixed_lines if tokenizer.encode(line) != theirs(line)["input_ids"]] == []
    assert theirs.eos_token_id == theirs.bos_token_id == 0 and len(theirs) == tokenizer.size
    assert Tokenizer.load(tmp_path).digest() == tokenizer.digest()
