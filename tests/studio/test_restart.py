from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.studio.browser import PATIENCE, Studio
from tests.studio.conftest import Visiting


def test_a_killed_server_comes_back_and_the_open_page_shows_its_job(studio: Studio, visit: Visiting) -> None:
    page = visit().open(studio.address)
    page.locator("#make-prompt textarea").fill("a purple boat")
    page.locator("#make-option-steps input").fill("40")
    page.click("#make-go")
    expect(page.locator("#make-status")).to_contain_text(re.compile(r"\d+ of 40 steps"), timeout=PATIENCE)
    seed = page.locator("#make-seed input").input_value()
    studio.kill()
    expect(page.locator("#away")).to_contain_text("The server does not answer", timeout=PATIENCE)
    studio.start()
    page.wait_for_selector("#make-go", timeout=2 * PATIENCE)
    expect(page.locator("#make-status")).to_contain_text("Done in", timeout=3 * PATIENCE)
    expect(page.locator("#make-prompt textarea")).to_have_value("a purple boat")
    page.get_by_text("How was it made").click()
    expect(page.locator("#make-how table.facts")).to_contain_text(seed)
