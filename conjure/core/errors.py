"""The one exception that users see, and the search for the name they meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConjureError(Exception):
    """Something the user can put right: what was expected, what came, and what to do about it.

    `message` says what was expected and what came; `hint` (may be empty) says what to do.
    The command line prints both without a traceback and exits with code 2.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


def nearest(name: str, options: Iterable[str], n: int = 3) -> list[str]:
    """The at most `n` options most like `name`, best first; upper and lower case count as equal."""
    spelling = {option.lower(): option for option in options}
    found = difflib.get_close_matches(name.lower(), list(spelling), n=n, cutoff=0.6)
    return [spelling[match] for match in found]


def suggest(name: str, options: Iterable[str]) -> str:
    """A hint: "did you mean 'x'?" where something is near, else the list of what there is."""
    known = list(options)
    close = nearest(name, known, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    shown = ", ".join(sorted(known)[:30])
    return f"known: {shown}{', ...' if len(known) > 30 else ''}" if known else "there is none yet"
