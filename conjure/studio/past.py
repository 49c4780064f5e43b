"""The page of what was made: search it, look at it, make it again, use it, delete it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import textwrap
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageDraw, ImageFont

from conjure.core.errors import ConjureError
from conjure.core.history import Entry, History
from conjure.serve.state import Server
from conjure.studio import showing
from conjure.studio.choices import name
from conjure.studio.following import QUIET, notice, said, status

ROWS = 24
"""Results of one page."""
THUMB = 224
"""Longer side of a thumbnail in pixels."""
KINDS = (("everything", ""), ("pictures", "image"), ("texts", "text"), ("sounds", "audio"), ("music", "music"))


@dataclass(frozen=True)
class Thumb:
    """One result in the list: its number, its small picture, its words."""

    number: int
    path: str
    caption: str


def page(home: Callable[[], Server], tab: gr.Tab, tabs: gr.Tabs, files: gr.File) -> None:
    """Builds the page in `tab`. "Use as input" puts a result among `files` and turns to the first of `tabs`."""
    _Past(home).build(tab, tabs, files)


class _Past:
    """The components of the page and what they do."""

    def __init__(self, home: Callable[[], Server]) -> None:
        self.home = home

    def build(self, tab: gr.Tab, tabs: gr.Tabs, files: gr.File) -> None:
        self.thumbs, self.number = gr.State([]), gr.State(0)
        with gr.Row(elem_classes=["row-wrap", "tight"]):
            self.words = gr.Textbox(label="Search", placeholder="words of the prompt", elem_id="past-search", scale=3,
                                    min_width=200)  # fmt: skip
            self.kind = gr.Dropdown(list(KINDS), value="", label="Medium", elem_id="past-kind", min_width=130,
                                    filterable=False)  # fmt: skip
            self.model = gr.Dropdown([("any", "")], value="", label="Model", elem_id="past-model", min_width=180,
                                     filterable=False)  # fmt: skip
        self.status = gr.HTML(notice(""), elem_id="past-status")
        with gr.Row(equal_height=False):
            with gr.Column(scale=6, min_width=320):
                self.gallery = gr.Gallery(label="Results, the latest first", columns=4, height=560, fit_columns=False,
                                          allow_preview=False, object_fit="contain", elem_id="past-gallery",
                                          interactive=False, buttons=[], show_label=False)  # fmt: skip
                self.more = gr.Button("Show older ones", size="md", visible=False, elem_id="past-more")
            with gr.Column(scale=5, min_width=320, visible=False) as self.side:
                self._detail()
        self._listen(tab, tabs, files)

    def _detail(self) -> None:
        self.picture = gr.Image(label="Result", interactive=False, height=300, buttons=["fullscreen"],
                                elem_id="past-picture", type="filepath", alt_text="the chosen result")  # fmt: skip
        self.sound = gr.Audio(label="Result", interactive=False, visible=False, type="filepath", elem_id="past-sound")
        self.text = gr.Textbox(label="Result", lines=8, max_lines=18, buttons=["copy"], interactive=False,
                               elem_id="past-text")  # fmt: skip
        with gr.Row(elem_classes=["row-wrap", "tight"]):
            self.use = gr.Button("Use as input", size="md", min_width=90, elem_id="past-use", scale=3)
            self.remake = gr.Button("Remake", size="md", min_width=80, elem_id="past-remake", scale=2)
            self.download = gr.DownloadButton("Download", size="md", min_width=90, elem_id="past-download", scale=2)
            self.delete = gr.Button("Delete", variant="stop", size="md", min_width=80, elem_id="past-delete", scale=2)
        with gr.Column(visible=False, elem_id="past-sure", elem_classes="sure") as self.sure:
            self.question = gr.HTML(elem_classes="ask")
            with gr.Row(elem_classes="tight"):
                self.yes = gr.Button("Delete it for good", variant="stop", size="md", elem_id="past-yes")
                self.no = gr.Button("Keep it", size="md", elem_id="past-no")
        self.facts = gr.HTML(elem_id="past-facts")

    def _listen(self, tab: gr.Tab, tabs: gr.Tabs, files: gr.File) -> None:
        asked = [self.words, self.kind, self.model]
        listed = [self.thumbs, self.gallery, self.more, self.model, self.status]
        changed = [self.words.change, self.kind.input, self.model.input, tab.select]
        gr.on(changed, self._list, asked, listed, trigger_mode="always_last", **QUIET)
        self.more.click(self._older, [*asked, self.thumbs], listed, **QUIET)
        detail = [self.number, self.side, self.picture, self.sound, self.text, self.facts, self.download, self.sure,
                  self.status]  # fmt: skip
        self.gallery.select(self._choose, [self.thumbs], detail, **QUIET)
        self.use.click(self._use, [self.number], [files, tabs, self.status], **QUIET)
        self.remake.click(self._remake, [self.number], [self.status], **QUIET)
        self.delete.click(self._ask, [self.number], [self.sure, self.question], **QUIET)
        self.no.click(lambda: gr.Column(visible=False), None, [self.sure], **QUIET)
        self.yes.click(self._delete, [self.number, self.thumbs, *asked], [*listed, self.side, self.sure], **QUIET)

    # ---------------------------------------------------------------- what they do
    async def _list(self, words: str, kind: str, model: str) -> Any:
        return await asyncio.to_thread(self._listed, words or "", kind or "", model or "", [])

    async def _older(self, words: str, kind: str, model: str, there: list[Thumb]) -> Any:
        return await asyncio.to_thread(self._listed, words or "", kind or "", model or "", there)

    def _listed(self, words: str, kind: str, model: str, there: list[Thumb]) -> list[Any]:
        history = self.home().history
        if history is None:
            said_so = notice("This server keeps no history: it was started with --no-history.")
            return [[], [], gr.Button(visible=False), gr.skip(), said_so]
        before = there[-1].number if there else None
        try:
            found = history.search(words, kind=kind, model=model, limit=ROWS + 1, before=before)
            models = sorted({entry.model for entry in history.search(limit=500)} - {""})
        except ConjureError as error:
            return [there, gr.skip(), gr.skip(), gr.skip(), notice(said(error), wrong=True)]
        thumbs = there + [_thumb(history, entry) for entry in found[:ROWS]]
        nothing = "Nothing that was made fits." if words or kind or model else "Nothing was made yet."
        return [
            thumbs, [(each.path, each.caption) for each in thumbs], gr.Button(visible=len(found) > ROWS),
            gr.Dropdown([("any", ""), *((each, each) for each in models)], value=model),
            notice("" if thumbs else nothing),
        ]  # fmt: skip

    async def _choose(self, thumbs: list[Thumb], event: gr.SelectData) -> Any:
        index = int(event.index or 0)
        if index >= len(thumbs):
            return [gr.skip()] * 9
        return await asyncio.to_thread(self._chosen, thumbs[index].number)

    def _chosen(self, number: int) -> list[Any]:
        try:
            shown = self._shown(number)
        except ConjureError as error:
            return [0, gr.Column(visible=False), *[gr.skip()] * 6, notice(said(error), wrong=True)]
        picture, sound = (shown.path if shown.kind == kind else None for kind in ("image", "audio"))
        return [
            number, gr.Column(visible=True), gr.Image(picture, visible=picture is not None),
            gr.Audio(sound, visible=sound is not None), gr.Textbox(shown.text, visible=shown.kind == "text"),
            showing.facts(shown), gr.DownloadButton(value=shown.path),
            gr.Column(visible=False), notice(""),
        ]  # fmt: skip

    def _shown(self, number: int) -> showing.Shown:
        history = self.home().history
        if history is None:
            raise ConjureError("this server keeps no history")
        return showing.from_history(history, history.get(number))

    async def _use(self, number: int) -> Any:
        try:
            shown = await asyncio.to_thread(self._shown, number)
        except ConjureError as error:
            return gr.skip(), gr.skip(), notice(said(error), wrong=True)
        return [shown.path], gr.Tabs(selected="make"), notice("")

    async def _remake(self, number: int) -> AsyncIterator[str]:
        async with aclosing(showing.remaking(self.home(), number)) as stages:
            async for stage in stages:
                yield notice(stage.end) if stage.end else status(stage)

    def _ask(self, number: int) -> Any:
        words = f"<p>Delete result {int(number)}? Its bytes and its words are gone then.</p>"
        return gr.Column(visible=True), words

    async def _delete(self, number: int, thumbs: list[Thumb], words: str, kind: str, model: str) -> Any:
        history = self.home().history
        closed = [gr.Column(visible=False), gr.Column(visible=False)]
        try:
            if history is not None:
                small = [each.path for each in thumbs if each.number == number]
                await asyncio.to_thread(_forget, history, number, small)
        except ConjureError as error:
            return [*[gr.skip()] * 4, notice(said(error), wrong=True), *closed]
        *listed, line = await self._list(words, kind, model)
        return [*listed, notice(f"Result {int(number)} is deleted.") if "wrong" not in line else line, *closed]


def _forget(history: History, number: int, small: Sequence[str]) -> None:
    """The result, and the copies from which the page showed it."""
    copies = [*small]
    with contextlib.suppress(ConjureError):  # its bytes are gone already
        copies.append(showing.from_history(history, history.get(number)).path)
    history.delete([number])
    for path in copies:
        Path(path).unlink(missing_ok=True)


def _thumb(history: History, entry: Entry) -> Thumb:
    first = " ".join(entry.prompt.split())[:60] or entry.task
    try:
        data = history.file(entry).read_bytes()
        said = data.decode("utf-8", "replace") if entry.kind == "text" else f"{name(entry.kind)}: {entry.prompt}"
        small = _small(data) if entry.kind == "image" else _card(said)
        path = showing.placed(small, f"{entry.digest[:16]}-small.png")
    except (ConjureError, OSError, ValueError):  # its bytes are gone, or no picture any more
        path = showing.placed(_card("(its bytes are gone)"), "gone-small.png")
    return Thumb(entry.id, path, first)


def _small(data: bytes) -> bytes:
    """A picture at the size of the list; our own readers have bounded it when it was made."""
    from conjure import media

    pixels = media.read(data, "image").pixels  # type: ignore[union-attr]
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.thumbnail((THUMB, THUMB))
    return _png(picture)


def _card(text: str) -> bytes:
    """The beginning of a text as a picture, for lists of pictures; its caption says the same to screen readers."""
    picture = Image.new("RGB", (THUMB, THUMB), "#f1f0ea")
    lines = [line for part in text[:400].splitlines() for line in textwrap.wrap(part, 27) or [""]][:11]
    ImageDraw.Draw(picture).multiline_text((14, 14), "\n".join(lines), fill="#33332f",
                                           font=ImageFont.load_default(14), spacing=4)  # fmt: skip
    return _png(picture)


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
