"""Speak: a text read aloud; the sentences follow the sound as it is played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import gradio as gr

from conjure.core.errors import ConjureError
from conjure.media import Text
from conjure.serve.errors import ApiError
from conjure.serve.making import planned_for
from conjure.serve.state import Server
from conjure.studio.following import QUIET, Stage, notice, said, status
from conjure.studio.player import player
from conjure.studio.seeds import seed_of
from conjure.studio.showing import facts, from_made
from conjure.studio.task_forms import TaskForms
from conjure.studio.tickets import Tickets

TASK = "speak"
FIRST = ("voice", "speed", "speaker")
"""Options that stand first, where a model has them."""
EXAMPLE = (
    "Once upon a time, in a house at the edge of a wood, there lived a clockmaker who had never been late. "
    "On the 3rd of May, at 7:15, his own clock stopped."
)


def page(home: Callable[[], Server], tab: gr.Tab) -> None:
    """Builds the page where it is called, in this tab."""
    _Speak(home, tab)


class _Speak:
    """One page; what belongs to one reader lies in the state of his session."""

    def __init__(self, home: Callable[[], Server], tab: gr.Tab) -> None:
        self.home = home
        self.tickets = Tickets("Something is being read: stop it first.")
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=320):
                self.text = gr.Textbox(EXAMPLE, label="Text", lines=8, max_lines=24, elem_id="speak-text",
                                       info="Ctrl+Enter reads it. It may be Markdown, or SSML.")  # fmt: skip
                with gr.Row(elem_classes="tight"):
                    self.go = gr.Button("Read it aloud", variant="primary", elem_id="speak-go", elem_classes="go",
                                        scale=3)  # fmt: skip
                    self.stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="speak-stop", scale=1,
                                          min_width=80)  # fmt: skip
                self.forms = TaskForms(home, tab, TASK, first=FIRST, prefix="speak")
                self.seed = gr.Textbox("", label="Seed", placeholder="at random", max_lines=1, elem_id="speak-seed")
            with gr.Column(scale=6, min_width=320):
                self.status = gr.HTML(notice(""), elem_id="speak-status")
                self.player = gr.HTML(elem_id="speak-player")
                self.save = gr.DownloadButton("Download", size="md", visible=False, elem_id="speak-save")
                with gr.Accordion("How was it made", open=False, visible=False) as self.how:
                    self.facts = gr.HTML()
        seen = [self.status, self.player, self.stop, self.save, self.how, self.facts]
        self.go.click(self._run, [self.text, self.seed, *self.forms.inputs], seen, **QUIET)
        self.stop.click(self.tickets.stop, None, None, **QUIET)

    async def _run(
        self, request: gr.Request, text: str, seed: str, model: str | None, *values: Any
    ) -> AsyncIterator[Any]:
        """The text as sound: its stages, and the player at the end."""
        home = self.home()
        try:
            with self.tickets.taken(request) as key:
                yield _seen(notice("Starting"), stop=True)
                if not text.strip():
                    raise ConjureError("there is nothing to read", hint="write a text")
                options = await asyncio.to_thread(self.forms.options, model, values)
                plan = partial(planned_for, home, [Text(text)], to="audio", task=TASK, model=model or "",
                               seed=seed_of(seed), options=options)  # fmt: skip
                async with aclosing(self.tickets.stages(key, home, plan)) as stages:
                    async for stage in stages:
                        if stage.end is None:
                            yield _seen(status(stage), stop=not stage.over)
                        else:
                            yield await asyncio.to_thread(_ended, stage)
        except (ConjureError, ApiError) as error:
            yield _seen(notice(said(error), wrong=True), stop=self.tickets.running(request))


# -- the right side: status, player, stop, download, how, facts ------


def _seen(line: str, *, stop: bool | None = None) -> list[Any]:
    return [line, gr.skip(), gr.skip() if stop is None else gr.Button(interactive=stop), *[gr.skip()] * 3]


def _ended(stage: Stage) -> list[Any]:
    """The sound with its sentences."""
    done = stage.end
    (shown,) = from_made(done)
    sound = done.result.media[0]
    pace = sound.seconds / max(done.seconds, 1e-3)
    line = status(Stage(warnings=stage.warnings)) + notice(
        f"Done in {done.seconds:.1f} s, {pace:.1f} times as fast as it is spoken."
    )
    return [line, player(sound, shown.path, _sentences(done.result.facts)), gr.Button(interactive=False),
            gr.DownloadButton(value=shown.path, visible=True), gr.Accordion(visible=True), facts(shown)]  # fmt: skip


def _sentences(its: Any) -> Sequence[Any]:
    """When each sentence is read, where the voice says so."""
    return its.get("results", [{}])[0].get("sentences", ())
