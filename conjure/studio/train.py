"""Train: a recipe and data, started as a process of its own that any page can watch, stop, go on with, and use."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from conjure import media
from conjure.core.errors import ConjureError
from conjure.data import fetch
from conjure.data.catalogue import CATALOGUE
from conjure.media.image import Image
from conjure.media.kinds import SUFFIXES
from conjure.serve.state import Server
from conjure.studio import curve
from conjure.studio.following import QUIET, notice, said
from conjure.studio.picture_files import shown_file
from conjure.studio.runs import (
    DONE,
    FAILED,
    RUNNING,
    STARTING,
    STOPPED,
    Runs,
    Seen,
    chosen,
    lacking,
    models_dir,
    needed,
    untold,
)  # fmt: skip
from conjure.train import recipe as book

FIRST = "shakespeare-char"
BEAT = 2.0  # seconds between two looks at a run
SHOWN = ("about", "minutes", "hardware", "licence", "result")
MOST_TEXT = 20_000
WORDS = {STARTING: "Starting: the libraries and the data are being read", RUNNING: "Running", STOPPED: "Stopped",
         DONE: "Done", FAILED: "Failed"}  # fmt: skip


def page(home: Callable[[], Server]) -> None:
    """Builds the page where it is called."""
    _Train(home)


class _Train:
    """One page; what runs lies in folders, and all readers see the same."""

    def __init__(self, home: Callable[[], Server]) -> None:
        self.home = home
        self.runs = Runs(models_dir())
        gr.HTML(f"<style>{curve.STYLE}</style>", visible="hidden")
        self.timer = gr.Timer(BEAT, active=False)
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                self._recipe()
            with gr.Column(scale=6, min_width=320):
                self._run()
        self._listeners()

    # ---------------------------------------------------------------- what is there
    def _recipe(self) -> None:
        names = list(book.available())
        first = FIRST if FIRST in names else names[0]
        self.recipe = gr.Dropdown(names, value=first, label="Recipe", elem_id="train-recipe", filterable=True)
        self.about = gr.HTML(_about(first), elem_id="train-about")
        self.data = gr.Dropdown([], label="Data", multiselect=True, elem_id="train-data", visible=False)
        self.missing = gr.HTML("", elem_id="train-missing")
        self.name = gr.Textbox(first, label="Name of the new model", max_lines=1, elem_id="train-name",
                               info=f"a folder of that name in {_short(self.runs.place)}")  # fmt: skip
        self.changes = gr.Textbox("", label="Changes to the recipe", lines=1, max_lines=6, elem_id="train-changes",
                                  placeholder="train.steps=100", info="one a line, as on the command line")  # fmt: skip
        self.go = gr.Button("Start training", variant="primary", elem_id="train-go")
        self.status = gr.HTML(notice(""), elem_id="train-status")

    def _run(self) -> None:
        self.which = gr.Dropdown([], label="Trainings", elem_id="train-which", filterable=False)
        self.state = gr.HTML(notice("Nothing was trained here yet."), elem_id="train-state")
        self.loss = gr.HTML("", elem_id="train-curve", padding=False)
        with gr.Row(elem_classes="row-wrap tight"):
            self.stop = gr.Button("Stop", variant="stop", size="md", interactive=False, min_width=90,
                                  elem_id="train-stop")  # fmt: skip
            self.resume = gr.Button("Go on", size="md", interactive=False, min_width=90, elem_id="train-resume")
            self.use = gr.Button("Use the result", size="md", interactive=False, min_width=120, elem_id="train-use")
        self.pictures = gr.Gallery(label="Previews", columns=4, height=220, object_fit="contain", visible=False,
                                   buttons=[], interactive=False, elem_id="train-previews")  # fmt: skip
        self.texts = gr.HTML("", elem_id="train-texts")

    # ---------------------------------------------------------------- what happens
    def _listeners(self) -> None:
        about = [self.about, self.data, self.missing, self.name]
        self.recipe.change(self._chosen, [self.recipe], about, **QUIET)
        self.data.input(self._missing, [self.recipe, self.data], [self.missing], **QUIET)
        seen = [self.state, self.loss, self.stop, self.resume, self.use, self.pictures, self.texts, self.timer]
        gr.on(fn=self._loaded, inputs=None, outputs=[self.which, *seen, *about[:3]], **QUIET)
        self.timer.tick(self._seen, [self.which], seen, **QUIET)
        self.which.input(self._seen, [self.which], seen, **QUIET)
        self.go.click(self._started, [self.recipe, self.data, self.name, self.changes],
                      [self.status, self.which, *seen], **QUIET)  # fmt: skip
        for button, does in ((self.stop, self._stopped), (self.resume, self._resumed), (self.use, self._used)):
            button.click(does, [self.which], [self.status, *seen], **QUIET)

    async def _chosen(self, recipe: str) -> tuple[Any, ...]:
        sets = await asyncio.to_thread(chosen, recipe)
        data = gr.update(choices=_sets(sets or ()), value=list(sets or ()), visible=sets is not None)
        return _about(recipe), data, await self._missing(recipe, list(sets or ())), recipe

    async def _missing(self, recipe: str, sets: Sequence[str]) -> str:
        names = await asyncio.to_thread(needed, recipe, _assigned(recipe, sets))
        missing = await asyncio.to_thread(lacking, names)
        if missing:
            return notice(untold(missing), wrong=True)
        return notice(f"Data: {', '.join(names)}, on this machine." if names else "")

    async def _loaded(self) -> tuple[Any, ...]:
        """What is seen first: the run that goes on, or the latest."""
        names = await asyncio.to_thread(self.runs.names)
        first = names[0] if names else None
        for name in names:  # what was taken among the models stays there when the server starts again
            facts = self.runs.facts(name)
            if facts.used:
                self._offer(name)
        sets = chosen(str(self.recipe.value))
        data = gr.update(choices=_sets(sets or ()), value=list(sets or ()), visible=sets is not None)
        missing = await self._missing(str(self.recipe.value), list(sets or ()))
        seen = await self._seen(first)
        return gr.update(choices=names, value=first), *seen, _about(str(self.recipe.value)), data, missing

    async def _started(self, recipe: str, data: Sequence[str], name: str, changes: str) -> tuple[Any, ...]:
        assignments = [*_assigned(recipe, data), *changes.split()]
        try:
            self._allowed()
            await asyncio.to_thread(self.runs.begin, name.strip(), recipe, assignments)
        except ConjureError as error:
            return notice(said(error), wrong=True), gr.update(), *(gr.update() for _ in range(8))
        names = await asyncio.to_thread(self.runs.names)
        words = notice(f"{name.strip()} has begun. It goes on when this page is closed.")
        return words, gr.update(choices=names, value=name.strip()), *await self._seen(name.strip())

    async def _stopped(self, name: str | None) -> tuple[Any, ...]:
        return await self._acted(name, self.runs.stop, "It ends after its step, and what was done is kept.")

    async def _resumed(self, name: str | None) -> tuple[Any, ...]:
        return await self._acted(name, self.runs.resume, "It goes on from its newest checkpoint.")

    async def _used(self, name: str | None) -> tuple[Any, ...]:
        def use(name: str) -> None:
            self._offer(name)
            self.runs.used(name)

        return await self._acted(name, use, f"{name} is among the models now: Make, Chat, Edit and Compare offer it.")

    async def _acted(self, name: str | None, does: Callable[[str], None], words: str) -> tuple[Any, ...]:
        try:
            self._allowed()
            if not name:
                raise ConjureError("choose a training first")
            await asyncio.to_thread(does, name)
            shown = notice(words)
        except ConjureError as error:
            shown = notice(said(error), wrong=True)
        return shown, *await self._seen(name)

    def _allowed(self) -> None:
        """Training takes the machine for hours: it is for who sits at it, or has the key."""
        settings = self.home().settings
        if not (settings.loopback or settings.key):
            raise ConjureError("training is for those with the key", hint="conjure studio --key ...")

    def _offer(self, name: str) -> None:
        """Takes the model of a run among those that may be named."""
        self.home().keeper.offer(self.runs.folder(name))

    # ---------------------------------------------------------------- what is seen
    async def _seen(self, name: str | None) -> tuple[Any, ...]:
        return await asyncio.to_thread(self._look, name)

    def _look(self, name: str | None) -> tuple[Any, ...]:
        off = gr.update(interactive=False)
        try:
            if not name:
                raise ConjureError("")
            seen = self.runs.seen(name)
        except ConjureError as error:
            words = error.message or "Nothing was trained here yet."
            return notice(words), "", off, off, off, gr.update(visible=False), "", gr.Timer(active=False)
        goes = seen.state in (STARTING, RUNNING)
        pictures, texts = self._previews(name)
        return (
            _state(seen), curve.drawn(seen.losses, seen.figures, seen.steps), gr.update(interactive=goes),
            gr.update(interactive=not goes and self.runs.resumable(name)),
            gr.update(interactive=seen.state == DONE), gr.update(value=pictures, visible=bool(pictures)), texts,
            gr.Timer(active=goes),
        )  # fmt: skip

    def _previews(self, name: str) -> tuple[list[tuple[str, str]], str]:
        """Pictures with captions, and texts as HTML."""
        pictures, texts = [], []
        for step, path in self.runs.previews(name):
            try:
                kind = SUFFIXES.get(path.suffix)
                if kind == "image":
                    picture = media.read(path)
                    assert isinstance(picture, Image), "the suffix says so"
                    pictures.append((shown_file(picture), f"step {step:,}"))
                elif kind == "text" and not texts:
                    head = f"<p><strong>Preview at step {step:,}</strong></p>"
                    text = html.escape(path.read_text(encoding="utf-8", errors="replace")[:MOST_TEXT])
                    texts.append(f'{head}<pre class="card" tabindex="0">{text}</pre>')
            except (ConjureError, OSError):  # it is being written: the next look sees it
                continue
        return pictures, "".join(texts)


def _short(place: Path) -> str:
    """A folder as people write it: those below the home directory with a ~."""
    home = Path.home()
    return f"~/{place.relative_to(home)}" if place.is_relative_to(home) else str(place)


def _about(recipe: str) -> str:
    """The head of a recipe as a table."""
    head = book.header(book.available()[recipe])
    rows = "".join(f'<tr><th scope="row">{name.capitalize()}</th><td>{html.escape(head[name])}</td></tr>'
                   for name in SHOWN if head.get(name))  # fmt: skip
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def _sets(own: Sequence[str]) -> list[tuple[str, str]]:
    """The data sets to choose from: those of the recipe, and all that are on this machine."""
    there = {each.name for each in CATALOGUE if fetch.available(each.name) is not None}
    names = [*own, *sorted(there - set(own))]
    return [(name if name in there else f"{name} (not here)", name) for name in names]


def _assigned(recipe: str, sets: Sequence[str]) -> list[str]:
    """What puts other data sets into a recipe; nothing where they are its own."""
    own = chosen(recipe)
    if own is None or tuple(sets) == own or not all(re.fullmatch(r"[\w.-]+", name) for name in sets):
        return []
    return [f"data.sets=[{', '.join(sets)}]"]


def _state(seen: Seen) -> str:
    """How a run stands, as HTML."""
    words = WORDS[seen.state]
    changed = f" ({', '.join(seen.facts.assignments)})" if seen.facts.assignments else ""
    parts = [f"<p><strong>{html.escape(words)}</strong>: {html.escape(seen.facts.recipe + changed)}</p>"]
    if seen.steps:
        loss = f", loss {seen.losses[-1][1]:.4g}" if seen.losses else ""
        left = f", {seen.left} left" if seen.left and seen.state == RUNNING else ""
        parts.append(f'<progress aria-label="Progress" max="{seen.steps}" value="{seen.step}"></progress>')
        parts.append(f"<p>Step {seen.step:,} of {seen.steps:,}{loss}{left}</p>")
    elif seen.state == STARTING:
        parts.append('<progress aria-label="Progress"></progress>')
    figures = [f"{name} {points[-1][1]:.4g}" for name, points in seen.figures.items()]
    if figures:
        parts.append(f"<p>Measured: {html.escape(', '.join(figures))}</p>")
    if seen.said and seen.state in (FAILED, STOPPED):
        wrong = ' class="wrong" role="alert"' if seen.state == FAILED else ""
        parts.append(f"<p{wrong}>{html.escape(seen.said)}</p>")
    return f'<div class="status" role="status">{"".join(parts)}</div>'
