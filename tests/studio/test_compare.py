from __future__ import annotations

import json
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.studio.browser import PATIENCE, Studio, faults, wide
from tests.studio.conftest import Visiting

expect.set_options(timeout=PATIENCE)


def values(page: Page, axis: str, said: list[str]) -> None:
    """Puts other values on an axis, by the keys alone."""
    box = page.locator(f"#compare-{axis}-values input")
    box.focus()
    for _ in range(12):
        box.press("Backspace")
    for each in said:
        box.fill(each)
        box.press("Enter")
    box.press("Tab")  # closes the list, which would lie over what is below


def test_a_grid_of_seeds_and_steps(studio: Studio, visit: Visiting) -> None:
    page = visit().open(studio.address, tab="compare", ready="#compare-go")
    page.fill("#compare-prompt textarea", "a red apple <b>and</b>")
    values(page, "across", ["1", "2"])
    values(page, "down", ["1", "2"])
    page.click("#compare-go")
    page.wait_for_function("/4 pictures in/.test(document.querySelector('#compare-status').innerText)")
    assert page.locator("#compare-grid td img").count() == 4
    assert page.locator("#compare-grid th").all_inner_texts() == ["seed 1", "seed 2", "steps 1", "steps 2"]
    expect(page.locator("#compare-grid caption")).to_have_text("a red apple <b>and</b>")
    assert faults(page) == []

    with page.expect_download() as came:
        page.click("#compare-json")
    told = json.loads(Path(came.value.path()).read_text())
    assert [each["name"] for each in told["systems"]] == [f"starter/pictograms, steps {n}" for n in (1, 2)]
    assert told["seeds"] == [1, 2] and [len(each["pictures"]) for each in told["systems"]] == [2, 2]
    with page.expect_download() as came:
        page.click("#compare-page")
    document = Path(came.value.path()).read_text()
    assert len(re.findall("<img ", document)) == 4 and "<b>and</b>" not in document
    whole = page.locator("#compare-grid a").first.get_attribute("href")
    assert whole is not None and page.request.get(f"{studio.address}{whole[1:]}").headers["content-type"] == "image/png"


def test_it_is_cancelled_and_what_is_there_stays(studio: Studio, visit: Visiting) -> None:
    page = visit(dark=True).open(studio.address, tab="compare", ready="#compare-go")
    page.set_viewport_size({"width": 390, "height": 844})
    values(page, "across", ["0", "1", "2", "3"])
    values(page, "down", ["1", "400"])
    page.click("#compare-go")
    page.wait_for_function("document.querySelector('#compare-grid td img')")
    page.click("#compare-stop")
    page.wait_for_function("/missing/.test(document.querySelector('#compare-status').innerText)")
    expect(page.locator("#compare-stop")).to_be_disabled()
    assert 1 <= page.locator("#compare-grid td img").count() < 8
    assert wide(page) <= 0 and faults(page) == []


def test_axes_that_make_no_grid_are_refused(studio: Studio, visit: Visiting) -> None:
    page = visit().open(studio.address, tab="compare", ready="#compare-go")
    values(page, "across", ["1", "5"])
    page.click("#compare-go")
    expect(page.locator("#compare-status .wrong")).to_contain_text("follow one another")
