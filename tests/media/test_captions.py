from __future__ import annotations

import json
import re

import pytest

from conjure.media.captions import (
    Format,
    Segment,
    Word,
    Writer,
    as_json,
    as_markdown,
    as_srt,
    as_text,
    as_vtt,
    clock,
    shortened,
    written,
)

TALK = (
    Segment(0.0, 1.5, "Good morning, ladies & gentlemen.", language="en", confidence=-0.25, temperature=0.0),
    Segment(1.5, 3.25, "It is <late>.", (Word(1.5, 2.0, "It", 0.9), Word(2.0, 3.25, "is", 0.51239)), "en"),
    Segment(3723.4567, 3725.0, "A --> B", language="en"),
)


def test_srt() -> None:
    assert as_srt(TALK) == (
        "1\n00:00:00,000 --> 00:00:01,500\nGood morning, ladies & gentlemen.\n\n"
        "2\n00:00:01,500 --> 00:00:03,250\nIt is <late>.\n\n"
        "3\n01:02:03,457 --> 01:02:05,000\nA -> B\n\n"
    )


def test_vtt_escapes_what_would_be_read_as_marks() -> None:
    made = as_vtt(TALK)
    assert made.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nGood morning, ladies &amp; gentlemen.\n\n")
    assert "It is &lt;late&gt;." in made and made.count("-->") == 3 + 0 and "A --&gt; B" in made
    assert as_vtt(()) == "WEBVTT\n"


def test_text_and_markdown_begin_anew_after_a_pause() -> None:
    assert as_text(TALK) == "Good morning, ladies & gentlemen. It is <late>.\nA --> B"
    assert as_markdown(TALK) == (
        "**[00:00:00]** Good morning, ladies & gentlemen. It is <late>.\n\n**[01:02:03]** A --> B"
    )
    chinese = [Segment(0, 1, "你好", language="zh"), Segment(1, 2, "世界", language="zh")]
    assert as_text(chinese) == "你好世界"


def test_json_tells_what_is_known() -> None:
    said = json.loads(as_json(TALK))
    assert said["text"] == as_text(TALK) and len(said["segments"]) == 3
    assert said["segments"][0] == {
        "start": 0.0, "end": 1.5, "text": "Good morning, ladies & gentlemen.", "language": "en", "confidence": -0.25,
        "temperature": 0.0,
    }  # fmt: skip
    assert said["segments"][1]["words"][1] == {"start": 2.0, "end": 3.25, "text": "is", "probability": 0.5124}
    assert said["segments"][2]["start"] == 3723.457


@pytest.mark.parametrize("layout", ["txt", "srt", "vtt", "json", "md"])
def test_pieces_are_the_file(layout: Format) -> None:
    writer = Writer(layout)
    pieces = [writer.push(each) for each in TALK]
    assert "".join([*pieces, writer.finish()]) == written(TALK, layout)
    assert all(pieces) or layout == "json"


def test_who_speaks_stands_where_it_changes() -> None:
    names = ("Ann", "Ann", "<Ben>")
    talk = [Segment(n, n + 0.9, text, speaker=name) for n, (text, name) in enumerate(zip("abc", names, strict=True))]
    assert as_text(talk) == "Ann: a b\n<Ben>: c"
    assert as_markdown(talk) == "**[00:00:00] Ann** a b\n\n**[00:00:02] <Ben>** c"
    assert "\nAnn: a\n" in as_srt(talk) and "\nAnn: b\n" in as_srt(talk) and "\n<Ben>: c\n" in as_srt(talk)
    assert "\n<v Ann>b\n" in as_vtt(talk) and "\n<v &lt;Ben&gt;>c\n" in as_vtt(talk)
    assert [each["speaker"] for each in json.loads(as_json(talk))["segments"]] == list(names)


def test_nothing_said() -> None:
    assert as_text(()) == as_srt(()) == as_markdown(()) == ""
    assert json.loads(as_json(())) == {"text": "", "segments": []}


def test_lines_of_captions_have_a_width() -> None:
    lines = as_srt([Segment(0, 9, "one two three four five six seven eight nine ten")], 20).splitlines()[2:]
    assert lines == ["one two three four", "five six seven eight", "nine ten", ""]


def test_clock() -> None:
    assert clock(-1, ".") == "00:00:00.000" and clock(59.9996, ",") == "00:01:00,000"
    assert clock(360_000, ".") == "100:00:00.000"


def test_long_segments_are_cut_between_words() -> None:
    said = "When it was late, we went home and slept until the sun came up again."
    words = tuple(Word(float(n), n + 0.5, each) for n, each in enumerate(said.split()))
    parts = shortened(Segment(0.0, 20.0, said, words, "en"), 30)
    assert " ".join(part.text for part in parts) == said and all(len(part.text) <= 30 for part in parts)
    assert parts[0].text == "When it was late," and (parts[0].start, parts[0].end) == (0.0, 3.5)
    assert parts[1].start == 4.0 and re.match("we went", parts[1].text)
    plain = Segment(0.0, 20.0, said)
    assert shortened(plain, 30) == [plain]
