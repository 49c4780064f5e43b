"""Who speaks when: windows of speech -> vectors -> clusters -> the likeliest way through them.

Vectors of windows are put together by agglomerative clustering with average linkage (as in Sell and Garcia-Romero 2014,
"Speaker diarization with PLDA i-vector scoring and unsupervised calibration"), on cosines; then every quarter of a
second goes to the speaker whom the windows over it are most like, where changing costs. At any moment one speaks: two
voices at once are given to one of them.

Legend: N samples, W windows, C clusters, E embedding, Q quarters of a second.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from conjure.codecs.voice_activity import Floats, Span

Embed = Callable[[Sequence[Floats]], np.ndarray]
"""Sounds at one rate -> float32 `[W, E]` of length 1."""
AT_ONCE = 16
"""Windows that are embedded together."""
SPARE = 12
"""Clusters of odd windows that may be left out where the number of speakers is told."""
TICK = 0.05
"""Seconds of a measure of loudness."""
PAUSE = 0.1
"""Share of the power around it below which a moment is a pause."""
_TINY = 1e-9


@dataclass(frozen=True, kw_only=True)
class Diarising:
    """How it is done; times in seconds."""

    window: float = 1.5
    hop: float = 0.75
    shortest: float = 0.3
    """Speech that is shorter is given to whoever speaks next to it."""
    alike: float = 0.5
    """Mean cosine of two clusters from which they are one speaker."""
    change: float = 0.6
    """What it costs to change the speaker, in cosines of a quarter of a second."""
    least: float = 2.0
    """A speaker who speaks less in all is taken for one of the others."""
    step: float = 0.25
    reach: float = 0.6
    """A change is moved to a pause that near."""
    most: int = 40
    """Clusters that are kept of a stretch of a long sound."""


@dataclass(frozen=True)
class Turn:
    """Seconds, and the number of who speaks, from 0 on in the order of their first words."""

    start: float
    end: float
    speaker: int


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of speech in samples, `[W, 2]`, and their vectors `[W, E]`; the spans of speech that they lie in; how
    loud each `TICK` is, from the sample `start` on."""

    at: np.ndarray
    vectors: np.ndarray
    spans: tuple[Span, ...]
    loudness: np.ndarray
    start: int = 0

    def later(self, samples: int) -> Windows:
        """The same, so many samples later."""
        moved = tuple((start + samples, end + samples) for start, end in self.spans)
        return replace(self, at=self.at + samples, spans=moved, start=self.start + samples)

    def pause(self, low: int, here: int, high: int, rate: int) -> int:
        """The middle of the softest tick, its neighbours counted, between two samples, the nearest to `here` of
        several; `here` itself where none is much softer than the rest."""
        tick = round(TICK * rate)
        first, last = (round((each - self.start) / tick) for each in (low, high))
        last = min(last, len(self.loudness))
        around = [float(self.loudness[max(0, n - 1) : n + 2].mean()) for n in range(first, last)]
        best = min(range(len(around)), default=0, key=lambda n: (
            around[n], abs(self.start + (first + n) * tick - here)))  # fmt: skip
        if not around or around[best] > PAUSE * sum(around) / len(around):
            return here
        return self.start + (first + best) * tick + tick // 2


def windows(spans: Sequence[Span], rate: int, settings: Diarising) -> list[Span]:
    """Windows over spans of speech: the last one ends where the span does; a short span is one window."""
    size, hop, found = round(settings.window * rate), round(settings.hop * rate), list[Span]()
    for start, end in spans:
        starts = [*range(start, max(start + 1, end - size), hop), max(start, end - size)]
        found += [(each, min(end, each + size)) for each in dict.fromkeys(starts)]
    return found


def looked_at(samples_N: Floats, rate: int, spans: Sequence[Span], embed: Embed, settings: Diarising) -> Windows:
    """The windows of a sound with their vectors."""
    long = [span for span in spans if span[1] - span[0] >= settings.shortest * rate]
    at = windows(long, rate, settings)
    parts = [samples_N[start:end] for start, end in at]
    vectors = [embed(parts[k : k + AT_ONCE]) for k in range(0, len(parts), AT_ONCE)]
    tick = round(TICK * rate)
    loudness = np.square(samples_N[: len(samples_N) // tick * tick]).reshape(-1, tick).mean(1)
    return Windows(np.array(at, np.int64).reshape(-1, 2), np.concatenate(vectors) if vectors else np.zeros((0, 1)),
                   tuple(spans), loudness)  # fmt: skip


def linked(sums_CE: np.ndarray, counts_C: np.ndarray, alike: float, count: int = 0) -> np.ndarray:
    """`[C]`, the cluster of each: the two with the largest mean cosine become one, until none is `alike`, or, with a
    `count`, until there are so many. `sums` of `counts` vectors of length 1 stand for the clusters at the beginning;
    as means of cosines are products of sums, it does not matter that they were put together before."""
    sums_CE, counts_C = np.array(sums_CE, np.float64), np.array(counts_C, np.float64)
    labels_C, left = np.arange(len(sums_CE)), len(sums_CE)
    like_CC = (sums_CE @ sums_CE.T) / np.outer(counts_C, counts_C)
    np.fill_diagonal(like_CC, -np.inf)
    while left > max(1, count):
        one, other = divmod(int(like_CC.argmax()), len(like_CC))
        if not count and like_CC[one, other] < alike:
            break
        sums_CE[one] += sums_CE[other]
        counts_C[one] += counts_C[other]
        labels_C[labels_C == labels_C[other]] = labels_C[one]
        with np.errstate(invalid="ignore"):
            row_C = np.where(np.isfinite(like_CC[one]), sums_CE @ sums_CE[one] / (counts_C * counts_C[one]), -np.inf)
        row_C[[one, other]] = -np.inf
        like_CC[one], like_CC[:, one] = row_C, row_C
        like_CC[other], like_CC[:, other] = -np.inf, -np.inf
        left -= 1
    return np.unique(labels_C, return_inverse=True)[1]


def clustered(stretches: Sequence[Windows], settings: Diarising, count: int = 0) -> np.ndarray:
    """float64 `[C, E]` of length 1: the speakers of all windows of all stretches, at most `count` where it is given.

    Each stretch is clustered for itself, down to `settings.most` clusters at most, then the clusters of all of them:
    what is held does not grow with the square of the length.
    """
    sums, counts = list[np.ndarray](), list[float]()
    for each in stretches:
        if not len(each.vectors):
            continue
        many = len(each.vectors) > settings.most
        labels_W = linked(each.vectors, np.ones(len(each.vectors)), 1.0, settings.most) if many else \
            np.arange(len(each.vectors))  # fmt: skip
        for label in range(labels_W.max() + 1):
            sums.append(each.vectors[labels_W == label].sum(0))
            counts.append(float((labels_W == label).sum()))
    if not sums:
        return np.zeros((0, 1))
    sums_CE, counts_C = np.stack(sums), np.array(counts)
    enough = settings.least / settings.hop
    if count:
        labels_C = _so_many(sums_CE, counts_C, count, enough)
    else:
        labels_C = linked(sums_CE, counts_C, settings.alike)
    size_C = np.bincount(labels_C, counts_C)
    order = np.argsort(-size_C, kind="stable")
    # Who says next to nothing is a cough, or two voices at once.
    kept = order[:count] if count else [each for each in order if size_C[each] >= enough] or order[:1]
    of_C = np.stack([sums_CE[labels_C == label].sum(0) for label in kept])
    return of_C / np.linalg.norm(of_C, axis=1, keepdims=True).clip(_TINY)


def _so_many(sums_CE: np.ndarray, counts_C: np.ndarray, count: int, enough: float) -> np.ndarray:
    """`[C]` clusters of which `count` are of `enough` windows, where there is such a choice of at most `SPARE` more; so
    that a few odd windows do not take the place of a speaker."""
    found = [linked(sums_CE, counts_C, 1.0, many) for many in range(count, min(count + SPARE, len(sums_CE)) + 1)]
    found = found or [np.arange(len(sums_CE))]
    serves = (labels_C for labels_C in found if (np.bincount(labels_C, counts_C) >= enough).sum() >= count)
    return next(serves, found[0])


def turns(each: Windows, speakers_CE: np.ndarray, rate: int, settings: Diarising) -> list[Turn]:
    """The spans of speech, cut where the speaker changes; `speaker` is the row of `speakers`."""
    found = list[Turn]()
    step = round(settings.step * rate)
    if not len(speakers_CE) or not len(each.vectors):
        return []
    like_WC = each.vectors @ speakers_CE.T
    before = 0
    for start, end in each.spans:
        count = max(1, -(-(end - start) // step))
        middle_Q = start + (np.arange(count) + 0.5) * step
        inside = (each.at[:, 0] >= start) & (each.at[:, 1] <= end)
        if inside.any():
            path_Q = _likeliest(_over(middle_Q, each.at[inside], like_WC[inside]), settings.change)
        else:  # too short to tell: whoever spoke before
            path_Q = np.full(count, before)
        changes = (np.flatnonzero(np.diff(path_Q)) + 1).tolist()
        edges = [start, *(start + each * step for each in changes), end]
        reach, soft = round(settings.reach * rate), [start]
        for early, here, late in zip(edges, edges[1:], edges[2:], strict=False):
            low, high = max(here - reach, (early + here) // 2), min(here + reach, (here + late) // 2)
            soft.append(each.pause(low, here, high, rate))
        for (first, last), at in zip(itertools.pairwise([*soft, end]), [0, *changes], strict=True):
            found.append(Turn(first / rate, last / rate, int(path_Q[at])))
        before = int(path_Q[-1])
    return found


def joined(found: Sequence[Turn], gap: float = 0.5) -> list[Turn]:
    """Turns of one speaker with less than `gap` seconds between them as one; numbers go by first words."""
    made, numbers = list[Turn](), dict[int, int]()
    for turn in found:
        number = numbers.setdefault(turn.speaker, len(numbers))
        if made and made[-1].speaker == number and turn.start - made[-1].end < gap:
            made[-1] = replace(made[-1], end=turn.end)
        else:
            made.append(Turn(turn.start, turn.end, number))
    return made


def _over(middle_Q: np.ndarray, at_W2: np.ndarray, like_WC: np.ndarray) -> np.ndarray:
    """`[Q, C]`: means over the windows that lie over each moment, those whose middle is near counting more."""
    half_W = (at_W2[:, 1] - at_W2[:, 0]) / 2
    apart_QW = abs(middle_Q[:, None] - at_W2.mean(1))
    weight_QW = np.clip(1 - apart_QW / (half_W + 1), 0, None)
    alone_Q = weight_QW.sum(1) < _TINY
    weight_QW[alone_Q, apart_QW[alone_Q].argmin(1)] = 1
    return weight_QW @ like_WC / weight_QW.sum(1, keepdims=True)


def _likeliest(score_QC: np.ndarray, change: float) -> np.ndarray:
    """`[Q]`: the path of the largest sum, less `change` for each change (Viterbi)."""
    best_C, came = score_QC[0].copy(), list[np.ndarray]()
    for score_C in score_QC[1:]:
        top = int(best_C.argmax())
        stay_C = best_C >= best_C[top] - change
        came.append(np.where(stay_C, np.arange(len(best_C)), top))
        best_C = np.maximum(best_C, best_C[top] - change) + score_C
    path = [int(best_C.argmax())]
    for from_C in reversed(came):
        path.append(int(from_C[path[-1]]))
    return np.array(path[::-1])
