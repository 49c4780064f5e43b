from __future__ import annotations

import importlib.metadata
import json
import os
import signal
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from safetensors.numpy import save_file

from conjure.core import paths
from conjure.tasks import table

hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)  # the same examples in every run
hypothesis.settings.load_profile("steady")


def pytest_configure() -> None:
    """Networks of tests are so small that a second thread costs more than it helps. Before torch is imported."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts what it puts into the background with Ctrl-C ignored, which children inherit; tests send it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_history() -> Iterator[None]:
    """Nothing that tests make goes into the history of whoever runs them; tests of the history name a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONJURE_HISTORY", "off")
        yield


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, the stand-in tasks in place of the table, and a model for each of them."""
    starters = tmp_path / "starters"
    write_model(starters / "parrot", task="continue")
    write_model(starters / "daub", task="draw")
    monkeypatch.setattr(paths, "starters_dir", lambda: starters)
    for name in ("CONJURE_CACHE", "HF_HUB_CACHE", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.delenv("CONJURE_DATA", raising=False)

    entry = EntryPoint("stand-ins", "tests.stand_ins:EDGES", table.GROUP)
    monkeypatch.setattr(table, "TABLE", ())
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: EntryPoints([entry] * (group == table.GROUP)))
    table.plugins.cache_clear()

    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield work
    table.plugins.cache_clear()


def write_model(folder: Path, *, task: str, value: float = 1.0) -> None:
    """A model folder with the weights of a `torch.nn.Linear(1, 1)`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"format": 1, "kind": "toy", "task": task, "version": "1", "parameters": 1, "licence": "CC0-1.0"}
    (folder / "config.json").write_text(json.dumps(config | {"summary": f"a toy that can {task}"}))
    weights = {"weight": np.full((1, 1), value, np.float32), "bias": np.zeros(1, np.float32)}
    save_file(weights, folder / "model.safetensors")
