"""Compare: the same prompt through several models, seeds, samplers or any other option, side by side."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import gradio as gr

from conjure import media
from conjure.core.errors import ConjureError
from conjure.serve.errors import ApiError
from conjure.serve.making import planned_for, route, working
from conjure.serve.state import Server
from conjure.serve.worker import Ticket
from conjure.studio.choices import able
from conjure.studio.crossing import (
    MODEL,
    SEED,
    STYLE,
    Asked,
    Grid,
    axis,
    comparison,
    crossed,
    label,
    picture_in,
    shown,
    thumbnail,
)
from conjure.studio.following import BEAT, QUIET, following, notice, said
from conjure.studio.forms import Field, fields, form
from conjure.studio.seeds import seed_of
from conjure.studio.showing import placed
from conjure.tasks.comparison_page import page as written
from conjure.tasks.table import Edge, everything

DRAW = "draw"
REDRAWN = 1.0  # seconds between two looks at the grid
SUGGESTED = {"guidance": ("1", "2", "4", "7"), "steps": ("4", "8", "16", "32"), "size": ("64", "128", "256")}
SEEDS = tuple(map(str, range(8)))
CROSSABLE = ("whole", "number", "choice", "text")
"""Kinds of options that an axis may have."""
START = "a red apple left of a blue fish"


def page(home: Callable[[], Server]) -> None:
    """Builds the page where it is called."""
    _Compare(home)


class _Compare:
    """One page; what belongs to one reader lies in the state of his session."""

    def __init__(self, home: Callable[[], Server]) -> None:
        self.home = home
        self.tickets: dict[str, Ticket | None] = {}
        edge = next(edge for edge in _edges() if edge.task == DRAW)
        self.fields = {each.name: each for each in fields(route(edge)["options"])}
        gr.HTML(f"<style>{STYLE}</style>", visible="hidden")
        self.prompt = gr.Textbox(START, label="Prompt", lines=1, max_lines=4, elem_id="compare-prompt")
        with gr.Row(equal_height=True):
            with gr.Column(min_width=280):
                self.across, self.columns = self._axis("Across", SEED, "across")
            with gr.Column(min_width=280):
                self.down, self.rows = self._axis("Down", "steps" if "steps" in self.fields else MODEL, "down")
        with gr.Row(elem_classes="row-wrap tight"):
            self.go = gr.Button("Compare", variant="primary", min_width=140, elem_id="compare-go", scale=3)
            self.stop = gr.Button("Cancel", variant="stop", interactive=False, min_width=100, elem_id="compare-stop")
            self.as_page = gr.DownloadButton("Export page", interactive=False, min_width=120, elem_id="compare-page")
            self.as_json = gr.DownloadButton("Export JSON", interactive=False, min_width=120, elem_id="compare-json")
        self.status = gr.HTML(notice(""), elem_id="compare-status")
        self.grid = gr.HTML("", elem_id="compare-grid", padding=False)
        with gr.Accordion("What is the same in all", open=False):
            self.model = gr.Dropdown([], label="Model", elem_id="compare-model", info="where no axis has models")
            self.seed = gr.Textbox("0", label="Seed", max_lines=1, elem_id="compare-seed",
                                   info="where no axis has seeds")  # fmt: skip
            self.form = form(route(edge)["options"], shown=99, prefix="compare")
        self._listeners()

    def _axis(self, name: str, chosen: str, key: str) -> tuple[gr.Dropdown, gr.Dropdown]:
        names = ["", MODEL, SEED, *(each.name for each in self.fields.values() if each.kind in CROSSABLE)]
        choices = self._choices(chosen)
        with gr.Row(elem_classes="tight"):
            first = gr.Dropdown([(label(each), each) for each in names], value=chosen, label=name, filterable=False,
                                elem_id=f"compare-{key}", scale=2, min_width=120)  # fmt: skip
            values = gr.Dropdown(choices, value=choices[:3], multiselect=True, allow_custom_value=True, scale=4,
                                 label=f"{name}: values", elem_id=f"compare-{key}-values", min_width=180)  # fmt: skip
        return first, values

    # ---------------------------------------------------------------- what happens
    def _listeners(self) -> None:
        gr.on(fn=self._offered, inputs=None, outputs=self.model, **QUIET)
        for names, values in ((self.across, self.columns), (self.down, self.rows)):
            names.input(self._turned, names, values, **QUIET)
        asked = [self.prompt, self.across, self.columns, self.down, self.rows, self.model, self.seed]
        gr.on([self.go.click, self.prompt.submit], self._run, [*asked, *self.form.components],
              [self.grid, self.status, self.stop, self.as_page, self.as_json], **QUIET)  # fmt: skip
        self.stop.click(self._stopped, None, None, **QUIET)

    async def _offered(self) -> Any:
        names = await asyncio.to_thread(self._models)
        return gr.update(choices=names, value=names[0] if names else None)

    async def _turned(self, name: str) -> Any:
        choices = await asyncio.to_thread(self._choices, name)
        several = choices[:2] if name == MODEL else choices[:3]
        return gr.update(choices=choices, value=several, interactive=bool(name))

    def _models(self) -> list[str]:
        offered = self.home().keeper.offered()
        return list(dict.fromkeys(name for edge in _edges() for name in able(edge, offered) if name))

    def _choices(self, name: str) -> list[str]:
        """What may stand on an axis; more can be typed."""
        if name == MODEL:
            return self._models()
        if name == SEED:
            return list(SEEDS)
        its: Field | None = self.fields.get(name)
        return list((its.choices if its is not None else ()) or SUGGESTED.get(name, ()))

    async def _run(self, request: gr.Request, prompt: str, across: str, columns: Sequence[Any], down: str,
                   rows: Sequence[Any], model: str, seed: str, *values: Any) -> AsyncIterator[Any]:  # fmt: skip
        key, stay = str(request.session_hash), gr.update()
        if key in self.tickets:
            yield stay, notice("A comparison is under way: cancel it first.", wrong=True), stay, stay, stay
            return
        try:
            grid = self._grid(prompt, across, columns, down, rows, model, seed, values)
        except (ConjureError, ApiError) as error:
            yield stay, notice(said(error), wrong=True), stay, stay, stay
            return
        self.tickets[key] = None
        try:
            off = gr.update(interactive=False)
            yield shown(grid), notice("Starting"), gr.update(interactive=True), off, off
            began, drawn, asked = time.monotonic(), 0.0, grid.asked()
            for done, each in enumerate(asked):
                words = notice(f"{done} of {len(asked)} are drawn{_left(began, done, len(asked))}")
                async with aclosing(self._cell(grid, each, key)) as steps:  # type: ignore[type-var]
                    async for _ in steps:
                        if time.monotonic() - drawn >= REDRAWN:
                            drawn = time.monotonic()
                            yield shown(grid), words, stay, stay, stay
                if key not in self.tickets:  # it was cancelled
                    break
            yield await self._finished(grid, time.monotonic() - began)
        finally:
            self.tickets.pop(key, None)

    def _grid(self, prompt: str, across: str, columns: Sequence[Any], down: str, rows: Sequence[Any], model: str,
              seed: str, values: Sequence[Any]) -> Grid:  # fmt: skip
        if not prompt.strip():
            raise ConjureError("Write a prompt first")
        one, other = axis(down, rows or ()), axis(across, columns or ())
        crossed(one, other)
        for each in (one, other):
            for name in each.values if each.name == MODEL else ():
                self.home().keeper.path(name)
        return Grid(prompt.strip(), one, other, model, seed_of(seed), self.form.options(values))

    async def _cell(self, grid: Grid, asked: Asked, key: str) -> AsyncIterator[None]:
        """Draws one cell; yields wherever it looks different."""
        home, cell = self.home(), grid.cells[asked.row, asked.column]
        try:
            options = await asyncio.to_thread(self._known, asked)
            planned = await asyncio.to_thread(
                lambda: planned_for(home, [media.Text(grid.prompt)], to="image", model=asked.model, seed=asked.seed,
                                    options=options)
            )  # fmt: skip
            if key not in self.tickets:
                return
            ticket = self.tickets[key] = home.worker.submit(lambda: working(home, planned, keep=False))
        except (ConjureError, ApiError) as error:
            cell.error = said(error)
            return
        cell.words = "starting"
        async with aclosing(following(ticket.events(heartbeat=BEAT))) as stages:
            async for stage in stages:
                cell.words, cell.share = stage.words or "starting", stage.share
                if stage.error:
                    cell.error = stage.error
                elif stage.end is not None:
                    picture = picture_in(stage.end)
                    png = media.encode(picture, ".png")
                    cell.made, cell.thumb = stage.end, thumbnail(picture)
                    cell.link = f"/media/{home.links.add(png, '.png')}"
                yield

    def _known(self, asked: Asked) -> dict[str, Any]:
        """The options that the way of this model has; an axis that it has not is an error of its cells."""
        offered = self.home().keeper.offered()
        edge = next((edge for edge in _edges() if asked.model in able(edge, offered)), None)
        if edge is None:
            raise ConjureError(f"{asked.model} draws nothing from a text")
        known = {each.name for each in fields(route(edge)["options"])}
        return {name: value for name, value in asked.options.items() if name in known}

    async def _finished(self, grid: Grid, seconds: float) -> tuple[Any, ...]:
        made = [cell for cell in grid.cells.values() if cell.made is not None]
        off = gr.update(interactive=False)
        if not made:
            errors = [cell.error for cell in grid.cells.values() if cell.error]
            wrong = errors[0] if errors else "It was cancelled."
            return shown(grid), notice(wrong, wrong=True), off, off, off
        came = await asyncio.to_thread(comparison, grid)
        plain = json.dumps(came.plain(), indent=1, ensure_ascii=False) + "\n"
        files = placed(written(came).encode(), "comparison.html"), placed(plain.encode(), "comparison.json")
        rest = len(grid.cells) - len(made)
        words = f"{len(made)} pictures in {seconds:.0f} s" + (f", {rest} are missing" if rest else "")
        page, beside = (gr.update(value=path, interactive=True) for path in files)
        return shown(grid), notice(words), off, page, beside

    def _stopped(self, request: gr.Request) -> None:
        ticket = self.tickets.pop(str(request.session_hash), None)
        if ticket is not None:
            ticket.cancel()


def _edges() -> list[Edge]:
    """All ways from a text to a picture."""
    return [edge for edge in everything() if edge.inputs == ("text",) and edge.output == "image"]


def _left(began: float, done: int, total: int) -> str:
    if not done:
        return ""
    seconds = (time.monotonic() - began) / done * (total - done)
    return f", about {max(1, round(seconds))} s left"
