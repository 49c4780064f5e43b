from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import expect

from tests.core.stand_in_hub import REPO, StandInHub
from tests.studio.browser import PATIENCE, Studio, faults
from tests.studio.conftest import Visiting

CARD = b"""---
license: apache-2.0
---
# Tiny
<img src="https://example.org/x" onerror="window.hit=1"> <script>hit=2</script>
"""


def test_what_is_here_and_one_from_the_hub_and_away_again(studio: Studio, visit: Visiting, hub: StandInHub) -> None:
    hub.files["README.md"] = CARD
    page = visit().open(studio.address, "models", "#models-facts table")
    table = page.locator("#models-table")
    expect(table).to_contain_text("starter/pictograms")
    expect(table).to_contain_text("Apache-2.0")
    assert not page.locator("#models-remove").is_visible()  # what comes with conjure stays

    page.locator("#models-wanted input, #models-wanted textarea").first.fill(REPO)
    page.click("#models-look")
    expect(page.locator("#models-status")).to_contain_text(re.compile(r"org/tiny: 4 files, .* Licence: apache-2.0"))
    folder = Path(studio.folder) / "hub" / "models--org--tiny"
    assert not folder.exists()
    page.click("#models-get")
    expect(page.locator("#models-status")).to_contain_text("org/tiny is here now", timeout=PATIENCE)
    expect(table).to_contain_text(REPO)
    expect(page.locator("#models-facts pre")).to_contain_text("<script>hit=2</script>")
    assert page.evaluate("window.hit") is None
    assert faults(page) == []

    page.click("#models-remove")
    expect(page.locator("#models-sure")).to_contain_text("Remove org/tiny from this machine?")
    page.click("#models-no")
    assert folder.exists()
    page.click("#models-remove")
    page.click("#models-yes")
    expect(page.locator("#models-status")).to_contain_text("org/tiny is removed")
    expect(table).not_to_contain_text(REPO)
    assert not folder.exists()


def test_what_the_hub_refuses_is_told_with_what_to_do(studio: Studio, visit: Visiting, hub: StandInHub) -> None:
    page = visit().open(studio.address, "models", "#models-facts table")
    status = page.locator("#models-status [role=alert]")
    page.locator("#models-wanted input, #models-wanted textarea").first.fill("no name")
    page.click("#models-look")
    expect(status).to_contain_text("expected a name on the hub")
    page.locator("#models-wanted input, #models-wanted textarea").first.fill(REPO)
    hub.refuse = (401, "GatedRepo")
    try:
        page.click("#models-get")
        expect(status).to_contain_text("is gated")
        expect(status).to_contain_text("accept them at")
    finally:
        hub.refuse = None
