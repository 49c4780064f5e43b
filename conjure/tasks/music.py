"""Music in four voices: text -> music, and music -> music that goes on, harmonises, or fills a gap. One network.

The network reads and writes everything in C major or A minor; here pieces are moved there and back.

Legend: B rows, T steps, V voices, F facts, N tokens of a voice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from conjure.codecs.chorale_tokens import (
    HIDDEN,
    STEPS_PER_BAR,
    STEPS_PER_BEAT,
    VOICES,
    fitting_shift,
    four_parts,
    melody,
    to_grid,
    to_music,
    to_tokens,
    transposed,
)  # fmt: skip
from conjure.codecs.music_words import COMMON_KEYS, key_name, key_of, nearest_mood, place_of, wish
from conjure.core import seeds as randomness
from conjure.core.config import from_dict, to_dict
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result, Warn
from conjure.core.seeds import derive, rng
from conjure.data.chorales import Chorales
from conjure.media.music import Music
from conjure.media.text import Text
from conjure.metrics.voice_leading import faults
from conjure.models.folder import load_weights, read_config, save_weights, write_config
from conjure.models.four_voices import FourVoices, FourVoicesConfig
from conjure.tasks import chorale_figures as figures
from conjure.tasks.chorale_keys import likeliest_key, logits
from conjure.tasks.chorale_rows import facts, padded, row
from conjure.tasks.chorale_writing import Drawing, write

Voice = Literal["soprano", "alto", "tenor", "bass"]
TOLD = 0.5
"""How often each of the end and the movement is told in training."""
FORGOTTEN = 0.05
"""Share of past notes that are hidden in training."""


@plain_dataclass(frozen=True, kw_only=True)
class ChoraleData:
    steps: int = 256
    """Sixteenths of a crop; half of them where notes are told beforehand."""


@dataclass(frozen=True, kw_only=True)
class NoteOptions:
    """How notes are drawn."""

    tempo: float = Field(default=0.0, ge=0, le=240, description="beats per minute (0: as what is given says, else 72)")
    temperature: float = Field(default=0.9, ge=0, le=2, description="1: as trained; 0: the likeliest notes")
    top_p: float = Field(default=0.98, gt=0, le=1, description="draw among the likeliest with this share")
    rules: bool = Field(default=True, description="draw no note that is a fault of voice leading")


@dataclass(frozen=True, kw_only=True)
class ComposeOptions(NoteOptions):
    bars: int = Field(default=12, ge=2, le=64, description="how long, where the text does not say")


@dataclass(frozen=True, kw_only=True)
class ContinueOptions(NoteOptions):
    bars: int = Field(default=8, ge=1, le=64, description="how many bars are added")


@dataclass(frozen=True, kw_only=True)
class HarmoniseOptions(NoteOptions):
    voice: Voice = Field(default="soprano", description="the voice that the melody is")
    key: str = Field(default="", description='the key, for example "G minor" (empty: as the melody suggests)')


@dataclass(frozen=True, kw_only=True)
class InfillOptions(NoteOptions):
    bars: int = Field(default=2, ge=1, le=64, description="how many bars are written anew")
    start: int = Field(default=1, ge=1, le=256, description="the first of them")
    voices: str = Field(default="all", description="whose notes: all, or names: alto, tenor")


class Compose:
    """text -> music. `source` is there while the model trains; a loaded one has none."""

    Options: type[Any] = ComposeOptions
    ModelConfig = FourVoicesConfig
    DataConfig = ChoraleData
    causal = False
    """Told notes are seen by all; without them no step sees a later one."""
    sets = ("jsb_chorales",)

    def __init__(self, config: FourVoicesConfig, network: FourVoices, data: ChoraleData, *,
                 source: Chorales | None = None, seed: int = 0) -> None:
        self.config, self.network, self.data, self.source, self.seed = config, network, data, source, seed

    @classmethod
    def create(cls, model: FourVoicesConfig, data: ChoraleData, seed: int = 0) -> Compose:
        source = Chorales("train", seed, steps=data.steps)
        with randomness.drawing_weights(seed):
            network = FourVoices(model)
        return cls(model, network, data, source=source, seed=seed)

    @classmethod
    def load(cls, folder: Path) -> Compose:
        """The model in a folder, ready to compose."""
        saved = read_config(folder)
        config = from_dict(FourVoicesConfig, saved["model"], where="model")
        network = FourVoices(config)
        load_weights(network, folder / "model.safetensors")
        data = from_dict(ChoraleData, saved["data"], where="data")
        return cls(config, network.eval().requires_grad_(False), data)

    # ---------------------------------------------------------------- training
    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`notes`, `before`, `told` int64 `[B, T, V]`, `facts` `[B, T, F]`, `counted` bool `[B, T]`, `scored` `[B]`."""
        assert self.source is not None
        rows = []
        for index in indices:
            draw = rng(derive(self.seed, "told", index))
            made = row(self.source.example(index), [bool(u < TOLD) for u in draw.random(2)])
            forgotten = (draw.random(made["before"].shape) < FORGOTTEN) & (made["before"] < HIDDEN)
            rows.append(made | {"before": np.where(forgotten, HIDDEN, made["before"])})
        return padded(rows)

    def loss(self, batch: dict[str, Tensor], network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
        """(summed -log p in nats, number of notes that were to be said)."""
        called = self.network if network is None else network
        total = called(batch["before"], batch["told"], batch["facts"], batch["notes"], batch["scored"],
                       batch["counted"])  # fmt: skip
        return total, ((batch["told"] == HIDDEN) & batch["counted"][..., None]).sum()

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """float32 `[B, T, V, N]`."""
        return logits(self.network, batch)

    def tokens(self, batch: dict[str, Tensor]) -> int:
        return batch["notes"].numel()

    def flops(self, batch: dict[str, Tensor]) -> float:
        """Forward and backward: three times the forward pass."""
        return 3 * self.network.flops(*batch["notes"].shape[:2], scored=bool(batch["scored"].any()))

    def describe(self, batch: dict[str, Tensor]) -> str:
        rows = []
        for notes_TV, told_TV, facts_TF, counted_T in zip(*(batch[n] for n in ("notes", "told", "facts", "counted"))):
            steps, asked = int(counted_T.sum()), int(((told_TV == HIDDEN) & counted_T[:, None]).sum())
            first = " ".join(map(str, to_grid(notes_TV[0].numpy())))
            rows.append(f"  {steps} steps{' of a beat' if facts_TF[0, 5] else ''}, {asked} of {4 * steps} notes carry "
                        f"loss, the first chord in C or A is {first}")  # fmt: skip
        return "\n".join([f"{len(rows)} crops:", *rows])

    def preview(self, seed: int) -> dict[str, Music]:
        """A piece of eight bars in G minor."""
        *_, result = self.generate([Text("in G minor, 8 bars")], ComposeOptions(), [seed])
        assert isinstance(result, Result)
        return {"piece": result.media[0]}  # type: ignore[dict-item]

    def evaluate(self, limit: int | None = None) -> dict[str, float]:
        """Of validation pieces: nats a step at quarter notes, and nats a note at sixteenths; not even the key told."""
        source, size = Chorales("valid"), self.data.steps
        quarters = figures.likelihood(self.network, source, 4, size, limit)
        sixteenths = figures.likelihood(self.network, source, 1, size, limit and -(-limit // 4))
        return {"nats_per_step": figures.mean_of_all(quarters),
                "nats_per_note_16th": figures.mean_of_all(sixteenths) / len(VOICES)}

    def save(self, folder: Path, *, weights: dict[str, Tensor] | None = None, dtype: str = "float32") -> None:
        write_config(folder, kind="four_voices", task="music", network=self.network, sections={
            "model": to_dict(self.config), "data": to_dict(self.data)})
        save_weights(folder, "model", weights if weights is not None else self.network, dtype=dtype)

    # ---------------------------------------------------------------- use
    def generate(self, inputs: Sequence[Any], options: Any, seeds: Sequence[int]) -> Iterator[Event]:
        """One piece per seed, the same alone and among others."""
        asked, strange = wish(" ".join(str(text) for text in inputs))
        for word in strange:
            yield Warn(f"'{word}' says nothing to this model; {nearest_mood(word)}")
        bars = asked.bars or options.bars
        steps = bars * STEPS_PER_BAR + STEPS_PER_BEAT  # as most chorales, with an upbeat
        grid_TV = np.full((steps, len(VOICES)), -1, np.int16)
        keys = [common_key(seed) if asked.key is None else asked.key for seed in seeds]
        yield from self._drawn(grid_TV, grid_TV < 0, keys, options, seeds, asked.tempo or 72.0, motion=asked.motion)

    def _drawn(self, grid_TV: np.ndarray, wanted_TV: np.ndarray, keys: Sequence[int], options: Any,
               seeds: Sequence[int], tempo: float, *, motion: int | None = None, shift: int = 0) -> Iterator[Event]:
        """The wanted notes of a piece drawn, once in each key; the pieces are then moved back by `shift` semitones.

        Where notes are there already, all keys are the same.
        """
        told_TV = np.where(wanted_TV, HIDDEN, to_tokens(transposed(grid_TV, -place_of(keys[0]))))
        facts_BTF = np.stack([facts(len(told_TV), key, motion=motion) for key in keys])
        how = Drawing(temperature=options.temperature, top_p=options.top_p, rules=options.rules, window=self.data.steps)
        places = [place_of(key) for key in keys]
        grids_BTV = np.broadcast_to(to_grid(told_TV), (len(seeds), *told_TV.shape))
        for done, grids_BTV in write(self.network, told_TV, facts_BTF, seeds, how, places):  # noqa: B007
            yield Progress(done, len(told_TV), "step")
        whole = [transposed(each_TV, place) for each_TV, place in zip(grids_BTV, places, strict=True)]
        found = [faults(each_TV) for each_TV in whole]
        grids = [transposed(each_TV, -shift) for each_TV in whole]
        media = [to_music(each_TV, options.tempo or tempo) for each_TV in grids]
        names = [key_name(key_of(each_TV)) for each_TV in grids]
        yield Result(media, {"keys": names, "faults": [asdict(each) for each in found]})

    def evaluate_published(
        self, data: Sequence[str] = (), on_progress: Callable[[Event], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Likelihood and accuracy over held-out pieces, keys that were kept, and faults of voice leading beside Bach's;
        `data` may name the part of the set."""
        split = next((name for name in data if name in ("train", "valid", "test")), "valid")
        return figures.published(self.network, Chorales(split), self.data.steps, on_progress)  # type: ignore[arg-type]


class Continue(Compose):
    """music -> music: the piece, and so many bars more."""

    Options = ContinueOptions

    def generate(self, inputs: Sequence[Music], options: ContinueOptions, seeds: Sequence[int]) -> Iterator[Event]:
        grid_TV, shift = _fitted(inputs)
        more_TV = np.full((options.bars * STEPS_PER_BAR, len(VOICES)), -1, np.int16)
        whole_TV = np.concatenate([grid_TV, more_TV])
        wanted_TV = np.broadcast_to(np.arange(len(whole_TV))[:, None] >= len(grid_TV), whole_TV.shape)
        keys = [likeliest_key(self.network, grid_TV, self.data.steps)] * len(seeds)
        yield from self._drawn(whole_TV, wanted_TV, keys, options, seeds, inputs[0].tempo, shift=shift)


class Harmonise(Compose):
    """music -> music: a melody gets the three other voices."""

    Options = HarmoniseOptions

    def generate(self, inputs: Sequence[Music], options: HarmoniseOptions, seeds: Sequence[int]) -> Iterator[Event]:
        line_T1, voice = melody(_only(inputs)), VOICES.index(options.voice)
        shift = fitting_shift(line_T1, [voice])
        if shift:
            where = "higher" if shift > 0 else "lower"
            yield Warn(f"the melody is harmonised {abs(shift)} semitones {where}, where it is a {options.voice}, and "
                       f"then moved back")  # fmt: skip
        grid_TV = np.full((len(line_T1), len(VOICES)), -1, np.int16)
        grid_TV[:, voice] = transposed(line_T1, shift)[:, 0]
        wanted_TV = np.broadcast_to(np.arange(len(VOICES)) != voice, grid_TV.shape)
        asked, strange = wish(options.key and f"in {options.key.removeprefix('in ')}")
        if strange or (options.key and asked.key is None):
            raise ConjureError(f"--key: expected a key, got {options.key!r}", hint="for example: G minor")
        key = key_of(line_T1) if asked.key is None else asked.key
        keys = [key // 12 * 12 + (key + shift) % 12] * len(seeds)
        yield from self._drawn(grid_TV, wanted_TV, keys, options, seeds, inputs[0].tempo, shift=shift)


class Infill(Compose):
    """music -> music: some bars, of some voices, are written anew."""

    Options = InfillOptions

    def generate(self, inputs: Sequence[Music], options: InfillOptions, seeds: Sequence[int]) -> Iterator[Event]:
        grid_TV, shift = _fitted(inputs)
        names = [name.strip().lower() for name in options.voices.split(",")]
        if names != ["all"] and not set(names) <= set(VOICES):
            raise ConjureError(f"--voices: expected all, or some of {', '.join(VOICES)}, got {options.voices!r}",
                               hint="for example: alto, tenor")
        chosen = [names == ["all"] or name in names for name in VOICES]
        first = (options.start - 1) * STEPS_PER_BAR
        if first >= len(grid_TV):
            bars = -(-len(grid_TV) // STEPS_PER_BAR)
            raise ConjureError(f"--start: expected one of {bars} bars, got {options.start}")
        wanted_TV = np.zeros(grid_TV.shape, bool)
        wanted_TV[first : first + options.bars * STEPS_PER_BAR, chosen] = True
        keys = [key_of(grid_TV)] * len(seeds)
        yield from self._drawn(grid_TV, wanted_TV, keys, options, seeds, inputs[0].tempo, shift=shift)


def common_key(seed: int) -> int:
    """A key for a piece of which none is said, drawn as often as Bach's chorales are in it."""
    keys, counts = zip(*COMMON_KEYS, strict=True)
    return int(rng(derive(seed, "key")).choice(keys, p=np.array(counts) / sum(counts)))


def _only(inputs: Sequence[Music]) -> Music:
    if len(inputs) != 1 or not isinstance(inputs[0], Music):
        raise ConjureError(f"expected one piece of music, got {len(inputs)} inputs")
    return inputs[0]


def _fitted(inputs: Sequence[Music]) -> tuple[np.ndarray, int]:
    """A piece as four voices where chorales lie, and by how many semitones it was moved there."""
    grid_TV = four_parts(_only(inputs))
    shift = fitting_shift(grid_TV, range(len(VOICES)))
    return transposed(grid_TV, shift), shift
