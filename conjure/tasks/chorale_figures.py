"""The figures of a network for four voices: likelihood, accuracy, keys that are kept, and faults beside Bach's.

Likelihood is counted in nats a step of a quarter note, as Boulanger-Lewandowski et al. (2012, arXiv 1206.6392) and
those after them do. It is that of the four voices. The piano roll of those papers is their union, so for the roll it is
an upper bound.

Keys are not told: `tasks/chorale_keys.py`.

Legend: B rows, T steps, V voices, K keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conjure.codecs.chorale_tokens import (
    HIDDEN,
    STEPS_PER_BAR,
    STEPS_PER_BEAT,
    VOICES,
    to_grid,
    transposed,
)  # fmt: skip
from conjure.codecs.music_words import FLOWING, KEYS, STILL, key_of, movement, place_of
from conjure.core.events import Event, Progress
from conjure.core.seeds import derive
from conjure.data.chorales import Chorales
from conjure.metrics.confidence import bootstrap_mean, wilson
from conjure.metrics.likelihood import ratio_interval
from conjure.metrics.voice_leading import cadence, faults, opening
from conjure.models.four_voices import ORDER, FourVoices
from conjure.tasks.chorale_keys import by_key, logits, mixed
from conjure.tasks.chorale_rows import facts, padded, row
from conjure.tasks.chorale_writing import Drawing, write

PLAIN = [*range(KEYS)]
"""Keys of the pieces that are composed to count faults: each once."""
BARS = 12
"""Of each of these pieces."""
ASKED = [*range(KEYS)] * 2
"""Keys of those that are composed to see whether keys are kept."""
FAULTS = ("parallel_fifths", "parallel_octaves", "range", "crossing", "spacing")
Tell = Callable[[Event], None]


def published(network: FourVoices, source: Chorales, size: int, tell: Tell | None = None) -> dict[str, dict[str, Any]]:
    """All figures over the pieces of `source`: name -> {"value", "low", "high", "n", "protocol"}."""
    tell = tell or (lambda event: None)
    of = f"{len(source)} chorales of the {source.split} part"
    every = in_every_key(network, source, 4, size, tell=tell)
    quarters = [mixed(nats_KT) for nats_KT in every]
    sixteenths = likelihood(network, source, 1, size, tell=tell)
    free = composed(network, PLAIN, Drawing(window=size), tell)
    asked = composed(network, ASKED, Drawing(temperature=0.9, top_p=0.98, rules=True, window=size), tell)
    return {
        "nats_per_step": _over_steps(
            quarters, f"-log p of the four voices in nats a step of a quarter note, the first included, nothing told, "
            f"not the key either; {of}"),
        "nats_per_step_after_first": _over_steps(
            [each[1:] for each in quarters], f"the same without the first step of each piece; {of}"),
        "nats_per_note_16th": _over_steps(
            [each / len(VOICES) for each in sixteenths], f"-log p in nats a note at sixteenths, held ones too; {of}"),
        "frame_accuracy": _over_pieces(
            accuracy(network, source, every), f"right / (right + wrong + missed) notes of the likeliest chord given "
            f"the true past, quarter notes; {of}"),
        **_key_figures(asked, free, source.pieces),
        **_form_figures(asked, ASKED, "composed"),
        **_form_figures(source.pieces, [key_of(piece_TV) for piece_TV in source.pieces], "bach"),
        **_fault_figures(free, "composed", "as trained, no rules"),
        **_fault_figures(asked, "with_rules", "as they are drawn by default"),
        **_fault_figures(source.pieces, "bach", "Bach"),
        **_motion_figures(network, size, tell),
    }  # fmt: skip


def _key_figures(
    asked: Sequence[np.ndarray], free: Sequence[np.ndarray], bach: Sequence[np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Whether the key that was asked for is found again by three rules, and how far the rules agree about Bach."""
    found = {"key_kept": [key_of(each) == key for each, key in zip(asked, ASKED, strict=True)],
             "key_kept_as_trained": [key_of(each) == key for each, key in zip(free, PLAIN, strict=True)]}  # fmt: skip
    how = f"{len(asked)} pieces of {BARS} bars, each of the {KEYS} keys asked for twice, by default; the key found"
    both = "by profiles and the last note of the bass"
    shares = {"key_kept": f"{how} {both}",
              "key_kept_as_trained": f"{len(free)} pieces, each key once, as trained, no rules; {both}"}  # fmt: skip
    for name, rule, words in (
        ("profile", _profile, "Krumhansl and Schmuckler's rule alone"),
        ("last_bass", _last_bass, "the last note of the bass, its tonic alone"),
    ):
        size = 12 if rule is _last_bass else KEYS
        found[f"key_by_{name}"] = [rule(each) == key % size for each, key in zip(asked, ASKED, strict=True)]
        shares[f"key_by_{name}"] = f"{how} by {words}"
        found[f"key_by_{name}_bach"] = [rule(each) == key_of(each) % size for each in bach]
        shares[f"key_by_{name}_bach"] = f"{len(bach)} chorales: {words} says what both rules together say"
    return {name: _share(values, shares[name]) for name, values in found.items()}


def _profile(grid_TV: np.ndarray) -> int:
    return key_of(grid_TV, 0.0)


def _last_bass(grid_TV: np.ndarray) -> int:
    bass_T = grid_TV[:, -1][grid_TV[:, -1] >= 0]
    return int(bass_T[-1] % 12) if len(bass_T) else -1


def _form_figures(grids: Sequence[np.ndarray], keys: Sequence[int], whose: str) -> dict[str, dict[str, Any]]:
    """How pieces begin and end, in the keys that they should be in."""
    pairs = list(zip(grids, keys, strict=True))
    return {
        f"ends_on_tonic_{whose}": _share(
            [cadence(grid_TV, key % 12) for grid_TV, key in pairs],
            f"the last chord is the triad of the tonic, its root in the bass, major or minor; {len(pairs)} pieces, "
            f"{whose}"),
        f"begins_on_tonic_{whose}": _share(
            [opening(grid_TV, key % 12) for grid_TV, key in pairs],
            f"the first chord has the tonic in the bass; {len(pairs)} pieces, {whose}"),
        f"long_chords_{whose}": _over_pieces(
            [100 * _long_chords(grid_TV) for grid_TV in grids],
            f"chords that all voices hold for two beats or more, in 100 beats, the last one left out; {whose}"),
    }  # fmt: skip


def _long_chords(grid_TV: np.ndarray) -> float:
    """A beat's share of chords that last two beats: phrases mostly end on one."""
    starts = np.flatnonzero(np.r_[True, (grid_TV[1:] != grid_TV[:-1]).any(1)])
    return float((np.diff(starts) >= 2 * STEPS_PER_BEAT).sum()) / max(1.0, len(grid_TV) / STEPS_PER_BEAT)


def _fault_figures(grids: Sequence[np.ndarray], whose: str, words: str) -> dict[str, dict[str, Any]]:
    counted = [faults(grid_TV) for grid_TV in grids]
    return {
        f"{name}_{whose}": _over_pieces(
            [100 * getattr(each, name) / each.chords for each in counted],
            f"{name.replace('_', ' ')} per 100 chords, {len(grids)} pieces, {words}")
        for name in FAULTS
    }  # fmt: skip


def _motion_figures(network: FourVoices, size: int, tell: Tell) -> dict[str, dict[str, Any]]:
    """How much moves between the beats where calm or flowing music is asked for."""
    how = Drawing(temperature=0.9, top_p=0.98, rules=True, window=size)
    return {
        f"movement_{name}": _over_pieces(
            [movement(grid_TV) for grid_TV in composed(network, PLAIN[::2], how, tell, motion=motion)],
            f"moves between the beats, a beat; {len(PLAIN[::2])} pieces asked to be {name}")
        for name, motion in (("calm", STILL), ("flowing", FLOWING))
    }  # fmt: skip


def likelihood(
    network: FourVoices, source: Chorales, stride: int, size: int, limit: int | None = None, tell: Tell | None = None
) -> list[np.ndarray]:
    """-log p of each step in nats, float64 `[T]` a piece, nothing told but the past."""
    return [mixed(nats_KT) for nats_KT in in_every_key(network, source, stride, size, limit, tell)]


def in_every_key(
    network: FourVoices, source: Chorales, stride: int, size: int, limit: int | None = None, tell: Tell | None = None
) -> list[np.ndarray]:
    """`by_key` of each piece."""
    count, found = min(limit or len(source), len(source)), []
    for index in range(count):
        found.append(by_key(network, source.piece(index, stride), size))
        if tell:
            tell(Progress(index + 1, count, "piece", "likelihood"))
    return found


def accuracy(network: FourVoices, source: Chorales, every: Sequence[np.ndarray]) -> list[float]:
    """Of each piece the share of notes that are right among all said or sounding (Bay et al. 2009), the unions of the
    voices compared. `every` holds `by_key` of the pieces at quarter notes: at each step that key speaks in which the
    past is likeliest."""
    shares = []
    for index, nats_KT in enumerate(every):
        best_T = np.pad(nats_KT.cumsum(1), ((0, 0), (1, 0)))[:, :-1].argmin(0)
        keys = np.unique(best_T)
        batch = padded([row(source.piece(index, 4), (False, False), int(key)) for key in keys])
        said_KTV = likeliest(network, batch)
        hits = said = sounding = 0
        for step, best in enumerate(best_T):
            place = place_of(int(best))
            ours = set(transposed(said_KTV[np.searchsorted(keys, best), step], place).tolist()) - {-1}
            theirs = set(source.pieces[index][4 * step].tolist()) - {-1}
            hits, said, sounding = hits + len(ours & theirs), said + len(ours), sounding + len(theirs)
        shares.append(hits / max(1, said + sounding - hits))
    return shares


@torch.no_grad()
def likeliest(network: FourVoices, batch: dict[str, Tensor]) -> np.ndarray:
    """The chord that seems likeliest at each step given the true past, voice by voice; int16 `[B, T, V]`."""
    guess = batch["notes"].clone()
    for voice in ORDER:  # later voices see the guesses, not the truth
        guess[..., voice] = logits(network, batch | {"notes": guess})[..., voice, :].argmax(-1)
    return to_grid(guess.numpy())


def composed(
    network: FourVoices, keys: Sequence[int], how: Drawing, tell: Tell, *, motion: int | None = None
) -> list[np.ndarray]:
    """Pieces of `BARS` bars and an upbeat, one in each of these keys."""
    told_TV = np.full((BARS * STEPS_PER_BAR + STEPS_PER_BEAT, len(VOICES)), HIDDEN)
    seeds, places = [derive(0, "measured", k) for k in range(len(keys))], [place_of(key) for key in keys]
    facts_BTF = np.stack([facts(len(told_TV), key, motion=motion) for key in keys])
    grids_BTV = np.zeros((len(keys), *told_TV.shape), np.int16)
    for done, grids_BTV in write(network, told_TV, facts_BTF, seeds, how, places):  # noqa: B007
        tell(Progress(done, len(told_TV), "step", "composing"))
    return [transposed(grid_TV, place) for grid_TV, place in zip(grids_BTV, places, strict=True)]


def mean_of_all(arrays: Sequence[np.ndarray]) -> float:
    """The mean over all steps of all pieces."""
    return float(np.concatenate(arrays).mean())


def _share(values: Sequence[bool], protocol: str) -> dict[str, Any]:
    value, low, high = wilson(sum(map(bool, values)), len(values))
    return {"value": value, "low": low, "high": high, "n": len(values), "protocol": f"{protocol}; 95 % Wilson"}


def _over_steps(arrays: Sequence[np.ndarray], protocol: str) -> dict[str, Any]:
    """The mean over all steps; pieces are drawn anew for the interval."""
    value, low, high = ratio_interval([float(each.sum()) for each in arrays], [len(each) for each in arrays])
    return {"value": value, "low": low, "high": high, "n": len(arrays),
            "protocol": f"{protocol}; 95 % bootstrap interval over pieces"}  # fmt: skip


def _over_pieces(values: Sequence[float], protocol: str) -> dict[str, Any]:
    value, low, high = bootstrap_mean(values, seed=0)
    return {"value": value, "low": low, "high": high, "n": len(values), "protocol": f"{protocol}; 95 % bootstrap"}
