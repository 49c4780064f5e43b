"""How likely a piece is in each key, and so without any: the network is always told one, and that has to be paid for.

Of a piece x nothing is told: p(x) = sum over the 24 keys k of p(x | k) / 24, where p(x | k) is that of the notes moved
to C major or A minor. So the key of a piece costs at most log 24 = 3.18 nats.

Legend: T steps, V voices, N tokens of a voice, K keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from conjure.codecs.chorale_tokens import HIGHEST, LOWEST
from conjure.codecs.music_words import KEYS, place_of
from conjure.data.chorales import Example
from conjure.models.four_voices import FourVoices
from conjure.tasks.chorale_rows import padded, row


def mixed(nats_KT: np.ndarray) -> np.ndarray:
    """-log p of each step of a mixture in nats, `[T]`, from that of its equally likely parts; infinite where a part
    does not allow it."""
    total_KT = np.concatenate([np.zeros((len(nats_KT), 1)), nats_KT.cumsum(1)], 1)
    best_T = total_KT.min(0)
    whole_T = best_T - np.log(np.exp(best_T - total_KT).mean(0))
    return np.diff(whole_T)


def by_key(network: FourVoices, example: Example, size: int) -> np.ndarray:
    """-log p of each step of a piece in nats in each key, float64 `[K, T]`, nothing told but the past; infinite where a
    note lies beyond the tokens.

    Pieces longer than `size` steps are read in stretches of that, each of which sees half a one of the past.
    """
    keys = _fitting(example.grid_TV)
    rows = [row(example, (False, False), key) for key in keys]
    parts: list[np.ndarray] = []
    done, length = 0, len(example.grid_TV)
    while done < length:
        begin = max(0, done - size // 2)
        cut = [{n: value[begin : begin + size] if np.ndim(value) else value for n, value in each.items()}
               for each in rows]  # fmt: skip
        parts.append(_nats(network, cut)[:, done - begin :])
        done = min(length, begin + size)
    nats_KT = np.full((KEYS, length), np.inf)
    nats_KT[keys] = np.concatenate(parts, 1)
    return nats_KT


def likeliest_key(network: FourVoices, grid_TV: np.ndarray, size: int) -> int:
    """The key in which the last `size` steps of a piece are likeliest: it need not be whole."""
    end_TV = grid_TV[-size:]
    given_TV = np.zeros(end_TV.shape, bool)
    if not (end_TV >= 0).any():
        return 0
    start = len(grid_TV) - len(end_TV)
    before_V = grid_TV[start - 1] if start else None
    return int(by_key(network, Example(end_TV, given_TV, before_V, start, 0, 1, 0, 0), size).sum(1).argmin())


def logits(network: FourVoices, batch: dict[str, Tensor]) -> Tensor:
    """float32 `[B, T, V, N]` of a batch of rows."""
    names = ("before", "told", "facts", "notes", "scored", "counted")
    return network.logits(network.hidden(*(batch[name] for name in names)), batch["before"])


def _fitting(grid_TV: np.ndarray) -> list[int]:
    """The keys in which a piece fits into the tokens."""
    sounding = grid_TV[grid_TV >= 0]
    low, high = int(sounding.min()), int(sounding.max())
    return [key for key in range(KEYS) if low - place_of(key) >= LOWEST and high - place_of(key) <= HIGHEST]


@torch.no_grad()
def _nats(network: FourVoices, rows: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    batch = padded(rows)
    nats_BTV = F.cross_entropy(logits(network, batch).movedim(-1, 1), batch["notes"], reduction="none")
    return nats_BTV.sum(-1).double().numpy()
