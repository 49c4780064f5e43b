"""A small set of sentence pairs, as files of the set `tatoeba` are written."""

from __future__ import annotations

import gzip
from pathlib import Path

NAMES = ("Tom", "Mary", "Ana", "Luis", "John")
THINGS = (("house", "casa"), ("dog", "perro"), ("book", "libro"), ("boat", "barco"), ("tree", "árbol"),
          ("river", "río"), ("night", "noche"), ("friend", "amigo"))  # fmt: skip
FRAMES = (("{} sees the {}.", "{} ve: {}."), ("Where is the {1} of {0}?", "¿Dónde está: {1} de {0}?"),
          ("{} doesn't want a {}.", "{} no quiere: {}."))  # fmt: skip


def pairs() -> list[tuple[str, str]]:
    """120 of them, each sentence once."""
    return [
        (english.format(name, thing[0]), spanish.format(name, thing[1]))
        for english, spanish in FRAMES for name in NAMES for thing in THINGS
    ]  # fmt: skip


def write_pairs(folder: Path) -> None:
    """The set below `folder`, gzipped, with a third column as newer files have."""
    (folder / "tatoeba").mkdir(parents=True)
    lines = "".join(f"{english}\t{spanish}\tCC-BY 2.0\n" for english, spanish in pairs())
    (folder / "tatoeba" / "spa-eng.tsv.gz").write_bytes(gzip.compress(lines.encode()))
