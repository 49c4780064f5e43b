from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from conjure import media
from conjure.media.image import Image
from tests.studio.browser import PATIENCE, Studio, faults, wide
from tests.studio.conftest import Visiting

ATTACK = '<img src="x" onerror="window.hit=1">'


def made(page: Page) -> Page:
    """The page once something was made."""
    expect(page.locator("#make-status")).to_contain_text(re.compile(r"Done in|alert"), timeout=PATIENCE)
    page.wait_for_selector("#make-use")
    return page


def how(page: Page) -> str:
    """What is said about how it was made."""
    table = page.locator("#make-how table.facts")
    if not table.is_visible():
        page.get_by_text("How was it made").click()
    table.wait_for()
    return table.inner_text()


def reached(page: Page, place: str) -> bool:
    """Whether the Tab key leads to a place."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate(f"document.activeElement.closest('#{place}') !== null"):
            return True
    return False


def picture(path: Path) -> Path:
    pixels = np.full((48, 48, 3), 255, np.uint8)
    pixels[12:36, 12:36] = (200, 30, 30)
    path.write_bytes(media.encode(Image(pixels), ".png"))
    return path


def test_one_click_makes_the_example_and_all_that_follows(studio: Studio, visit: Visiting) -> None:
    page = visit().open(studio.address)
    page.click("#make-go")
    made(page)
    image = page.locator("#make-gallery img")
    image.wait_for()
    page.wait_for_function("document.querySelector('#make-gallery img').naturalWidth === 128")
    seed = page.locator("#make-seed input").input_value()
    facts = how(page)
    assert "starter/pictograms" in facts
    assert seed in facts
    assert faults(page) == []

    page.click("#make-remake")
    expect(page.locator("#make-status")).to_contain_text("byte for byte the same", timeout=PATIENCE)

    with page.expect_download() as coming:
        page.click("#make-download")
    record = media.read_provenance(coming.value.path())
    assert record is not None
    assert str(record.seed) == seed
    assert coming.value.suggested_filename == f"a-red-apple-left-of-a-blue-fish-{seed}.png"

    page.click("#make-use")
    page.wait_for_selector("#make-files .file-preview, #make-files table")
    page.wait_for_function("document.querySelector('#make-task input').value === 'edit'")  # a picture and words


def test_keys_alone_are_enough(studio: Studio, visit: Visiting) -> None:
    page = visit().open(studio.address)
    assert reached(page, "make-prompt")
    page.keyboard.press("Control+A")
    page.keyboard.type("a green balloon")
    page.keyboard.press("Control+Enter")
    made(page)
    assert "a green balloon" in how(page)
    assert reached(page, "make-go")
    page.keyboard.press("Enter")
    expect(page.locator("#make-cancel")).to_be_enabled()
    made(page)


def test_a_kept_seed_and_an_option_are_what_it_is_made_with(studio: Studio, visit: Visiting) -> None:
    page = visit().open(studio.address)
    page.locator("#make-seed input").fill("7")
    page.get_by_label("Keep this seed").check()
    page.locator("#make-option-steps input").fill("2")
    page.click("#make-go")
    facts = how(made(page))
    assert re.search(r"Seed\s+7\b", facts)
    assert re.search(r"Steps\s+2\b", facts)
    page.click("#make-another")
    page.wait_for_function("document.querySelector('#make-seed input').value !== '7'")
    made(page)


def test_what_is_wrong_is_told_with_what_was_expected(studio: Studio, visit: Visiting) -> None:
    page = visit().open(studio.address)
    status = page.locator("#make-status [role=alert]")
    page.locator("#make-option-steps input").fill("0")
    page.click("#make-go")
    expect(status).to_contain_text("steps: expected a whole number from 1 to 1000, got 0")
    page.locator("#make-option-steps input").fill("2")
    page.locator("#make-count input").fill("99")
    page.click("#make-go")
    expect(status).to_contain_text("count: expected at most 16, got 99")
    page.locator("#make-count input").fill("1")
    page.locator("#make-prompt textarea").fill("  ")
    page.click("#make-go")
    expect(status).to_contain_text("there is nothing to make it from")


def test_only_what_can_be_had_is_offered_and_names_are_text(studio: Studio, visit: Visiting, tmp_path: Path) -> None:
    page = visit().open(studio.address)
    file = picture(tmp_path / f"{ATTACK.replace('/', '')}.png")
    page.locator("#make-prompt textarea").fill("")
    page.locator("#make-files input[type=file]").set_input_files(str(file))
    page.wait_for_function("document.querySelector('#make-task input').value === 'reconstruct'")
    page.click("#make-task input")
    offered = page.locator("[role=option]").all_inner_texts()
    assert {"upscale", "cutout", "vary"} <= {each.strip("✓ \n") for each in offered}
    assert not {"draw", "edit", "chat"} & {each.strip("✓ \n") for each in offered}
    page.get_by_role("option", name="upscale").click()
    page.click("#make-option-scale input")
    page.get_by_role("option", name="4").click()
    assert not page.locator("#make-model").is_visible()  # arithmetic
    page.click("#make-go")
    assert re.search(r"Scale\s+4\b", how(made(page)))
    assert page.evaluate("window.hit") is None


def test_a_prompt_of_html_stays_text_wherever_it_is_shown(studio: Studio, visit: Visiting) -> None:
    browser = visit()
    page = browser.open(studio.address)
    page.locator("#make-prompt textarea").fill(ATTACK)
    page.locator("#make-option-steps input").fill("1")
    page.click("#make-go")
    made(page)
    assert ATTACK in how(page)
    browser.turn("history", "#past-gallery img")
    page.locator("#past-gallery button").first.click()
    page.wait_for_selector("#past-facts table")
    assert ATTACK in page.locator("#past-facts").inner_text()
    assert page.evaluate("window.hit") is None


def test_who_presses_make_before_the_page_has_its_choices_gets_the_example(studio: Studio, visit: Visiting) -> None:
    page, held = visit().page, list[Route]()

    def late(route: Route) -> None:
        opening = not held and '{"job":"","prompt":' in (route.request.post_data or "")
        held.append(route) if opening else route.continue_()

    page.route("**/gradio_api/queue/join*", late)
    page.goto(studio.address)
    page.click("#make-go")
    made(page)
    assert held and page.locator("#make-task input").input_value() == ""
    held[0].continue_()
    page.wait_for_function("document.querySelector('#make-task input').value === 'draw'")
    page.locator("#make-option-steps input").wait_for()
    expect(page.locator("#make-status")).to_contain_text("Done in")
    assert "starter/pictograms" in how(page)


def test_what_takes_long_can_be_cancelled(studio: Studio, visit: Visiting) -> None:
    page = visit().open(studio.address)
    page.locator("#make-option-steps input").fill("1000")
    page.click("#make-go")
    expect(page.locator("#make-status")).to_contain_text(re.compile(r"\d+ of 1000 steps, about .* left"))
    page.wait_for_selector("#make-gallery img")  # how it looks so far
    page.click("#make-cancel")
    expect(page.locator("#make-status")).to_contain_text("It was cancelled.")
    expect(page.locator("#make-cancel")).to_be_disabled()


def test_two_browsers_make_at_once(studio: Studio, visit: Visiting) -> None:
    pages = [visit().open(studio.address) for _ in range(2)]
    for page, prompt in zip(pages, ("a red car", "a yellow star"), strict=True):
        page.locator("#make-prompt textarea").fill(prompt)
    for page in pages:
        page.click("#make-go")
    for page, prompt in zip(pages, ("a red car", "a yellow star"), strict=True):
        assert prompt in how(made(page))


@pytest.mark.parametrize(("width", "height", "dark"), [(1280, 800, True), (390, 844, False), (390, 844, True)])
def test_it_can_be_read_at_every_width_in_light_and_dark(
    studio: Studio, visit: Visiting, width: int, height: int, dark: bool
) -> None:
    browser = visit(width, height, dark)
    page = browser.open(studio.address)
    page.locator("#make-option-steps input").wait_for()
    assert faults(page) == []
    assert wide(page) <= 0
    for tab, ready in (("history", "#past-search"), ("models", "#models-facts table")):
        browser.turn(tab, ready)
        assert faults(page) == [], tab
        assert wide(page) <= 0, tab
