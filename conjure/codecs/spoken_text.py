"""Text as people say it: from plain text, Markdown or a small SSML to sentences of words and pauses.

What no English voice can say (pictures, other scripts) is never dropped in silence: `Script.warnings` names it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conjure.codecs.spoken_numbers import cardinal, numbers_spoken, ordinal, roman
from conjure.core.errors import ConjureError

LONGEST = 220
"""Characters of a sentence; longer ones are said in parts, cut at marks where there are some."""
BETWEEN = 0.15
"""Seconds of silence that are added behind a sentence, behind a paragraph, and around a heading."""
BEHIND_PARAGRAPH = 0.5
LETTERS = dict(zip(
    "abcdefghijklmnopqrstuvwxyz",
    "ay bee see dee ee eff gee aitch eye jay kay ell em en oh pee cue are ess tee you vee double-you ex why "
    "zee".split(),
))  # fmt: skip
"""The names of letters as words."""
_ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "dr": "doctor", "prof": "professor", "st": "saint", "jr": "junior",
    "sr": "senior", "gen": "general", "capt": "captain", "lt": "lieutenant", "col": "colonel", "rev": "reverend",
    "hon": "honorable", "sgt": "sergeant", "gov": "governor", "sen": "senator", "rep": "representative",
    "etc": "et cetera", "vs": "versus", "approx": "approximately", "inc": "incorporated", "ltd": "limited",
    "co": "company", "corp": "corporation", "dept": "department", "ave": "avenue", "blvd": "boulevard", "rd": "road",
    "fig": "figure", "vol": "volume", "pp": "pages", "ca": "circa", "cf": "compare", "al": "al", "mt": "mount",
    "jan": "January", "feb": "February", "mar": "March", "apr": "April", "jun": "June", "jul": "July",
    "aug": "August", "sep": "September", "sept": "September", "oct": "October", "nov": "November", "dec": "December",
}  # fmt: skip
_SAID_AS_WORDS = {"NASA", "NATO", "UNESCO", "UNICEF", "OPEC", "AIDS", "RAM", "ROM", "LAN", "PIN", "SIM", "GIF", "JPEG",
                  "ASCII", "SQUAD", "LASER", "RADAR", "SCUBA", "OK"}  # fmt: skip
_SYMBOLS = {
    "&": " and ", "+": " plus ", "=": " equals ", "@": " at ", "#": " number ", "%": " percent ", "°": " degrees ",
    "×": " times ", "÷": " divided by ", "<": " less than ", ">": " greater than ", "~": " about ",
    "±": " plus or minus ",
    "≈": " about ", "≤": " at most ", "≥": " at least ", "≠": " is not ", "→": " to ", "©": " copyright ", "®": " ",
    "™": " ", "§": " section ", "$": " dollars ", "£": " pounds ", "€": " euros ", "¥": " yen ", "½": " one half ",
    "¼": " one quarter ", "¾": " three quarters ", "²": " squared ", "³": " cubed ", "\\": " backslash ", "|": ", ",
    "_": " ", "/": " slash ", "^": " to the ", "*": " ", "·": ", ", "•": ", ", "…": ", ", "—": ", ", "–": ", ",
    "`": " ",
}  # fmt: skip
_IN_ADDRESSES = {
    ".": "dot", "/": "slash", "@": "at", "-": "dash", "_": "underscore", "?": "question mark", "=": "equals",
    "#": "hash", "&": "and", "+": "plus", ":": "colon", "~": "tilde",
}  # fmt: skip
_FOREIGN = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "th", "þ": "th", "ı": "i", "Æ": "Ae",
            "Œ": "Oe", "Ø": "O", "Ł": "L", "Đ": "D", "Þ": "Th"}  # fmt: skip
_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u00ab": '"', "\u00bb": '"',
                         "\u00a0": " ", "\u202f": " ", "\u2011": "-", "\u2010": "-"})  # fmt: skip
_URL = re.compile(r"\b(?:https?://|www\.)[^\s<>\"]+|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+|"
                  r"\b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|edu|gov|io|dev|ai|uk|de)(?:/[^\s<>\"]*)?\b")  # fmt: skip
_END = re.compile(r"(?<=[.!?\u2026])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9\ue000-\uf8ff])")
_TOKEN = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*'?|[,;:()\[\]{}\"!?.]|[\ue000-\uf8ff]|\S")
_MARKS = set(",;:()[]{}!?.")
_INSERTED = ("\ue000", "\uf8ff")
_CHAPTER = re.compile(r"\b(Chapter|Part|Act|Book|Volume|Section|Scene|War|Appendix|Title) ([IVXLC]+)\b")
_KING = re.compile(r"\b([A-Z][a-z]+) ([IVX]{2,})(?=\b(?!\.\w))")


@dataclass(frozen=True)
class Word:
    """Something to say: lower-case letters and apostrophes; or `phones`, said so whatever the text is."""

    text: str
    phones: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pause:
    """A pause inside a sentence; of so many seconds, or as the voice makes it."""

    seconds: float | None = None


Part = Word | Pause


@dataclass(frozen=True)
class Utterance:
    """A sentence, or a part of a long one. `after` seconds of silence come behind it."""

    parts: tuple[Part, ...]
    source: str
    voice: str = ""
    speed: float = 1.0
    after: float = BETWEEN

    @property
    def words(self) -> str:
        """The words alone, with single spaces."""
        return " ".join(part.text for part in self.parts if isinstance(part, Word))


@dataclass(frozen=True)
class Script:
    utterances: tuple[Utterance, ...]
    warnings: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """Those of all sentences."""
        return " ".join(each.words for each in self.utterances)


def read(text: str) -> Script:
    """A text, Markdown, or SSML where it begins with `<speak`. `ConjureError` where nothing in it can be said."""
    if re.match(r"\s*<(?:speak\b|\?xml\b|!DOCTYPE\b)", text):
        from conjure.codecs.ssml import script

        return script(text)
    from conjure.codecs.markdown_text import blocks

    found, warnings = blocks(text)
    strange = Strange()
    utterances: list[Utterance] = []
    for block in found:
        utterances += spoken(block, strange)
    return finished(utterances, [*warnings, *strange.warnings()], text)


def finished(utterances: Sequence[Utterance], warnings: Sequence[str], text: str) -> Script:
    """The script; `ConjureError` where it says nothing."""
    if not any(isinstance(part, Word) for each in utterances for part in each.parts):
        what = "an empty text" if not text.strip() else f"nothing that can be read in {text.strip()[:60]!r}"
        hint = "; ".join(warnings) or "give some words"
        raise ConjureError(f"expected a text to say, got {what}", hint=hint)
    return Script(tuple(utterances), tuple(warnings))


class Strange:
    """Characters that no voice of ours can say, in the order they came."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, character: str) -> None:
        self._counts[character] = self._counts.get(character, 0) + 1

    def warnings(self) -> list[str]:
        """One sentence for each kind of character."""
        kinds: dict[str, list[str]] = {}
        for character in self._counts:
            kinds.setdefault(_script(character), []).append(character)
        said = []
        for kind, characters in kinds.items():
            number = sum(self._counts[each] for each in characters)
            shown = "".join(characters[:12]) if kind else ", ".join(map(_named, characters[:6]))
            more = "" if len(characters) <= (12 if kind else 6) else " and others"
            what = f"{number} letter{'s' * (number > 1)} of {kind}" if kind else f"{number} sign{'s' * (number > 1)}"
            said.append(f"not read aloud, for the voice knows English only: {what} ({shown}{more})")
        return said


def spoken(
    block: str, strange: Strange, *, voice: str = "", speed: float = 1.0, inserted: Mapping[str, Part] | None = None
) -> list[Utterance]:
    """The sentences of one paragraph. `inserted` has what stands for characters of the private use area."""
    found = []
    for sentence in sentences(_clean(block)):
        for piece in shorter(sentence):
            parts = parts_of(piece, strange, inserted or {})
            if parts:
                found.append(Utterance(parts, _shown(piece), voice, speed))
    if found:
        last = found[-1]
        found[-1] = Utterance(last.parts, last.source, voice, speed, BEHIND_PARAGRAPH)
    return found


def sentences(text: str) -> list[str]:
    """Cut behind . ! and ? where a new sentence begins, but not behind titles, initials and the like."""
    found, start = [], 0
    for end in _END.finditer(text):
        before = text[start : end.start()]
        last = re.search(r"([A-Za-z.]+)\.$", before)
        if last and text[end.start() - 1] == "." and _goes_on(last[1], text[end.end() :]):
            continue
        found.append(text[start : end.end()].strip())
        start = end.end()
    return [each for each in [*found, text[start:].strip()] if each]


def shorter(sentence: str, most: int = LONGEST) -> list[str]:
    """A sentence in parts of at most `most` characters, cut behind a mark, else between words, else inside one."""
    parts = []
    while len(sentence) > most:
        cuts = [each.end() for each in re.finditer(r"[;:,\u2014)] ", sentence[:most])]
        at = next((cut for cut in reversed(cuts) if cut >= most // 3), 0) or sentence.rfind(" ", 1, most) + 1 or most
        parts.append(sentence[:at].strip())
        sentence = sentence[at:].strip()
    return [each for each in (*parts, sentence) if each]


def parts_of(sentence: str, strange: Strange, inserted: Mapping[str, Part] | None = None) -> tuple[Part, ...]:
    """The words and pauses of a sentence; none where there is no word."""
    inserted = inserted or {}
    text = expanded(sentence)
    shouted = text.isupper() and sum(map(str.isalpha, text)) > 12
    parts: list[Part] = []
    for token in _TOKEN.findall(text):
        if token in inserted:
            parts.append(inserted[token])
        elif token[0].isascii() and token[0].isalpha():
            parts += [Word(each) for each in _said(token, shouted, bool(parts))]
        elif token in _MARKS:
            if parts and not isinstance(parts[-1], Pause):
                parts.append(Pause())
        elif token not in "\"'-":
            strange.add(token)
    while parts and parts[-1] == Pause():  # the end has its own
        parts.pop()
    return tuple(parts) if any(isinstance(part, Word) for part in parts) else ()


def expanded(text: str) -> str:
    """A sentence in which numbers, addresses, abbreviations and symbols are words."""
    text = _URL.sub(lambda found: _address(found.group()), text)
    text = _CHAPTER.sub(lambda m: f"{m[1]} {cardinal(roman(m[2]))}" if roman(m[2]) else m[0], text)
    text = _KING.sub(lambda m: f"{m[1]} the {ordinal(roman(m[2]))}" if roman(m[2]) else m[0], text)
    text = re.sub(r"\b[Nn]os?\. ?(?=\d)", "number ", text)
    text = re.sub(r"\bpp?\. ?(?=\d)", "page ", text)
    text = re.sub(r"(?<![\w@])#(?=\d)", "number ", text)
    text = re.sub(r"\be\. ?g\.", "for example", re.sub(r"\bi\. ?e\.", "that is", text))
    text = re.sub(r"\b([A-Za-z])\.(?=(?:[A-Za-z]\.)+)|(?<=[A-Za-z]\.)([A-Za-z])\.", _initial, text)
    text = re.sub(r"([A-Za-z]{2,})(\d)", r"\1 \2", numbers_spoken(text))
    text = re.sub(r"\b([A-Za-z]{2,5})\.", _abbreviation, text)
    text = re.sub(r"\b([A-Z])\. (?=[A-Z])", lambda m: f"{LETTERS[m[1].lower()]} ", text)
    text = re.sub(r"(?<=[A-Za-z])-(?=[A-Za-z])", " ", text)
    text = re.sub(r"\s[-\u2013\u2014]+\s|\s--+\s?", ", ", text)
    return " ".join("".join(_SYMBOLS.get(each, each) for each in text).split())


def spelled(text: str) -> str:
    """Letters and digits one by one, as words."""
    return " ".join(LETTERS.get(each, each) if each.isalpha() else numbers_spoken(each) for each in text.lower())


def _said(token: str, shouted: bool, inside: bool) -> Sequence[str]:
    """A word of letters as the words that are said. A letter alone is said by its name, but for the words a and I; a
    large A is one at the beginning of a sentence only."""
    bare = token.rstrip("'")
    if len(bare) == 1 and (bare not in "aAIi" or (bare == "A" and inside and not shouted)):
        return LETTERS[bare.lower()].split("-")
    capitals = re.fullmatch(r"([A-Z]{2,6})('?s)?", bare)
    if capitals and not shouted and _is_spelled(capitals[1]):
        *front, last = spelled(capitals[1]).replace("-", " ").split()
        return [*front, last + ("'s" if capitals[2] else "")]
    return [bare.lower()] if bare else []


def _is_spelled(capitals: str) -> bool:
    if capitals in _SAID_AS_WORDS:
        return False
    return len(capitals) <= 3 or not re.search("[AEIOUY]", capitals) or len(capitals) == 4


def _goes_on(word: str, rest: str) -> bool:
    """Whether a full stop behind `word` does not end a sentence."""
    lower = word.lower().rstrip(".")
    titles = {"mr", "mrs", "ms", "dr", "prof", "st", "gen", "capt", "lt", "col", "rev", "hon", "sgt", "gov", "sen",
              "rep", "vs", "fig", "vol", "p", "pp", "no", "nos", "cf", "ca", "mt", "approx", "jan", "feb", "mar", "apr",
              "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"}  # fmt: skip
    if lower in titles or lower in ("e.g", "i.e"):
        return True
    return len(lower) == 1 and word[0].isupper() and word != "I" and bool(re.match(r"[\"']?[A-Z]", rest))


def _abbreviation(found: re.Match[str]) -> str:
    said = _ABBREVIATIONS.get(found[1].lower())
    if said is None or found[1] in ("co", "al", "mar", "dec", "sen", "rep", "gen", "mt", "col"):
        return found.group()
    at_end = not found.string[found.end() :].strip(" \"')")
    return said + ("." if at_end else "")


def _initial(found: re.Match[str]) -> str:
    return f"{LETTERS[(found[1] or found[2]).lower()]} "


def _address(text: str) -> str:
    """A web or mail address: without its scheme, dots and slashes by name."""
    end = re.search(r"[.,;:!?)\]]+$", text)
    tail = end.group() if end else ""
    text = re.sub(r"^https?://", "", text[: len(text) - len(tail)]).rstrip("/")
    text = re.sub(r"^www\.", "double you, double you, double you dot ", text)
    for sign, name in _IN_ADDRESSES.items():
        text = text.replace(sign, f" {name} ")
    return f"{text}{tail}"


def _clean(text: str) -> str:
    """Straight quotes, letters without their accents, no invisible characters; private ones are ours alone."""
    plain = []
    for each in text.translate(_QUOTES):
        if each in _FOREIGN:
            plain.append(_FOREIGN[each])
        elif each.isascii() or each in _SYMBOLS or _INSERTED[0] <= each <= _INSERTED[1]:
            plain.append(each)
        else:
            parts = unicodedata.normalize("NFKD", each)
            base = "".join(part for part in parts if not unicodedata.combining(part))
            known = base.isascii() and base and base.isprintable()
            plain.append(base if known else "" if unicodedata.category(each) in ("Cf", "Mn") else each)
    return " ".join("".join(plain).split())


def _shown(text: str) -> str:
    return " ".join("".join("" if _INSERTED[0] <= each <= _INSERTED[1] else each for each in text).split())


def _script(character: str) -> str:
    """"Chinese", "Greek", ... of a letter; "" of what is no letter."""
    if not character.isalpha():
        return ""
    first = unicodedata.name(character, "unknown").split(" ")[0]
    return "Chinese" if first == "CJK" else first.capitalize()


def _named(character: str) -> str:
    return f"{character} {unicodedata.name(character, 'without a name').lower()}"


