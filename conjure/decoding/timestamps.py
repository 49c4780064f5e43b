"""Times in what a model of speech writes: the grammar of Whisper's time tokens, phrases between them, and the time of
each word by dynamic time warping over cross-attention (Radford et al. 2022, arXiv 2212.04356, 2.3 and 4.5).

Times are tokens too, one for every 20 ms, `<|0.00|>` first; a phrase stands between two of them.

Legend: B rows, V vocabulary, H heads, T tokens, M frames of 20 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from conjure.decoding.detokenize import BROKEN, Decodes
from conjure.decoding.filters import RULED_OUT
from conjure.decoding.rows import Past

FRAME = 0.02
"""Seconds from one time token to the next, and of a frame of the encoder."""
OPENING, CLOSING = "\"'“¡¿([{-", "\"'.。,，!！?？:：”)]}、"
"""Marks that belong to the word behind them, and before them."""
APART = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


@dataclass(frozen=True, kw_only=True)
class TimeTokens:
    """Which ids are times."""

    first: int
    """`<|0.00|>`; all ids from here on are times."""
    without: int
    """`<|notimestamps|>`"""
    end: int
    """The end of the text: text tokens have lower ids."""
    latest_first: int | None = 50
    """The first phrase begins at this time token or before; None: anywhere."""


def timed(logits_BV: Tensor, rows: Sequence[Past], tokens: TimeTokens) -> Tensor:
    """Logits after the rules of time tokens: each text begins with one, they come in pairs except before the end, they
    never fall, and where they are together likelier than any other token, one of them comes.

    `logits_BV` are those on which all other rules have acted; float32.
    """
    logits_BV = logits_BV.float().clone()
    logits_BV[:, tokens.without] = RULED_OUT
    for b, row in enumerate(rows):
        written = row.known[row.begin :]
        if not written:
            logits_BV[b, : tokens.first] = RULED_OUT
            if tokens.latest_first is not None:
                logits_BV[b, tokens.first + tokens.latest_first + 1 :] = RULED_OUT
            continue
        last = written[-1] >= tokens.first
        before = len(written) < 2 or written[-2] >= tokens.first
        if last and before:  # a phrase has begun
            logits_BV[b, tokens.first :] = RULED_OUT
        elif last:  # a phrase has ended: another begins, or the text ends
            logits_BV[b, : tokens.end] = RULED_OUT
        times = [token for token in written if token >= tokens.first]
        if times:
            least = times[-1] if last and not before else times[-1] + 1  # no phrase is empty
            logits_BV[b, tokens.first : least] = RULED_OUT
    # Both sides as logits: what makes them probabilities is the same, and takes as long as a step of a small network.
    likelier_B = logits_BV[:, tokens.first :].logsumexp(-1) > logits_BV[:, : tokens.first].amax(-1)
    logits_BV[:, : tokens.first].masked_fill_(likelier_B[:, None], RULED_OUT)
    return logits_BV


@dataclass(frozen=True)
class Phrase:
    """Ids of text, and the seconds between which they were said."""

    start: float
    end: float
    ids: tuple[int, ...]


def phrases(
    ids: Sequence[int], tokens: TimeTokens, seconds: float, *, broken: bool = False
) -> tuple[list[Phrase], float]:
    """(phrases, from where on nothing was heard) of what was written about `seconds` of sound.

    Where the text ends in two equal times, the model says that there is more behind them; a single time at the end says
    that there is not, and neither does a text without a time. A text that is `broken` off, by its length, is heard to
    the beginning of its last phrase, which is left out, if there is one before it.
    """
    ids = [token for token in ids if token != tokens.end]
    times = [token >= tokens.first for token in ids]
    cuts = [at for at in range(1, len(ids)) if times[at - 1] and times[at]]
    single = times[-2:] == [False, True]
    open_end = bool(cuts) and cuts[-1] == len(ids) - 1 and not single
    found, begin = [], 0
    for stop in [*cuts, len(ids)]:
        part = ids[begin:stop]
        text = tuple(token for token in part if token < tokens.end)
        marks = [(token - tokens.first) * FRAME for token in part if token >= tokens.first]
        start = marks[0] if marks and part[0] >= tokens.first else (found[-1].end if found else 0.0)
        end = marks[-1] if marks and part[-1] >= tokens.first and len(part) > 1 else seconds
        if text:
            found.append(Phrase(min(start, seconds), min(max(start, end), seconds), text))
        begin = stop
    heard = (ids[-1] - tokens.first) * FRAME if open_end else seconds
    if broken and len(found) > 1 and not times[-1]:
        heard = found.pop().start
    return found, min(heard, seconds)


# -- the time of a token -------------------------------------------------------------------------------------------


def token_times(weights_HTM: Tensor, width: int = 7) -> NDArray[np.float64]:
    """Seconds at which each of T tokens begins, by the attention `[H, T, M]` of some heads: each frame's weights are
    normalised over the tokens, smoothed by a median over `width` frames, averaged over heads; the path through them
    that never goes back gives the frame at which it comes to each token."""
    spread = weights_HTM.std(dim=-2, keepdim=True, correction=0)
    normed = (weights_HTM - weights_HTM.mean(dim=-2, keepdim=True)) / spread
    matrix_TM = medians(normed, width).mean(0)
    tokens, frames = warped(-matrix_TM.double().numpy())
    return frames[np.diff(tokens, prepend=-1) > 0].astype(np.float64) * FRAME


def medians(weights: Tensor, width: int) -> Tensor:
    """The median of `width` (odd) neighbours along the last dimension, the ends mirrored; as it is where that is too
    short."""
    half = width // 2
    if weights.shape[-1] <= half:
        return weights
    padded = F.pad(weights, (half, half), mode="reflect")
    return padded.unfold(-1, width, 1).sort(-1).values[..., half]


def warped(cost_TM: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cheapest way from the first cell to the last in steps of one token, one frame or both: the tokens and the
    frames of its cells, in order (dynamic time warping, Sakoe and Chiba 1978).

    Cells on a diagonal depend on earlier diagonals alone, so each is computed at once.
    """
    T, M = cost_TM.shape
    total = np.full((T + 1, M + 1), np.inf, dtype=np.float32)
    step = np.zeros((T + 1, M + 1), dtype=np.int8)  # 0: both, 1: a token, 2: a frame
    total[0, 0] = 0
    for d in range(2, T + M + 1):
        i = np.arange(max(1, d - M), min(T, d - 1) + 1)
        j = d - i
        both, token, frame = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        step[i, j] = np.where((both < token) & (both < frame), 0, np.where((token < both) & (token < frame), 1, 2))
        total[i, j] = cost_TM[i - 1, j - 1] + np.choose(step[i, j], (both, token, frame))
    step[0, :], step[:, 0] = 2, 1
    path, i, j = [], T, M
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        move = step[i, j]
        i, j = i - (move != 2), j - (move != 1)
    tokens, frames = np.array(path[::-1]).T
    return tokens, frames


# -- tokens that are a word ----------------------------------------------------------------------------------------


def words(tokenizer: Decodes, ids: Sequence[int], *, spaces: bool = True) -> list[tuple[str, list[int]]]:
    """(text, places of its tokens among `ids`) of each word, with the space before it and the punctuation around it.

    Without `spaces`, in Chinese for example, every character is a word.
    """
    found = _characters(tokenizer, ids)
    if spaces:
        joined: list[tuple[str, list[int]]] = []
        for text, places in found:
            if not joined or text.startswith(" ") or text.strip() in APART:
                joined.append((text, places))
            else:
                joined[-1] = (joined[-1][0] + text, joined[-1][1] + places)
        found = joined
    return _punctuated(found)


def _characters(tokenizer: Decodes, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
    """The fewest tokens that hold whole characters."""
    whole, found, held, sent = tokenizer.decode(ids), [], list[int](), 0
    for place in range(len(ids)):
        held.append(place)
        text = tokenizer.decode([ids[n] for n in held])
        at = sent + text.find(BROKEN)
        if BROKEN not in text or at >= len(whole) or whole[at] == BROKEN:
            found.append((text, held))
            held, sent = [], sent + len(text)
    if held:
        found.append((tokenizer.decode([ids[n] for n in held]), held))
    return found


def _punctuated(found: list[tuple[str, list[int]]]) -> list[tuple[str, list[int]]]:
    """Opening marks joined to the word behind, closing ones to the word before."""
    opened: list[tuple[str, list[int]]] = []
    for text, places in reversed(found):
        if opened and text.startswith(" ") and text.strip() in OPENING:
            opened[-1] = (text + opened[-1][0], places + opened[-1][1])
        else:
            opened.append((text, places))
    closed: list[tuple[str, list[int]]] = []
    for text, places in reversed(opened):
        if closed and text and text in CLOSING and not closed[-1][0].endswith(" "):
            closed[-1] = (closed[-1][0] + text, closed[-1][1] + places)
        else:
            closed.append((text, places))
    return closed
