"""A small, strict part of SSML 1.1 (W3C, https://www.w3.org/TR/speech-synthesis11/): what is not known is an error.

Known are speak, p, s, break (time, strength), prosody (rate), say-as (interpret-as), sub (alias), phoneme (alphabet,
ph) and voice (name).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

from conjure.codecs.spoken_numbers import cardinal, digits, numbers_spoken, ordinal
from conjure.codecs.spoken_text import Part, Pause, Script, Strange, Utterance, Word, finished, spelled, spoken
from conjure.core.errors import ConjureError, suggest

RATES = {"x-slow": 0.5, "slow": 0.75, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.6}
STRENGTHS = {"none": 0.0, "x-weak": 0.1, "weak": 0.2, "medium": 0.4, "strong": 0.7, "x-strong": 1.2}
LONGEST_BREAK = 10.0
SLOWEST, FASTEST = 0.5, 2.0
_ELEMENTS: dict[str, frozenset[str]] = {
    "speak": frozenset({"version", "xml:lang", "xmlns"}), "p": frozenset(), "s": frozenset(),
    "break": frozenset({"time", "strength"}), "prosody": frozenset({"rate"}),
    "say-as": frozenset({"interpret-as", "format"}), "sub": frozenset({"alias"}),
    "phoneme": frozenset({"alphabet", "ph"}), "voice": frozenset({"name"}),
}  # fmt: skip
_NEEDED = {"prosody": "rate", "say-as": "interpret-as", "sub": "alias", "phoneme": "ph", "voice": "name"}


def _whole(text: str) -> int:
    plain = text.replace(",", "").strip()
    if not re.fullmatch(r"-?\d+", plain):
        raise ValueError(f"expected a whole number, got {text.strip()!r}")
    return int(plain)


SAY_AS: Mapping[str, Callable[[str], str]] = {
    "characters": spelled, "spell-out": spelled, "cardinal": lambda text: cardinal(_whole(text)),
    "number": lambda text: cardinal(_whole(text)), "ordinal": lambda text: ordinal(_whole(text)), "digits": digits,
    "telephone": digits, "date": numbers_spoken, "time": numbers_spoken,
}  # fmt: skip


def script(text: str, phones: frozenset[str] | None = None) -> Script:
    """The document as sentences. `phones` are the names that `<phoneme>` may use (None: those of `pronunciation`).

    Raises `ConjureError` with line and column for what is not well-formed, elements, attributes or values that are not
    known, and document types.
    """
    if phones is None:
        from conjure.codecs.pronunciation import PHONES

        phones = frozenset(PHONES)
    reader = _Reader(phones)
    try:
        reader.parser.Parse(text.lstrip().encode(), True)
    except expat.ExpatError as error:
        raise ConjureError(f"SSML, line {error.lineno}, column {error.offset + 1}: {expat.ErrorString(error.code)}",
                           hint="every element must be closed, & is written &amp;, < is &lt;") from None  # fmt: skip
    reader.flush()
    return finished(reader.found, reader.strange.warnings(), re.sub("<[^>]*>", " ", text))


@dataclass
class _State:
    """What holds within an element. `heard` gathers text of elements that say it otherwise."""

    element: str
    voice: str = ""
    speed: float = 1.0
    attributes: Mapping[str, str] = field(default_factory=dict)
    heard: list[str] | None = None


class _Reader:
    def __init__(self, phones: frozenset[str]) -> None:
        self.phones, self.strange = phones, Strange()
        self.found: list[Utterance] = []
        self._stack = [_State("")]
        self._text: list[str] = []
        self._inserted: dict[str, Part] = {}
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = lambda *_: self._fail("a document type is not allowed")

    def flush(self) -> None:
        """What was gathered becomes sentences."""
        text, state = "".join(self._text), self._stack[-1]
        if text.strip():
            new = spoken(text, self.strange, voice=state.voice, speed=state.speed, inserted=self._inserted)
            pauses = [self._inserted[each] for each in text if each in self._inserted]
            if new:
                self.found += new
            elif self.found:  # breaks between sentences
                last, more = self.found[-1], sum(each.seconds or 0 for each in pauses if isinstance(each, Pause))
                self.found[-1] = Utterance(last.parts, last.source, last.voice, last.speed, last.after + more)
        self._text, self._inserted = [], {}

    def _fail(self, message: str, hint: str = "") -> None:
        line, column = self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + 1
        raise ConjureError(f"SSML, line {line}, column {column}: {message}", hint=hint)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        outer = self._stack[-1]
        if name not in _ELEMENTS:
            self._fail(f"unknown element <{name}>", suggest(name, _ELEMENTS))
        if (name == "speak") != (outer.element == ""):
            self._fail("<speak> is the outermost element, and only that")
        if outer.heard is not None or outer.element == "break":
            self._fail(f"<{name}> cannot stand within <{outer.element}>")
        for each in attributes:
            if each not in _ELEMENTS[name]:
                self._fail(f"<{name}> has no attribute '{each}'", suggest(each, _ELEMENTS[name]))
        if name in _NEEDED and _NEEDED[name] not in attributes:
            self._fail(f"<{name}> needs the attribute '{_NEEDED[name]}'")
        state = _State(name, outer.voice, outer.speed, attributes)
        if name in ("p", "s", "prosody", "voice"):
            self.flush()
        if name == "break":
            self._insert(Pause(self._seconds(attributes)))
        elif name == "prosody":
            state.speed = min(FASTEST, max(SLOWEST, outer.speed * self._rate(attributes["rate"])))
        elif name == "voice":
            state.voice = attributes["name"]
        elif name in ("say-as", "sub", "phoneme"):
            state.heard = []
            if name == "say-as" and attributes["interpret-as"] not in SAY_AS:
                self._fail(f"say-as: '{attributes['interpret-as']}' is not known", f"known are {', '.join(SAY_AS)}")
        self._stack.append(state)

    def _end(self, name: str) -> None:
        if name in ("p", "s", "prosody", "voice"):
            self.flush()
        state = self._stack.pop()
        heard = "".join(state.heard or ())
        if name == "sub":
            self._text.append(f" {state.attributes['alias']} ")
        elif name == "say-as":
            self._text.append(f" {self._as(state.attributes['interpret-as'], heard)} ")
        elif name == "phoneme":
            self._insert(Word(" ".join(heard.split()), self._phones(state.attributes)))
        elif name == "s" and self.found:
            last = self.found[-1]
            self.found[-1] = Utterance(last.parts, last.source, last.voice, last.speed, min(last.after, 0.15))

    def _characters(self, text: str) -> None:
        state = self._stack[-1]
        text = "".join(" " if "\ue000" <= each <= "\uf8ff" else each for each in text)
        if state.element == "break" and text.strip():
            self._fail("<break> holds no text")
        (self._text if state.heard is None else state.heard).append(text)

    def _insert(self, part: Part) -> None:
        place = chr(0xE000 + len(self._inserted))
        if place > "\uf8ff":
            self._fail("too many breaks in one paragraph")
        self._inserted[place] = part
        self._text.append(f" {place} ")

    def _seconds(self, attributes: Mapping[str, str]) -> float:
        time, strength = attributes.get("time"), attributes.get("strength", "medium")
        if time is None:
            if strength not in STRENGTHS:
                self._fail(f"break: the strength '{strength}' is not known", suggest(strength, STRENGTHS))
            return STRENGTHS[strength]
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", time.strip())
        seconds = float(found[1]) / (1000 if found[2] == "ms" else 1) if found else -1.0
        if not 0 <= seconds <= LONGEST_BREAK:
            self._fail(f"break: expected a time such as 500ms or 1.5s, at most {LONGEST_BREAK:g} s, got '{time}'")
        return seconds

    def _rate(self, text: str) -> float:
        if text in RATES:
            return RATES[text]
        found = re.fullmatch(r"(\d+(?:\.\d+)?)%", text.strip())
        rate = float(found[1]) / 100 if found else 0.0
        if not SLOWEST <= rate <= FASTEST:
            self._fail(f"prosody: expected a rate of {', '.join(RATES)}, or from 50% to 200%, got '{text}'")
        return rate

    def _phones(self, attributes: Mapping[str, str]) -> tuple[str, ...]:
        alphabet = attributes.get("alphabet", "x-arpabet")
        if alphabet not in ("x-arpabet", "x-flite"):
            self._fail(f"phoneme: the alphabet '{alphabet}' is not known", "known is x-arpabet: ph=\"t ax m ey t ow\"")
        phones = tuple(re.sub(r"\d", "", each) for each in attributes["ph"].lower().split())
        for each in phones:
            if each not in self.phones or each == "pau":
                known = " ".join(sorted(self.phones - {"pau"}))
                self._fail(f"phoneme: there is no phone '{each}'", f"there are {known}")
        if not phones:
            self._fail("phoneme: ph is empty")
        return phones

    def _as(self, kind: str, heard: str) -> str:
        try:
            return SAY_AS[kind](heard.strip())
        except ValueError as error:
            self._fail(f"say-as {kind}: {error}")
            raise AssertionError from error
