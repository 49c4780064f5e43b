"""audio -> audio: speech goes on, code by code of a neural codec, in the voice that was heard. It is told no words.

Legend: B batch, Q books, T frames, S steps (`decoding/delay_pattern.py`), N samples, V codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result
from conjure.core.seeds import derive, rng
from conjure.core.shelf import find
from conjure.data.speech_clips import READERS, SpeechSentences, as_audio, held
from conjure.decoding.delay_pattern import Drawing, delayed, write
from conjure.media.audio import Audio
from conjure.models.codec_folder import load_codec
from conjure.models.folder import load_weights, read_config, save_weights, weights_digest, write_config
from conjure.models.sound_codes import SoundCodes
from conjure.models.speech_codec import SpeechCodec
from conjure.models.speech_writer import SpeechWriter, SpeechWriterShape
from conjure.models.transformer import TransformerConfig
from conjure.nn.cross_entropy import IGNORED
from conjure.tasks.continue_figures import likeness, predicted

PEOPLE = 0.3
"""Share of the examples that people read; there are few of them."""
HIDDEN = 0.2
"""Share of the codes that are not shown in training: what so few readers say would be learnt by heart."""
SEAM = 0.02
"""Seconds over which what was given goes over into what is written."""
MEASURED = ("librispeech", "lj", "teacher")


@plain_dataclass(frozen=True, kw_only=True)
class SpeechWriterConfig:
    codec: str
    """The codec whose codes are written, by its name or folder. It stays where it is; what is saved knows its weights
    by their digest."""
    transformer: TransformerConfig = field(default_factory=lambda: TransformerConfig(vocab=0))


@plain_dataclass(frozen=True, kw_only=True)
class SpeechWriterData:
    frames: int = 200
    """Of an example; twice what is seen of the past when a continuation gets long."""
    texts: int = 512
    """Sentences that the teacher says."""

    def __post_init__(self) -> None:
        if self.frames < 4 or self.texts < 4:
            raise ConjureError(f"data: expected at least 4 frames and 4 texts, got {self}")


@dataclass(frozen=True, kw_only=True)
class ContinueSoundOptions:
    """How codes are drawn."""

    seconds: float = Field(default=3.0, gt=0, le=120, description="how much is added")
    temperature: float = Field(default=0.9, ge=0, le=2, description="1: as trained; 0: the likeliest codes")
    top_k: int = Field(default=100, ge=0, le=65536, description="draw among so many of the likeliest (0: all)")
    top_p: float = Field(default=1.0, gt=0, le=1, description="draw among the likeliest with this share")


class ContinueSound:
    """`source` is there while the model trains; a loaded one has none."""

    Options = ContinueSoundOptions
    ModelConfig = SpeechWriterConfig
    DataConfig = SpeechWriterData
    causal = False
    """`logits` has four axes."""
    sets = (READERS, "ljspeech_text")

    def __init__(self, config: SpeechWriterConfig, network: SpeechWriter, codec: SpeechCodec, data: SpeechWriterData, *,
                 source: SpeechSentences | None = None, seed: int = 0) -> None:
        self.config, self.network, self.codec, self.data = config, network, codec, data
        self.source, self.seed = source, seed
        self._known: dict[int, Tensor] = {}  # number of a sentence -> its codes

    @classmethod
    def create(cls, model: SpeechWriterConfig, data: SpeechWriterData, seed: int = 0) -> ContinueSound:
        codec = load_codec(find(model.codec))
        with randomness.drawing_weights(seed):
            network = SpeechWriter(_shape(model, codec))
            network.start_from([book.codes_CD for book in codec.quantiser.books])  # type: ignore[misc]
        return cls(model, network, codec, data, source=SpeechSentences(data.texts), seed=seed)

    @classmethod
    def load(cls, folder: Path) -> ContinueSound:
        """The model in a folder, with the codec that it names."""
        saved = read_config(folder)
        config = from_dict(SpeechWriterConfig, saved["model"], where="model")
        place = find(config.codec)
        if weights_digest(place) != saved["codec_digest"]:
            raise ConjureError(f"{folder} writes the codes of another codec than {config.codec}",
                               hint="that one was trained anew: conjure train continue-speech")
        codec = load_codec(place)
        network = SpeechWriter(_shape(config, codec))
        load_weights(network, folder / "model.safetensors")
        data = from_dict(SpeechWriterData, saved["data"], where="data")
        return cls(config, network.eval().requires_grad_(False), codec, data)

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`ids` and `targets` int64 `[B, Q, S]`: the steps but the last behind an empty one, with some codes hidden;
        all steps, `IGNORED` where there is no code."""
        rows = self._rows([self._example(index) for index in indices])
        for index, ids_QS in zip(indices, rows["ids"], strict=True):
            draws_SQ = rng(derive(self.seed, "hidden", index)).random((ids_QS.shape[1], len(ids_QS)))
            ids_QS[torch.from_numpy(draws_SQ.T < HIDDEN)] = self.network.pad  # whatever the row is filled up to
        return rows

    def _example(self, index: int) -> Tensor:
        """Codes of a stretch of a sentence, `[Q, T]`."""
        assert self.source is not None
        draw, people = rng(derive(self.seed, "stretch", index)), len(self.source.people)
        place = int(draw.integers(people) if draw.random() < PEOPLE else draw.integers(people, len(self.source)))
        if place not in self._known:  # later epochs find the codes of every sentence known
            self._known[place] = self.codes(self.source[place]).parts[0][0]
        codes_QT = self._known[place]
        first = int(draw.integers(max(1, codes_QT.shape[1] - self.data.frames + 1)))
        return codes_QT[:, first : first + self.data.frames]

    def _rows(self, codes: Sequence[Tensor]) -> dict[str, Tensor]:
        """Rows of different lengths are filled up with no code."""
        longest, pad, ids, targets = max(each.shape[1] for each in codes), self.network.pad, [], []
        for codes_QT in codes:
            steps_QS = delayed(codes_QT[None], pad)[0]
            steps_QS = F.pad(steps_QS, (0, longest - codes_QT.shape[1]), value=pad)
            ids.append(F.pad(steps_QS[:, :-1], (1, 0), value=pad))
            targets.append(steps_QS.masked_fill(steps_QS == pad, IGNORED))
        return {"ids": torch.stack(ids), "targets": torch.stack(targets)}

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(summed cross-entropy in nats, number of codes)."""
        called = self.network if network is None else network
        return called(batch["ids"], batch["targets"]), (batch["targets"] != IGNORED).sum()

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """float32 `[B, Q, S, V]`."""
        return self.network.logits(self.network.hidden(batch["ids"]))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return batch["ids"].numel()

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(len(batch["ids"]), batch["ids"].shape[2])

    def describe(self, batch: dict[str, Tensor]) -> str:
        rows = [f"  {int((row != IGNORED).sum())} codes carry loss, the first of each book: "
                f"{' '.join(str(int(row[book, book])) for book in range(len(row)))}" for row in batch["targets"]]
        return "\n".join([f"{len(rows)} stretches:", *rows])

    def preview(self, seed: int) -> dict[str, Audio]:
        """Two seconds of a reader who was held out, and three more."""
        rate = self.codec.config.rate
        sound_N = held("librispeech", 1)[0][: 2 * rate]
        *_, result = self.generate([Audio(sound_N[None], rate)], ContinueSoundOptions(), [seed])
        assert isinstance(result, Result)
        return {"continued": result.media[0]}  # type: ignore[dict-item]

    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Nats a code over sentences of readers who were held out, of all books and of the first."""
        nats = torch.cat([nats_QT for _, nats_QT in self.measured("librispeech", limit)], 1)
        return {"nats_per_code": float(nats.mean()), "nats_first": float(nats[0].mean())}

    @torch.no_grad()
    def measured(self, name: str, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """(codes, their -log p in nats), `[Q, T]` each, of held-out sentences, cut to as many frames as in training."""
        for sound_N in held(name, limit):
            for codes_QT in self.codes(sound_N).parts[0][0].split(self.data.frames, 1):
                batch = self._rows([codes_QT])
                nats_QS = F.cross_entropy(self.logits(batch).movedim(-1, 1), batch["targets"], reduction="none")[0]
                yield codes_QT, torch.stack([row[q : q + codes_QT.shape[1]] for q, row in enumerate(nats_QS)])

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="speech_writer", task="continue_sound", network=self.network, sections={
            "model": to_dict(self.config), "codec_digest": weights_digest(find(self.config.codec)),
            "data": to_dict(self.data)})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    @torch.no_grad()
    def codes(self, sound_N: np.ndarray) -> SoundCodes:
        """Of a mono sound at the codec's rate."""
        return self.codec.encode(torch.from_numpy(np.ascontiguousarray(sound_N))[None, None])

    def generate(
        self, inputs: Sequence[Audio], options: ContinueSoundOptions, seeds: Sequence[int]
    ) -> Iterator[Event]:
        """What was given, mono at the codec's rate, and what follows: one sound per seed, the same alone and among
        others."""
        if len(inputs) != 1 or inputs[0].kind != "audio":
            raise ConjureError(f"expected one sound, got {len(inputs)} inputs", hint="give them one after the other")
        rate, hop = self.codec.config.rate, self.codec.config.hop
        sound_N = Audio(inputs[0].mono()[None], inputs[0].rate).at(rate).samples[0]
        tail_N = sound_N[-self.data.frames * hop :]
        given = self.codes(tail_N[len(tail_N) % hop if len(tail_N) > hop else 0 :])
        frames = max(1, round(options.seconds * rate / hop))
        known_BQT = made_BQT = given.parts[0].expand(len(seeds), -1, -1)
        for done, made_BQT in self._written(known_BQT, frames, seeds, options):  # noqa: B007
            yield Progress(done, frames, "frame")
        media = [self._joined(sound_N, codes_QT, given) for codes_QT in made_BQT]
        yield Result(media, {"seconds_added": round(frames * hop / rate, 3),
                             "codes": frames * self.network.shape.books})

    def _written(
        self, codes_BQT: Tensor, frames: int, seeds: Sequence[int], options: ContinueSoundOptions
    ) -> Iterator[tuple[int, Tensor]]:
        """(frames added, codes) so far. What passes the window is written in rounds, each of which sees half a window
        of what was there."""
        how = Drawing(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
        half, added, turn = self.data.frames // 2, 0, 0
        while added < frames:
            known_BQT, more = codes_BQT[:, :, -half:], min(half, frames - added)
            own = [derive(seed, "round", turn) for seed in seeds]
            made_BQT = known_BQT
            for done, made_BQT in write(self.network, known_BQT, more, self.network.pad, own, how):  # noqa: B007
                yield added + done, codes_BQT
            codes_BQT = torch.cat([codes_BQT, made_BQT[:, :, known_BQT.shape[2] :]], 2)
            added, turn = added + more, turn + 1
        yield frames, codes_BQT

    @torch.no_grad()
    def _joined(self, sound_N: np.ndarray, codes_QT: Tensor, given: SoundCodes) -> Audio:
        """What was given as it was, and the rest out of codes at its loudness."""
        c = self.codec.config
        whole = SoundCodes((codes_QT[None],), given.scales, codes_QT.shape[1] * c.hop)
        made_N = self.codec.decode(whole)[0, 0].numpy()
        border = given.samples
        seam = min(round(SEAM * c.rate), border, len(sound_N))
        rising = np.linspace(0, 1, seam, dtype=np.float32)
        mixed_N = (1 - rising) * sound_N[len(sound_N) - seam :] + rising * made_N[border - seam : border]
        parts = [sound_N[: len(sound_N) - seam], mixed_N, made_N[border:]]
        return Audio(np.clip(np.concatenate(parts), -1, 1).astype(np.float32)[None], c.rate)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Over held-out sentences of people and of the teacher apart: nats a code, of all books and of the first,
        beside the entropy of how often codes occur; how like speech continuations are. `data` may name some sets."""
        found: dict[str, dict[str, Any]] = {}
        for place, name in enumerate(name for name in MEASURED if not data or name in data):
            found |= predicted(list(self.measured(name)), name, self.network.shape.codes)
            found |= likeness(self._goes_on, held(name), self.codec.config.rate, name, on_progress)
            if on_progress:
                on_progress(Progress(place + 1, len(MEASURED), "set", name))
        return found

    def _goes_on(self, sound_N: np.ndarray, seconds: float, seed: int) -> np.ndarray:
        """What follows alone, float32 `[n]`."""
        *_, last = self.generate([as_audio(sound_N)], ContinueSoundOptions(seconds=seconds), [seed])
        assert isinstance(last, Result) and isinstance(last.media[0], Audio)
        return last.media[0].samples[0, len(sound_N) :]


def _shape(config: SpeechWriterConfig, codec: SpeechCodec) -> SpeechWriterShape:
    c = codec.config
    return SpeechWriterShape(transformer=config.transformer, books=c.books, codes=c.codes, vector=c.dim)
