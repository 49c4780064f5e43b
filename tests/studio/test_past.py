from __future__ import annotations

import io
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image as Pillow
from playwright.sync_api import expect

from conjure import media
from conjure.core.history import History
from conjure.core.provenance import Record
from conjure.media import Text
from conjure.media.image import Image
from conjure.studio.past import THUMB, _card, _small
from tests.studio.browser import Studio, faults
from tests.studio.conftest import Visiting


def kept(studio: Studio, medium: Text | Image, prompt: str, model: str, seed: int) -> int:
    """A result in the history, as another program puts it there."""
    record = Record(version="0", task="draw", model=model, weights="sha256:0", seeds=(seed,),
                    inputs=({"kind": "text", "text": prompt},))  # fmt: skip
    suffix = ".txt" if isinstance(medium, Text) else ".png"
    with History(studio.folder / "history") as history:
        return history.add(media.encode(medium, suffix, record), suffix, medium.kind, record)


def square(red: int) -> Image:
    return Image(np.full((20, 30, 3), (red, 90, 90), np.uint8))


def test_search_look_use_and_delete(studio: Studio, visit: Visiting) -> None:
    number = kept(studio, square(10), "a wombat asleep", "org/painter", 5)
    kept(studio, square(20), "a wombat awake", "org/other", 6)
    kept(studio, Text("The wombat <b>sleeps</b>."), "wombat story", "org/writer", 7)
    browser = visit()
    page = browser.open(studio.address, "history", "#past-gallery img")
    thumbs = page.locator("#past-gallery .gallery-item")
    page.locator("#past-search textarea, #past-search input").first.fill("wombat")
    expect(thumbs).to_have_count(3)
    page.click("#past-kind input")
    page.get_by_role("option", name="texts").click()
    expect(thumbs).to_have_count(1)
    thumbs.first.locator("button").click()
    expect(page.locator("#past-text textarea")).to_have_value("The wombat <b>sleeps</b>.")
    page.click("#past-kind input")
    page.get_by_role("option", name="pictures").click()
    page.click("#past-model input")
    page.get_by_role("option", name="org/painter").click()
    expect(thumbs).to_have_count(1)
    thumbs.first.locator("button").click()
    expect(page.locator("#past-facts")).to_contain_text("a wombat asleep")
    expect(page.locator("#past-facts")).to_contain_text(f"number {number}")
    assert faults(page) == []

    page.click("#past-remake")
    expect(page.locator("#past-status")).to_contain_text("It cannot be made again")  # no such model is here

    page.click("#past-delete")
    expect(page.locator("#past-sure")).to_contain_text(f"Delete result {number}?")
    page.click("#past-no")
    expect(page.locator("#past-sure")).to_be_hidden()
    content = f"{studio.address}v1/history/{number}/content"
    assert urllib.request.urlopen(content).status == 200
    page.click("#past-use")
    page.wait_for_function("document.querySelector('#make-task input').value === 'edit'")
    browser.turn("history", "#past-delete")
    page.click("#past-delete")
    page.click("#past-yes")
    expect(page.locator("#past-status")).to_contain_text(f"Result {number} is deleted.")
    expect(thumbs).to_have_count(0)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(content)


def test_a_thumbnail_is_small_and_keeps_its_shape() -> None:
    made = Pillow.open(io.BytesIO(_small(media.encode(Image(np.zeros((300, 600, 3), np.uint8)), ".png"))))
    assert made.size == (THUMB, THUMB // 2)


@pytest.mark.parametrize("text", ["", "a few words", "line\n" * 100, "word" * 5000, "<b>\x00"])
def test_the_beginning_of_any_text_is_a_card(text: str) -> None:
    assert Pillow.open(io.BytesIO(_card(text))).size == (THUMB, THUMB)
