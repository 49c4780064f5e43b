"""SentencePiece `.model` files for the `tokenizers` library (Kudo and Richardson 2018, arXiv 1808.06226).

A `.model` is one protobuf message; the few fields that matter are read from the wire format by hand, so neither the
sentencepiece nor the protobuf package is needed. Field numbers are those of `sentencepiece_model.proto`.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from conjure.core.errors import ConjureError

SPACE = "▁"
"""U+2581: how pieces write a space."""
UNIGRAM, BPE, CHARACTERS = 1, 2, 4
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
LONGEST = 16
"""Characters that one rule can be about."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Piece:
    text: str
    score: float
    kind: int = NORMAL


@dataclass(frozen=True, kw_only=True)
class SentencePiece:
    """What a `.model` says: its pieces by id, and how text is normalised before it is cut into them."""

    pieces: tuple[Piece, ...]
    algorithm: int = UNIGRAM
    unknown: int = 0
    byte_fallback: bool = False
    charsmap: bytes = b""
    """Rules for replacing characters, compiled; empty for none."""
    dummy_prefix: bool = True
    """A space is put in front of the text."""
    collapse: bool = True
    """Spaces at both ends are dropped, and several in a row are one."""


def read(data: bytes, name: str) -> SentencePiece:
    """The model in the bytes of a `.model` file; `name` is for errors. `ConjureError` where it is none."""
    try:
        pieces, trainer, normalizer = [], {}, {}
        for number, value in _fields(data):
            if number == 1:
                pieces.append(_piece(dict(_fields(_binary(value)))))
            elif number == 2:
                trainer = dict(_fields(_binary(value)))
            elif number == 3:
                normalizer = dict(_fields(_binary(value)))
    except (ValueError, IndexError, struct.error) as error:
        raise ConjureError(f"{name} is no SentencePiece model: {error}", hint="fetch it again") from None
    algorithm = int(trainer.get(3, UNIGRAM))
    if algorithm == CHARACTERS:  # with pieces of one character there is one way to cut a text
        algorithm = UNIGRAM
    if not pieces or algorithm not in (UNIGRAM, BPE) or trainer.get(24):
        raise ConjureError(
            f"{name}: expected a SentencePiece model of kind unigram, bpe or char with spaces in front of words, "
            f"got kind {algorithm} with {len(pieces)} pieces"
        )
    return SentencePiece(
        pieces=tuple(pieces),
        algorithm=algorithm,
        unknown=int(trainer.get(40, 0)),
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=_binary(normalizer.get(2, b"")),
        dummy_prefix=bool(normalizer.get(3, 1)),
        collapse=bool(normalizer.get(4, 1)),
    )


def _piece(fields: dict[int, int | bytes]) -> Piece:
    (score,) = struct.unpack("<f", _binary(fields.get(2, bytes(4))))
    return Piece(_binary(fields.get(1, b"")).decode(), score, int(fields.get(3, NORMAL)))


def _binary(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError(f"expected bytes, got the number {value}")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field of one protobuf message: varints as int, all others as their bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"it ends within a field, at byte {len(data)}")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError(f"a number without end at byte {at}")


class Charsmap:
    """A model's rules for replacing characters, applied as SentencePiece does: at each place the longest that fits.

    (The library's `Precompiled` looks at whole grapheme clusters and misses some with several marks.) The rules are a
    double-array trie as darts-clone writes it, whose values are places in a list of texts that end with a zero byte.
    """

    def __init__(self, model: SentencePiece, lower: bool = False) -> None:
        size = int.from_bytes(model.charsmap[:4], "little")
        if size % 4 or size + 4 > len(model.charsmap):
            raise ConjureError("the character rules of this SentencePiece model are cut off", hint="fetch it again")
        self.units = struct.unpack(f"<{size // 4}I", model.charsmap[4 : 4 + size])
        self.texts = model.charsmap[4 + size :]
        self._known: dict[str, tuple[str, bool]] = {}
        own = sorted((p.text for p in model.pieces if p.kind == USER_DEFINED), key=len, reverse=True)
        # Mostly there are no rules for ASCII alone: then it matters only where another character follows.
        plain = all(self._single(chr(code))[0] == chr(code) for code in range(32, 127))
        runs = r"[\x20-\x7e]?[^\x20-\x7e]+" if plain else r"[\s\S]+?(?=\s|\Z)"
        self.pattern = re.compile("|".join([*map(re.escape, own), runs]))
        self.own, self.lower = frozenset(own), lower

    def __call__(self, text: str) -> str:
        text = text.lower() if self.lower else text
        return self.pattern.sub(lambda found: "".join(new for new, _ in self._replaced(found[0])), text)

    def aligned(self, text: str) -> tuple[str, list[int]]:
        """The new text, and for each of its characters, and for its end, where that was in the old."""
        parts: list[str] = []
        places: list[int] = []
        at = 0
        text = "".join(low if len(low := letter.lower()) == 1 else letter for letter in text) if self.lower else text
        for found in [*self.pattern.finditer(text), None]:
            start = len(text) if found is None else found.start()
            parts.append(text[at:start])
            places += range(at, start)
            at = start
            for new, length in [] if found is None else self._replaced(found[0]):
                parts.append(new)
                places += [at] * len(new)
                at += length
        return "".join(parts), [*places, len(text)]

    def _replaced(self, run: str) -> Iterator[tuple[str, int]]:
        """(new text, characters it is for), from left to right."""
        if run in self.own:
            yield run, len(run)
            return
        at = 0
        while at < len(run):
            new, more = self._single(run[at])
            length = 1
            if more:
                data = run[at : at + LONGEST].encode(errors="surrogatepass")
                found, value = self._longest(data)
                count = len(data[:found].decode(errors="surrogatepass"))
                if count > 1:
                    new, length = self._text(value), count
            yield new, length
            at += length

    def _single(self, letter: str) -> tuple[str, bool]:
        """What one character becomes, and whether a longer rule begins with it."""
        if letter not in self._known:
            data = letter.encode(errors="surrogatepass")
            found, value = self._longest(data)
            new = self._text(value) if found == len(data) else letter
            self._known[letter] = new, any(self._reaches(data + bytes([byte])) for byte in range(1, 256))
        return self._known[letter]

    def _text(self, value: int) -> str:
        return self.texts[value : self.texts.index(0, value)].decode()

    def _reaches(self, data: bytes) -> bool:
        node = _below(self.units[0])
        for byte in data:
            node ^= byte
            if node >= len(self.units) or self.units[node] & 0x800000FF != byte:
                return False
            node ^= _below(self.units[node])
        return True

    def _longest(self, data: bytes) -> tuple[int, int]:
        """(bytes, value) of the longest rule that begins here; 0 bytes for none."""
        units, best, value = self.units, 0, 0
        node = _below(units[0])
        for length, byte in enumerate(data, 1):
            node ^= byte
            if node >= len(units) or units[node] & 0x800000FF != byte:
                break
            leaf = units[node] >> 8 & 1
            node ^= _below(units[node])
            if leaf:
                best, value = length, units[node] & 0x7FFFFFFF
        return best, value


def _below(unit: int) -> int:
    """How far the children of a node of the trie are from it."""
    return unit >> 10 << ((unit & 1 << 9) >> 6)


def backend(model: SentencePiece) -> Backend:
    """The same tokenizer in the `tokenizers` library: ids are positions in `model.pieces`.

    Control pieces become special tokens. User-defined pieces are found before all others. Text must go through the
    model's `Charsmap` first, where it has one.
    """
    made = Backend(_unigram(model) if model.algorithm == UNIGRAM else _bpe(model))
    made.normalizer = _normalizer(model)
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if model.dummy_prefix else parts)
    special = [p.text for p in model.pieces if p.kind in (CONTROL, UNKNOWN)]
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    if model.algorithm == BPE:
        # The prefix would be put in front of an added token too where that is matched in normalised text.
        own = [p.text for p in model.pieces if p.kind == USER_DEFINED]
        made.add_tokens([AddedToken(text, normalized=not model.dummy_prefix) for text in own])
    guard(made, special)
    return made


def _normalizer(model: SentencePiece) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if model.collapse:
        steps += [normalizers.Replace(Regex(r"\A +"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    steps.append(normalizers.Replace(" ", SPACE))
    if model.collapse:
        steps.append(normalizers.Replace(Regex(rf"{SPACE}+\z"), ""))
    if model.dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence(steps)


def _unigram(model: SentencePiece) -> models.Unigram:
    """User-defined pieces score so much that they always win, as in SentencePiece itself."""
    best = max((p.score for p in model.pieces if p.kind == NORMAL), default=0.0)
    scored = [
        (p.text, len(p.text) * best - 0.1 if p.kind == USER_DEFINED else p.score) for p in model.pieces
    ]
    return models.Unigram(scored, model.unknown, model.byte_fallback)


def _bpe(model: SentencePiece) -> models.BPE:
    """A `.model` has scores and no merges: every way to make one piece of two is a merge, best score first."""
    ids = {p.text: i for i, p in enumerate(model.pieces)}
    mergeable = {p.text: i for i, p in enumerate(model.pieces) if p.kind in (NORMAL, USER_DEFINED)}
    found: list[tuple[float, int, int, str, str]] = []
    for text in mergeable:
        score = model.pieces[ids[text]].score
        for cut in range(1, len(text)):
            left, right = mergeable.get(text[:cut]), mergeable.get(text[cut:])
            if left is not None and right is not None:
                found.append((-score, left, right, text[:cut], text[cut:]))
    found.sort()
    return models.BPE(
        ids, [(left, right) for _, _, _, left, right in found], fuse_unk=True, byte_fallback=model.byte_fallback,
        unk_token=model.pieces[model.unknown].text,
    )  # fmt: skip


def guard(made: Backend, special: Collection[str]) -> None:
    """Cut text after the first character of what reads like one of these special tokens or like a byte (`<0x0A>`).

    The models of this library look their special tokens up like all others, so without it the text `</s>` would be
    the end of a text. Special tokens that the caller lets through are found before.
    """
    longer = sorted({text for text in special if len(text) > 1})
    heads = [(head, [re.escape(text[1:]) for text in rest]) for head, rest in groupby(longer, lambda text: text[0])]
    if not any(head == "<" for head, _ in heads):
        heads.append(("<", []))
    byte = "0x[0-9A-F]{2}>"
    pattern = "|".join(
        f"{re.escape(head)}(?={'|'.join([*rest, byte] if head == '<' else rest)})" for head, rest in heads
    )
    before = made.pre_tokenizer
    if before is not None and json.dumps(pattern, ensure_ascii=False).encode() in before.__getstate__():
        return
    cut = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    made.pre_tokenizer = cut if before is None else pre_tokenizers.Sequence([before, cut])


def fairseq(model: SentencePiece, after: Sequence[str] = ()) -> SentencePiece:
    """The order of ids in fairseq's models (XLM-R, mBART, NLLB): `<s> <pad> </s> <unk>` first, then the pieces without
    their own first three, so that ids are SentencePiece's plus one; then what comes `after`."""
    first = [Piece(text, 0.0, CONTROL) for text in ("<s>", "<pad>", "</s>")]
    last = [Piece(text, 0.0, CONTROL) for text in after]
    return replace(model, pieces=(*first, Piece("<unk>", 0.0, UNKNOWN), *model.pieces[3:], *last), unknown=3)
