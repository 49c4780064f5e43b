from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser

from tests.core.stand_in_hub import StandInHub, serve
from tests.studio import browser as browsing
from tests.studio.browser import Studio, Visit


@pytest.fixture(scope="session")
def needs_chromium() -> None:
    if not browsing.CHROMIUM.exists():
        pytest.skip(browsing.MISSING)


@pytest.fixture(scope="module")
def browser(needs_chromium: None) -> Iterator[Browser]:
    """One for each file: as long as it is open, no other event loop can run in this thread."""
    with browsing.chromium() as opened:
        yield opened


@pytest.fixture(scope="session")
def hub() -> Iterator[StandInHub]:
    """What the studio takes for the Hugging Face hub."""
    with serve() as made:
        yield made


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory, needs_chromium: None, hub: StandInHub) -> Iterator[Studio]:
    """One studio for all tests, with the models that come with conjure and a history of its own."""
    made = Studio(tmp_path_factory.mktemp("studio"), HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="", CONJURE_OFFLINE="")
    made.start()
    yield made
    made.stop()


Visiting = Callable[..., Visit]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visiting]:
    """Opens pages of a browser of their own each; at the end none has asked another machine for anything."""
    made: list[Visit] = []

    def visiting(width: int = 1280, height: int = 800, dark: bool = False) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height},
                                      color_scheme="dark" if dark else "light", accept_downloads=True)  # fmt: skip
        made.append(Visit(context.new_page()))
        return made[-1]

    yield visiting
    left = [each for one in made for each in one.left()]
    wrong = [each for one in made for each in one.wrong()]
    for one in made:
        one.page.context.close()
    assert left == []
    assert wrong == []
