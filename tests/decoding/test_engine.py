from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch

from conjure.core.errors import ConjureError
from conjure.decoding.engine import PIECE, Engine, Separate, Slots, Step
from conjure.decoding.generate import generate
from conjure.decoding.rows import Row
from conjure.decoding.settings import Decoding
from conjure.models.compiled import Compiled
from conjure.models.compiled_slots import CompiledSlots
from conjure.models.eager import Eager
from conjure.models.ngram import NGram
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.nn.position import Rope

CONFIG = TransformerConfig(vocab=96, dim=32, layers=2, heads=4, kv_heads=2, hidden=48, rope=Rope(dim=8))


class Letters:
    """A token is a character."""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(32 + i) for i in ids)


def network(kind: str) -> Transformer | Eager | Compiled:
    torch.manual_seed(0)
    config = replace(CONFIG, ngram=NGram(rows=512, dim=8)) if kind == "n-grams" else CONFIG
    made = Transformer(config).eval().requires_grad_(False)
    torch.nn.init.normal_(made.embed.weight, std=1.0)  # type: ignore[union-attr]  flat logits would hide mistakes
    if kind == "n-grams":
        torch.nn.init.normal_(made.ngram.tables.weight, std=3.0)  # type: ignore[union-attr]
    if kind == "transformer":
        return made
    return Eager(made) if kind == "eager" else Compiled(made, "fp32")


def slots(kind: str, count: int = 8, capacity: int = 400) -> Slots:
    made = network(kind)
    return CompiledSlots(made, count, capacity) if isinstance(made, Compiled) else Separate(made, count, capacity)  # type: ignore[arg-type]


def prompt(number: int, length: int) -> list[int]:
    return torch.randint(0, 96, (length,), generator=torch.Generator().manual_seed(number)).tolist()


def row(number: int, length: int = 10, begin: Sequence[int] = (), **settings: object) -> Row:
    decoding = Decoding(**({"tokens": 12, "temperature": 0.9} | settings))  # type: ignore[arg-type]
    return Row(number, [*begin, *prompt(number, length)], seed=number, decoding=decoding, end=(), tokenizer=Letters(),
               watched=True)  # fmt: skip


def drained(streams: Sequence[Iterator[Step]]) -> list[list[tuple[int, str]]]:
    """All streams in turns, as a worker draws from them."""
    came: list[list[tuple[int, str]]] = [[] for _ in streams]
    live = dict(enumerate(streams))
    while live:
        for number, stream in list(live.items()):
            try:
                step = next(stream)
            except StopIteration:
                del live[number]
                continue
            if step is not None:
                came[number].append(step)
    return came


def alone(kind: str, each: Row) -> list[int]:
    made = generate(network(kind), Letters(), [each.known], each.decoding, seeds=[each.index])  # type: ignore[arg-type]
    return made[0].ids


@pytest.mark.parametrize("kind", ["transformer", "eager", "compiled", "n-grams"])
def test_a_text_is_the_same_alone_and_among_31_others(kind: str) -> None:
    rows = [row(n, 3 + 7 * n % 23, tokens=4 + n % 9, temperature=(0.0, 0.7, 1.0)[n % 3]) for n in range(32)]
    engine = Engine(slots(kind, count=5))  # most of them have to wait
    came = drained([engine.stream(each) for each in rows])
    for each, tokens in zip(rows, came, strict=True):
        assert [token for token, _ in tokens] == alone(kind, row(each.index, 3 + 7 * each.index % 23,
                                                                 tokens=each.decoding.tokens,
                                                                 temperature=each.decoding.temperature))  # fmt: skip
        assert "".join(piece for _, piece in tokens) == each.generation().text
    assert engine.load == (0, 0)


@pytest.mark.parametrize("kind", ["eager", "compiled", "n-grams"])
def test_what_begins_alike_is_read_once(kind: str) -> None:
    begin = prompt(99, 2 * PIECE + 17)
    engine = Engine(slots(kind, count=3))
    (first,) = drained([engine.stream(row(1, 5, begin))])
    assert engine.reused == 0
    later = [row(2, 5, begin), row(3, 7, begin)]
    came = drained([engine.stream(each) for each in later])
    assert engine.reused == 2 * len(begin)
    for tokens, number, length in ((first, 1, 5), (came[0], 2, 5), (came[1], 3, 7)):
        assert [token for token, _ in tokens] == alone(kind, row(number, length, begin))
    again = row(4, 3, later[0].known)  # a talk that goes on: the last answer is part of the prompt
    (tokens,) = drained([engine.stream(again)])
    assert engine.reused == 2 * len(begin) + len(later[0].known) - 1
    assert [token for token, _ in tokens] == alone(kind, row(4, 3, later[0].known))


def test_short_prompts_are_read_together_as_far_as_a_piece_goes() -> None:
    engine = Engine(slots("compiled"))
    streams = [engine.stream(row(n, PIECE // 4)) for n in range(6)]
    begun: dict[int, int] = {}
    for _ in range(4):
        for number, stream in enumerate(streams):
            if next(stream) is not None:
                begun.setdefault(number, engine.steps)
    assert begun == {0: 1, 1: 1, 2: 1, 3: 1, 4: 2, 5: 2}


def test_prompts_are_read_in_pieces_between_the_steps_of_others() -> None:
    engine = Engine(slots("compiled", capacity=700))
    quick, slow = engine.stream(row(1, 4, tokens=10)), engine.stream(row(2, 3 * PIECE + 1, tokens=2))
    order: list[str] = []
    for name, stream in (("q", quick), ("s", slow)) * 12:
        step = next(stream, "over")
        if step not in (None, "over"):
            order.append(name)
    assert order.index("s") >= 4 and order.count("q") == 10


def test_leaving_frees_the_place_and_disturbs_nobody() -> None:
    engine = Engine(slots("compiled", count=2))
    gone, stays, waits = (engine.stream(row(n, 6)) for n in (1, 2, 3))
    for _ in range(3):
        assert next(gone, 0) != 0 and next(stays, 0) != 0
    next(waits)
    assert engine.load == (2, 1)
    gone.close()  # type: ignore[attr-defined]
    came = drained([stays, waits])
    assert [token for token, _ in came[1]] == alone("compiled", row(3, 6)) and engine.load == (0, 0)


def test_an_error_ends_its_own_text_only() -> None:
    class Nothing:
        finished = False

        def mask(self) -> torch.Tensor:
            return torch.zeros(96, dtype=torch.bool)

        def accept(self, token: int) -> None: ...

        def forced(self) -> list[int]:
            return []

        def copy(self) -> Nothing:
            return self

    engine = Engine(slots("compiled"))
    bad, good = row(1), row(2)
    bad.constraint = Nothing()
    streams = [engine.stream(bad), engine.stream(good)]
    with pytest.raises(ConjureError, match="allows no token"):
        list(streams[0])
    assert [token for token, _ in drained(streams[1:])[0]] == alone("compiled", row(2))
    for wrong, said in ((row(1, 0), "nothing to continue"), (row(1, 300, tokens=200), "400 tokens together")):
        with pytest.raises(ConjureError, match=said):
            next(engine.stream(wrong))


def test_a_round_of_all_streams_is_one_step() -> None:
    """Those who wait for a place do not hurry on those who have one, whose tokens would come in bursts."""
    engine = Engine(slots("eager", count=2))
    streams = [engine.stream(row(number, tokens=4)) for number in range(5)]
    came = [0] * len(streams)
    for _ in range(40):
        before = engine.steps
        came = [many + (next(stream, None) is not None) for many, stream in zip(came, streams, strict=True)]
        assert engine.steps - before <= 1
    assert came == [4] * 5 and engine.load == (0, 0)
