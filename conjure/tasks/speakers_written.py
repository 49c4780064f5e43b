"""Who speaks when, and which sounds are of one voice, as text: plain, Markdown, captions, RTTM (NIST's format of a line
for each turn)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

from conjure.core.errors import ConjureError
from conjure.media.captions import Format, Segment, clock
from conjure.media.captions import written as captions
from conjure.models.diarisation import Turn, joined
from conjure.models.who import Calibration

Layout = Literal["txt", "md", "srt", "vtt", "json", "rttm"]


@dataclass(frozen=True)
class Found:
    """The turns, the name of each speaker, how alike each is to the voice of that name where it is a known one, and the
    seconds of the sound."""

    turns: tuple[Turn, ...]
    names: tuple[str, ...]
    likeness: tuple[float | None, ...]
    duration: float

    @property
    def people(self) -> list[str]:
        return list(dict.fromkeys(self.names[turn.speaker] for turn in self.turns))

    def seconds(self, name: str) -> float:
        return sum(turn.end - turn.start for turn in self.turns if self.names[turn.speaker] == name)

    def told(self) -> dict[str, Any]:
        """For JSON."""
        likeness = {name: value for name, value in zip(self.names, self.likeness, strict=True) if value is not None}
        voices = [{"name": name, "seconds": round(self.seconds(name), 2),
                   **({"likeness": round(likeness[name], 4)} if name in likeness else {})}
                  for name in self.people]  # fmt: skip
        return {"duration": round(self.duration, 3), "speakers": len(self.people), "voices": voices, "segments": [
            {"start": round(turn.start, 2), "end": round(turn.end, 2), "speaker": self.names[turn.speaker]}
            for turn in self.turns]}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Two sounds, counted from 1: the cosine of their voices, how probable it is that they are one, and whether they
    are taken for one."""

    first: int
    second: int
    score: float
    probability: float
    same: bool

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "score": round(self.score, 4), "probability": round(self.probability, 4)}


def named(
    found: Sequence[Turn], likeness: Sequence[dict[str, float]], same: float, known: Sequence[str], duration: float
) -> Found:
    """Speakers under the name of the known voice that is most like theirs, if it is at least `same`; several who have
    one name are one. The others are unknown. Without known voices they are Speaker 1, Speaker 2 and so on."""
    names, values, strangers = list[str](), list[float | None](), 0
    for number, each in enumerate(likeness):
        best = max(each, key=each.__getitem__, default=None)
        if best is not None and each[best] >= same:
            names.append(best)
            values.append(each[best])
            continue
        strangers += 1
        names.append(f"unknown {strangers}" if known else f"Speaker {number + 1}")
        values.append(None)
    if strangers == 1 and known:
        names = ["unknown" if value is None else name for name, value in zip(names, values, strict=True)]
    same_one = joined([replace(turn, speaker=names.index(names[turn.speaker])) for turn in found])
    order = list(dict.fromkeys(names[turn.speaker] for turn in found))
    best = {name: max((v for n, v in zip(names, values, strict=True) if n == name and v is not None), default=None)
            for name in order}  # fmt: skip
    return Found(tuple(same_one), tuple(order), tuple(best[name] for name in order), duration)


def written(found: Found, layout: Layout) -> str:
    """All turns in a layout."""
    if layout in ("srt", "vtt"):
        segments = [Segment(turn.start, turn.end, found.names[turn.speaker]) for turn in found.turns]
        return captions(segments, cast("Format", layout))
    if layout == "rttm":
        return "".join(
            f"SPEAKER sound 1 {turn.start:.3f} {turn.end - turn.start:.3f} <NA> <NA> "
            f"{found.names[turn.speaker].replace(' ', '_')} <NA> <NA>\n" for turn in found.turns
        )  # fmt: skip
    if not found.turns:
        return "Nobody speaks.\n"
    people = found.people
    told = ", ".join(f"{name} {found.seconds(name):.1f} s" for name in people)
    head = f"{len(people)} {'person speaks' if len(people) == 1 else 'people speak'} in {found.duration:.1f} s: {told}."
    rows = [(_time(turn.start), _time(turn.end), found.names[turn.speaker]) for turn in found.turns]
    if layout == "md":
        table = ["| from | to | who |", "|---|---|---|", *(f"| {a} | {b} | {_cell(name)} |" for a, b, name in rows)]
        return "\n".join([head, "", *table]) + "\n"
    return "\n".join([head, "", *(f"{a} - {b}  {name}" for a, b, name in rows)]) + "\n"


def compared(made: Sequence[Pair], threshold: float, calibration: Calibration | None, layout: Layout) -> str:
    """What is said of pairs of sounds; with the errors of the threshold where it is the model's own."""
    if layout not in ("txt", "md", "json"):
        raise ConjureError(f"the likeness of several sounds is not written as {layout}", hint="-o same.txt or .json")
    rows = [(f"{each.first} and {each.second}", "one voice" if each.same else "two voices", f"{each.score:.2f}",
             f"{each.probability:.2f}") for each in made]  # fmt: skip
    if layout == "md":
        lines = ["| sounds | | cosine | probability |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    else:
        lines = [f"sounds {who}: {what} (cosine {score}, probability {chance})" for who, what, score, chance in rows]
    lines += ["", f"One voice is a cosine of {threshold:.2f} or more; the probability holds where one and two were as "
              "probable before."]  # fmt: skip
    if calibration is not None and calibration.taken is not None and calibration.refused is not None:
        lines.append(f"Of readers on whom it was not set, {100 * calibration.taken:.1f} % of pairs of two are taken "
                     f"for one and {100 * calibration.refused:.1f} % of pairs of one for two.")  # fmt: skip
    return "\n".join(lines) + "\n"


def _time(seconds: float) -> str:
    """`00:01:02.3`"""
    return clock(round(seconds, 1), ".")[:-2]


def _cell(name: str) -> str:
    return name.replace("|", "\\|")
