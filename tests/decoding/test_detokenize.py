"""Text comes whole: no half characters, nothing lost, nothing twice."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from conjure.decoding.detokenize import Detokenizer

TEXTS = ["plain words, and more", "家族 👩‍👩‍👧 és 🍎🍏 — naïve", "😀", "  spaces  ", "", "日本語テキスト"]


def byte_level(merges: int) -> Tokenizer:
    """A byte-level tokenizer: one token a byte, and that many merges learnt from the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def sentence_piece() -> Tokenizer:
    """Words that carry their leading space, which `decode` drops at the start; unknown characters as
    bytes."""
    words = ["▁a", "▁bee", "s", "▁fly", "▁"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [detokenizer.push(token) for token in ids] + [detokenizer.finish()]


@pytest.mark.parametrize("merges", [0, 40])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text_and_hold_whole_characters(text: str, merges: int) -> None:
    tokenizer = byte_level(merges)
    parts = pieces(tokenizer, tokenizer.encode(text).ids)
    assert "".join(parts) == text
    assert not any("\ufffd" in part for part in parts)


def test_a_character_comes_with_its_last_byte() -> None:
    tokenizer = byte_level(0)
    ids = tokenizer.encode("a🍎中b").ids
    assert pieces(tokenizer, ids) == ["a", "", "", "", "🍎", "", "", "中", "b", ""]


def test_any_bytes_join_to_what_decode_says() -> None:
    tokenizer = byte_level(0)
    draw = random.Random(0)
    for _ in range(200):
        ids = [draw.randrange(256) for _ in range(draw.randrange(20))]
        assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


def test_broken_bytes_do_not_hold_back_what_follows() -> None:
    tokenizer = byte_level(0)
    broken = next(i for i in range(256) if tokenizer.decode([i]) == "\ufffd")
    parts = pieces(tokenizer, [broken] * 20 + tokenizer.encode("ok").ids)
    assert "".join(parts[:20]) == "\ufffd" * 17 and "".join(parts[:22]).endswith("ok")


def test_spaces_in_front_of_words_survive_and_bytes_join() -> None:
    tokenizer = sentence_piece()
    ids = [0, 1, 2, 3] + [5 + byte for byte in "é🍎".encode()] + [1]
    parts = pieces(tokenizer, ids)
    assert parts[:4] == ["a", " bee", "s", " fly"]
    assert "".join(parts) == tokenizer.decode(ids) == "a bees flyé🍎 bee"
    assert not any("\ufffd" in part for part in parts)


def test_the_first_word_after_a_prompt_keeps_its_space() -> None:
    tokenizer = sentence_piece()
    detokenizer = Detokenizer(tokenizer, after=[0, 1])
    assert [detokenizer.push(token) for token in (1, 2, 3)] == [" bee", "s", " fly"]


def test_an_unfinished_character_is_shown_at_the_end_only() -> None:
    tokenizer = byte_level(0)
    assert pieces(tokenizer, tokenizer.encode("a🍎").ids[:-1]) == ["a", "", "", "", "\ufffd"]
