"""What a reader types where a seed is asked for."""

from __future__ import annotations

import os

from conjure.core.errors import ConjureError


def seed_of(said: str) -> int:
    """The number that was typed, or one at random where nothing was."""
    text = said.strip()
    if not text:
        return int.from_bytes(os.urandom(4), "little")
    if not text.isdecimal() or len(text) > 15:
        raise ConjureError(f"Seed: expected a whole number of at most 15 digits, got {text!r}",
                           hint="leave it empty for one at random")  # fmt: skip
    return int(text)
