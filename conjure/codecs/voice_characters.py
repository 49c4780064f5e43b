"""What public voices read: the characters of a language with blanks between (VITS, MMS-TTS), and texts in parts that
are short enough for a voice.

The files are those of the hub: `vocab.json` and `tokenizer_config.json`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from conjure.core.errors import ConjureError
from conjure.core.json_files import read_json

END = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|\s*\n\s*")
"""Where a sentence ends."""
SOFT = re.compile(r"(?<=[,;:])\s+")
"""Where a long one may be cut."""


def parts(text: str, longest: int) -> list[str]:
    """The sentences of a text, none empty, those above `longest` characters cut at commas, else at spaces, else
    anywhere."""
    found = []
    for sentence in (each.strip() for each in END.split(text)):
        if sentence:
            found += _cut(sentence, longest, (SOFT, re.compile(r"\s+")))
    return found


def _cut(text: str, longest: int, borders: tuple[re.Pattern[str], ...]) -> list[str]:
    if len(text) <= longest:
        return [text]
    if not borders:
        return [text[start : start + longest] for start in range(0, len(text), longest)]
    made = list[str]()
    for piece in borders[0].split(text):
        if made and len(made[-1]) + 1 + len(piece) <= longest:
            made[-1] += f" {piece}"
        else:
            made += _cut(piece, longest, borders[1:])
    return made


@dataclass(frozen=True, kw_only=True)
class VoiceCharacters:
    """`encode(text) -> ids`, as the voice's files want it."""

    ids: dict[str, int]
    blanks: bool = True
    """Id 0 before, between and behind all others."""
    small: bool = True
    """Letters that the voice does not know as capitals are made small, and what it does not know is left out."""
    unknown: int = 0
    """What stands for other characters where they are not left out."""
    language: str = ""
    romanised: bool = False
    """It reads texts in Latin letters that stand for another script (uroman)."""

    @classmethod
    def load(cls, folder: Path) -> VoiceCharacters:
        """Of a folder as the hub has it.

        Raises `ConjureError` where files are missing, and for voices that read phonemes, which take espeak.
        """
        listed, said = read_json(folder / "vocab.json"), read_json(folder / "tokenizer_config.json")
        if not listed:
            raise ConjureError(f"{folder} has no vocab.json: the characters that the voice reads are not known",
                               hint="fetch the model again, with all of its files")  # fmt: skip
        if any(type(index) is not int for index in listed.values()):
            raise ConjureError(f"{folder / 'vocab.json'}: expected an id for each character",
                               hint="fetch the model again")  # fmt: skip
        if said.get("phonemize", True):
            raise ConjureError(f"{folder.name} reads phonemes as espeak writes them, not letters",
                               hint="take a voice of MMS-TTS, such as facebook/mms-tts-eng")  # fmt: skip
        unknown = said.get("unk_token", "<unk>")
        return cls(
            ids=listed, blanks=bool(said.get("add_blank", True)), small=bool(said.get("normalize", True)),
            unknown=listed.get(unknown if isinstance(unknown, str) else "<unk>", 0),
            language=str(said.get("language", "")), romanised=bool(said.get("is_uroman", False)),
        )  # fmt: skip

    def known(self, text: str) -> tuple[str, str]:
        """(what of the text will be read, the characters that will not, each once)."""
        if self.small:
            text = "".join(each if each in self.ids else each.lower() for each in text)
        if self.language == "ron":
            text = text.replace("ț", "ţ")
        if self.romanised and not text.isascii():
            raise ConjureError(
                "this voice reads its language in Latin letters (uroman), the text has others",
                hint="romanise the text first, for example with the program uroman: pip install uroman",
            )
        left_out = "".join(dict.fromkeys(each for each in text if each not in self.ids and not each.isspace()))
        if not self.small:
            return text, left_out
        return "".join(each for each in text if each in self.ids).strip(), left_out

    def encode(self, text: str) -> list[int]:
        """The ids of what is known of a text; none where nothing is."""
        ids = [self.ids.get(each, self.unknown) for each in self.known(text)[0]]
        if not self.blanks or not ids:
            return ids
        spaced = [0] * (2 * len(ids) + 1)
        spaced[1::2] = ids
        return spaced
