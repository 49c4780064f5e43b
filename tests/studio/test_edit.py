from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from conjure.media.image import Image, read
from tests.studio.browser import PATIENCE, Studio, faults, wide
from tests.studio.conftest import Visiting

expect.set_options(timeout=PATIENCE)

FILE = "#edit-file input[type=file]"
OVER = "/Done/.test(document.querySelector('#edit-status').innerText)"


@pytest.fixture
def ball(tmp_path: Path) -> Path:
    """A red ball on grey."""
    y, x = np.mgrid[:96, :128]
    pixels = np.full((96, 128, 3), 200, np.uint8)
    pixels[(x - 40) ** 2 + (y - 48) ** 2 < 400] = (200, 30, 30)
    return Image(pixels).save(tmp_path / "ball.png")


def opened(page: Page, path: Path) -> None:
    page.wait_for_selector(FILE, state="attached")
    page.set_input_files(FILE, path)
    page.wait_for_selector("#edit-picture img")


def downloaded(page: Page) -> Image:
    with page.expect_download() as came:
        page.click("#edit-save")
    return read(Path(came.value.path()))


@pytest.mark.slow
def test_a_painted_part_is_new_and_all_else_stays(studio: Studio, visit: Visiting, ball: Path) -> None:
    page = visit().open(studio.address, tab="edit", ready="#edit-file")
    opened(page, ball)
    page.get_by_label("Repaint", exact=True).check()
    page.wait_for_selector("#edit-canvas canvas")
    page.wait_for_timeout(1500)  # the editor lays the picture out on its canvas
    box = page.locator("#edit-canvas canvas").first.bounding_box()
    assert box is not None
    across, down = box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.5
    page.mouse.move(across, down)
    page.mouse.down()
    page.mouse.move(across + 20, down + 10, steps=2)
    page.mouse.up()
    page.fill("#edit-inpaint-steps input[type=number]", "2")
    page.fill("#edit-prompt textarea", "a blue fish")
    page.click("#edit-go")
    page.wait_for_function(OVER)
    expect(page.get_by_role("tab", name="Before and after")).to_have_attribute("aria-selected", "true")
    assert faults(page) == []
    before, after = read(ball).rgb(), downloaded(page).rgb()
    changed = (before != after).any(-1)
    assert 0 < changed.sum() < changed.size / 4
    assert not changed[:, :64].any(), "the mask was on the right"

    page.click("#edit-undo")
    expect(page.locator("#edit-undo")).to_be_disabled()
    assert (downloaded(page).rgb() == before).all()
    page.click("#edit-redo")
    expect(page.locator("#edit-redo")).to_be_disabled()
    assert (downloaded(page).rgb() == after).all()
    page.click("#edit-keep")
    expect(page.locator("#edit-keep")).to_be_disabled()


def test_larger_and_cut_out_on_a_narrow_screen(studio: Studio, visit: Visiting, ball: Path) -> None:
    page = visit().open(studio.address, tab="edit", ready="#edit-file")
    page.set_viewport_size({"width": 390, "height": 844})
    opened(page, ball)
    page.focus("#edit-task input[value=vary]")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#edit-go")).to_have_text("Cut out")
    page.focus("#edit-go")
    page.keyboard.press("Enter")
    page.wait_for_function(OVER)
    assert wide(page) <= 0 and faults(page) == []
    cut = downloaded(page)
    assert cut.alpha() is not None and cut.pixels.shape[:2] == (96, 128)
    page.get_by_label("Enlarge", exact=True).check()
    expect(page.locator("#edit-go")).to_have_text("Enlarge")
    page.click("#edit-go")
    page.wait_for_function("document.querySelectorAll('#edit-steps button img').length == 3")
    assert downloaded(page).pixels.shape[:2] == (192, 256)


def test_what_is_no_picture_is_refused(studio: Studio, visit: Visiting, tmp_path: Path) -> None:
    page = visit().open(studio.address, tab="edit", ready="#edit-file")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n" + b"<script>alert(1)</script>" * 9)
    page.set_input_files(FILE, bad)
    page.wait_for_selector("#edit-refused .wrong")
    assert page.locator("#edit-picture").count() == 0
