"""Stop strings in a stream of text, wherever the borders between its pieces fall."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """`push(piece)` returns the text that is certain to come before any stop string; `finish()` the rest.

    The text ends before the stop string that is complete first (the longest, if several end together),
    whatever the pieces are; then `stopped` is true and what is pushed is dropped. Text that could begin a
    stop string is held back until it is known to be none.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = [stop for stop in stops if stop]
        self.held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        """The part of the text so far that may be shown, beyond what was returned before."""
        if self.stopped:
            return ""
        text = self.held + piece
        found = [(text.find(stop) + len(stop), -len(stop)) for stop in self.stops if stop in text]
        if found:
            self.stopped, self.held = True, ""
            end, minus_length = min(found)
            return text[: end + minus_length]
        certain = len(text) - max((_overlap(text, stop) for stop in self.stops), default=0)
        self.held = text[certain:]
        return text[:certain]

    def finish(self) -> str:
        """What was held back, now that no more text comes."""
        rest, self.held = self.held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
