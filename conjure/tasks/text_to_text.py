"""text -> text: a decoder transformer, or an LSTM beside it, writes on from where a text stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from conjure.codecs.tokenizer import Tokenizer, train_bpe, train_characters, train_unigram, train_wordpiece
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.device import read_rate
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Progress, Result
from conjure.data.books import documents, split, tokenize, trained_tokenizer
from conjure.data.packing import Packed
from conjure.decoding.stream import stream
from conjure.media.text import Text
from conjure.metrics.likelihood import Likelihood
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.models.lstm import LSTM, LSTMConfig
from conjure.models.public.save import load_transformer, save_transformer
from conjure.models.transformer import Transformer, TransformerConfig
from conjure.tasks.causal import CausalTraining, seeded
from conjure.tasks.text_evaluation import published

PREVIEW = ("Once upon a time", '"Who is there?" asked', "The ship")
EVALUATION_ROWS = 16


@plain_dataclass(frozen=True, kw_only=True)
class TextData:
    """`sets` are names of data sets whose .md and .txt files are the documents."""

    sets: tuple[str, ...] = ()
    tokenizer: Literal["bpe", "wordpiece", "unigram", "characters"] = "bpe"
    length: int = 256
    """Tokens the network reads at once while it trains."""


@dataclass(frozen=True, kw_only=True)
class TextToTextOptions:
    tokens: int = Field(default=200, ge=1, le=100_000, description="how many tokens to write (one is 3 to 4 letters)")
    temperature: float = Field(default=0.8, ge=0, le=10, description="0 takes the likeliest token, more is bolder")
    top_p: float = Field(default=0.95, ge=0, le=1, description="draw among the likeliest tokens of this probability")
    top_k: int = Field(default=0, ge=0, description="draw among so many likeliest tokens (0: all)")
    min_p: float = Field(default=0.0, ge=0, le=1, description="leave out what is this much less likely than the best")
    stop: tuple[str, ...] = Field(default=(), description="end before this text; may be given several times")


class TextToText(CausalTraining[Transformer | LSTM]):
    Options = TextToTextOptions
    ModelConfig = TransformerConfig | LSTMConfig
    DataConfig = TextData

    def __init__(
        self, network: Transformer | LSTM, tokenizer: Tokenizer, data: TextData, *,
        training: Packed | None = None, validation: Packed | None = None, bytes_per_token: float = 1.0, seed: int = 0,
    ) -> None:  # fmt: skip
        self.network, self.tokenizer, self.data, self.seed = network, tokenizer, data, seed
        self.training, self.validation, self.bytes_per_token = training, validation, bytes_per_token

    @property
    def sets(self) -> tuple[str, ...]:
        return self.data.sets

    @classmethod
    def create(cls, model: TransformerConfig | LSTMConfig, data: TextData, seed: int = 0) -> TextToText:
        """A new model. The tokenizer is trained on the training documents; the recipe's `vocab` must be its size."""
        training, validation = split(documents(data.sets))
        tokenizer = trained_tokenizer(training, model.vocab, TRAINERS[data.tokenizer])
        if tokenizer.size != model.vocab:
            raise ConjureError(
                f"model.vocab is {model.vocab}, the data have {tokenizer.size} characters",
                hint=f"write model.vocab={tokenizer.size}",
            )
        network = seeded(lambda: _network(model), seed)
        seen, unseen = tokenize(training, tokenizer), tokenize(validation, tokenizer)
        return cls(
            network, tokenizer, data, seed=seed,
            training=Packed(seen.ids, seen.borders, data.length, randomness.derive(seed, "data")),
            validation=Packed(unseen.ids, unseen.borders, data.length),
            bytes_per_token=sum(unseen.bytes) / len(unseen.ids),
        )  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> TextToText:
        """A trained model, ready for use."""
        saved = read_config(folder)
        network = load_transformer(folder, saved) if saved["kind"] == "transformer" else _load_lstm(folder, saved)
        data = from_dict(TextData, saved.get("data", {}), where=f"{folder}: data")
        return cls(network, Tokenizer.load(folder), data)

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        assert self.training is not None
        return self.training.batch([self.training.row(i) for i in indices])

    def preview(self, seed: int) -> dict[str, Text]:
        """Continuations of three beginnings."""
        own = [randomness.derive(seed, i) for i in range(len(PREVIEW))]
        texts = self._continued(list(PREVIEW), TextToTextOptions(tokens=min(120, self.data.length)), own)
        return {"continuations": Text("\n\n----\n\n".join(texts) + "\n")}

    @torch.no_grad()
    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Over rows of the validation documents, evenly spread where there is a `limit`."""
        assert self.validation is not None
        rows = self.validation.rows[:: max(1, len(self.validation) // limit) if limit else 1][:limit]
        total, count = 0.0, 0
        for start in range(0, len(rows), EVALUATION_ROWS):
            value, n = self.loss(self.validation.batch(rows[start : start + EVALUATION_ROWS]))
            total, count = total + value.item(), count + int(n)
        figures = Likelihood(nats=total, tokens=count, bytes=count * self.bytes_per_token)
        return {
            "bits_per_byte": figures.bits_per_byte, "loss": total / count, "perplexity": figures.token_perplexity
        }  # fmt: skip

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        sections = {"model": to_dict(self.network.config), "data": to_dict(self.data)}
        if isinstance(self.network, LSTM):
            save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)
        else:
            sections |= save_transformer(folder, self.network, weights, dtype=dtype, length=self.data.length)
        write_config(
            folder, kind=_kind(self.network.config), task="text_to_text", network=self.network, sections=sections
        )
        self.tokenizer.save(folder)

    # ---------------------------------------------------------------- use
    @staticmethod
    def forecast(folder: Path, options: TextToTextOptions, count: int) -> dict[str, Any]:
        """`seconds`: every token reads every weight once, as fast as memory gives them; `memory_bytes`: the cache."""
        saved = read_config(folder)
        config = _config(folder, saved)
        length = from_dict(TextData, saved.get("data", {}), where=f"{folder}: data").length
        if isinstance(config, LSTMConfig):
            cache = 4 * 2 * count * config.layers * config.dim
        else:
            cache = 4 * 2 * count * config.layers * config.key_heads * config.width * min(length, options.tokens)
        return {"memory_bytes": cache, "seconds": options.tokens * 4 * saved["parameters"] / read_rate()}

    def generate(self, inputs: Sequence[Text], options: TextToTextOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One text per seed, the prompt included; a single one comes piece by piece, several come whole."""
        prompt = "\n\n".join(each.text for each in inputs)
        if not prompt.strip():
            hint = 'for example: conjure make "Once upon a time"'
            raise ConjureError("expected a prompt, got an empty text", hint=hint)
        texts = [prompt for _ in seeds]
        if len(seeds) == 1:
            yield Delta(prompt)
        for index, piece in self._stream(texts.copy(), options, list(seeds)):
            texts[index] += piece
            if len(seeds) == 1:
                yield Delta(piece)
            else:
                yield Progress(index, len(seeds), "text")
        yield Result([Text(text) for text in texts], {})

    def _stream(self, prompts: list[str], options: TextToTextOptions, seeds: list[int]) -> Iterator[tuple[int, str]]:
        end = [] if self.tokenizer.end is None else [self.tokenizer.end]
        return stream(
            self.network, self.tokenizer, prompts, seeds=seeds, tokens=options.tokens, context=self.data.length,
            temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, min_p=options.min_p,
            stop=options.stop, start=end, end=end,
        )  # fmt: skip

    def _continued(self, prompts: list[str], options: TextToTextOptions, seeds: list[int]) -> list[str]:
        texts = prompts.copy()
        for index, piece in self._stream(prompts, options, seeds):
            texts[index] += piece
        return texts

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """See `tasks.text_evaluation`."""
        return published(
            self.network, self.tokenizer, self.data.sets, self.data.length, data, on_progress  # type: ignore[arg-type]
        )


def _network(config: TransformerConfig | LSTMConfig) -> Transformer | LSTM:
    return LSTM(config) if isinstance(config, LSTMConfig) else Transformer(config)


def _kind(config: TransformerConfig | LSTMConfig) -> str:
    return "lstm" if isinstance(config, LSTMConfig) else "transformer"


def _config(folder: Path, saved: dict[str, Any]) -> TransformerConfig | LSTMConfig:
    kind = LSTMConfig if saved.get("kind") == "lstm" else TransformerConfig
    return from_dict(kind, saved.get("model", {}), where=f"{folder}: model")


def _characters(texts: Iterator[str], size: int) -> Tokenizer:
    """The size follows from the text."""
    return train_characters("".join(texts))


TRAINERS: dict[str, Callable[[Iterator[str], int], Tokenizer]] = {
    "bpe": train_bpe,
    "wordpiece": train_wordpiece,
    "unigram": train_unigram,
    "characters": _characters,
}
"""How `data.tokenizer` is trained."""


def _load_lstm(folder: Path, saved: dict[str, Any]) -> LSTM:
    network = LSTM(from_dict(LSTMConfig, saved.get("model", {}), where=f"{folder}: model"))
    load_weights(network, folder / "model.safetensors")
    return network.eval().requires_grad_(False)
