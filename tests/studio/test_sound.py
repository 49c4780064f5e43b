"""What the Speak page says the Listen page writes down."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.studio.browser import PATIENCE, Studio, faults, wide
from tests.studio.conftest import Visiting

expect.set_options(timeout=PATIENCE)


def done(page: Page, name: str) -> None:
    expect(page.locator(f"#{name}-status")).to_contain_text("Done in")


def marked(page: Page, name: str, seconds: float) -> str:
    """What is marked when the player is at a second."""
    page.evaluate(f"document.querySelector('#{name}-player audio').currentTime = {seconds}")
    page.wait_for_selector(f"#{name}-player .now")
    return page.inner_text(f"#{name}-player .now")


def test_a_text_is_read_aloud_and_heard(studio: Studio, visit: Visiting, tmp_path: Path) -> None:
    visiting = visit()
    page = visiting.open(studio.address, tab="speak", ready="#speak-go")
    page.wait_for_function("document.querySelector('#speak-model input')?.value === 'starter/voice'")
    page.fill("#speak-text textarea", "The house was in the wood. <b>It was a morning in May.</b>")
    page.click("#speak-go")
    done(page, "speak")
    assert page.locator("#speak-player p").count() == 2 and page.locator("#speak-player b").count() == 0
    assert "The house" in marked(page, "speak", 0.5)
    page.locator("#speak-player p span").nth(1).click()
    page.wait_for_function("document.querySelector('#speak-player audio').currentTime > 1")
    page.wait_for_selector("#speak-player p:nth-child(2) .now")
    assert wide(page) <= 0 and faults(page) == []
    with page.expect_download() as taken:
        page.click("#speak-save")
    sound = tmp_path / taken.value.suggested_filename
    taken.value.save_as(sound)

    visiting.turn("listen", "#listen-go")
    page.wait_for_function("document.querySelector('#listen-model input')?.value === 'starter/ear'")
    page.click("#listen-go")
    expect(page.locator("#listen-status")).to_contain_text("there is no sound yet")
    page.set_input_files("#listen-sound input[type=file]", sound)
    page.wait_for_selector("#listen-sound .playback")
    page.click("#listen-go")
    done(page, "listen")
    words = page.locator("#listen-player .said span").all_inner_texts()
    assert {"house", "in", "the"} <= {word.strip(".").lower() for word in words}, words
    assert marked(page, "listen", 0.5) in words
    with page.expect_download() as taken:
        page.click("#listen-srt")
    assert taken.value.suggested_filename.endswith(".srt")
    taken.value.save_as(tmp_path / "heard.srt")
    assert (tmp_path / "heard.srt").read_text().startswith("1\n00:00:0")
    assert page.locator("#listen-player em").count() == 0
    page.check("#listen-ear-who input")
    page.click("#listen-go")
    page.wait_for_selector("#listen-player em")
    done(page, "listen")
    assert set(page.locator("#listen-player em").all_inner_texts()) == {"Speaker 1"}
    assert wide(page) <= 0 and faults(page) == []


def test_what_cannot_be_read_is_said(studio: Studio, visit: Visiting) -> None:
    page = visit().open(studio.address, tab="speak", ready="#speak-go")
    page.fill("#speak-text textarea", "  ")
    page.click("#speak-go")
    expect(page.locator("#speak-status")).to_contain_text("there is nothing to read")
    page.fill("#speak-text textarea", "Hello 你好 there")
    page.click("#speak-go")
    done(page, "speak")
    expect(page.locator("#speak-status .warned")).to_contain_text("你好")
