"""Textual inversion: words whose vectors were learnt (Gal et al. 2022, arXiv 2208.01618), as files hold them.

| written by | tensors | the word |
|---|---|---|
| diffusers | `WORD`: [D] or [n, D] | WORD |
| A1111 | `emb_params`: [n, D] | the file's name |
| trainers for SDXL | `clip_l`: [n, 768], `clip_g`: [n, 1280] | the file's name |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from conjure.core.errors import ConjureError
from conjure.models.checkpoint import PICKLES
from conjure.models.public.diffusers import Files

PARTS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
LARGEST = 64
"""Vectors of a word: more fit no prompt."""


@dataclass(frozen=True)
class Word:
    """A word, and its vectors `[n, D]` for each text encoder by name; "" where the width alone tells which one."""

    text: str
    vectors: Mapping[str, Tensor]


def read(path: Path) -> list[Word]:
    """The words in a file."""
    if path.is_dir():
        path = path / "learned_embeds.safetensors"
    if any(path.match(pattern) for pattern in PICKLES):
        raise ConjureError(f"{path} is a pickle, which can run code when opened; it is never read",
                           hint="look for the embedding as safetensors")
    if not path.is_file():
        raise ConjureError(f"{path}: there is no such embedding", hint="name a .safetensors file")
    files = Files([path])
    found = {name: files.tensor(name) for name in files.names()}
    if found.keys() <= PARTS.keys() and found:
        return [Word(path.stem, {PARTS[name]: _rows(path, tensor) for name, tensor in found.items()})]
    if "emb_params" in found:
        return [Word(path.stem, {"": _rows(path, found["emb_params"])})]
    if not found:
        raise ConjureError(f"{path}: holds no vectors", hint="it is no textual inversion")
    return [Word(name, {"": _rows(path, tensor)}) for name, tensor in found.items()]


def _rows(path: Path, tensor: Tensor) -> Tensor:
    rows = tensor[None] if tensor.dim() == 1 else tensor
    if rows.dim() != 2 or not 1 <= len(rows) <= LARGEST or not rows.is_floating_point():
        raise ConjureError(f"{path}: expected vectors [n, D] with n up to {LARGEST}, got {list(tensor.shape)}",
                           hint="it is no textual inversion")
    return rows.float()
