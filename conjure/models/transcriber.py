"""Long sound to text with a public model of speech: parts in which somebody speaks, read in batches, and checks against
text that nobody said.

After Whisper's published decoding (Radford et al. 2022, arXiv 2212.04356, 4.5): a text that compresses too well, or is
too unlikely, is drawn again at a higher temperature; one that is unlikely where the model thinks nobody speaks is left
out. Unlike there, parts without speech are found by loudness beforehand and never read, and no part is told what was
said before it, so that a mistake does not spread.

Legend: B parts, N samples (of a spectrogram: bands), F frames of 10 ms, M frames of 20 ms, D width, V vocabulary.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conjure.codecs.language_names import code_of, name_of
from conjure.codecs.log_mel import Mel, whisper_features
from conjure.codecs.tokenizer import Tokenizer
from conjure.codecs.voice_activity import Chunk, Floats, VoiceActivity, chunks, spans
from conjure.core.errors import ConjureError
from conjure.core.json_files import read_json
from conjure.core.seeds import derive
from conjure.decoding import filters
from conjure.decoding.rows import Row, check_tops, ruled
from conjure.decoding.sample import best, sample
from conjure.decoding.settings import Decoding
from conjure.decoding.timestamps import FRAME, Phrase, TimeTokens, phrases, timed, token_times, words
from conjure.media.captions import SPACELESS, Segment, Word
from conjure.models.compiled_encoder import CompiledEncoder
from conjure.models.compiled_reading import CompiledReading, Writer
from conjure.models.encoder_decoder import Reading
from conjure.models.language import LanguageModel
from conjure.models.transformer import Transformer
from conjure.models.whisper import Whisper

SHORTEST = 0.5
"""Seconds: less is not read again behind what was heard."""
SURE = 0.5
"""Probability from which on a part's own language counts, and not that of most of the sound."""
COPIED = 3 << 29
"""Bytes of an encoder or a decoder up to which it may be held twice."""
LONGEST_WORD = 0.7
"""Seconds that a word is thought to take at most, where it takes twice the usual."""


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """How to listen."""

    language: str = ""
    """A code or name; "": found for each part."""
    translate: bool = False
    words: bool = False
    """Times of words too."""
    prompt: str = ""
    """What is said to have come before: names and spellings to expect."""
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    no_speech: float = 0.6
    """Above this probability that nobody speaks, an unlikely text is left out."""
    logprob: float = -1.0
    """A text with a lower mean log-probability is unlikely."""
    compression: float = 2.4
    """A text that deflate makes smaller than this goes round in circles."""
    voice: VoiceActivity | None = field(default_factory=VoiceActivity)
    """None: everything is read."""
    batch: int = 8
    """Parts that are read together."""
    tokens: int = 0
    """At most so many for a part; 0: half of what the model can hold, as published."""


@dataclass(frozen=True)
class Heard:
    """What was written about one part."""

    ids: list[int]
    """Without the end."""
    logprob: float
    """Mean, the end included."""
    no_speech: float
    compression: float
    temperature: float
    broken: bool
    """It ended by its length."""

    def nobody(self, how: Hearing) -> bool:
        return self.no_speech > how.no_speech and self.logprob < how.logprob

    def failed(self, how: Hearing) -> bool:
        return not self.nobody(how) and (self.compression > how.compression or self.logprob < how.logprob)


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The tokens with a meaning, by generation_config.json, else by their names."""

    start: int
    times: TimeTokens
    no_speech: int
    previous: int | None
    languages: Mapping[str, int]
    """Code -> id; none for models of English alone."""
    tasks: Mapping[str, int]
    heads: tuple[tuple[int, int], ...]
    """(layer, head) pairs that look at the word that is being written."""

    @classmethod
    def read(cls, said: Mapping[str, Any], tokenizer: Tokenizer, network: Whisper) -> Marks:
        def named(*names: str) -> int | None:
            return next((index for name in names if (index := tokenizer.id(name)) is not None), None)

        start, end = said.get("decoder_start_token_id"), said.get("eos_token_id")
        without = said.get("no_timestamps_token_id") or named("<|notimestamps|>")
        end = end[0] if isinstance(end, list) else end
        if not (isinstance(start, int) and isinstance(end, int) and isinstance(without, int)):
            raise ConjureError(
                "generation_config.json: expected decoder_start_token_id, eos_token_id and no_timestamps_token_id",
                hint="fetch the model again, with all of its files",
            )
        languages = {key.strip("<|>"): int(index) for key, index in (said.get("lang_to_id") or {}).items()}
        if not languages and said.get("is_multilingual", True):
            vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
            found = {re.fullmatch(r"<\|([a-z]{2,3})\|>", token): index for token, index in vocabulary.items()}
            languages = {match[1]: index for match, index in found.items() if match}
        tasks = said.get("task_to_id") or {name: named(f"<|{name}|>") for name in ("transcribe", "translate")}
        last = network.config.decoder.layers
        every = [(layer, head) for layer in range(last // 2, last) for head in range(network.config.decoder.heads)]
        return cls(
            start=start, languages={} if said.get("is_multilingual") is False else languages,
            times=TimeTokens(first=without + 1, without=without, end=end,
                             latest_first=said.get("max_initial_timestamp_index", 50)),
            no_speech=named("<|nospeech|>", "<|nocaptions|>") or without - 1,
            previous=said.get("prev_sot_token_id") or named("<|startofprev|>"),
            tasks={name: index for name, index in tasks.items() if isinstance(index, int)},
            heads=tuple((layer, head) for layer, head in said.get("alignment_heads") or every),
        )  # fmt: skip


class Transcriber:
    """A Whisper with its front end and its marks."""

    def __init__(self, model: LanguageModel) -> None:
        if not isinstance(model.network, Whisper):
            raise ConjureError(
                f"{model.folder.name}: a {model.family} hears nothing, expected a model of speech (Whisper)",
                hint="for example: conjure models get openai/whisper-base",
            )
        self.model, self.network = model, model.network
        self._read: tuple[Tensor, Reading | CompiledReading] | None = None
        said = read_json(model.folder / "preprocessor_config.json")
        self.mel = Mel(
            rate=int(said.get("sampling_rate", 16_000)), window=int(said.get("n_fft", 400)),
            fft=int(said.get("n_fft", 400)), hop=int(said.get("hop_length", 160)), bands=self.network.config.bins,
        )  # fmt: skip

    @cached_property
    def marks(self) -> Marks:
        said = {**self.model.config, **read_json(self.model.folder / "generation_config.json")}
        return Marks.read(said, self.model.tokenizer, self.network)

    @property
    def seconds(self) -> float:
        """Of sound that are read at once."""
        return self.network.config.frames * self.mel.hop / self.mel.rate

    # -- a few parts

    @torch.inference_mode()
    def memory(self, parts: Sequence[Floats]) -> Tensor:
        """What the encoder makes of sounds at `mel.rate`, `[B, M, D]`."""
        return self.read(self.features(parts))

    @torch.inference_mode()
    def features(self, parts: Sequence[Floats]) -> Tensor:
        """The spectrograms of sounds, `[B, bands, F]`."""
        rows = [whisper_features(torch.from_numpy(part), self.mel, self.network.config.frames) for part in parts]
        return torch.stack(rows)

    @torch.inference_mode()
    def read(self, features_BNF: Tensor) -> Tensor:
        """What the encoder makes of spectrograms, `[B, M, D]`."""
        if self.reader is None:
            return self.network.hidden(features_BNF)
        return self.reader(self.network.embedded(features_BNF))

    @cached_property
    def reader(self) -> CompiledEncoder | None:
        """The encoder once more, in compiled code; None where that cannot be, or would take too much memory."""
        stack = self.network.pair.encoder
        return None if CompiledEncoder.supports(stack) or _bytes(stack) > COPIED else CompiledEncoder(stack)

    @cached_property
    def writer(self) -> Writer | None:
        """The decoder once more, in compiled code; None where that cannot be, or would take too much memory."""
        pair = self.network.pair
        return None if Writer.supports(pair) or _bytes(pair.decoder) > COPIED else Writer(pair)

    def pack(self) -> None:
        """Makes both now, not with the first sound."""
        _ = self.reader, self.writer

    def _reading(self, memory_BMD: Tensor) -> Reading | CompiledReading:
        """What can be decoded; of the same memory once, for its language and its text."""
        kept = self._read  # another thread may replace it
        if kept is None or kept[0] is not memory_BMD:
            kept = self._read = None  # the one before takes as much memory
            made = Reading(self.network.pair, memory_BMD, None) if self.writer is None else self.writer(memory_BMD)
            kept = self._read = memory_BMD, made
        return kept[1]

    @torch.inference_mode()
    def languages(self, memory_BMD: Tensor) -> list[dict[str, float]]:
        """For each part the probability of each language."""
        codes, B = self.marks.languages, memory_BMD.shape[0]
        reading: Any = self._reading(memory_BMD)
        logits_BV = reading(torch.full((B, 1), self.marks.start), cache=reading.cache(B, 1), last_only=True)[:, -1]
        p_BL = logits_BV[:, list(codes.values())].softmax(-1)
        return [dict(zip(codes, row, strict=True)) for row in p_BL.tolist()]

    def beginning(self, language: str, how: Hearing, *, times: bool = True) -> list[int]:
        """The ids that a text begins with."""
        marks = self.marks
        ids = [marks.start]
        if marks.languages:
            ids += [marks.languages[language], marks.tasks["translate" if how.translate else "transcribe"]]
        if not times:
            ids.append(marks.times.without)
        if how.prompt.strip() and marks.previous is not None:
            most = self.network.config.decoder.max_length // 2 - 1
            ids = [marks.previous, *self.model.tokenizer.encode(f" {how.prompt.strip()}")[-most:], *ids]
        return ids

    def known(self, said: str) -> str:
        """The model's own code for a language that somebody named."""
        codes = self.marks.languages
        if not codes:
            if name_of(said) != "English":
                raise ConjureError(
                    f"this model knows English alone, not {name_of(said)}",
                    hint="take one without .en in its name, such as openai/whisper-base",
                )
            return "en"
        if name_of(said) == "Javanese" and "jw" in codes:  # Whisper's own code, which no standard has
            return "jw"
        return code_of(said, codes)

    @torch.inference_mode()
    def write(
        self, memory_BMD: Tensor, beginnings: Sequence[Sequence[int]], seeds: Sequence[int], decoding: Decoding, *,
        times: bool = True,
    ) -> list[Heard]:  # fmt: skip
        """What is written about each part, at one temperature. All beginnings are of one length."""
        tokenizer, end = self.model.tokenizer, self.model.end
        room = self.network.config.decoder.max_length - len(beginnings[0])
        decoding = replace(decoding, tokens=min(decoding.tokens, room), logprobs=True)
        rows = [
            Row(n, ids, seed=seed, decoding=decoding, end=end, tokenizer=tokenizer)
            for n, (ids, seed) in enumerate(zip(beginnings, seeds, strict=True))
        ]
        reading: Any = self._reading(memory_BMD)
        cache = reading.cache(len(rows), len(beginnings[0]) + decoding.tokens)
        if isinstance(cache.memory, list):  # every step reads all: with frames side by side that takes half the time
            cache.memory = [(k.contiguous(), v.contiguous()) for k, v in cache.memory]
        begun_BT, at = torch.tensor(beginnings), list(beginnings[0]).index(self.marks.start) + 1
        logits_BV = reading(begun_BT[:, :at], cache=cache, last_only=True)[:, -1]
        nobody = logits_BV.softmax(-1)[:, self.marks.no_speech].tolist()
        if at < begun_BT.shape[1]:
            logits_BV = reading(begun_BT[:, at:], cache=cache, last_only=True)[:, -1]
        live = rows
        while live:
            logits_BV = ruled(logits_BV, live, decoding, end)
            drawn = _drawn(timed(logits_BV, live, self.marks.times) if times else logits_BV, live, decoding)
            for row, token in zip(live, drawn, strict=True):
                row.push(token)
            stay = [b for b, row in enumerate(live) if not row.ended]
            if stay and len(stay) < len(live):
                cache.keep(stay)
            live, drawn = [live[b] for b in stay], [drawn[b] for b in stay]
            if live:
                logits_BV = reading(torch.tensor(drawn)[:, None], cache=cache, last_only=True)[:, -1]
        return [self._heard(row, silence, decoding) for row, silence in zip(rows, nobody, strict=True)]

    def _heard(self, row: Row, nobody: float, decoding: Decoding) -> Heard:
        made = row.generation()
        ids = [token for token in made.ids if token not in row.end]
        text = self.text(ids).encode()
        squeezed = len(text) / len(zlib.compress(text)) if text else 0.0
        return Heard(ids, made.score, nobody, squeezed, decoding.temperature, made.ended == "length")

    def text(self, ids: Sequence[int]) -> str:
        """Of the tokens that are text."""
        return self.model.tokenizer.decode([token for token in ids if token < self.marks.times.end])

    def hear(
        self, memory_BMD: Tensor, beginnings: Sequence[Sequence[int]], seeds: Sequence[int], how: Hearing
    ) -> list[Heard]:
        """The same, drawn again at the next temperature where it failed. Where all fail, the likeliest of those that do
        not go round in circles."""
        tried: list[list[Heard]] = [[] for _ in beginnings]
        todo = list(range(len(beginnings)))
        for step, temperature in enumerate(how.temperatures):
            most = how.tokens or self.network.config.decoder.max_length // 2
            decoding = self.model.decoding(temperature=temperature, top_k=0, top_p=1.0, beams=1, tokens=most)
            own = [derive(seeds[n], "temperature", step) for n in todo]
            memory_nMD = memory_BMD if len(todo) == len(beginnings) else memory_BMD[todo]
            made = self.write(memory_nMD, [beginnings[n] for n in todo], own, decoding)
            for n, each in zip(todo, made, strict=True):
                tried[n].append(each)
            todo = [n for n in todo if tried[n][-1].failed(how)]
            if not todo:
                break
        return [_best(each, how) for each in tried]

    # -- a whole sound

    def parts(self, samples_N: Floats, how: Hearing) -> list[Chunk]:
        """What is to be read: where somebody speaks, or all of it."""
        if len(samples_N) < self.mel.window:
            raise ConjureError(
                f"expected sound of at least {1000 * self.mel.window / self.mel.rate:g} ms, got "
                f"{1000 * len(samples_N) / self.mel.rate:.3g} ms"
            )
        if not np.isfinite(samples_N).all():
            raise ConjureError("the sound has samples that are no numbers", hint="write the file again")
        found = spans(samples_N, self.mel.rate, how.voice) if how.voice else [(0, len(samples_N))]
        return chunks(found, samples_N, self.mel.rate, self.seconds, how.voice or VoiceActivity())

    def transcribe(
        self, samples_N: Floats, how: Hearing, seed: int = 0
    ) -> Iterator[tuple[list[Segment], float]]:
        """(the next segments, seconds of the sound that are done) of mono sound at `mel.rate`, batch by batch."""
        asked = self.known(how.language) if how.language else "" if self.marks.languages else "en"
        if how.translate and not self.marks.languages:
            raise ConjureError("this model knows English alone: it cannot translate",
                               hint="take one without .en in its name")  # fmt: skip
        parts = self.parts(samples_N, how)
        heard_so_far: dict[str, float] = {}
        for begin in range(0, len(parts), how.batch):
            work = list(enumerate(parts[begin : begin + how.batch], start=begin))
            made: dict[int, list[Segment]] = {n: [] for n, _ in work}
            while work:
                memory_BMD = self.memory([chunk.cut(samples_N) for _, chunk in work])
                spoken = self._spoken(memory_BMD, [chunk for _, chunk in work], asked, heard_so_far)
                beginnings = [self.beginning(language, how) for language in spoken]
                seeds = [derive(seed, "part", n, len(made[n])) for n, _ in work]
                left = []
                heard = self.hear(memory_BMD, beginnings, seeds, how)
                for b, ((n, chunk), each) in enumerate(zip(work, heard, strict=True)):
                    segments, until = self._segments(memory_BMD[b : b + 1], chunk, each, spoken[b], how)
                    made[n] += segments
                    rest = chunk.after(until) if until >= SHORTEST else None
                    if rest is not None and rest.seconds >= SHORTEST and until < chunk.seconds:
                        left.append((n, rest))
                work = left
            done = parts[min(begin + how.batch, len(parts)) - 1].pieces[-1][1] / self.mel.rate
            yield [segment for n in sorted(made) for segment in made[n]], done
        self._read = None

    def _spoken(self, memory_BMD: Tensor, parts: Sequence[Chunk], asked: str, so_far: dict[str, float]) -> list[str]:
        """The language of each part: the one that was asked for, else its own where that is sure, else that of most of
        the sound so far."""
        if asked:
            return [asked] * len(parts)
        found = self.languages(memory_BMD)
        for chances, chunk in zip(found, parts, strict=True):
            code = max(chances, key=chances.__getitem__)
            so_far[code] = so_far.get(code, 0.0) + chances[code] * chunk.seconds
        most = max(so_far, key=so_far.__getitem__)
        tops = [max(chances.items(), key=lambda pair: pair[1]) for chances in found]
        return [code if chance >= SURE else most for code, chance in tops]

    def _segments(
        self, memory_1MD: Tensor, chunk: Chunk, heard: Heard, language: str, how: Hearing
    ) -> tuple[list[Segment], float]:
        """(segments in the time of the whole sound, until where of the chunk it was heard)."""
        if heard.nobody(how) or heard.compression > how.compression:
            return [], chunk.seconds
        found, until = phrases(heard.ids, self.marks.times, chunk.seconds, broken=heard.broken)
        timed_words = self._words(memory_1MD, found, chunk, language, how) if how.words else [()] * len(found)
        written_in = "en" if how.translate else language
        segments = []
        for phrase, its in zip(found, timed_words, strict=True):
            text = self.text(phrase.ids).strip()
            if text:
                start, end = chunk.at(phrase.start), chunk.at(phrase.end, end=True)
                if its:
                    start, end = its[0].start, its[-1].end
                segments.append(
                    Segment(start, max(start, end), text, its, written_in, heard.logprob, heard.no_speech,
                            heard.temperature)
                )  # fmt: skip
        return segments, until

    @torch.inference_mode()
    def _words(
        self, memory_1MD: Tensor, found: Sequence[Phrase], chunk: Chunk, language: str, how: Hearing
    ) -> list[tuple[Word, ...]]:
        """The words of each phrase, by reading the whole text again without times and looking at where it looks."""
        ids = [token for phrase in found for token in phrase.ids]
        if not ids:
            return [() for _ in found]
        begin = self.beginning(language, replace(how, prompt=""), times=False)
        room = self.network.config.decoder.max_length - len(begin)
        read = torch.tensor([[*begin, *ids[:room]]])
        weights, logits = self.network.attention(memory_1MD, read, self.marks.heads)
        frames = max(1, min(weights.shape[-1], round(chunk.seconds / FRAME)))
        # The token before looks for the next one; the last one for the end.
        width = int(self.model.config.get("median_filter_width", 7))
        starts = token_times(weights[0, :, len(begin) - 1 :, :frames], width)
        chance = logits[0, len(begin) - 1 : -1].softmax(-1).gather(-1, read[0, len(begin) :, None])[:, 0]
        starts = np.append(starts, np.full(len(ids) + 1 - len(starts), starts[-1]))
        chances = [*chance.tolist(), *([0.0] * (len(ids) - len(chance)))]
        made, at = [], 0
        for phrase in found:
            split = words(self.model.tokenizer, phrase.ids, spaces=language not in SPACELESS)
            own = [
                Word(float(starts[at + places[0]]), float(starts[at + places[-1] + 1]), text.strip(),
                     sum(chances[at + place] for place in places) / len(places))
                for text, places in split if text.strip()
            ]  # fmt: skip
            made.append(tuple(
                replace(word, start=chunk.at(word.start), end=max(chunk.at(word.start), chunk.at(word.end, end=True)))
                for word in _trimmed(own)
            ))  # fmt: skip
            at += len(phrase.ids)
        return made


def _bytes(stack: Transformer) -> int:
    return sum(each.numel() * each.element_size() for each in (*stack.parameters(), *stack.buffers()))


def _drawn(logits_BV: Tensor, rows: Sequence[Row], decoding: Decoding) -> list[int]:
    """A token for each row; its log-probability is noted at temperature 1, as the checks want it."""
    if decoding.temperature == 0:
        tokens, tops = best(logits_BV)
        check_tops(tops, rows)
    else:
        check_tops(logits_BV.amax(-1).tolist(), rows)
        tokens = sample(filters.tempered(logits_BV, decoding.temperature), [row.generator for row in rows]).tolist()
    # In float32: 50,000 logits as float64 take longer than a step of a small network.
    chance_B = logits_BV.gather(1, torch.tensor(tokens)[:, None])[:, 0] - logits_BV.logsumexp(-1)
    for row, chance in zip(rows, chance_B.tolist(), strict=True):
        row.logprobs.append(chance)
    return tokens


def _best(tried: Sequence[Heard], how: Hearing) -> Heard:
    last = tried[-1]
    if not last.failed(how):
        return last
    return max(tried, key=lambda each: (each.compression <= how.compression, each.logprob))


def _trimmed(found: Sequence[Word]) -> list[Word]:
    """Words that take more than twice the usual time lose it: the first of a phrase at its beginning, others at their
    end. What they seem to hold is a pause."""
    lengths = [word.end - word.start for word in found if word.end > word.start]
    most = 2 * min(LONGEST_WORD, float(np.median(lengths))) if lengths else 0.0
    made = []
    for n, word in enumerate(found):
        if word.end - word.start > most > 0:
            word = replace(word, start=word.end - most) if n == 0 else replace(word, end=word.start + most)
        made.append(word)
    return made
