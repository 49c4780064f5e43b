from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.studio.browser import PATIENCE, Studio, faults, wide
from tests.studio.conftest import Visiting

expect.set_options(timeout=PATIENCE)

BOX = "#chat-box textarea"
SAID = "document.querySelector('#chat-status').innerText.includes('tokens:')"
ENDED = "document.querySelector('#chat-stop').disabled && " + SAID
STOPPER = """() => {
  const status = document.querySelector('#chat-status');
  const watch = new MutationObserver(() => {
    if (!/[1-9]\\d* written/.test(status.innerText)) return;
    watch.disconnect();
    document.querySelector('#chat-stop').click();
    window.pressed = true;
  });
  watch.observe(document.body, {subtree: true, childList: true, characterData: true});
}"""
"""Presses Stop from inside of the page: on a busy machine the answer ends before a test has asked twice."""


def asked(page: Page, text: str) -> None:
    page.fill(BOX, text)
    page.press(BOX, "Enter")
    page.wait_for_function(f"!({ENDED})")
    page.wait_for_function(ENDED)


def test_a_talk_with_its_branches(studio: Studio, visit: Visiting) -> None:
    page = visit().open(studio.address, tab="chat", ready=BOX)
    asked(page, "What is the capital of France?")
    expect(page.locator("#chat-book .message.bot").last).to_have_text("Paris")
    assert "tokens:" in page.inner_text("#chat-status")

    asked(page, "What is 5 plus 5? <b>bold</b> <img src=x onerror=alert(1)>\n```html\n<i>code</i>\n```")
    question = page.locator("#chat-book .message.user").last
    expect(question).to_contain_text("<b>bold</b> <img src=x onerror=alert(1)>")  # characters, no tags
    assert question.locator("b, img, i").count() == 0
    expect(question.locator("pre code")).to_contain_text("<i>code</i>")
    assert question.locator(".copy_code_button").count() == 1

    page.click("#chat-again")
    page.wait_for_selector("#chat-versions")
    page.wait_for_function(ENDED)
    expect(page.locator("#chat-place")).to_have_text("2 of 2")
    page.click("#chat-earlier")
    expect(page.locator("#chat-place")).to_have_text("1 of 2")
    assert faults(page) == []

    with page.expect_download() as came:
        page.click("#chat-json")
    talk = json.loads(Path(came.value.path()).read_text())
    assert [turn["role"] for turn in talk["turns"]] == ["user", "assistant", "user", "assistant", "assistant"]
    assert talk["shown"] == [0, 1, 2, 3] and "onerror" in talk["turns"][2]["text"]


def test_an_edited_message_keeps_the_old_one(studio: Studio, visit: Visiting) -> None:
    page = visit(390, 844, dark=True).open(studio.address, tab="chat", ready=BOX)
    asked(page, "What is 1 plus 1?")
    page.get_by_role("button", name="Edit").first.click()
    page.locator("#chat-book textarea").fill("What is 2 plus 2?")
    page.get_by_role("button", name="Submit").first.click()
    expect(page.locator("#chat-book .message.user")).to_contain_text("2 plus 2")
    page.wait_for_function(ENDED)
    expect(page.locator("#chat-place")).to_have_text("2 of 2")
    page.focus("#chat-earlier")
    page.keyboard.press("Enter")
    expect(page.locator("#chat-book .message.user")).to_contain_text("1 plus 1")
    assert wide(page) <= 0 and faults(page) == []


def test_an_answer_is_stopped_and_the_next_is_drawn(studio: Studio, visit: Visiting) -> None:
    page = visit().open(studio.address, tab="chat", ready=BOX)
    page.get_by_role("button", name="More options").locator("visible=true").click()
    page.fill("#chat-min_tokens input", "500")
    page.press("#chat-min_tokens input", "Tab")
    page.fill(BOX, "Tell me a story about a fox.")
    page.evaluate(STOPPER)
    page.press(BOX, "Enter")
    page.wait_for_function("window.pressed && document.querySelector('#chat-stop').disabled")
    assert "Stopped" in page.inner_text("#chat-status")
    expect(page.locator("#chat-book .message.bot").last).to_contain_text("(stopped)")

    page.click("#chat-model input")
    page.get_by_role("option", name="starter/pictograms (draws)").click()
    page.fill(BOX, "a red apple")
    page.press(BOX, "Enter")
    page.wait_for_function("/Drawn in/.test(document.querySelector('#chat-status').innerText)")
    expect(page.locator("#chat-book .bot img")).to_be_visible()
    expect(page.locator("#chat-book")).to_contain_text("A picture, 128 x 128")
