"""Where somebody may be speaking, by loudness alone: a floor of noise that follows the sound, a threshold to enter and
a lower one to leave, and what is steady is nobody. What is not speech is then never read, so nothing can be invented in
it.

The floor is the higher of two minima, over the seconds before and after: where noise begins, or ends, one of them knows
it. After Martin (2001), "Noise power spectral density estimation based on optimal smoothing and minimum statistics".
Music that rises and falls passes.

Each band of the spectrum has its own floor: a voice stands out of a hiss in the low one, an s out of a rumble in the
high one.

Legend: N samples, K bands, T frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conjure.core.errors import ConjureError

Floats = NDArray[np.float32]
Span = tuple[int, int]
"""First sample and the one after the last."""
SILENT = -100.0
"""dB that digital silence counts as."""
BANDS = (150.0, 900.0, 2500.0, 6000.0)
"""Hz between which levels are measured: the first formant, the second, and what hisses."""
BLOCK = 1 << 14
"""Frames that are looked at together: what is held at once stays small however long the sound is."""


@dataclass(frozen=True, kw_only=True)
class VoiceActivity:
    """Times in seconds, levels in dB (0 is a sine of full scale)."""

    hop: float = 0.01
    frame: float = 0.032
    smooth: float = 0.05
    """Levels are averaged over this."""
    floor_smooth: float = 0.25
    """Those that the floor is the lowest of, over this; a gap between syllables does not count as noise alone."""
    floor_reach: float = 4.0
    """How far the floor looks back and ahead."""
    enter: float = 9.0
    """Above the floor."""
    leave: float = 5.0
    quietest: float = -65.0
    """What is softer is silence, wherever the floor lies."""
    steady: float = 1.5
    """Standard deviation of levels below which a span is a hum, a beep or a hiss."""
    hold: float = 0.3
    """Gaps within words: shorter ones are closed before anything else."""
    shortest: float = 0.08
    """Clicks are shorter."""
    margin: float = 0.2
    """Added on either side."""
    pause: float = 1.0
    """Shorter pauses are kept as they are, longer ones are left out but for the margins."""

    def __post_init__(self) -> None:
        if not 0 < self.leave <= self.enter:
            raise ConjureError(f"voice activity: expected 0 < leave <= enter, got {self.leave:g} and {self.enter:g}")
        if not 0 < self.hop <= self.frame:
            raise ConjureError(f"voice activity: expected 0 < hop <= frame, got {self.hop:g} and {self.frame:g}")


@dataclass(frozen=True)
class Chunk:
    """Pieces of a sound that are read as one."""

    pieces: tuple[Span, ...]
    rate: int

    @property
    def samples(self) -> int:
        return sum(end - start for start, end in self.pieces)

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    def cut(self, samples_N: Floats) -> Floats:
        """The pieces of the sound, one after the other."""
        return np.concatenate([samples_N[start:end] for start, end in self.pieces])

    def at(self, seconds: float, *, end: bool = False) -> float:
        """Where in the sound a time of the chunk is. At a border between pieces, a beginning belongs to the piece that
        follows, an `end` to the one before."""
        wanted, passed = min(max(seconds, 0.0), self.seconds) * self.rate, 0
        for start, stop in self.pieces:
            if wanted < passed + stop - start or (end and wanted <= passed + stop - start):
                return (start + wanted - passed) / self.rate
            passed += stop - start
        return self.pieces[-1][1] / self.rate

    def after(self, seconds: float) -> Chunk | None:
        """What is left from this time of the chunk on; None where nothing is."""
        skip, left = round(seconds * self.rate), list[Span]()
        for start, end in self.pieces:
            skipped = min(skip, end - start)
            skip -= skipped
            if start + skipped < end:
                left.append((start + skipped, end))
        return Chunk(tuple(left), self.rate) if left else None


def levels(samples_N: Floats, rate: int, settings: VoiceActivity) -> Floats:
    """dB of each band in each frame, `[K, T]`."""
    frame, hop = round(settings.frame * rate), round(settings.hop * rate)
    window = np.hanning(frame + 2)[1:-1].astype(np.float32)
    scale = 4 / window.sum() ** 2  # a sine of full scale has power 1
    edges = [min(round(hertz * frame / rate), frame // 2) for hertz in BANDS]
    count = max(0, 1 + (len(samples_N) - frame) // hop)
    out_KT = np.full((len(BANDS) - 1, count), SILENT, dtype=np.float32)
    for begin in range(0, count, BLOCK):
        many = min(BLOCK, count - begin)
        part = samples_N[begin * hop : (begin + many - 1) * hop + frame]
        frames = np.lib.stride_tricks.sliding_window_view(part, frame)[::hop]
        power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
        for k, (low, high) in enumerate(itertools.pairwise(edges)):
            loud = scale * power[:, low:high].sum(1) + 10 ** (SILENT / 10)
            out_KT[k, begin : begin + many] = 10 * np.log10(loud)
    return out_KT


def spans(samples_N: Floats, rate: int, settings: VoiceActivity = VoiceActivity()) -> list[Span]:
    """Where somebody may be speaking, in order, with `margin` around; pauses under `pause` are part of it."""
    level_KT = levels(samples_N, rate, settings)
    hop = round(settings.hop * rate)
    if not level_KT.size:
        return []
    smooth_KT = np.stack([_smoothed(level_T, _frames(settings.smooth, settings)) for level_T in level_KT])
    above_KT = smooth_KT - np.stack([floor(level_T, settings) for level_T in level_KT])
    above_T = np.where(smooth_KT > settings.quietest, above_KT, 0).max(0)
    low_T, high_T = above_T > settings.leave, above_T > settings.enter
    found = _joined(_runs(low_T, high_T), _frames(settings.hold, settings))
    shortest = _frames(settings.shortest, settings)
    found = [run for run in found if run[1] - run[0] >= shortest and not _steady(smooth_KT, run, settings)]
    before = round(settings.margin * rate)
    behind = before + round(settings.frame * rate)
    wide = [(max(0, a * hop - before), min(len(samples_N), b * hop + behind)) for a, b in found]
    return _joined(wide, round((settings.pause - 2 * settings.margin) * rate))


def floor(level_T: Floats, settings: VoiceActivity) -> Floats:
    """The level of what is always there, for each frame."""
    width, reach = _frames(settings.floor_smooth, settings), _frames(settings.floor_reach, settings)
    # Means over what came before, and over what comes: neither reaches across the moment where a noise begins or ends.
    before_T = _lowest_before(_smoothed(level_T, width, ahead=False), reach)
    after_T = _lowest_before(_smoothed(level_T[::-1], width, ahead=False), reach)[::-1]
    at = np.arange(len(level_T))
    whole_before, whole_after = at >= reach, at < len(level_T) - reach
    # Near an end one side has seen too little: a word may begin there, and it would be its own floor.
    return np.where(
        whole_before & whole_after,
        np.maximum(before_T, after_T),
        np.where(whole_before, before_T, np.where(whole_after, after_T, np.minimum(before_T, after_T))),
    )


def chunks(
    found: Sequence[Span], samples_N: Floats, rate: int, longest: float, settings: VoiceActivity = VoiceActivity(),
    apart: float = 5.0,
) -> list[Chunk]:  # fmt: skip
    """Spans put together into chunks of at most `longest` seconds, none across a pause of more than `apart` seconds. A
    longer span is cut where it is softest in its second half."""
    most = round(longest * rate)
    made: list[list[Span]] = []
    for span in found:
        for piece in _shortened(span, samples_N, rate, most, settings):
            length = piece[1] - piece[0]
            last = made[-1] if made else None
            if last and piece[0] - last[-1][1] <= apart * rate and sum(b - a for a, b in last) + length <= most:
                last.append(piece)
            else:
                made.append([piece])
    return [Chunk(tuple(pieces), rate) for pieces in made]


def _shortened(span: Span, samples_N: Floats, rate: int, most: int, settings: VoiceActivity) -> list[Span]:
    start, end = span
    pieces = []
    while end - start > most:
        level_T = levels(samples_N[start + most // 2 : start + most], rate, settings).max(0)
        softest = int(_smoothed(level_T, _frames(0.2, settings)).argmin()) if len(level_T) else 0
        cut = start + most // 2 + softest * round(settings.hop * rate) + round(settings.frame * rate / 2)
        cut = min(cut, start + most)
        pieces.append((start, cut))
        start = cut
    return [*pieces, (start, end)]


def _frames(seconds: float, settings: VoiceActivity) -> int:
    return max(1, round(seconds / settings.hop))


def _smoothed(level_T: Floats, width: int, *, ahead: bool = True) -> Floats:
    """Means over `width` frames around each, or up to it, fewer at the ends."""
    total = np.concatenate([[0.0], np.cumsum(level_T, dtype=np.float64)])
    at, later = np.arange(len(level_T)), (width + 1) // 2 if ahead else 1
    low, high = np.maximum(at + later - width, 0), np.minimum(at + later, len(level_T))
    return ((total[high] - total[low]) / (high - low)).astype(np.float32)


def _lowest_before(level_T: Floats, reach: int) -> Floats:
    """The lowest of each frame and the `reach` before it, by minima of doubled widths."""
    out, width = level_T.copy(), 1
    while width <= reach:
        step = min(width, reach + 1 - width)
        out[step:] = np.minimum(out[step:], out[:-step])
        width += step
    return out


def _runs(low_T: NDArray[np.bool_], high_T: NDArray[np.bool_]) -> list[Span]:
    """Where the first is true without a gap and the second somewhere inside."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], low_T, [False]])))
    pairs = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return [(a, b) for a, b in pairs if high_T[a:b].any()]


def _joined(found: Sequence[Span], gap: int) -> list[Span]:
    made: list[Span] = []
    for start, end in found:
        if made and start - made[-1][1] < max(gap, 1):
            made[-1] = (made[-1][0], max(end, made[-1][1]))
        else:
            made.append((start, end))
    return made


def _steady(smooth_KT: Floats, run: Span, settings: VoiceActivity) -> bool:
    """Whether no band moves inside, its rise and fall aside; of what is too short to tell, no."""
    edge = _frames(0.06, settings)
    inside = smooth_KT[:, run[0] + edge : run[1] - edge]
    return inside.shape[1] >= _frames(0.2, settings) and float(inside.std(1).max()) < settings.steady
