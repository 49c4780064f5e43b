"""A studio in a process of its own, and a browser that looks at it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 120_000  # milliseconds: a busy machine is no fault
MISSING = "needs Debian's chromium"
HERE = frozenset({"localhost", "127.0.0.1"})
HARMLESS = re.compile(
    r"Autofocus processing was blocked|\[svelte-i18n\]|Failed to load resource|net::ERR_|Failed to fetch|network error"
    r"|Connection errored out"
)
"""What the console says of Gradio's own page, and of a server that is not there."""


_START = "from conjure.cli import main; main.main()"


class Studio:
    """One server. `kill` is the hard way; `start` brings it back at the same address, with the same history."""

    def __init__(self, folder: Path, options: Sequence[str] = (), **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address, self.folder = f"http://localhost:{self.port}/", folder
        self._options = ["studio", "--no-open", "--port", str(self.port), *options]
        own = {"CONJURE_HISTORY": str(folder / "history"), "HF_HUB_CACHE": str(folder / "hub"), "TMPDIR": str(folder),
               "OMP_NUM_THREADS": "1"}  # fmt: skip
        self._environment = {**os.environ, **own, **environment}
        self.process: subprocess.Popen[str] | None = None
        self.said: list[str] = []

    def start(self) -> None:
        """Returns when it answers."""
        command = [sys.executable, "-c", _START, *self._options]
        self.process = subprocess.Popen(command, env=self._environment, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self._reader.start()
        until = time.monotonic() + 300
        while time.monotonic() < until and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"the studio did not start: {''.join(self.said)}")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            self.said += lines

    def kill(self) -> None:
        """As the system does it when memory runs out."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)
        self._reader.join(20)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
                self._reader.join(20)
            except subprocess.TimeoutExpired:
                self.kill()


class Visit:
    """A page of a browser, with what it asked for and complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def open(self, address: str, tab: str = "make", ready: str = "#make-go") -> Page:
        """The studio at a tab, ready for use."""
        self.page.goto(address)
        self.page.wait_for_selector("#make-go")
        self.page.wait_for_function("document.querySelector('#make-model input')?.value")  # what can be had is there
        return self.turn(tab, ready)

    def turn(self, tab: str, ready: str) -> Page:
        """Another tab of the page."""
        name = tab.capitalize()
        direct = self.page.get_by_role("tab", name=name, exact=True)
        if direct.count():
            direct.click()
        else:  # a narrow page folds the last ones
            self.page.locator(".overflow-menu > button").click()
            self.page.locator(".overflow-dropdown").get_by_text(name, exact=True).click()
        self.page.wait_for_selector(ready)
        return self.page

    def left(self) -> list[str]:
        """Requests to other machines."""
        return [each for each in self.asked if urlsplit(each).scheme in ("http", "https", "ws", "wss")
                and urlsplit(each).hostname not in HERE]  # fmt: skip

    def wrong(self) -> list[str]:
        """Complaints of the page that are no one else's."""
        return [each for each in self.complaints if not HARMLESS.search(each)]


@contextmanager
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def faults(page: Page) -> list[str]:
    """What axe-core finds serious or critical, one line each with its place."""
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['help']}: {node['target']} {node['html'][:160]}" for each in found
            if each["impact"] in ("serious", "critical") for node in each["nodes"]]  # fmt: skip


def wide(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
