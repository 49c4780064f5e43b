from __future__ import annotations

import pytest

from conjure.core.errors import ConjureError
from conjure.media.kinds import READ_ONLY, SUFFIXES, in_container, kind_of, looks_like_file, sniff, writable


@pytest.mark.parametrize(
    ("path", "kind"),
    [("a.png", "image"), ("b/A.JPEG", "image"), ("x.y.webp", "image"), ("a.md", "text"), ("a.TXT", "text"),
     ("a.SRT", "text"), ("talk.wav", "audio"), ("a.MP3", "audio"), ("film.mp4", "audio"), ("a.mid", "music")],
)
def test_kinds(path: str, kind: str) -> None:
    assert kind_of(path) == kind


@pytest.mark.parametrize("path", ["a.xyz", "noise", "a.", ".png", ""])
def test_unknown_suffixes_list_the_known(path: str) -> None:
    with pytest.raises(ConjureError) as caught:
        kind_of(path)
    assert "image .png" in caught.value.hint
    assert "text .txt .md" in caught.value.hint
    assert "audio .wav .flac .mp3 .ogg .opus" in caught.value.hint


def test_a_slip_is_suggested() -> None:
    with pytest.raises(ConjureError) as caught:
        kind_of("a.pngg")
    assert caught.value.hint.startswith("did you mean '.png'?")


@pytest.mark.parametrize(
    "arg", ["photo.png", "a/b.webp", "../x.TXT", "talk.wav", "x.mp4", "my.model.pdf", "C:\\a.png"]
)
def test_file_names(arg: str) -> None:
    assert looks_like_file(arg)


@pytest.mark.parametrize(
    "arg",
    [
        "a red apple",
        "apple",
        "Hello.",
        "see photo.png please",
        "1.5",
        "e.g.",
        "...",
        "",
        ".",
        "v1.0",
        "a.b c",
        "x.\n",
        ".png",
    ],
)
def test_prompts(arg: str) -> None:
    assert not looks_like_file(arg)


def test_what_is_written_is_known_and_not_read_only() -> None:
    assert set(writable("image")) == {".png", ".jpg", ".jpeg", ".webp"}
    assert set(writable("text")) == {".txt", ".md", ".json", ".py", ".srt", ".vtt", ".rttm"}
    assert set(writable("audio")) == {".wav", ".flac", ".mp3", ".ogg", ".opus"}
    assert writable("audio")[0] == ".wav"
    assert READ_ONLY.issubset(SUFFIXES)


def test_sniff() -> None:
    assert sniff(b"\x89PNG\r\n\x1a\n....") == "image"
    assert sniff(b"RIFF\0\0\0\0WEBPVP8 ") == "image"
    assert sniff(b"BM is how this sentence starts") == "text"
    assert sniff(b"") == "text"
    assert sniff(b"MThd\0\0\0\x06\0\x01") == "music"


@pytest.mark.parametrize(
    "head",
    [
        b"RIFF\0\0\0\0WAVEfmt ",
        b"RF64\xff\xff\xff\xffWAVEds64",
        b"FORM\0\0\0\0AIFFCOMM",
        b"fLaC\0\0\0\x22\x10\0",
        b"OggS\0\x02\0\0",
        b"ID3\x03\0\0\0\0\x0b\x7f",
        b"\xff\xfb\x90\x64",
        b"\xff\xf3\x40\xc4",
        b"\xff\xf1P\x80",
        b"\0\0\0\x1cftypM4A \0\0\2\0",
        b"\0\0\0\x14ftypqt  \0\0\2\0",
        b"\x1a\x45\xdf\xa3\x9fB\x86\x81",
    ],
)
def test_sound_is_seen_by_its_first_bytes(head: bytes) -> None:
    assert sniff(head) == "audio"
    assert in_container(head) == (head[:2] in (b"\0\0", b"\x1a\x45", b"\xff\xf1"))


@pytest.mark.parametrize(
    "head",
    [
        "hello".encode("utf-16"),
        b"\xff\xfe\x41\0B\0",
        b"\xfe\xff\0\x41",
        b"\xff",
        b"\xff\xfb",
        b"\xff\xfb\xff\xff",
        b"ID3 tags are old",
        b"ID3",
        b"OggS is a word",
        b"fLaC too, I say",
        b"RIFF\0\0\0\0AVI LIST",
        b"\0\0\0\x1cftypavif\0\0\0\0",
        b"MThd is a word",
    ],
)
def test_what_only_resembles_sound(head: bytes) -> None:
    assert sniff(head) == "text"
