"""A studio behind a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.studio.browser import Studio
from tests.studio.conftest import Visiting

KEY = "let me in/&?"


@pytest.fixture
def locked(tmp_path: Path, needs_chromium: None) -> Iterator[Studio]:
    made = Studio(tmp_path, ["--key", KEY])
    made.start()
    yield made
    made.stop()


def test_the_key_is_asked_for_once_and_its_cookie_opens_all_of_the_page(locked: Studio, visit: Visiting) -> None:
    one = visit()
    page = one.page
    answer = page.goto(locked.address)
    assert answer is not None and answer.status == 401
    page.get_by_label("Key").fill("a wrong one")
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_role("heading")).to_have_text("This server has a key")
    page.get_by_label("Key").fill(KEY)
    page.get_by_role("button", name="Enter").click()
    page.wait_for_selector("#make-go")
    assert KEY not in page.url and "key=" not in page.url  # nor in the browser's history of the page
    page.locator("#make-option-steps input").fill("1")
    page.click("#make-go")
    expect(page.locator("#make-status")).to_contain_text("Done in")
    page.wait_for_function("document.querySelector('#make-gallery img').naturalWidth === 128")

    page.goto(locked.address)  # again, without the key
    page.wait_for_selector("#make-go")
    stranger = visit().page
    stranger.goto(locked.address)
    expect(stranger.get_by_role("heading")).to_have_text("This server has a key")
    assert KEY not in "".join(locked.said)
