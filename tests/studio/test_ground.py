from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from conjure.studio.ground import LOCK, PREFIX, prepared


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "as it was")


def test_the_folder_is_private_and_goes_with_the_process() -> None:
    with prepared() as folder:
        assert folder.stat().st_mode & 0o077 == 0
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        (folder / "upload.png").write_bytes(b"x")
    assert not folder.exists()


def test_what_a_killed_process_left_is_removed_and_the_living_keep_theirs(tmp_path: Path) -> None:
    dead = tmp_path / f"{PREFIX}dead"
    dead.mkdir()
    (dead / LOCK).touch()
    (dead / "somebody.png").write_bytes(b"x")
    with prepared() as first, prepared() as second:
        assert not dead.exists()
        assert first.exists()
        assert second.exists()
