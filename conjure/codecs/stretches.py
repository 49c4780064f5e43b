"""Sound of any length in stretches that fit into memory, each cut where it is softest; and sound that is heard live, a
phrase at a time.

Legend: N samples, t samples of a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from conjure.codecs.voice_activity import Floats, VoiceActivity, levels, spans

SOFT = 0.2
"""Seconds over which it must be soft where it is cut."""
BEFORE = 5.0
"""Seconds of what came before that are looked at with live sound: they say how loud the noise is."""
PAUSE = 0.6
"""Seconds without speech after which a phrase is over."""
LONGEST = 15.0
"""Seconds from which a phrase is cut."""
REST = 0.5
"""Seconds of a phrase that was taken already which may still look like speech: the margin at its end."""


def stretches(
    blocks: Iterable[Floats], rate: int, longest: float, last: float = 30.0
) -> Iterator[tuple[int, Floats]]:
    """(where it begins, its samples `[N]`) of stretches of at most `longest` seconds. Each but the last is cut where it
    is softest in its last `last` seconds."""
    most, at = round(longest * rate), 0
    kept = np.zeros(0, np.float32)
    for block in blocks:
        kept = np.concatenate([kept, block])
        while len(kept) > most:
            cut = softest(kept[:most], rate, from_=most - round(min(last, longest / 2) * rate))
            yield at, kept[:cut]
            at, kept = at + cut, kept[cut:]
    if len(kept):
        yield at, kept


def softest(samples_N: Floats, rate: int, from_: int) -> int:
    """The sample behind `from_` around which the sound is softest."""
    settings = VoiceActivity()
    level_T = levels(samples_N[from_:], rate, settings).max(0)
    width = round(SOFT / settings.hop)
    if len(level_T) < width:
        return len(samples_N)
    means = np.convolve(10 ** (level_T / 10), np.ones(width) / width, "valid")
    return from_ + round((int(means.argmin()) + width / 2) * settings.hop * rate)


@dataclass(frozen=True)
class Phrase:
    """What somebody says, as far as it was heard; `over` is set once nothing more comes."""

    start: int
    """Its first sample in the whole sound."""
    samples_N: Floats
    over: bool


def phrases(blocks: Iterable[Floats], rate: int, voice: VoiceActivity | None) -> Iterator[Phrase | None]:
    """The phrases of live sound: each as often as more of it was heard, and whole at its end; None where a block
    brought nothing. Without `voice` everything is taken for speech."""
    before, kept, at = np.zeros(0, np.float32), np.zeros(0, np.float32), 0
    pause, longest = round(PAUSE * rate), round(LONGEST * rate)

    def found() -> list[tuple[int, int]]:
        if voice is None:
            return [(0, len(kept))]
        heard = spans(np.concatenate([before, kept]), rate, voice)
        rest = len(before) + round(REST * rate)
        new = [(start, end) for start, end in heard if end > (rest if start < len(before) else 0)]
        return [(max(0, start - len(before)), end - len(before)) for start, end in new]

    for block in blocks:
        kept = np.concatenate([kept, block])
        said = found()
        if not said:  # of silence a little is kept: a word may have begun
            taken, phrase = max(0, len(kept) - rate), None
        elif voice is not None and len(kept) - said[-1][1] >= pause:
            taken = said[-1][1]
            phrase = Phrase(at + said[0][0], kept[said[0][0] : taken], True)
        elif len(kept) - said[0][0] >= longest:
            taken = softest(kept, rate, from_=said[0][0] + (len(kept) - said[0][0]) // 2)
            phrase = Phrase(at + said[0][0], kept[said[0][0] : taken], True)
        else:
            taken, phrase = 0, Phrase(at + said[0][0], kept[said[0][0] :], False)
        before = np.concatenate([before, kept[:taken]])[-round(BEFORE * rate) :]
        kept, at = kept[taken:], at + taken
        yield phrase
    if said := found():
        yield Phrase(at + said[0][0], kept[said[0][0] : said[-1][1]], True)
