"""The official client of major version 1, which many programs still hold to. It cannot be installed beside the current
one, so its calls (`clients/openai_one.py`) run in a process of their own with the client in a folder of its own:
CONJURE_OPENAI_ONE names that folder (`pip install --target FOLDER 'openai>=1.100,<2'`); where it is not set, pip makes
one in pytest's cache, once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conjure.media import write
from conjure.media.image import Image
from conjure.serve.settings import Settings
from tests.serve.clients import openai_one
from tests.serve.running import running

WANTED = "openai>=1.100,<2"


@pytest.fixture(scope="module")
def client_folder(request: pytest.FixtureRequest) -> Path:
    """Where the old client lies."""
    named = os.environ.get("CONJURE_OPENAI_ONE")
    if named:
        return Path(named)
    folder = Path(request.config.cache.mkdir("openai-one"))
    whole = folder / "whole"  # written last: what was broken off is made again
    if not whole.is_file():
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--upgrade", "--target"]
        done = subprocess.run([*pip, str(folder), WANTED], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"pip cannot get {WANTED}: {done.stderr.strip()[-200:]}")
        whole.touch()
    return folder


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    with running(Settings()) as url:
        yield f"{url}/v1"


def test_its_own_calls_are_answered(place: str, client_folder: Path, tmp_path: Path) -> None:
    pixels = np.full((128, 128, 4), 255, np.uint8)
    pixels[8:72, 8:72, 3] = 0  # transparent where a mask lets the picture change
    write(Image(pixels), tmp_path / "in.png")
    command = [sys.executable, "-W", "error", openai_one.__file__ or "", place, str(tmp_path / "in.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False,
                          env={**os.environ, "PYTHONPATH": str(client_folder)})  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    version, *scenes = done.stdout.splitlines()
    assert version.startswith("version 1.")
    assert scenes == [*(scene.__name__ for scene in openai_one.SCENES), "asynchronous"]
