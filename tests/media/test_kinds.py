from __future__ import annotations

import pytest

from conjure.core.errors import ConjureError
from conjure.media.kinds import READ_ONLY, SUFFIXES, kind_of, looks_like_file, sniff, writable


@pytest.mark.parametrize(
    ("path", "kind"),
    [("a.png", "image"), ("b/A.JPEG", "image"), ("x.y.webp", "image"), ("a.md", "text"), ("a.TXT", "text")],
)
def test_kinds(path: str, kind: str) -> None:
    assert kind_of(path) == kind


@pytest.mark.parametrize("path", ["a.xyz", "noise", "a.", ".png", ""])
def test_unknown_suffixes_list_the_known(path: str) -> None:
    with pytest.raises(ConjureError) as caught:
        kind_of(path)
    assert "image .png" in caught.value.hint
    assert "text .txt .md" in caught.value.hint


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
    assert set(writable("text")) == {".txt", ".md", ".json", ".py"}
    assert READ_ONLY.issubset(SUFFIXES)


def test_sniff() -> None:
    assert sniff(b"\x89PNG\r\n\x1a\n....") == "image"
    assert sniff(b"RIFF\0\0\0\0WEBPVP8 ") == "image"
    assert sniff(b"RIFF\0\0\0\0WAVEfmt ") == "text"
    assert sniff(b"BM is how this sentence starts") == "text"
    assert sniff(b"") == "text"
