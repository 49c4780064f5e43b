"""Streams of text: the cache changes nothing, pieces lose nothing, each prompt has its own luck."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.core.seeds import generator
from conjure.decoding.filters import keep_top_k
from conjure.decoding.sample import sample
from conjure.decoding.stream import continued, stream
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.cache import Cache
from conjure.nn.position import Rope

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

    def cache(self, batch: int, capacity: int) -> Cache:
        return Cache(layers=1, batch=batch, kv_heads=1, head_dim=1, capacity=capacity)

    def __call__(self, ids_BT: Tensor, *, cache: Cache, last_only: bool) -> Tensor:
        logits_B1V = torch.zeros(1, 1, 257)
        logits_B1V[0, 0, self.script[len(self.given)]] = 50.0
        self.given.append(ids_BT.shape[1])
        cache.advance(ids_BT.shape[1])
        return logits_B1V


def tiny(max_length: int = 0) -> Transformer:
    """Random weights, wide enough apart that the best token is clear."""
    places = {"positions": "learned", "max_length": max_length} if max_length else {"rope": Rope(dim=8)}
    network = Transformer(
        TransformerConfig(vocab=257, dim=32, layers=2, heads=4, kv_heads=2, qk_norm=True, **places)  # pyright: ignore[reportArgumentType]
    )
    draw = generator(7)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() == 2:
                weight.copy_(torch.randn(weight.shape, generator=draw) * 0.3)
    return network.eval()


def best(logits_BV: Tensor) -> Tensor:
    return logits_BV.argmax(-1)


def without_cache(network: Transformer, ids: list[int], tokens: int, context: int) -> list[int]:
    """The rule in its plainest form: read everything again for every token."""
    known, begin = list(ids), 0
    with torch.inference_mode():
        for _ in range(tokens):
            if len(known) - begin > context:
                begin = len(known) - context // 2
            known.append(int(network(torch.tensor([known[begin:]]))[0, -1].argmax()))
    return known[len(ids) :]


@pytest.mark.parametrize("max_length", [0, 64], ids=["rope", "learned"])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_with_cache_is_greedy_without(prompt: str, max_length: int) -> None:
    network, ids = tiny(max_length), Bytes().encode(prompt)
    expected = without_cache(network, ids, 30, 64)
    assert len(set(expected)) > 5
    assert list(continued(network, ids, tokens=30, context=64, choose=best)) == expected


@pytest.mark.parametrize("length", [5, 16, 17, 50])
def test_a_full_context_goes_on_from_its_last_half(length: int) -> None:
    network = tiny()
    ids = [(7 * i) % 256 for i in range(length)]
    expected = without_cache(network, ids, 40, 16)
    assert list(continued(network, ids, tokens=40, context=16, choose=best)) == expected


def test_each_token_is_read_once_while_the_context_lasts() -> None:
    network = Scripted("abcdef")
    list(continued(network, [1, 2, 3], tokens=6, context=9, choose=best))
    assert network.given == [3, 1, 1, 1, 1, 1]


def test_pieces_join_to_the_text_of_all_tokens() -> None:
    network, tokenizer, seen = tiny(), Bytes(), ["", "", ""]
    for index, piece in stream(network, tokenizer, PROMPTS, seeds=[1, 2, 3], tokens=60, context=64, top_k=40):
        assert piece
        seen[index] += piece
    for k, prompt in enumerate(PROMPTS):
        own = [generator(k + 1)]

        def choose(logits_BV: Tensor, own: list[torch.Generator] = own) -> Tensor:
            return sample(keep_top_k(logits_BV, 40), own)

        ids = tokenizer.encode(prompt)
        drawn = list(continued(network, ids, tokens=60, context=64, choose=choose))
        assert prompt + seen[k] == tokenizer.decode(ids + drawn)


def test_emoji_and_cjk_come_whole_and_the_end_mark_ends() -> None:
    pieces = list(
        stream(
            Scripted("é 👩‍👧 中"), Bytes(), ["x"], seeds=[0], tokens=99, context=200, temperature=0, end=[END]
        )
    )
    assert pieces == [(0, c) for c in "é 👩‍👧 中"]


def test_stop_strings_are_cut_off_across_tokens() -> None:
    network = Scripted("one\nUser: two")
    pieces = list(
        stream(network, Bytes(), ["x"], seeds=[0], tokens=99, context=200, temperature=0, stop=["\nUser:"])
    )
    assert "".join(piece for _, piece in pieces) == "one"
    assert len(network.given) == len("one\nUser:")


def test_an_unfinished_stop_string_is_text_after_all() -> None:
    pieces = stream(
        Scripted("one\nUs"), Bytes(), ["x"], seeds=[0], tokens=6, context=9, temperature=0, stop=["\nUser:"]
    )
    assert "".join(piece for _, piece in pieces) == "one\nUs"


def test_a_prompt_alone_gives_what_it_gives_among_others() -> None:
    network = tiny()

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
