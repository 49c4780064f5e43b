"""speech -> who: who speaks when, whether two sounds are of one voice, and training the network that knows voices."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.stretches import stretches
from conjure.codecs.voice_activity import Floats, Span, VoiceActivity, spans
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result, Warn
from conjure.core.seeds import derive, rng
from conjure.data.pseudo_speakers import PseudoSpeakers, SpeakerData, curve
from conjure.data.speech_clips import READERS
from conjure.media.audio import Audio, read
from conjure.media.text import Text
from conjure.models.diarisation import Diarising, Turn, Windows, clustered, joined, looked_at, turns
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.models.who import LEAST, MEL, MOST, RANGE, RATE, Calibration, Who, WhoConfig, embedded, features, voice
from conjure.tasks import speakers_figures as figures
from conjure.tasks.inputs import LOCAL
from conjure.tasks.speakers_written import Layout, Pair, compared, named, written

STRETCH, BLOCK = 600.0, 30.0
"""Seconds of a long sound that are held at once, and that are read at once."""
SHORT = 3.0
"""Seconds of speech below which a comparison is told to be unsure."""
COLOUR = 0.1
"""Powers of ten by which each of three half waves over the bands colours a clip of training, as microphones do."""
HIDDEN = 0.3
"""Share of clips of training of which a few bands are hidden."""


@dataclass(frozen=True, kw_only=True)
class SpeakersOptions:
    speakers: int = Field(default=0, ge=0, le=50, description="how many people speak, where you know it (0: found out)")
    known: tuple[str, ...] = Field(default=(), json_schema_extra=LOCAL, description="a sound of somebody you know, "
                                   "who is called as its file is; may be given several times")  # fmt: skip
    alike: float = Field(default=0, ge=0, le=1, description="how alike voices must be to be one (0: the model's own "
                         "threshold; more finds more people)")  # fmt: skip
    gate: bool = Field(default=True, description="listen only where somebody may be speaking, by loudness")
    format: Layout = Field(default="txt", description="how the text is laid out")


class Speakers:
    """audio -> text. `source` is there while the network trains; a loaded one has none."""

    Options = SpeakersOptions
    ModelConfig = WhoConfig
    DataConfig = SpeakerData
    causal = False
    long = True
    sets = ("ljspeech_text", "speech_lj24", "fsdd", READERS)

    def __init__(self, network: Who, data: SpeakerData, calibration: Calibration | None = None, *,
                 source: PseudoSpeakers | None = None, seed: int = 0) -> None:  # fmt: skip
        self.network, self.data, self.source, self.seed = network, data, source, seed
        self.calibration = calibration or Calibration()

    @classmethod
    def create(cls, model: WhoConfig, data: SpeakerData, seed: int = 0) -> Speakers:
        with randomness.drawing_weights(seed):
            network = Who(model)
        return cls(network, data, source=PseudoSpeakers(data, seed), seed=seed)

    @classmethod
    def load(cls, folder: Path) -> Speakers:
        saved = read_config(folder)
        network = Who(from_dict(WhoConfig, saved["model"], where="model"))
        load_weights(network, folder / "model.safetensors")
        return cls(network.eval().requires_grad_(False), from_dict(SpeakerData, saved["data"], where="data"),
                   from_dict(Calibration, saved["calibration"], where="calibration"))  # fmt: skip

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`mel` `[B, T, M]`, `lengths` `[B]` in frames, `speakers` `[B]`: two after each other are by one."""
        assert self.source is not None
        heard = [self.source.example(index) for index in indices]
        mels = [features(torch.from_numpy(np.ascontiguousarray(samples_N))) for _, samples_N in heard]
        mels = [_coloured(mel_TM, rng(derive(self.seed, "colour", n))) for n, mel_TM in zip(indices, mels, strict=True)]
        return {"mel": nn.utils.rnn.pad_sequence(mels, True), "lengths": torch.tensor([len(mel) for mel in mels]),
                "speakers": torch.tensor([speaker for speaker, _ in heard])}  # fmt: skip

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(nats of finding the other clip of the same speaker, summed over clips; number of clips)."""
        called = self.network if network is None else network
        total = called(batch["mel"], batch["lengths"], batch["speakers"])
        return total, torch.tensor(len(batch["mel"]))

    def tokens(self, batch: dict[str, Tensor]) -> int:
        """Frames."""
        return int(batch["lengths"].sum())

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(*batch["mel"].shape[:2])

    def describe(self, batch: dict[str, Tensor]) -> str:
        rows = zip(batch["speakers"].tolist(), batch["lengths"].tolist(), strict=True)
        listed = " ".join(f"{speaker}:{length * MEL.hop / MEL.rate:.1f}s" for speaker, length in rows)
        return f"{len(batch['mel'])} clips (speaker:seconds): {listed}"

    def preview(self, seed: int) -> dict[str, Any]:
        """How alike the clips of three speakers are that are made of held-out voices."""
        scores_NN, names, _ = figures.alike(self.network, figures.synthetic(3))
        rows = [f"{name:>3} " + " ".join(f"{value:5.2f}" for value in row)
                for name, row in zip(names, scores_NN, strict=True)]  # fmt: skip
        return {"alike": Text("\n".join(rows))}

    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """The equal error rate over speakers that are made of voices which training never heard."""
        return {"equal_error": figures.held_out_rate(self.network, limit)}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        """After training the thresholds are set, by readers whom training did not hear."""
        if self.source is not None:
            network = copy.deepcopy(self.network).eval()
            network.load_state_dict(weights or {}, strict=weights is not None)
            self.calibration = figures.calibrated(network)
        write_config(folder, kind="who", task="speakers", network=self.network, sections={
            "model": to_dict(self.network.config), "data": to_dict(self.data),
            "calibration": to_dict(self.calibration)})  # fmt: skip
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Any], options: SpeakersOptions, seeds: Sequence[int]) -> Iterator[Event]:
        """Of one sound who speaks when; of several, which are of one voice. Every seed gives the same."""
        if not inputs or any(each.kind != "audio" for each in inputs):
            raise ConjureError("expected one sound to listen to, or several to compare")
        if len(inputs) == 1:
            yield from self.diarised(inputs[0], in_files(options.known), options, seeds)
        else:
            yield from self._compared(inputs, options, seeds)

    def diarised(
        self, sound: Any, people: Mapping[str, Any], options: SpeakersOptions, seeds: Sequence[int]
    ) -> Iterator[Event]:
        """Who speaks when; `people` are those who are known: their names, and a sound of each."""
        known = {name: voice(self.network, self._said(each, f"the known voice {name}", options))
                 for name, each in people.items()}  # fmt: skip
        settings = Diarising(alike=options.alike or self.calibration.alike)
        seen, length = list[Windows](), 0
        for at, samples_N in stretches(_blocks(sound), RATE, STRETCH):
            voiced = _speech(samples_N, options)
            seen.append(looked_at(samples_N, RATE, voiced, self._embed, settings).later(at))
            length = at + len(samples_N)
            if sound.seconds is not None:
                yield Progress(int(length / RATE), max(1, int(sound.seconds)), "second", "listening")
        speakers_CE = clustered(seen, settings, options.speakers)
        if len(speakers_CE) < options.speakers:
            yield Warn(f"{options.speakers} speakers were asked for, but there is speech for {len(speakers_CE)} alone")
        found = joined([turn for each in seen for turn in turns(each, speakers_CE, RATE, settings)])
        if not found:
            yield Warn("nobody speaks, or too softly or too shortly to tell (--no-gate listens to all of it)")
        made = named(found, self._likeness(seen, found, known), self.calibration.same, list(known), length / RATE)
        yield Result([Text(written(made, options.format))] * len(seeds), {"results": [made.told()] * len(seeds)})

    def _likeness(
        self, seen: Sequence[Windows], found: Sequence[Turn], known: dict[str, np.ndarray]
    ) -> list[dict[str, float]]:
        """For each speaker how alike the known voices are: cosines with the mean of the windows in the speaker's
        turns."""
        likeness = list[dict[str, float]]()
        for number in range(len({turn.speaker for turn in found})):
            own = [(turn.start * RATE, turn.end * RATE) for turn in found if turn.speaker == number]
            sum_E = np.zeros(self.network.config.embedding)
            for each in seen:
                middle_W = each.at.mean(1)
                inside_W = np.any([(middle_W >= start) & (middle_W < end) for start, end in own], axis=0)
                sum_E = sum_E + (each.vectors[inside_W].sum(0) if inside_W.any() else 0)
            size = float(np.linalg.norm(sum_E))
            likeness.append({name: float(sum_E @ other_E) / size for name, other_E in known.items()} if size else {})
        return likeness

    def _compared(self, inputs: Sequence[Any], options: SpeakersOptions, seeds: Sequence[int]) -> Iterator[Event]:
        if options.known or options.speakers:
            raise ConjureError("--known and --speakers are for one sound, several are compared with each other")
        vectors = []
        for number, sound in enumerate(inputs, start=1):
            speech_N = self._said(sound, f"sound {number}", options)
            if len(speech_N) < SHORT * RATE:
                yield Warn(f"sound {number} holds {len(speech_N) / RATE:.1f} s of speech: below {SHORT:g} s mistakes "
                           "are much more frequent")  # fmt: skip
            vectors.append(voice(self.network, speech_N))
            yield Progress(number, len(inputs), "sound", "listening")
        same = options.alike or self.calibration.same
        made = list[Pair]()
        for a, b in itertools.combinations(range(len(vectors)), 2):
            score = float(vectors[a] @ vectors[b])
            made.append(Pair(a + 1, b + 1, score, self.calibration.probability(score), score >= same))
        facts = {"pairs": [each.told() for each in made], "threshold": same}
        if not options.alike:
            facts |= {"taken_of_two": self.calibration.taken, "refused_of_one": self.calibration.refused}
        if len(made) == 1:
            facts |= {"same": made[0].same, "score": facts["pairs"][0]["score"],
                      "probability": facts["pairs"][0]["probability"]}  # fmt: skip
        text = compared(made, same, None if options.alike else self.calibration, options.format)
        yield Result([Text(text)] * len(seeds), {"results": [facts] * len(seeds)})

    def _said(self, sound: Any, where: str, options: SpeakersOptions) -> Floats:
        """The first minute of speech in a sound, without pauses."""
        parts, count = list[Floats](), 0
        for _, samples_N in stretches(_blocks(sound), RATE, 4 * MOST):
            parts += [samples_N[start:end] for start, end in _speech(samples_N, options)]
            count = sum(map(len, parts))
            if count >= MOST * RATE:
                break
        if count < LEAST:
            raise ConjureError(f"{where}: nobody speaks, or too softly or too shortly to tell",
                               hint="--no-gate listens to all of it")  # fmt: skip
        return np.concatenate(parts)[: round(MOST * RATE)]

    def _embed(self, parts: Sequence[Floats]) -> np.ndarray:
        return embedded(self.network, parts)

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Equal error rates and diarisation error rates, over real readers and synthetic speakers apart."""
        return figures.published(self.network, self.calibration, on_progress)


def in_files(names: Sequence[str]) -> dict[str, Audio]:
    """Sounds of people who are called as their files are."""
    paths = {Path(name).stem: Path(name) for name in names}
    if len(paths) < len(names):
        raise ConjureError("--known: two files have one name", hint="the file's name is the person's: rename one")
    for path in paths.values():
        if not path.is_file():
            raise ConjureError(f"--known: {path}: no such file")
    return {name: read(path) for name, path in paths.items()}


def _coloured(mel_TM: Tensor, draw: np.random.Generator) -> Tensor:
    """Under another microphone: a smooth curve over the bands; sometimes a few bands are hidden."""
    mel_TM = mel_TM + torch.from_numpy(curve(MEL.bands, range(1, 4), COLOUR, draw))
    if draw.random() < HIDDEN:
        width = int(draw.integers(1, 9))
        first = int(draw.integers(MEL.bands - width))
        mel_TM[:, first : first + width] = -RANGE / 3
    return mel_TM


def _blocks(sound: Any) -> Iterator[Floats]:
    """Mono at 16 kHz."""
    if isinstance(sound, Audio):
        yield Audio(sound.mono()[None], sound.rate).at(RATE).mono()
    else:
        yield from sound.blocks(RATE, BLOCK)


def _speech(samples_N: Floats, options: SpeakersOptions) -> list[Span]:
    return spans(samples_N, RATE, VoiceActivity()) if options.gate else [(0, len(samples_N))]
