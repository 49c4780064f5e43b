"""Text written by public language models: the knobs of `decoding.settings.Decoding` as options, events as it comes."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure import media
from conjure.core import shelf
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Warn
from conjure.decoding.generate import Constraint, Decoding, Generation, check, written
from conjure.decoding.grammar import Grammars
from conjure.decoding.prompt_cache import PromptCache
from conjure.decoding.rows import Row
from conjure.models.encoder_decoder import EncoderDecoder
from conjure.models.language import LanguageModel, Weights
from conjure.tasks.inputs import LOCAL
from conjure.tasks.load import load
from conjure.tasks.public import WEIGHTS

Written = Generator[Event, None, list[list[Generation]]]


@dataclass(frozen=True, kw_only=True)
class WritingOptions:
    """What is not given is as the model's generation_config.json says, else greedy."""

    weights: Weights | None = WEIGHTS
    tokens: int | None = Field(default=None, ge=1, le=1_000_000, description="how many tokens to write at most")
    temperature: float | None = Field(default=None, ge=0, le=10, description="0 takes the likeliest token")
    top_k: int | None = Field(default=None, ge=0, description="draw among so many likeliest tokens (0: all)")
    top_p: float | None = Field(default=None, ge=0, le=1, description="draw among the likeliest of this share")
    min_p: float | None = Field(default=None, ge=0, le=1, description="leave out what is this far below the best")
    typical_p: float | None = Field(default=None, ge=0, le=1, description="draw among the typical of this share")
    repetition_penalty: float | None = Field(
        default=None, gt=0, le=10, description="above 1: what stands in the text already becomes less likely"
    )
    presence_penalty: float | None = Field(default=None, ge=-10, le=10, description="taken off what was written")
    frequency_penalty: float | None = Field(default=None, ge=-10, le=10, description="the same for each time")
    logit_bias: tuple[str, ...] = Field(
        default=(), description="ID=VALUE: added to the logit of this token; may be given several times"
    )
    min_tokens: int | None = Field(default=None, ge=0, description="no end before so many tokens")
    no_repeat_ngram: int | None = Field(default=None, ge=0, description="so many tokens never come again (0: off)")
    beams: int | None = Field(default=None, ge=1, le=64, description="above 1: search with so many beams")
    length_penalty: float | None = Field(default=None, ge=-10, le=10, description="of beams: above 0 longer texts win")
    best: int | None = Field(default=None, ge=1, le=64, description="so many answers of the search, in the JSON")
    best_of: int | None = Field(default=None, ge=1, le=64, description="draw so many and keep the likeliest")
    contrastive_alpha: float | None = Field(default=None, ge=0, le=1, description="contrastive search among top_k")
    stop: tuple[str, ...] = Field(default=(), description="end before this text; may be given several times")
    lookup: int | None = Field(default=None, ge=0, le=32, description="guess so many tokens from the text: faster")
    draft: str = Field(
        default="", json_schema_extra=LOCAL,
        description="a smaller model with the same tokens that guesses ahead: speed alone",
    )
    guesses: int | None = Field(default=None, ge=1, le=32, description="how many tokens the draft guesses at once")
    prompt_cache: str = Field(
        default="", json_schema_extra=LOCAL,
        description="a folder that keeps what was read: a single text that begins the same starts at once",
    )
    logprobs: bool = Field(default=False, description="list every token with its log-probability in the JSON")
    alternatives: int = Field(default=0, ge=0, le=100, description="the likeliest tokens at each place, in the JSON")


def knobs(options: WritingOptions, **defaults: Any) -> dict[str, Any]:
    """The fields of `Decoding` that were given, over `defaults` (those that are not None)."""
    given = {each.name: getattr(options, each.name) for each in fields(Decoding) if hasattr(options, each.name)}
    given = {name: value for name, value in given.items() if value is not None and value != ()}
    if options.logit_bias:
        given["logit_bias"] = dict(_bias(each) for each in options.logit_bias)
    return {**{name: value for name, value in defaults.items() if value is not None}, **given}


def _bias(said: str) -> tuple[int, float]:
    token, _, value = said.partition("=")
    try:
        return int(token), float(value)
    except ValueError:
        raise ConjureError(f"--logit-bias: expected ID=VALUE, got {said!r}", hint="as in --logit-bias 42=-5") from None


def write(
    model: LanguageModel, ids: Sequence[int], seeds: Sequence[int], settings: Mapping[str, Any], *,
    constraints: Sequence[Constraint] | None = None, draft: str = "", prompt_cache: str = "", held: str = "",
) -> Written:  # fmt: skip
    """What follows these ids, the best answers of each seed; a single text that needs no search comes in pieces.

    `held` is the type that the weights were asked for in; states in `prompt_cache` belong to it.
    """
    decoding = model.decoding(**settings)
    pair = isinstance(model.network, EncoderDecoder)
    guesser = None
    if draft:
        if pair:
            raise ConjureError("--draft: only models that write on from a text take one", hint="leave it out")
        guesser = load(shelf.find(draft))
        if not isinstance(guesser, LanguageModel):
            raise ConjureError(f"--draft {draft}: expected a language model")
    if pair or len(seeds) > 1 or decoding.beams > 1 or decoding.best_of > 1:
        made = model.continued([ids] * len(seeds), seeds, constraints=constraints, draft=guesser, **settings)
        if len(seeds) == 1:
            yield Delta(made[0].text)
        return [made[at : at + decoding.best] for at in range(0, len(made), decoding.best)]
    prompt = model.begun(ids)
    if "generate" not in model.can:
        able = ", ".join(sorted(model.can))
        raise ConjureError(f"a {model.family} of this kind writes no text", hint=f"it can {able}")
    check(model.writer_for(decoding), [prompt], seeds, constraints, model.context)
    row = Row(
        0, prompt, seed=seeds[0], decoding=decoding, end=model.end, tokenizer=model.tokenizer, watched=True,
        constraint=None if constraints is None else constraints[0],
    )  # fmt: skip
    guessing = None if guesser is None else guesser.writer
    kept = _kept(model, prompt_cache, held) if prompt_cache else None
    steps = written(model.writer_for(decoding), [row], context=model.context, draft=guessing, prompt_cache=kept)
    for _, _, piece in steps:
        if piece:
            yield Delta(piece)
    return [[row.generation()]]


def _kept(model: LanguageModel, folder: str, held: str) -> PromptCache:
    """What these very files have read: other weights, or the same held in another type, have states of their own."""
    files = [model.folder] if model.folder.is_file() else sorted(model.folder.glob("*.safetensors"))
    stamps = [f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return PromptCache(Path(folder), "\n".join([type(model.writer).__name__, held, *stamps]))


def silently(events: Written) -> Generator[Event, None, list[list[Generation]]]:
    """The same without the pieces, for a caller that shows its own."""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        if not isinstance(event, Delta):
            yield event


def told(model: LanguageModel, made: Sequence[Generation], options: WritingOptions) -> dict[str, Any]:
    """What the JSON says of the answers of one seed: their texts, and the tokens where they were asked for."""
    found = [_told(model, each, options) for each in made]
    return {**found[0], **({"answers": found} if len(found) > 1 else {})}


def _told(model: LanguageModel, made: Generation, options: WritingOptions) -> dict[str, Any]:
    said: dict[str, Any] = {"written": made.text, "ended": made.ended, "count": len(made.ids)}
    if made.score:
        said["score"] = made.score
    if not options.logprobs and not options.alternatives:
        return said
    token = model.tokenizer.token
    rows: list[dict[str, Any]] = [{"id": index, "token": token(index)} for index in made.ids]
    for row, value in zip(rows, made.logprobs):
        row["logprob"] = value
    for row, likely in zip(rows, made.alternatives):
        row["alternatives"] = [{"id": i, "token": token(i), "logprob": value} for i, value in likely]
    return {**said, "tokens": rows}


def constrained(
    model: LanguageModel, count: int, *, schema: str = "", regex: str = "", grammar: str = ""
) -> list[Constraint] | None:
    """A constraint for each of `count` texts; `schema` and `grammar` are files, or a JSON object and a grammar
    themselves."""
    asked = [name for name, given in (("--schema", schema), ("--regex", regex), ("--grammar", grammar)) if given]
    if not asked:
        return None
    if len(asked) > 1:
        raise ConjureError(f"{' and '.join(asked)}: a text can keep to one of them", hint="leave the other out")
    grammars = Grammars(model.tokenizer, end=model.end, size=model.vocab or None)
    if schema:
        one = grammars.json(schema if schema.lstrip().startswith("{") else _content(schema))
    elif regex:
        one = grammars.regex(regex)
    else:
        one = grammars.lark(grammar if "\n" in grammar or ":" in grammar else _content(grammar))
    return [one, *(one.copy() for _ in range(count - 1))]


def unfinished(constraints: Sequence[Constraint] | None, made: Sequence[Sequence[Generation]]) -> Iterator[Event]:
    """A warning where a constrained text reached its length before it was whole."""
    cut = sum(each[0].ended == "length" for each in made) if constraints is not None else 0
    if cut:
        which = "the text" if len(made) == 1 else f"{cut} of {len(made)} texts"
        yield Warn(f"{which} ended by length before the constraint was met: it is not whole. Give more --tokens")


def _content(name: str) -> str:
    return str(media.read(Path(name), "text"))


def instructed(model: LanguageModel, instruction: str, text: str, system: str = "") -> list[int]:
    """The ids of a chat that asks to do something with a text; of an encoder-decoder, those of the words alone."""
    said = f"{instruction}\n\n{text}" if instruction and text else instruction or text
    if isinstance(model.network, EncoderDecoder):
        return model.tokenizer.encode(f"{system}\n\n{said}" if system else said, special=True)
    messages = [{"role": "system", "content": system}] if system else []
    return model.tokenizer.chat([*messages, {"role": "user", "content": said}])
