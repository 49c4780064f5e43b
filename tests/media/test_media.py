from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conjure import media
from conjure.core.errors import ConjureError
from conjure.core.provenance import Record

PICTURE = media.Image(np.zeros((2, 3, 3), np.uint8))
SOUND = media.Audio(np.zeros((1, 8), np.float32), 8000)
RECORD = Record("0.1.0", "text_to_image", "starter/pictograms", "sha256:ab", (), seeds=(1,))


def test_kind_by_content(tmp_path: Path) -> None:
    data = media.encode(PICTURE, ".png")
    assert media.read(data).kind == "image"
    assert media.read(b"hello") == media.Text("hello")
    (tmp_path / "upload").write_bytes(data)
    assert media.read(tmp_path / "upload").kind == "image"
    assert media.read_provenance(tmp_path / "upload") is None
    (tmp_path / "voice").write_bytes(media.encode(SOUND, ".wav", RECORD))
    assert media.read(tmp_path / "voice").kind == "audio"
    assert media.read_provenance(tmp_path / "voice") == RECORD


def test_kind_by_word(tmp_path: Path) -> None:
    (tmp_path / "notes.rst").write_text("hello")
    with pytest.raises(ConjureError, match=r"suffix '\.rst'"):
        media.read(tmp_path / "notes.rst")
    assert media.read(tmp_path / "notes.rst", kind="text") == media.Text("hello")
    with pytest.raises(ConjureError, match="unknown kind of medium 'txet'") as caught:
        media.read(tmp_path / "notes.rst", kind="txet")
    assert caught.value.hint == "did you mean 'text'?"
    with pytest.raises(ConjureError, match="content is text"):
        media.read(b"hello", kind="image")


def test_bytes_of_markdown_lose_their_record() -> None:
    data = media.encode(media.Text("hello"), ".md", RECORD)
    assert media.read(data) == media.Text("hello")


@pytest.mark.parametrize("name", ["a.gif", "a.txt", "a.bmp", "a.xyz", "a", "a.md"])
def test_pictures_are_not_written_as_something_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConjureError) as caught:
        media.write(PICTURE, tmp_path / name)
    assert ".png" in caught.value.hint
    assert os.listdir(tmp_path) == []


def test_text_is_not_written_as_a_picture(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match=r"the image format \.png") as caught:
        media.write(media.Text("x"), tmp_path / "a.png")
    assert caught.value.hint == "use .txt .md .json .py .srt .vtt .rttm"


@pytest.mark.parametrize("medium", [PICTURE, SOUND, media.Text("new")])
def test_overwriting_can_be_refused(tmp_path: Path, medium: media.AnyMedium) -> None:
    path = tmp_path / {"image": "a.png", "audio": "a.wav", "text": "a.txt"}[medium.kind]
    path.write_bytes(b"old")
    with pytest.raises(ConjureError, match="exists already"):
        media.write(medium, path, overwrite=False)
    assert path.read_bytes() == b"old"
    assert media.write(medium, str(path)) == path
    assert path.read_bytes() == media.encode(medium, path.suffix)


@pytest.mark.parametrize("name", ["a.png", "a.txt", "a.md", "a.wav"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(ConjureError, match="No space left"):
            medium = {"a.png": PICTURE, "a.wav": SOUND}.get(name, media.Text("x"))
            media.write(medium, tmp_path / name, RECORD)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.md", "a.txt", "a.wav", "a.flac", "a.mp3", "a.ogg", "a.opus"])
def test_save_keeps_the_record_that_a_medium_carries(tmp_path: Path, name: str) -> None:
    medium = {"image": PICTURE, "audio": SOUND, "text": media.Text("x")}[media.kinds.kind_of(name)]
    assert media.read_provenance(medium.save(tmp_path / name)) is None
    carrying = dataclasses.replace(medium, record=RECORD)
    assert media.read_provenance(carrying.save(tmp_path / name)) == RECORD


@pytest.mark.parametrize("medium", [PICTURE, SOUND, media.Text("x")])
def test_what_is_kept_loses_nothing(medium: media.AnyMedium) -> None:
    data, suffix = media.lossless(medium)
    assert media.read(data, kind=media.kinds.kind_of(f"a{suffix}")).digest() == medium.digest()


def test_names_are_lazy_and_wrong_names_fail() -> None:
    assert media.Image.__name__ == "Image"
    for name in ("Vdieo", "audio_file", "AUDIO"):
        with pytest.raises(AttributeError, match=name):
            getattr(media, name)


def test_import_is_light() -> None:
    code = (
        "import sys, conjure.media, conjure.media.kinds, conjure.media.text\n"
        "print(sorted({'torch', 'numpy', 'PIL', 'pydantic', 'soundfile'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
