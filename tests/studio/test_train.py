from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.studio.browser import PATIENCE, Studio, faults, wide
from tests.studio.conftest import Visiting

expect.set_options(timeout=PATIENCE)

WORDS = "to be or not that is the question whether tis nobler in mind suffer slings and arrows of outrageous fortune"
CHANGES = """model.dim=32 model.layers=1 model.heads=1 model.vocab=22 train.batch=2 train.log_every=1 train.threads=1
train.preview_every=2 train.evaluate_every=0 train.evaluate_limit=2 train.checkpoint_every=2"""
LONG = 4 * PATIENCE
"""For a process that has libraries to read before it does anything."""
STATE = "document.querySelector('#train-state').innerText"


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Studio]:
    """A studio with a small text to learn from, and a place for what is trained."""
    folder = tmp_path_factory.mktemp("school")
    words, texts = WORDS.split(), folder / "data" / "tinyshakespeare"
    texts.mkdir(parents=True)
    lines = (" ".join(words[(7 * i + 3 * j) % len(words)] for j in range(9)) for i in range(400))
    (texts / "input.txt").write_text("\n".join(lines))
    made = Studio(folder, CONJURE_DATA=str(folder / "data"), CONJURE_MODELS=str(folder / "models"),
                  CONJURE_CACHE=str(folder / "cache"))  # fmt: skip
    made.start()
    yield made
    made.stop()
    for facts in folder.glob("models/*/run.json"):  # a training outlives its studio
        with suppress(ProcessLookupError):
            os.kill(json.loads(facts.read_text())["pid"], signal.SIGKILL)


def begun(page: Page, name: str, steps: int) -> None:
    page.fill("#train-name input, #train-name textarea", name)
    page.fill("#train-changes textarea", f"{CHANGES}\ntrain.steps={steps}")
    page.click("#train-go")
    page.wait_for_function(f"{STATE}.includes('Starting') || {STATE}.includes('Running')")


@pytest.mark.slow
def test_trained_watched_by_two_stopped_and_gone_on_with_after_a_restart(school: Studio, visit: Visiting) -> None:
    page = visit().open(school.address, tab="train", ready="#train-go")
    expect(page.locator("#train-missing")).to_contain_text("tinyshakespeare, on this machine")
    assert faults(page) == []
    begun(page, "verses", 100_000)
    page.wait_for_selector("#train-curve svg", timeout=LONG)
    other = visit(dark=True).open(school.address, tab="train", ready="#train-go")
    other.set_viewport_size({"width": 390, "height": 844})
    other.wait_for_selector("#train-curve svg")  # without a touch
    assert wide(other) <= 0 and faults(other) == []
    page.wait_for_selector("#train-texts pre")

    page.focus("#train-stop")
    page.keyboard.press("Enter")
    page.wait_for_function(f"{STATE}.includes('Stopped')", timeout=LONG)
    school.kill()
    school.start()
    page = visit().open(school.address, tab="train", ready="#train-go")
    page.wait_for_function(f"{STATE}.includes('Stopped')")
    facts = json.loads((school.folder / "models" / "verses" / "run.json").read_text())
    assert facts["recipe"] == "shakespeare-char" and facts["pid"] > 0


@pytest.mark.slow
def test_the_result_is_used(school: Studio, visit: Visiting) -> None:
    page = visit().open(school.address, tab="train", ready="#train-go")
    begun(page, "short", 3)
    page.wait_for_function(f"{STATE}.includes('Done')", timeout=LONG)
    page.click("#train-use")
    page.wait_for_function("document.querySelector('#train-status').innerText.includes('among the models')")
    listed = page.request.get(f"{school.address}v1/models").json()
    assert "short" in [each["id"] for each in listed["data"]]


@pytest.mark.parametrize("name", ["../out", "/tmp/out"])
def test_a_folder_elsewhere_is_refused(school: Studio, visit: Visiting, name: str) -> None:
    page = visit().open(school.address, tab="train", ready="#train-go")
    page.fill("#train-name input, #train-name textarea", name)
    page.click("#train-go")
    expect(page.locator("#train-status .wrong")).to_contain_text("expected a name")
    assert not Path(school.folder, "out").exists()
