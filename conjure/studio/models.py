"""The page of models: which are here, what each is and may be used for; fetching one from the hub; removing one."""

from __future__ import annotations

import asyncio
import html
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from conjure.core import hub, shelf
from conjure.core.errors import ConjureError
from conjure.core.events import Progress
from conjure.core.files import size
from conjure.core.shelf import ModelInfo
from conjure.serve.state import Server
from conjure.studio.following import BEAT, QUIET, following, notice, said, status

CARD_BYTES = 64 << 10
"""Of a card, so much is shown."""


def page(home: Callable[[], Server], tab: gr.Tab) -> None:
    """Builds the page in `tab`."""
    _Models(home).build(tab)


@dataclass(frozen=True)
class Fetched:
    """The end of a download."""

    folder: Path


class _Models:
    """The components of the page and what they do."""

    def __init__(self, home: Callable[[], Server]) -> None:
        self.home = home

    def build(self, tab: gr.Tab) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                gr.HTML("<h2>On this machine</h2>")
                self.table = gr.HTML(elem_id="models-table")
                self.chosen = gr.Dropdown([], label="Look at", elem_id="models-chosen", filterable=False)
                self.facts = gr.HTML(elem_id="models-facts")
                self.remove = gr.Button("Remove", variant="stop", size="md", visible=False, elem_id="models-remove")
                with gr.Column(visible=False, elem_id="models-sure", elem_classes="sure") as self.sure:
                    self.question = gr.HTML(elem_classes="ask")
                    with gr.Row(elem_classes="tight"):
                        self.yes = gr.Button("Remove it", variant="stop", size="md", elem_id="models-yes")
                        self.no = gr.Button("Keep it", size="md", elem_id="models-no")
            with gr.Column(scale=5, min_width=320):
                gr.HTML("<h2>Get one from the hub</h2>")
                self.wanted = gr.Textbox(label="Name", placeholder="org/name, or org/name@revision", max_lines=1,
                                         elem_id="models-wanted",
                                         info="Of a model on the Hugging Face hub.")  # fmt: skip
                self.gguf = gr.Textbox(label="GGUF", placeholder="Q4_K_M", max_lines=1, elem_id="models-gguf",
                                       info="For GGUF files: which quantisation, or the file's name.")  # fmt: skip
                with gr.Row(elem_classes="tight"):
                    self.look = gr.Button("Look it up", elem_id="models-look")
                    self.get = gr.Button("Get it", variant="primary", elem_id="models-get", elem_classes="go")
                    self.stop = gr.Button("Stop", variant="stop", elem_id="models-stop")
                self.status = gr.HTML(notice("Nothing is fetched before you press Get it; a stopped download goes on "
                                             "where it ended."), elem_id="models-status")  # fmt: skip
        self._listen(tab)

    def _listen(self, tab: gr.Tab) -> None:
        listed = [self.table, self.chosen]
        about = [self.facts, self.remove, self.sure]
        tab.select(self._list, [self.chosen], listed, **QUIET)
        self.chosen.change(self._about, [self.chosen], about, **QUIET)
        asked = [self.wanted, self.gguf]
        self.look.click(self._look, asked, [self.status], **QUIET)
        getting = gr.on([self.get.click, self.wanted.submit], self._get, asked, [self.status, *listed], **QUIET)
        self.stop.click(lambda: notice("Stopped. What came is kept, and goes on from there."), None, [self.status],
                        cancels=[getting], **QUIET)  # fmt: skip
        self.remove.click(self._ask, [self.chosen], [self.sure, self.question], **QUIET)
        self.no.click(lambda: gr.Column(visible=False), None, [self.sure], **QUIET)
        self.yes.click(self._remove, [self.chosen], [self.status, *listed, *about], **QUIET)

    # ---------------------------------------------------------------- what they do
    async def _list(self, chosen: str | None) -> list[Any]:
        offered = await asyncio.to_thread(lambda: self.home().keeper.offered())
        names = list(offered)
        value = chosen if chosen in offered else (names or [None])[0]
        return [_table(offered), gr.Dropdown(names, value=value)]

    async def _about(self, name: str | None) -> list[Any]:
        if not name:
            return ["", gr.Button(visible=False), gr.Column(visible=False)]
        offered = await asyncio.to_thread(lambda: self.home().keeper.offered())
        info = offered.get(name)
        if info is None:
            return [notice(f"{name} is not here any more.", wrong=True), gr.Button(visible=False),
                    gr.Column(visible=False)]  # fmt: skip
        facts = await asyncio.to_thread(_facts, info)
        return [facts, gr.Button(visible=_removable(info)), gr.Column(visible=False)]

    async def _look(self, name: str, gguf: str) -> str:
        try:
            return notice(_said(await asyncio.to_thread(hub.plan, name.strip(), gguf.strip())))
        except ConjureError as error:
            return notice(said(error), wrong=True)

    async def _get(self, name: str, gguf: str) -> AsyncIterator[Any]:
        """The stages of a download; whoever stops it keeps what came."""
        yield [notice("Looking it up"), gr.skip(), gr.skip()]
        async with aclosing(following(fetching(name.strip(), gguf.strip()))) as stages:
            async for stage in stages:
                if stage.end is None:
                    yield [status(stage), gr.skip(), gr.skip()]
                else:
                    self.home().keeper.changed()
                    yield [notice(f"{name.strip()} is here now."), *await self._list(name.strip())]

    async def _ask(self, name: str) -> list[Any]:
        try:
            wanted = await asyncio.to_thread(hub.removal, name)
        except ConjureError as error:
            return [gr.Column(visible=True), notice(said(error), wrong=True)]
        words = f"Remove {html.escape(name)} from this machine? That frees {size(wanted.bytes)}."
        return [gr.Column(visible=True), f"<p>{words}</p>"]

    async def _remove(self, name: str) -> list[Any]:
        try:
            wanted = await asyncio.to_thread(hub.removal, name)
            await asyncio.to_thread(hub.remove, wanted)
            self.home().keeper.changed()
        except ConjureError as error:
            return [notice(said(error), wrong=True), *[gr.skip()] * 5]
        listed = await self._list(None)
        line = notice(f"{name} is removed, {size(wanted.bytes)} are free again.")
        return [line, *listed, "", gr.Button(visible=False), gr.Column(visible=False)]


async def fetching(name: str, gguf: str) -> AsyncGenerator[Any, None]:
    """The progress of a download, in a thread of its own, and `Fetched` at the end. Closing it ends the download."""
    loop, came, left = asyncio.get_running_loop(), asyncio.Queue[Any](), threading.Event()

    def report(progress: Progress) -> None:
        if left.is_set():
            raise ConjureError("it was stopped")
        loop.call_soon_threadsafe(came.put_nowait, progress)

    wanted = await asyncio.to_thread(hub.plan, name, gguf)
    work = loop.run_in_executor(None, lambda: hub.fetch(wanted, on_progress=report))
    try:
        while not (work.done() and came.empty()):
            try:
                yield await asyncio.wait_for(came.get(), BEAT)
            except TimeoutError:
                yield None
        yield Fetched(await work)
    finally:
        left.set()
        if not work.done():
            work.add_done_callback(lambda ended: ended.exception())  # nobody waits for it any more


def _said(wanted: hub.Plan) -> str:
    listing = wanted.listing
    here = f", {size(wanted.here)} of it here already" if wanted.here else ""
    gated = " Its owner gives it only to those who accepted the terms." if listing.gated else ""
    count = len(wanted.files)
    return (f"{listing.repo}: {count} file{'s' if count != 1 else ''}, {size(wanted.total)}{here}. Licence: "
            f"{listing.licence}.{gated}")  # fmt: skip


def _removable(info: ModelInfo) -> bool:
    return bool(info.revision) and shelf.names(info.name) is not None


def _table(offered: dict[str, ModelInfo]) -> str:
    """All models as an HTML table. All of it escaped."""
    head = "".join(f'<th scope="col">{each}</th>' for each in ("Model", "For", "Parameters", "Size", "Licence"))
    rows = []
    for name, info in offered.items():
        cells = (name, info.task or info.kind, _count(info.parameters), size(info.bytes), info.licence or "unstated")
        rows.append("<tr>" + "".join(f"<td>{html.escape(each)}</td>" for each in cells) + "</tr>")
    return ('<div class="wide" tabindex="0" role="region" aria-label="Models on this machine"><table class="list">'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>")  # fmt: skip


def _facts(info: ModelInfo) -> str:
    """What a model is, and its card as text: nothing that stands in a card is run or fetched."""
    folder = info.path if info.path.is_dir() else info.path.parent
    header = shelf.card_header(folder)
    rows = [
        ("Kind", info.kind), ("For", info.task), ("Licence", info.licence or "unstated"),
        ("Parameters", _count(info.parameters)), ("Size", size(info.bytes)),
        ("Made from", header.get("base_model", "")), ("Summary", info.summary), ("Commit", info.revision),
    ]  # fmt: skip
    body = "".join(f'<tr><th scope="row">{name}</th><td>{html.escape(value)}</td></tr>'
                   for name, value in rows if value)  # fmt: skip
    card = _card(folder)
    shown = f'<h3>Its card</h3><pre class="card" tabindex="0">{html.escape(card)}</pre>' if card else ""
    return f'<table class="facts"><tbody>{body}</tbody></table>{shown}'


def _card(folder: Path) -> str:
    """The text of a model's card without its header."""
    path = folder / "README.md"
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        text = file.read(CARD_BYTES).decode("utf-8", "replace")
    if text.startswith("---\n") and "\n---\n" in text[4:]:
        text = text[4:].partition("\n---\n")[2]
    return text.strip()


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:,.1f} M" if parameters else ""
