"""Streams of text: the cache changes nothing, pieces lose nothing, each prompt has its own luck."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.decoding.generate import generate
from conjure.decoding.settings import Decoding
from conjure.decoding.stream import stream
from conjure.nn.cache import Cache
from tests.decoding.networks import Letters, Table, toy

PROMPTS = ["Once upon", "a 🍎", "zwölf 中文字"]
END = 256


class Bytes:
    """One token a byte; 256 is the end of the text."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i != END).decode(errors="replace")


class Scripted:
    """A network that is sure of what comes next, and remembers how much it was given."""

    def __init__(self, text: str) -> None:
        self.script = [*text.encode(), END]
        self.given: list[int] = []

    def cache(self, batch: int, capacity: int, padding: Sequence[int] | None = None) -> Cache:
        return Cache(layers=1, batch=batch, kv_heads=1, head_dim=1, capacity=capacity)

    def __call__(self, ids_BT: Tensor, *, cache: Cache, last_only: bool) -> Tensor:
        logits_B1V = torch.zeros(1, 1, 257)
        logits_B1V[0, 0, self.script[len(self.given)]] = 50.0
        self.given.append(ids_BT.shape[1])
        cache.advance(ids_BT.shape[1])
        return logits_B1V


def test_pieces_join_to_the_text_of_all_tokens() -> None:
    network, tokenizer, seen = toy(), Bytes(), ["", "", ""]
    for index, piece in stream(network, tokenizer, PROMPTS, seeds=[1, 2, 3], tokens=60, context=64, top_k=40):
        assert piece
        seen[index] += piece
    for k, prompt in enumerate(PROMPTS):
        ids, rules = tokenizer.encode(prompt), Decoding(tokens=60, top_k=40)
        (drawn,) = generate(network, tokenizer, [ids], rules, seeds=[k + 1], context=64)
        assert prompt + seen[k] == tokenizer.decode(ids + drawn.ids)


def test_searches_come_in_one_piece() -> None:
    network, prompts = Table(), ["abc", "da"]
    found = list(stream(network, Letters(), prompts, seeds=[1, 2], tokens=5, context=0, beams=3))
    ids = [Letters().encode(prompt) for prompt in prompts]
    best = generate(network, Letters(), ids, Decoding(tokens=5, beams=3), seeds=[1, 2])
    assert found == list(enumerate(each.text for each in best))


def test_a_prompt_longer_than_the_context_is_read_from_its_last_half_context_on() -> None:
    network, long = Table(), "abcdeabcdeabcde"
    whole = list(stream(network, Letters(), [long], seeds=[1], tokens=1, context=8, end=[0]))
    tail = list(stream(network, Letters(), [long[-4:]], seeds=[1], tokens=1, context=8, end=[0]))
    assert whole == tail and network.given == [(1, 4)] * 2


def test_emoji_and_cjk_come_whole_and_the_end_mark_ends() -> None:
    pieces = list(
        stream(Scripted("é 👩‍👧 中"), Bytes(), ["x"], seeds=[0], tokens=99, context=200, temperature=0, end=[END])
    )
    assert pieces == [(0, c) for c in "é 👩‍👧 中"]


def test_stop_strings_are_cut_off_across_tokens() -> None:
    network = Scripted("one\nUser: two")
    pieces = list(stream(network, Bytes(), ["x"], seeds=[0], tokens=99, context=200, temperature=0, stop=["\nUser:"]))
    assert "".join(piece for _, piece in pieces) == "one"
    assert len(network.given) == len("one\nUser:")


def test_an_unfinished_stop_string_is_text_after_all() -> None:
    pieces = stream(
        Scripted("one\nUs"), Bytes(), ["x"], seeds=[0], tokens=6, context=9, temperature=0, stop=["\nUser:"]
    )
    assert "".join(piece for _, piece in pieces) == "one\nUs"


def test_a_prompt_alone_gives_what_it_gives_among_others() -> None:
    network = toy()

    def texts(prompts: list[str], seeds: list[int]) -> list[str]:
        out = [""] * len(prompts)
        for index, piece in stream(network, Bytes(), prompts, seeds=seeds, tokens=25, context=32, top_p=0.95):
            out[index] += piece
        return out

    together = texts(PROMPTS, [5, 6, 7])
    assert texts([PROMPTS[1]], [6]) == [together[1]]
    assert texts([PROMPTS[1]], [8]) != [together[1]]


def test_start_ids_stand_before_the_prompt_and_are_not_shown() -> None:
    network = Scripted("abc")
    pieces = stream(network, Bytes(), [""], seeds=[0], tokens=3, context=9, temperature=0, start=[END])
    assert "".join(piece for _, piece in pieces) == "abc"
    assert network.given == [1, 1, 1]


def test_an_empty_prompt_needs_a_start() -> None:
    with pytest.raises(ConjureError, match="nothing to continue"):
        list(stream(Scripted("a"), Bytes(), [""], seeds=[0], tokens=1, context=9))
