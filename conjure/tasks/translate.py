"""text -> text: the same in another language.

By models of one pair of languages (Marian), of many (mBART, M2M100, NLLB: the source has a mark, and the first token of
the translation is forced), by T5, which reads "translate English to German: " first, or by a model for chats.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from conjure.codecs.language_names import code_of, name_of
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Progress, Result
from conjure.core.seeds import derive
from conjure.media.text import Text
from conjure.models.encoder_decoder import EncoderDecoder
from conjure.models.language import LanguageModel
from conjure.tasks.asked_language import languages
from conjure.tasks.passages import passages
from conjure.tasks.public import PublicTask, parted
from conjure.tasks.writing import WritingOptions, instructed, knobs, silently, told, write

READ_AT_ONCE = 500
"""Tokens of a source where the model states no limit, and for chats."""


@dataclass(frozen=True, kw_only=True)
class TranslateOptions(WritingOptions):
    target: str = Field(default="", description="into which language, by name or code: Spanish, es, spa_Latn")
    source: str = Field(default="", description="the language the text is in, where the model must be told")


@plain_dataclass(frozen=True)
class Way:
    """How one passage is translated."""

    ids: Callable[[str], list[int]]
    settings: dict[str, Any]
    together: bool
    """Passages may be many sentences long."""
    notes: dict[str, str]


class Translate(PublicTask):
    Options = TranslateOptions

    def generate(self, inputs: Sequence[Text], options: TranslateOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """One translation per seed, passage by passage, with the blanks and line ends of the text between them."""
        began = time.perf_counter()
        text, instruction = parted(inputs, "translate")
        if not text.strip():
            raise ConjureError("expected a text to translate, got an empty one", hint="name a file, or write the text")
        model = self.model(options.weights)
        source, target = languages(instruction, options.source, options.target)
        way = _way(model, source, target)
        parts = list(passages(text, lambda each: len(model.tokenizer.encode(each)), _room(model, way), way.together))
        made: list[str] = ["" for _ in seeds]
        details: list[list[dict[str, Any]]] = [[] for _ in seeds]
        for done, (part, blank) in enumerate(parts):
            if part:
                ids = way.ids(part)
                own = {"tokens": _length(model, ids), **way.settings}
                found = yield from silently(
                    write(model, ids, _seeds(seeds, done), knobs(options, **own), draft=options.draft)
                )
                for n, answers in enumerate(found):
                    details[n].append({"source": part, **told(model, answers, options)})
                    made[n] += answers[0].text.strip()
                if len(seeds) == 1:
                    yield Delta(found[0][0].text.strip())
            made = [each + blank for each in made]
            if len(seeds) == 1 and blank:
                yield Delta(blank)
            yield Progress(done + 1, len(parts), "passage")
        seconds = round(time.perf_counter() - began, 3)
        results = [{**way.notes, "passages": each} for each in details]
        yield Result([Text(each) for each in made], {"results": results, "seconds": seconds})


def _seeds(seeds: Sequence[int], passage: int) -> list[int]:
    return [seed if passage == 0 else derive(seed, "passage", passage) for seed in seeds]


def _way(model: LanguageModel, source: str, target: str) -> Way:
    if not isinstance(model.network, EncoderDecoder):
        return _by_chat(model, source, target)
    if model.family in ("t5", "mt5", "umt5"):
        return _by_prefix(model, source, target)
    if model.tokenizer.languages:
        return _by_codes(model, source, target)
    return _by_pair(model, source, target)


def _by_chat(model: LanguageModel, source: str, target: str) -> Way:
    into, start = _needed(target), f" from {name_of(source)}" if source else ""
    instruction = f"Translate the following text{start} into {name_of(into)}. Answer with the translation alone."
    return Way(lambda text: instructed(model, instruction, text), {}, True, {"target": name_of(into)})


def _by_prefix(model: LanguageModel, source: str, target: str) -> Way:
    start, into = name_of(source or "English"), name_of(_needed(target))
    prefix = f"translate {start} to {into}: "
    listed = model.config.get("task_specific_params") or {}
    said = [str(each.get("prefix", "")) for name, each in listed.items() if name.startswith("translation")]
    if said and prefix.strip() not in [each.strip() for each in said]:
        known = "; ".join(each.strip(" :") for each in said)
        raise ConjureError(f"this model was not trained to translate {start} to {into}", hint=f"it can {known}")
    ids = lambda text: model.tokenizer.encode(prefix + text, special=True)  # noqa: E731
    return Way(ids, {}, False, {"source": start, "target": into})


def _by_codes(model: LanguageModel, source: str, target: str) -> Way:
    """mBART, M2M100, NLLB: the mark of the target is the first token that is written."""
    known = model.tokenizer.languages
    start = code_of(source, known) if source else ""
    begun = model.config.get("decoder_start_token_id") in [model.tokenizer.id(token) for token in known.values()]
    if not (target or begun or model.decoding().forced_first):
        _needed(target)
    settings: dict[str, Any] = {}
    notes = {"source": start} if start else {}
    if target:
        into = code_of(target, known)
        mark = model.tokenizer.id(known[into])
        assert mark is not None, "a language of the tokenizer has a token"
        settings, notes = {"forced_first": (mark,)}, {**notes, "target": into}
    return Way(lambda text: model.tokenizer.encode(text, special=True, language=start), settings, False, notes)


def _by_pair(model: LanguageModel, source: str, target: str) -> Way:
    """Marian: one pair, or several targets, each named by a mark before the text."""
    tokenizer, said = model.tokenizer, model.tokenizer.parts.config
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    marks = {token[2:-2]: token for token in vocabulary if token.startswith(">>") and token.endswith("<<")}
    if marks:
        into = code_of(_needed(target), marks)
        mark = f"{marks[into]} "
        return Way(lambda text: tokenizer.encode(mark + text, special=True), {}, False, {"target": into})
    for what, asked, own in (("from", source, said.get("source_lang")), ("into", target, said.get("target_lang"))):
        if asked and own and name_of(asked).casefold() != name_of(str(own)).casefold():
            raise ConjureError(
                f"this model does not translate {what} {name_of(asked)}: it translates "
                f"{name_of(str(said.get('source_lang', '?')))} into {name_of(str(said.get('target_lang', '?')))}",
                hint="take the model for that pair: conjure models get Helsinki-NLP/opus-mt-SOURCE-TARGET",
            )
    notes = {key: name_of(str(said[f"{key}_lang"])) for key in ("source", "target") if said.get(f"{key}_lang")}
    return Way(lambda text: tokenizer.encode(text, special=True), {}, False, notes)


def _needed(target: str) -> str:
    if not target:
        raise ConjureError("into which language?", hint='name it: --target Spanish, or "translate to Spanish"')
    return target


def _room(model: LanguageModel, way: Way) -> int:
    """Tokens of a passage, beside what stands around it and, for a chat, with room for the answer."""
    around = len(way.ids(""))
    most = model.context or READ_AT_ONCE + around
    if not isinstance(model.network, EncoderDecoder):
        most = min(READ_AT_ONCE + around, around + (most - around) // 3)
    if most - around < 2:
        raise ConjureError(f"this model reads {model.context} tokens at most: there is no room for a text to translate")
    return most - around - 1


def _length(model: LanguageModel, ids: Sequence[int]) -> int:
    most = 2 * len(ids) + 50
    if not model.context:
        return most
    pair = isinstance(model.network, EncoderDecoder)
    return max(1, min(most, model.context - (1 if pair else len(ids))))
