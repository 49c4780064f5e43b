"""Text as the small letters that a listener writes, and back to sentences.

What is heard has no capitals and no stops; `sentence` puts in those that a rule knows.
"""

from __future__ import annotations

import re
import unicodedata

SYMBOLS = ("", " ", "'", *"abcdefghijklmnopqrstuvwxyz")
"""The first is CTC's blank, the second the border of words."""
_IDS = {symbol: index for index, symbol in enumerate(SYMBOLS)}
_ALWAYS = {"i": "I", "i'm": "I'm", "i've": "I've", "i'll": "I'll", "i'd": "I'd", "mister": "Mr.", "missus": "Mrs."}


def spelled(text: str) -> str:
    """The text in these symbols: small letters without accents, words with single spaces between; apostrophes stay only
    inside words, all other signs are borders of words. What is in brackets stays."""
    plain = unicodedata.normalize("NFKD", text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")).lower()
    plain = "".join(each for each in plain if not unicodedata.combining(each))
    plain = re.sub(r"(?<![a-z])'|'(?![a-z])|[^a-z']", " ", plain)
    return " ".join(plain.split())


def encode(text: str) -> list[int]:
    """The ids of `spelled(text)`."""
    return [_IDS[symbol] for symbol in spelled(text)]


def sentence(text: str) -> str:
    """Words in small letters as a sentence: a capital at its beginning, "I" and titles as they are written, a full stop
    behind it. Names stay small: nothing here knows them."""
    words = [_ALWAYS.get(word, word) for word in text.split()]
    if not words:
        return ""
    words[0] = words[0][0].upper() + words[0][1:]
    return " ".join(words) + ("" if words[-1].endswith(".") else ".")
