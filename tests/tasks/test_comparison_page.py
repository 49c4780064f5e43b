from __future__ import annotations

import base64
from html.parser import HTMLParser

import numpy as np

from conjure import media
from conjure.media.image import Image
from conjure.tasks.compare import Comparison, Outcome, Wish
from conjure.tasks.comparison_page import SHOWN, page

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Checks that tags are closed in their order, and keeps what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.alternatives: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        given = dict(attrs)
        assert not any(name.startswith("on") for name in given)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "img":
            self.alternatives.append(given["alt"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def png(value: int) -> bytes:
    return media.encode(Image(np.full((4, 4, 3), value, np.uint8)), ".png")


def comparison(count: int = 2, prompt: str = "a <red> apple & more") -> Comparison:
    facts = {"parameters": 6_368_353, "licence": "Apache-2.0", "seconds": 2.5, "load_seconds": 0.25, "evaluations": 8,
             "peak_memory_bytes": 405_000_000, "options": {"steps": 8}, "notes": ["has no --strength"],
             "sizes": [[4, 4]] * count}  # fmt: skip
    spread = {"value": 0.28, "low": 0.2, "high": 0.3, "n": count, "protocol": "spread of <pixels>"}
    fine = Outcome(name="starter/x", facts=facts, pictures=tuple(map(png, range(count))), metrics={"spread": spread})
    failed = Outcome(name="./bro&ken", facts={"licence": ""}, error="it <fails>\nagain", hint="try & try")
    wish = Wish(inputs=(prompt,), seed=7, count=count, evaluations=8, options={"guidance": "2"})
    return Comparison(wish=wish, outcomes=(fine, failed), features="pixels")


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    text = page(comparison())
    reader = read(text)
    assert text.startswith("<!doctype html>") and "http:" not in text and "https:" not in text
    assert "url(" not in text and "@import" not in text
    kept = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in reader.sources]
    assert kept == [png(0), png(1)]
    assert reader.alternatives == ["starter/x, seed 7", "starter/x, seed 8"]


def test_it_fits_a_phone_and_both_colours() -> None:
    text = page(comparison())
    assert '<meta name="viewport" content="width=device-width,initial-scale=1">' in text
    assert "prefers-color-scheme:dark" in text and "color-scheme:light dark" in text
    assert "@media(max-width:40rem)" in text
    assert "--seeds:2" in text


def test_everything_is_said_and_escaped() -> None:
    said = read(page(comparison())).text
    for part in ("a <red> apple & more", "seeds 7 to 8, at most 8 evaluations a picture, guidance 2", "6,368,353",
                 "2.50 s", "0.25 s", "405 MB", "Apache-2.0", "0.28", "0.2 to 0.3", "spread of <pixels>", "./bro&ken",
                 "it <fails>\nagain\ntry & try", "unstated", "has no --strength", "4x4; 4x4"):  # fmt: skip
        assert part in said, part
    assert "shown" not in said


def test_many_pictures_are_measured_and_not_all_shown() -> None:
    reader = read(page(comparison(count=SHOWN + 3)))
    assert len(reader.sources) == SHOWN and f"the first {SHOWN} of them shown" in reader.text
