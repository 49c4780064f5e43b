"""text -> text: answers what is asked; a language model taught by conversations, starting from another's weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from tokenizers import AddedToken
from torch import Tensor

from conjure.codecs.tokenizer import END, Tokenizer
from conjure.core import seeds as randomness
from conjure.core import shelf
from conjure.core.config import from_dict, to_dict
from conjure.core.device import read_rate
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Progress, Result
from conjure.core.files import write_atomic
from conjure.data.books import Document, documents, split
from conjure.data.exercises import KINDS_OF_EXERCISE, Exercise
from conjure.data.instructions import (
    Lessons,
    Piece,
    Shares,
    Turns,
    examination,
    filled,
    held_out,
    instructions,
    story,
    tokens,
)  # fmt: skip
from conjure.data.packing import laid
from conjure.decoding.generate import Decoding, generate
from conjure.decoding.stream import stream
from conjure.media.text import Text
from conjure.models.folder import read_config, write_config
from conjure.models.public.save import load_transformer, save_transformer
from conjure.models.transformer import Transformer
from conjure.tasks.causal import CausalTraining
from conjure.tasks.chat_evaluation import answer_figures, likelihood

SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
TEMPLATE = """\
{%- if tools -%}
{{- '<|system|> Tools: ' -}}
{%- for tool in tools -%}
{{- tool.function.name + '(' + tool.function.parameters.properties | join(', ') + ')' -}}
{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}
{%- endfor -%}
{{- '<|end|>' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|' + message.role + '|> ' + message.content + '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""
"""What training saw, as a Jinja template: `chat_template.jinja` of the model folder. A space comes after each mark, for
most tokens of words begin with one."""
TRIES = 4
"""Conversations that are tried to fill the end of a row."""
HELD_OUT = 20
"""Exercises of each kind, and stories, that validation reads."""
EVALUATION_ROWS = 16


@plain_dataclass(frozen=True, kw_only=True)
class ChatModel:
    start: str = "starter/story"
    """The model whose weights, tokenizer and configuration training begins with."""


@plain_dataclass(frozen=True, kw_only=True)
class ChatData:
    sets: tuple[str, ...] = ()
    """Instruction sets."""
    books: tuple[str, ...] = ()
    """Sets of texts whose passages are gone on with."""
    length: int = 256
    """Tokens of a row, and the most that a conversation has."""
    shares: Shares = field(default_factory=Shares)


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    tokens: int = Field(default=160, ge=1, le=10_000, description="how many tokens to answer with at most")
    temperature: float = Field(default=0.0, ge=0, le=10, description="0 takes the likeliest token, more is bolder")
    top_p: float = Field(default=0.95, ge=0, le=1, description="draw among the likeliest tokens of this probability")
    system: str = Field(default="", description="what the system turn says, tools for instance: Tools: add(a, b)")


class Chat(CausalTraining[Transformer]):
    Options = ChatOptions
    ModelConfig = ChatModel
    DataConfig = ChatData

    def __init__(
        self, network: Transformer, tokenizer: Tokenizer, data: ChatData, *, lessons: Lessons | None = None,
        exam: Sequence[Exercise] = (),
    ) -> None:  # fmt: skip
        self.network, self.tokenizer, self.data, self.lessons, self.exam = network, tokenizer, data, lessons, exam
        self.turns = _turns(tokenizer)

    @property
    def sets(self) -> tuple[str, ...]:
        return (*self.data.sets, *self.data.books)

    @classmethod
    def create(cls, model: ChatModel, data: ChatData, seed: int = 0) -> Chat:
        """The model `start`, with marks for turns in its vocabulary, ready to be taught."""
        network, tokenizer = _started(shelf.find(model.start), seed)
        asked = instructions(data.sets)
        read, unread = split(documents(data.books)) if data.books else ([], [])
        lessons = Lessons(asked, read, data.shares, randomness.derive(seed, "data"))
        return cls(network, tokenizer, data, lessons=lessons, exam=_exam(asked, unread))

    @classmethod
    def load(cls, folder: Path) -> Chat:
        """A trained model, ready for use."""
        saved = read_config(folder)
        network = load_transformer(folder, saved)
        data = from_dict(ChatData, saved.get("data", {}), where=f"{folder}: data")
        return cls(network, Tokenizer.load(folder), data)

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return laid([self._row(index) for index in indices], self.data.length)

    def _row(self, index: int) -> list[Piece]:
        """Conversations until the row is full; those that do not fit are passed over, `TRIES` of them at most."""
        assert self.lessons is not None
        row: list[Piece] = []
        room, misses, number = self.data.length, 0, 0
        while misses < TRIES:
            ids, targets = self._tokens(self.lessons.conversation(index, number))
            number += 1
            if len(ids) > room:
                misses += 1
                continue
            row.append((ids, targets))
            room -= len(ids)
        return row

    def _tokens(self, lessons: Sequence[Exercise]) -> Piece:
        parts = [part for lesson in lessons for part in (lesson.system, lesson.prompt, lesson.answer)]
        return tokens(lessons, [self._inside(part) for part in parts], self.turns)

    def _inside(self, text: str) -> list[int]:
        """What stands between the marks of a turn."""
        return self.tokenizer.encode(f" {text}")

    def preview(self, seed: int) -> dict[str, Text]:
        """One held-out question of each kind, answered."""
        asked = list({each.kind: each for each in self.exam}.values())
        answers = self._answers(asked)
        lines = [f"{each.prompt}\n-> {answer}\n   ({each.answer})" for each, answer in zip(asked, answers, strict=True)]
        return {"answers": Text("\n\n".join(lines) + "\n")}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Over the answers to held-out questions, evenly spread where there is a `limit` of rows."""
        rows = filled([self._tokens([each]) for each in self.exam], self.data.length)
        rows = rows[:: max(1, len(rows) // limit) if limit else 1][:limit]
        total, count = 0.0, 0
        for start in range(0, len(rows), EVALUATION_ROWS):
            value, n = self.loss(laid(rows[start : start + EVALUATION_ROWS], self.data.length))
            total, count = total + value.item(), count + int(n)
        size = sum(len(self._inside(each.answer)) + 1 for each in self.exam)
        size_bytes = sum(len(each.answer.encode()) for each in self.exam)
        return {"bits_per_byte": total / count / math.log(2) * size / size_bytes, "loss": total / count}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        said = save_transformer(folder, self.network, weights, dtype=dtype, length=self.data.length)
        sections = {**said, "model": to_dict(self.network.config), "data": to_dict(self.data)}
        write_config(folder, kind="transformer", task="chat", network=self.network, sections=sections)
        self.tokenizer.save(folder)
        write_atomic(folder / "chat_template.jinja", TEMPLATE.encode())

    # ---------------------------------------------------------------- use
    @staticmethod
    def forecast(folder: Path, options: ChatOptions, count: int) -> dict[str, Any]:
        """`seconds`: every token reads every weight once, as fast as memory gives them."""
        return {"seconds": count * options.tokens * 4 * read_config(folder)["parameters"] / read_rate()}

    def generate(self, inputs: Sequence[Text], options: ChatOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One answer per seed; a single one comes piece by piece, several come whole."""
        prompt = "\n\n".join(each.text for each in inputs)
        if not prompt.strip():
            hint = 'for example: conjure make "What is 3 plus 4?" --task chat'
            raise ConjureError("expected a question, got an empty text", hint=hint)
        start = self._start(options.system, prompt)
        texts = ["" for _ in seeds]
        for index, piece in stream(
            self.network, self.tokenizer, ["" for _ in seeds], seeds=list(seeds), tokens=options.tokens,
            context=self.data.length, temperature=options.temperature, top_p=options.top_p, start=start,
            end=self._ends(),
        ):  # fmt: skip
            piece = piece if texts[index] else piece.lstrip()
            texts[index] += piece
            yield Delta(piece) if len(seeds) == 1 else Progress(index, len(seeds), "text")
        yield Result([Text(text) for text in texts], {})

    def _start(self, system: str, prompt: str) -> list[int]:
        """The ids before an answer."""
        turns = self.turns
        before = [turns.system, *self._inside(system), turns.end] if system else []
        return [*before, turns.user, *self._inside(prompt), turns.end, turns.assistant]

    def _ends(self) -> tuple[int, ...]:
        return (self.turns.end, self.turns.user, self.turns.system, self.turns.assistant)

    def _answers(self, asked: Sequence[Exercise]) -> list[str]:
        """The likeliest answers."""
        made = generate(
            self.network, self.tokenizer, [self._start(each.system, each.prompt) for each in asked],
            Decoding(tokens=100, temperature=0), seeds=[0] * len(asked), end=self._ends(),
        )  # fmt: skip
        return [each.text.lstrip() for each in made]

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Instruction following on the held-out tenth: exercises, and the instructions of `data` (the model's own)."""
        names = tuple(data) or self.data.sets
        asked = [each for each in instructions(names) if held_out(each.kind, each.key)]
        pieces = [self._tokens([each]) for each in asked]

        def nats(batch: dict[str, Tensor]) -> float:
            with torch.no_grad():
                return self.loss(batch)[0].item()

        return answer_figures(self._answers, asked, names, on_progress) | likelihood(
            nats, pieces, asked, names, self.data.length
        )


def _exam(asked: Sequence[Exercise], unread: Sequence[Document]) -> list[Exercise]:
    """What validation reads during training."""
    found = [each for kind in KINDS_OF_EXERCISE for each in examination(kind, HELD_OUT)]
    found += [each for each in asked if held_out(each.kind, each.key)]
    draw = randomness.rng(randomness.derive(0, "stories"))
    return found + [story(unread[i % len(unread)], draw) for i in range(HELD_OUT if unread else 0)]


def _started(folder: Path, seed: int) -> tuple[Transformer, Tokenizer]:
    """The network in `folder` with three more rows in its vocabulary, which begin as the mean of all with a little
    noise, and its tokenizer with the marks of turns."""
    old = load_transformer(folder, read_config(folder))
    config, tokenizer = old.config, Tokenizer.load(folder)
    backend = tokenizer.backend
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in (SYSTEM, USER, ASSISTANT)])
    tokenizer = Tokenizer(backend)
    network = Transformer(replace(config, vocab=tokenizer.size))
    more = tokenizer.size - config.vocab
    weights = old.state_dict()
    for name, wanted in network.state_dict().items():
        if more and weights[name].shape != wanted.shape:  # the embedding, and the output matrix where it is another
            mean_D = weights[name].mean(0)
            seeds = [randomness.derive(seed, name, row) for row in range(more)]
            noise_ND = randomness.normal(seeds, mean_D.shape) * weights[name].std()
            weights[name] = torch.cat([weights[name], mean_D + 0.1 * noise_ND])
    network.load_state_dict(weights)
    return network, tokenizer


def _turns(tokenizer: Tokenizer) -> Turns:
    found = [tokenizer.backend.token_to_id(mark) for mark in (SYSTEM, USER, ASSISTANT, END)]
    ids = [each for each in found if each is not None]
    if len(ids) < len(found):
        raise ConjureError(
            "this model's tokenizer has no marks for turns", hint="only models trained by the task chat can chat"
        )
    return Turns(*ids)
