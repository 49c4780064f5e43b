"""The figures of a network for four voices: likelihood, accuracy, and faults of voice leading beside Bach's.

Likelihood follows Boulanger-Lewandowski et al. (2012, arXiv 1206.6392): nats a step at quarter notes. Ours is that of
the four voices. The piano roll of those papers is their union, so for the roll it is an upper bound.

Legend: T steps, V voices, N tokens of a voice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.codecs.chorale_tokens import HIDDEN, STEPS_PER_BAR, STEPS_PER_BEAT, VOICES, to_grid
from conjure.core.events import Event, Progress
from conjure.core.seeds import derive
from conjure.data.chorales import Chorales
from conjure.metrics.confidence import bootstrap_mean
from conjure.metrics.likelihood import ratio_interval
from conjure.metrics.voice_leading import faults
from conjure.models.four_voices import ORDER, FourVoices
from conjure.tasks.chorale_rows import facts, padded, row
from conjure.tasks.chorale_writing import Drawing, write

COMPOSED = 24
"""Pieces that are composed to count faults."""
FAULTS = ("parallel_fifths", "parallel_octaves", "range", "crossing", "spacing")
Tell = Callable[[Event], None]


def published(network: FourVoices, source: Chorales, size: int, tell: Tell | None = None) -> dict[str, dict[str, Any]]:
    """All figures over the pieces of `source`: name -> {"value", "low", "high", "n", "protocol"}."""
    tell = tell or (lambda event: None)
    of = f"{len(source)} chorales of the {source.split} part"
    quarters = likelihood(network, source, 4, size, tell=tell)
    sixteenths = likelihood(network, source, 1, size, tell=tell)
    found = {
        "nats_per_step": _over_steps(
            quarters, f"-log p of the four voices in nats a step of a quarter note, the first included, nothing told; "
            f"{of}"),
        "nats_per_step_after_first": _over_steps(
            [each[1:] for each in quarters], f"the same without the first step of each piece; {of}"),
        "nats_per_note_16th": _over_steps(
            [each / len(VOICES) for each in sixteenths], f"-log p in nats a note at sixteenths, held ones too; {of}"),
        "frame_accuracy": _over_pieces(
            accuracy(network, source), f"right / (right + wrong + missed) notes of the likeliest chord given the true "
            f"past, quarter notes; {of}"),
    }  # fmt: skip
    for whose, grids in (("composed", composed(network, size, COMPOSED, tell)), ("bach", source.pieces)):
        counted = [faults(grid_TV) for grid_TV in grids]
        for name in FAULTS:
            values = [100 * getattr(each, name) / each.chords for each in counted]
            what = f"{name.replace('_', ' ')} per 100 chords, {len(grids)} pieces, {whose}"
            found[f"{name}_{whose}"] = _over_pieces(values, what)
    return found


def likelihood(
    network: FourVoices, source: Chorales, stride: int, size: int, limit: int | None = None, tell: Tell | None = None
) -> list[np.ndarray]:
    """-log p of each step in nats, float64 `[T]` a piece, nothing told but the past.

    Pieces longer than `size` steps are read in stretches of that, each of which sees half a one of the past.
    """
    count, found = min(limit or len(source), len(source)), []
    for index in range(count):
        whole = row(source.piece(index, stride), (False, False, False))
        parts: list[np.ndarray] = []
        done, length = 0, len(whole["notes"])
        while done < length:
            begin = max(0, done - size // 2)
            part = {name: value[begin : begin + size] if np.ndim(value) else value for name, value in whole.items()}
            parts.append(_nats(network, part)[done - begin :])
            done = min(length, begin + size)
        found.append(np.concatenate(parts))
        if tell:
            tell(Progress(index + 1, count, "piece", "likelihood"))
    return found


@torch.no_grad()
def _nats(network: FourVoices, part: dict[str, np.ndarray]) -> np.ndarray:
    batch = padded([part])
    nats_BTV = F.cross_entropy(logits(network, batch).movedim(-1, 1), batch["notes"], reduction="none")
    return nats_BTV[0].sum(-1).double().numpy()


def logits(network: FourVoices, batch: dict[str, Tensor]) -> Tensor:
    """float32 `[B, T, V, N]` of a batch of rows."""
    return network.logits(network.hidden(*(batch[name] for name in ("before", "told", "facts", "notes", "scored",
                                                                    "counted"))))  # fmt: skip


def accuracy(network: FourVoices, source: Chorales) -> list[float]:
    """Of each piece the share of notes that are right among all said or sounding (Bay et al. 2009), the unions of the
    voices compared."""
    shares = []
    for index in range(len(source)):
        batch = padded([row(source.piece(index, 4), (False, False, False))])
        said_TV, true_TV = likeliest(network, batch), to_grid(batch["notes"][0].numpy())
        hits = said = sounding = 0
        for guess, truth in zip(said_TV.tolist(), true_TV.tolist(), strict=True):
            ours, theirs = set(guess) - {-1}, set(truth) - {-1}
            hits, said, sounding = hits + len(ours & theirs), said + len(ours), sounding + len(theirs)
        shares.append(hits / max(1, said + sounding - hits))
    return shares


@torch.no_grad()
def likeliest(network: FourVoices, batch: dict[str, Tensor]) -> np.ndarray:
    """The chord that seems likeliest at each step given the true past, voice by voice; int16 `[T, V]`."""
    guess = batch["notes"].clone()
    for voice in ORDER:  # later voices see the guesses, not the truth
        guess[..., voice] = logits(network, batch | {"notes": guess})[..., voice, :].argmax(-1)
    return to_grid(guess[0].numpy())


def composed(network: FourVoices, size: int, count: int, tell: Tell) -> list[np.ndarray]:
    """Pieces of 12 bars, nothing asked for, drawn as trained and without rules."""
    told_TV = np.full((12 * STEPS_PER_BAR + STEPS_PER_BEAT, len(VOICES)), HIDDEN)
    seeds, found = [derive(0, "measured", k) for k in range(count)], []
    for done, grids_BTV in write(network, told_TV, facts(len(told_TV)), seeds, Drawing(window=size)):
        found = list(grids_BTV)
        tell(Progress(done, len(told_TV), "step", "composing"))
    return found


def mean_of_all(arrays: Sequence[np.ndarray]) -> float:
    """The mean over all steps of all pieces."""
    return float(np.concatenate(arrays).mean())


def _over_steps(arrays: Sequence[np.ndarray], protocol: str) -> dict[str, Any]:
    """The mean over all steps; pieces are drawn anew for the interval."""
    value, low, high = ratio_interval([float(each.sum()) for each in arrays], [len(each) for each in arrays])
    return {"value": value, "low": low, "high": high, "n": len(arrays),
            "protocol": f"{protocol}; 95 % bootstrap interval over pieces"}  # fmt: skip


def _over_pieces(values: Sequence[float], protocol: str) -> dict[str, Any]:
    value, low, high = bootstrap_mean(values, seed=0)
    return {"value": value, "low": low, "high": high, "n": len(values), "protocol": f"{protocol}; 95 % bootstrap"}
