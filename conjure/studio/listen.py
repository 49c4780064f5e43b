"""Listen: a sound, from a file or the microphone, written down; the text follows the sound as it is played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from conjure.core.errors import ConjureError
from conjure.media.audio import Audio
from conjure.media.captions import Format, written
from conjure.serve.errors import ApiError
from conjure.serve.making import planned_for
from conjure.serve.state import Server
from conjure.studio.following import QUIET, Stage, notice, said, status
from conjure.studio.player import heard, player
from conjure.studio.showing import placed
from conjure.studio.task_forms import TaskForms
from conjure.studio.tickets import Tickets
from conjure.tasks.transcript import segment

TASK = "transcribe"
OWN = ("format", "width", "lines", "words")
"""Options that the page sets itself: all formats are offered at the end, and word times are what it shows."""
FIRST = ("language", "who")
"""Options that stand first, where a model has them."""
FORMATS: tuple[Format, ...] = get_args(Format)


def page(home: Callable[[], Server], tab: gr.Tab) -> None:
    """Builds the page where it is called, in this tab."""
    _Listen(home, tab)


class _Listen:
    """One page; what belongs to one reader lies in the state of his session."""

    def __init__(self, home: Callable[[], Server], tab: gr.Tab) -> None:
        self.home = home
        self.tickets = Tickets("Something is being written down: stop it first.")
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=320):
                self._asking(tab)
            with gr.Column(scale=6, min_width=320):
                self.status = gr.HTML(notice("Choose a sound, or record one."), elem_id="listen-status")
                self.written = gr.Textbox(label="So far", lines=6, max_lines=14, visible=False, interactive=False,
                                          elem_id="listen-written")  # fmt: skip
                self.player = gr.HTML(elem_id="listen-player")
                with gr.Row(elem_classes=["row-wrap", "tight"], visible=False) as self.taking:
                    self.files = [gr.DownloadButton(f".{each}", size="md", min_width=70, elem_id=f"listen-{each}")
                                  for each in FORMATS]  # fmt: skip
        seen = [self.status, self.written, self.player, self.taking, self.stop, *self.files]
        self.go.click(self._run, [self.sound, *self.forms.inputs], seen, **QUIET)
        self.stop.click(self.tickets.stop, None, None, **QUIET)

    def _asking(self, tab: gr.Tab) -> None:
        self.sound = gr.Audio(sources=["upload", "microphone"], type="filepath", label="A sound", buttons=[],
                              elem_id="listen-sound")  # fmt: skip
        with gr.Row(elem_classes="tight"):
            self.go = gr.Button("Write it down", variant="primary", elem_id="listen-go", elem_classes="go", scale=3)
            self.stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="listen-stop", scale=1,
                                  min_width=80)  # fmt: skip
        self.forms = TaskForms(self.home, tab, TASK, first=FIRST, own=OWN, prefix="listen")

    # ---------------------------------------------------------------- what happens
    async def _run(self, request: gr.Request, path: str | None, model: str | None, *values: Any) -> AsyncIterator[Any]:
        """The sound written down, phrase by phrase; at the end the text that follows its player."""
        try:
            with self.tickets.taken(request) as key:
                yield _seen(status=notice("Starting"), written="", player="", stop=True)
                if not path:
                    raise ConjureError("there is no sound yet", hint="choose a file, or record one")
                sound, shown = await asyncio.to_thread(heard, path)
                yield _seen(player=await asyncio.to_thread(player, sound, shown))
                options = await asyncio.to_thread(self.forms.options, model, values) | {"words": True}
                home = self.home()
                plan = partial(planned_for, home, [sound], to="text", task=TASK, model=model or "", options=options)
                async with aclosing(self.tickets.stages(key, home, plan)) as stages:
                    async for stage in stages:
                        if stage.end is None:
                            yield _seen(status=status(stage), written=stage.written or None, stop=not stage.over)
                        else:
                            yield await asyncio.to_thread(_ended, stage, sound, shown, Path(path).stem)
        except (ConjureError, ApiError) as error:
            yield _seen(status=notice(said(error), wrong=True), stop=self.tickets.running(request))


# -- the right side: status, text so far, player, row of files, stop, the files ------


def _seen(
    *, status: str | None = None, written: str | None = None, player: str | None = None, stop: bool | None = None,
    files: Sequence[str] = (),
) -> list[Any]:  # fmt: skip
    """What changes of it; the files are there at the end alone."""
    return [
        gr.skip() if status is None else status,
        gr.skip() if written is None else gr.Textbox(written, visible=bool(written)),
        gr.skip() if player is None else player,
        gr.skip() if written is None and not files else gr.Row(visible=bool(files)),
        gr.skip() if stop is None else gr.Button(interactive=stop),
        *([gr.DownloadButton(value=each) for each in files] or [gr.skip()] * len(FORMATS)),
    ]


def _ended(stage: Stage, sound: Audio, shown: str, stem: str) -> list[Any]:
    """The text beside its sound, and a file in every format."""
    told = stage.end.result.facts["results"][0]["segments"]
    segments = [segment(each) for each in told]
    files = [placed(written(segments, each).encode(), f"{stem}.{each}") for each in FORMATS]
    pace = sound.seconds / max(stage.end.seconds, 1e-3)
    words = f"Done in {stage.end.seconds:.1f} s, {pace:.1f} times as fast as it was spoken." if told else "Done."
    line = status(Stage(warnings=stage.warnings)) + notice(words)
    return _seen(status=line, written="", player=player(sound, shown, told), stop=False, files=files if told else ())

