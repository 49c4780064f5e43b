"""The tokenizer that whole models in one file are read with."""

from __future__ import annotations

from pathlib import Path

import transformers

from conjure.codecs.clip_tokenizer import MERGES, clip_tokenizer

LINES = ["a photo of an astronaut riding a horse on mars", "A cat!", "naïve café, 猫 and 🎈; 12 o'clock\n\nit's",
         "<|endoftext|> is a token", "", "hyper-realistic (masterpiece:1.2), 8k"]  # fmt: skip


def test_ids_that_are_known() -> None:
    """Those of OpenAI's example."""
    ids = [49406, 320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496, 49407]
    ours = clip_tokenizer()
    assert ours.encode(LINES[0], special=True) == ids and ours.size == 49408
    assert (ours.bos, ours.eos, ours.pad, clip_tokenizer("!").pad) == (49406, 49407, 49407, 0)


def test_like_the_reference(tmp_path: Path) -> None:
    """Of the same vocabulary, with the padding of either maker."""
    for pad in ("<|endoftext|>", "!"):
        ours = clip_tokenizer(pad)
        vocabulary = ours.backend.get_vocab(with_added_tokens=True)
        merges = [tuple(line.split(" ")) for line in _lines()]
        theirs = transformers.CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad)
        for line in LINES:
            assert ours.encode(line, special=True, special_in_text=True) == theirs(line)["input_ids"], line


def _lines() -> list[str]:
    import gzip

    return gzip.decompress(MERGES.read_bytes()).decode().splitlines()
