"""How long does a newcomer wait for the studio: for the server, for the page, for the first picture?

Every round is a new server and a new browser (Debian's chromium, driven by playwright); what they read from disk is in
the system's cache. The picture is the example that the page opens with, made by one click as soon as the button is
there.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from statistics import median

from benchmarks.processes import tell
from benchmarks.report import heading, load, spread, table, verdict
from benchmarks.serve.servers import PORT, Program, beside, running

CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync").split()  # fmt: skip
PACKAGES = ("conjure", "torch", "gradio", "playwright")
WITHIN = {"painted": 1.0, "picture": 10.0}
"""Seconds from opening the page."""
PATIENCE = 300_000  # milliseconds


@dataclass(frozen=True)
class Wait:
    """Seconds: until the server answers; then, from opening the page, until something is painted, until the button can
    be pressed, and until the picture is there."""

    server: float
    painted: float
    button: float
    picture: float


SAID = {"server": "the server answers, from the command", "painted": "first paint, from opening the page",
        "button": "the button is there", "picture": "the first picture is there"}  # fmt: skip


def measured(threads: int) -> Wait:
    """One round."""
    from playwright.sync_api import sync_playwright

    words = [beside("conjure") or "conjure", "studio", "--no-open", "--no-history", "--port", PORT]
    began = time.perf_counter()
    with running(Program("studio", words, ""), threads) as server, sync_playwright() as play:
        up = time.perf_counter() - began
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        opened = time.perf_counter()
        page.goto(f"http://localhost:{server.port}/")
        page.wait_for_selector("#make-go")
        button = time.perf_counter() - opened
        page.click("#make-go")
        page.wait_for_function("document.body.innerText.includes('Done in')")
        picture = time.perf_counter() - opened
        painted = page.evaluate("performance.getEntriesByName('first-paint')[0].startTime") / 1000
        browser.close()
    return Wait(up, painted, button, picture)


def result(waits: Sequence[Wait]) -> str:
    """A table, and whether the bounds hold."""
    columns: Mapping[str, Sequence[float]] = dict(zip(
        (field.name for field in fields(Wait)), zip(*map(astuple, waits), strict=True), strict=True
    ))  # fmt: skip
    rows = [[SAID[name], spread(values)] for name, values in columns.items()]
    claims = [verdict(SAID[name], median(columns[name]), at_most=most) for name, most in WITHIN.items()]
    return "\n".join([table(["seconds", "median (min-max)"], rows), "", *claims])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studio", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the server (default all)")
    asked = parser.parse_args(arguments)
    rounds = 1 if asked.quick else asked.rounds
    print(heading("The studio", "studio", arguments, packages=PACKAGES, facts={"before it": load()}), flush=True)
    waits = []
    for number in range(rounds):
        tell(f"round {number + 1}/{rounds}")
        waits.append(measured(asked.threads))
    print(result(waits))


if __name__ == "__main__":
    main()
