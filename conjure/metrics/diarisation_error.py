"""How wrong it is about who speaks when: the diarisation error rate of NIST's md-eval, one speaker at a time.

Legend: T frames, R speakers of the reference, H speakers that were found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from conjure.core.errors import ConjureError

FRAME = 0.01
"""Seconds between the moments that are looked at."""
NOBODY = -1
Said = tuple[float, float, str]
"""First second, last second, who."""


@dataclass(frozen=True)
class DiarisationError:
    """Seconds: of speech that was looked at, that was missed, that nobody said, and that was given to another."""

    speech: float
    missed: float
    false_alarm: float
    confused: float

    @property
    def rate(self) -> float:
        """All errors over the speech."""
        return (self.missed + self.false_alarm + self.confused) / self.speech


def diarisation_error(reference: Sequence[Said], found: Sequence[Said], *, collar: float = 0.25) -> DiarisationError:
    """Names do not matter: those that were found stand for the speakers of the reference such that most seconds agree,
    one for one. What is nearer than `collar` seconds to an end of a segment of the reference is not looked at.

    Raises `ConjureError` where the reference holds no speech. Of segments that overlap the later one counts.
    """
    end = max((stop for _, stop, _ in [*reference, *found]), default=0.0)
    at_T = (np.arange(round(end / FRAME)) + 0.5) * FRAME
    said_T, who_T = _frames(reference, at_T), _frames(found, at_T)
    counts_T = np.ones(len(at_T), bool)
    for start, stop, _ in reference:
        for edge in (start, stop):
            counts_T &= abs(at_T - edge) >= collar
    said_T, who_T = said_T[counts_T], who_T[counts_T]
    speech = int((said_T != NOBODY).sum())
    if not speech:
        raise ConjureError("a diarisation error rate needs a reference in which somebody speaks")
    both = (said_T != NOBODY) & (who_T != NOBODY)
    agree_RH = np.zeros((said_T.max() + 1, who_T.max(initial=NOBODY) + 1))
    np.add.at(agree_RH, (said_T[both], who_T[both]), 1)
    right = sum(agree_RH[r, h] for r, h in best_pairs(agree_RH))
    missed = int(((said_T != NOBODY) & (who_T == NOBODY)).sum())
    invented = int(((said_T == NOBODY) & (who_T != NOBODY)).sum())
    return DiarisationError(*(FRAME * float(each) for each in (speech, missed, invented, both.sum() - right)))


def best_pairs(gain_RH: np.ndarray) -> list[tuple[int, int]]:
    """Rows and columns one for one such that the sum of their gains is largest (Kuhn 1955, in the form with potentials
    by Jonker and Volgenant 1987)."""
    if not gain_RH.size:
        return []
    if gain_RH.shape[0] > gain_RH.shape[1]:
        return sorted((row, column) for column, row in best_pairs(gain_RH.T))
    cost = -np.asarray(gain_RH, np.float64)
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + 1)
    taken_by, before = np.zeros(columns + 1, int), np.zeros(columns + 1, int)  # 0 is nobody: both count from 1
    for row in range(1, rows + 1):
        taken_by[0], column = row, 0
        least, seen = np.full(columns + 1, np.inf), np.zeros(columns + 1, bool)
        while taken_by[column]:
            seen[column] = True
            own = cost[taken_by[column] - 1] - row_price[taken_by[column]] - column_price[1:]
            nearer = ~seen[1:] & (own < least[1:])
            least[1:][nearer], before[1:][nearer] = own[nearer], column
            following = int(np.where(seen, np.inf, least)[1:].argmin()) + 1
            step = least[following]
            row_price[taken_by[seen]] += step
            column_price[seen] -= step
            least[~seen] -= step
            column = following
        while column:
            taken_by[column], column = taken_by[before[column]], int(before[column])
    return sorted((int(taken_by[column]) - 1, column - 1) for column in range(1, columns + 1) if taken_by[column])


def _frames(said: Sequence[Said], at_T: np.ndarray) -> np.ndarray:
    """The number of the speaker at each moment."""
    names = {name: number for number, name in enumerate(dict.fromkeys(name for _, _, name in said))}
    who_T = np.full(len(at_T), NOBODY)
    for start, stop, name in said:
        who_T[(at_T >= start) & (at_T < stop)] = names[name]
    return who_T
