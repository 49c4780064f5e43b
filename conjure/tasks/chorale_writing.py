"""Drawing four-part music from `models/four_voices.py`: any notes may be told, the others are drawn step by step.

Long pieces are written in overlapping stretches of the length the network was trained on.

Legend: B pieces, T steps, V voices, F facts, N tokens of a voice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from conjure.codecs.chorale_tokens import (
    HIDDEN,
    LOWEST,
    REST,
    START,
    STEPS_PER_BEAT,
    TOKENS,
    VOICES,
    to_grid,
    transposed,
)  # fmt: skip
from conjure.core import seeds as randomness
from conjure.decoding.sample import draw
from conjure.metrics.voice_leading import allowed, closing
from conjure.models.four_voices import FACTS, ORDER, FourVoices
from conjure.nn.cache import Cache
from conjure.tasks.chorale_rows import shifted

_PITCHES_N = np.where(np.arange(TOKENS) == REST, -1, np.arange(TOKENS) + LOWEST - 1)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How notes are drawn."""

    temperature: float = 1.0
    top_p: float = 1.0
    rules: bool = False
    """Notes that would be a fault of voice leading are not drawn, as long as another one is left; and the last beat is
    the triad of the tonic, where what is told of it lets it be."""
    window: int = 256
    """Steps that are written in one stretch, half of them where notes are told."""


@torch.no_grad()
def write(
    network: FourVoices, told_TV: np.ndarray, facts_BTF: np.ndarray, seeds: Sequence[int], how: Drawing,
    places_B: Sequence[int],
) -> Iterator[tuple[int, np.ndarray]]:  # fmt: skip
    """(steps done, grids int16 `[B, T, V]` so far, in the normal position), one pair for each step drawn.

    `told_TV` holds tokens, `HIDDEN` for every note to draw; each piece has its own facts, and `places_B` says how many
    semitones it will sound above what is written, which the ranges go by. Steps at the beginning that are told whole
    are read, and where nothing else is told that is all there is to them; other told notes stand in the score.
    """
    T, B = len(told_TV), len(seeds)
    unknown_T = (told_TV == HIDDEN).any(1)
    first = int(np.argmax(unknown_T)) if unknown_T.any() else T
    scored = bool((told_TV[first:] != HIDDEN).any())
    notes_BTV = np.broadcast_to(np.where(told_TV == HIDDEN, REST, told_TV), (B, T, len(VOICES))).copy()
    told_TV = told_TV if scored else np.full_like(told_TV, HIDDEN)
    draws_BTV = randomness.uniform(seeds, (T, len(VOICES))).numpy()
    size = how.window // 2 if scored else how.window
    done = first
    while done < T:
        begin = 0 if done < size else done - size // 2
        begin = max(0, min(begin, T - 1) // STEPS_PER_BEAT * STEPS_PER_BEAT)
        end = min(T, begin + size)
        hidden_BD, cache = _opened(network, notes_BTV, told_TV, facts_BTF, begin, done, end, scored)
        while done < end:
            _say(network, hidden_BD, notes_BTV, told_TV, done, draws_BTV[:, done], how, places_B, facts_BTF[:, done])
            done += 1
            yield done, to_grid(notes_BTV)
            if done < end:
                slot_B1D = network.writing(
                    torch.from_numpy(notes_BTV[:, done - 1 : done]), *_tensors(told_TV, facts_BTF, done, done + 1)
                )
                hidden_BD = network.step(slot_B1D, torch.tensor([done - begin]), cache)


def _opened(network: FourVoices, notes_BTV: np.ndarray, told_TV: np.ndarray, facts_BTF: np.ndarray, begin: int,
            done: int, end: int, scored: bool) -> tuple[Tensor, Cache]:  # fmt: skip
    """The hidden state in front of step `done`, and the cache, of a stretch that begins anew."""
    B = len(notes_BTV)
    before_BTV = np.stack([shifted(notes_TV)[begin : done + 1] for notes_TV in notes_BTV])
    x_BTD = network.writing(torch.from_numpy(before_BTV), *_tensors(told_TV, facts_BTF, begin, done + 1))
    at_T = torch.arange(done + 1 - begin)
    if scored:
        x_BTD = torch.cat([network.score(*_tensors(told_TV, facts_BTF, begin, end)), x_BTD], 1)
        at_T = torch.cat([torch.arange(end - begin), at_T])
    cache = network.cache(B, 2 * (end - begin))
    return network.step(x_BTD, at_T, cache), cache


def _tensors(told_TV: np.ndarray, facts_BTF: np.ndarray, begin: int, end: int) -> tuple[Tensor, Tensor]:
    """The told notes and the facts of some steps, for every row."""
    told_TV, facts_BTF = (np.ascontiguousarray(each) for each in (told_TV[begin:end], facts_BTF[:, begin:end]))
    return torch.from_numpy(told_TV).expand(len(facts_BTF), -1, -1), torch.from_numpy(facts_BTF)


def _say(network: FourVoices, x_BD: Tensor, notes_BTV: np.ndarray, told_TV: np.ndarray, at: int, draws_BV: np.ndarray,
         how: Drawing, places_B: Sequence[int], facts_BF: np.ndarray) -> None:  # fmt: skip
    """Writes the notes of step `at`, voice after voice."""
    known_V = told_TV[at] != HIDDEN
    before_BV = notes_BTV[:, at - 1] if at else np.full_like(notes_BTV[:, 0], START)
    for voice in ORDER:
        if known_V[voice]:
            continue
        now_BV = torch.from_numpy(notes_BTV[:, at])
        known_BV = torch.from_numpy(known_V).expand(len(now_BV), -1)
        logits_BN = network.voice_logits(x_BD, torch.from_numpy(before_BV), now_BV, known_BV, voice).numpy()
        for row, logits_N in enumerate(logits_BN):
            if how.rules:
                now_V = np.where(known_V, notes_BTV[row, at], REST)
                ok_N = _right(before_BV[row], now_V, voice, places_B[row], facts_BF[row])
                logits_N = np.where(ok_N, logits_N, np.float32(-np.inf))
            if how.temperature == 0:
                token = int(logits_N.argmax())
            else:
                u = float(draws_BV[row, voice])
                token = draw(logits_N, u, temperature=how.temperature, top_p=how.top_p)
            notes_BTV[row, at, voice] = token
        known_V = known_V | (np.arange(len(VOICES)) == voice)


def _right(before_V: np.ndarray, now_V: np.ndarray, voice: int, place: int, facts_F: np.ndarray) -> np.ndarray:
    """Which tokens are no fault, bool `[N]`; all where every note would be one."""
    old_V, new_V = (transposed(to_grid(np.where(each >= TOKENS, REST, each)), place) for each in (before_V, now_V))
    pitches_N = transposed(_PITCHES_N, place)
    ok_N = allowed(old_V.astype(int), new_V, voice, pitches_N)
    told = dict(zip(FACTS, facts_F.tolist(), strict=True))
    if told["left"] == 0:
        minor = bool(told["mode"])
        ends_N = ok_N & closing(new_V, voice, (9 if minor else 0) + place, minor, pitches_N)
        if ends_N.any():
            return ends_N
    return ok_N if ok_N[1:].any() else np.ones(TOKENS, bool)
