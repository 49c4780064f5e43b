"""What must stand before Gradio is imported: it reads its settings from the environment at that moment."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "conjure-studio-"
LOCK = ".lock"


@contextmanager
def prepared() -> Iterator[Path]:
    """A folder of this process alone for uploads and for what the page shows, gone afterwards; and nothing is told to
    anybody. Folders that killed processes have left are removed."""
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    settings = {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with open(folder / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.environ.update(settings)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Whoever lives holds the lock of its folder, and a folder of somebody else's cannot be opened."""
    for folder in root.glob(f"{PREFIX}*"):
        try:
            with open(folder / LOCK, "r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
