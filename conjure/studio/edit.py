"""Edit: one picture, changed step by step; every step can be taken back, and what a mask does not mark stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
import numpy as np

from conjure import media
from conjure.core.errors import ConjureError
from conjure.media.image import Image
from conjure.serve.errors import ApiError
from conjure.serve.making import planned_for, route
from conjure.serve.state import Server
from conjure.studio.choices import able
from conjure.studio.following import QUIET, Stage, notice, said, status
from conjure.studio.forms import Form, form
from conjure.studio.picture_files import shown_file, uploaded
from conjure.studio.seeds import seed_of
from conjure.studio.steps import Step, Steps, framed, layer, painted
from conjure.studio.tickets import Tickets
from conjure.tasks.table import Edge, everything

BRUSH = (214, 51, 108)
SIDES = ("left", "top", "right", "bottom")
WIDEST = 512
"""Pixels by which a side grows at most at a time."""
RECENT = 18
PICTURE, PAIR = "picture", "pair"
STYLE = """
#edit-picture img, #edit-live img { width: 100%; height: 100%; object-fit: contain; }
#edit-steps .grid-container { grid-template-columns: repeat(auto-fill, 84px) !important; grid-auto-rows: 84px; }
#edit-steps .grid-wrap { overflow-y: auto; }
#edit-views button[role=tab] { transition: none; }
#edit-views button[role=tab].selected { color: var(--primary-700); }
.dark #edit-views button[role=tab].selected { color: var(--primary-200); }
"""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One task as the page offers it. `prompt` is the label of its text, "" where it takes none; `needs` says that
    there must be one. `first` are the options that stand first, `own` those that the page has a control of its own for.
    """

    task: str
    name: str
    button: str
    help: str
    prompt: str = ""
    needs: bool = False
    first: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


TOOLS = (
    Tool(task="edit", name="Tell", button="Change it", prompt="What to do", needs=True, first=("steps",),
         help="Say what should change: “remove the cat”, “make the apple green”. Everything else stays as it is."),
    Tool(task="inpaint", name="Repaint", button="Repaint", prompt="What to draw there", first=("steps", "guidance"),
         own=("mask",),
         help="Paint over a part of the picture, and something new is drawn there. All other pixels stay the same."),
    Tool(task="outpaint", name="Extend", button="Extend", prompt="What to draw there", first=("steps", "guidance"),
         own=("extend", "size"), help="Make the canvas larger. The picture stays as it is, what is hatched is drawn."),
    Tool(task="vary", name="Vary", button="Vary", prompt="What it shows", first=("strength", "steps"),
         help="The same picture again, more or less like it."),
    Tool(task="cutout", name="Cut out", button="Cut out", help="Make a plain background transparent."),
    Tool(task="upscale", name="Enlarge", button="Enlarge", help="Two or four times as large. Nothing new is drawn."),
    Tool(task="restyle", name="Restyle", button="Restyle", first=("style", "strength"),
         help="Give it the colours and the grain of another picture."),
)  # fmt: skip


def page(home: Callable[[], Server]) -> None:
    """Builds the page where it is called."""
    _Edit(home)


class _Edit:
    """One page; what belongs to one reader lies in the state of his session."""

    def __init__(self, home: Callable[[], Server]) -> None:
        self.home = home
        self.tickets = Tickets("Something is being drawn: stop it first.")
        self.steps = gr.State(Steps())
        self.recent = gr.State([])
        gr.HTML(f"<style>{STYLE}</style>", visible="hidden")
        self._opening()
        with gr.Row(equal_height=False, visible=False) as self.bench:
            with gr.Column(scale=6, min_width=320):
                self._picture()
            with gr.Column(scale=4, min_width=300):
                self._tools()
        self._listeners()

    # ---------------------------------------------------------------- what is there
    def _opening(self) -> None:
        with gr.Column() as self.opening:
            self.file = gr.File(label="Open a picture", file_types=["image"], height=220, elem_id="edit-file")
            self.gallery = gr.Gallery(
                label="Or one that was made here", columns=6, height=240, object_fit="contain", buttons=[],
                allow_preview=False, visible=False, elem_id="edit-recent", interactive=False,
            )  # fmt: skip
            self.refused = gr.HTML(notice(""), elem_id="edit-refused")

    def _picture(self) -> None:
        with gr.Tabs(selected=PICTURE, elem_id="edit-views") as self.views:
            with gr.Tab("Picture", id=PICTURE):
                self.plain = gr.Image(
                    label="Picture", type="filepath", format="png", image_mode=None, interactive=False, height=440,
                    buttons=["fullscreen"], elem_id="edit-picture",
                )  # fmt: skip
                self.canvas = gr.ImageEditor(
                    label="Paint over what should be new", type="numpy", image_mode="RGBA", format="png", sources=(),
                    transforms=(), layers=False, height=480, visible=False, elem_id="edit-canvas", buttons=[],
                    brush=gr.Brush(default_size=8, colors=[f"rgba{(*BRUSH, 0.65)}"], color_mode="fixed"),
                    eraser=gr.Eraser(default_size=8),
                )  # fmt: skip
            with gr.Tab("Before and after", id=PAIR):
                self.live = gr.Image(label="So far", format="png", interactive=False, height=440, visible=False,
                                     buttons=[], elem_id="edit-live")  # fmt: skip
                self.pair = gr.ImageSlider(
                    label="Before and after", type="numpy", image_mode="RGBA", format="png", interactive=False,
                    height=440, max_height=440, buttons=["fullscreen"], elem_id="edit-pair",
                )  # fmt: skip
        with gr.Row(elem_classes="row-wrap tight"):
            self.undo = gr.Button("Undo", size="md", min_width=80, interactive=False, elem_id="edit-undo")
            self.redo = gr.Button("Redo", size="md", min_width=80, interactive=False, elem_id="edit-redo")
            self.keep = gr.Button("Keep as new", size="md", min_width=110, interactive=False, elem_id="edit-keep")
            self.save = gr.DownloadButton("Download", size="md", min_width=100, elem_id="edit-save")
            self.other = gr.Button("Open other", size="md", min_width=100, elem_id="edit-other")
        self.strip = gr.Gallery(label="Steps", columns=8, height=130, object_fit="contain", allow_preview=False,
                                buttons=[], elem_id="edit-steps", interactive=False)  # fmt: skip

    def _tools(self) -> None:
        names = [(tool.name, tool.task) for tool in TOOLS]
        self.task = gr.Radio(names, value=TOOLS[0].task, label="What to do with it", elem_id="edit-task")
        self.help = gr.HTML(notice(TOOLS[0].help), elem_classes="quiet")
        self.prompt = gr.Textbox(label=TOOLS[0].prompt, lines=2, max_lines=6, elem_id="edit-prompt",
                                 placeholder="remove the cat")  # fmt: skip
        self.sides: list[gr.Slider] = []
        with gr.Column(visible=False) as self.frame:
            for side in SIDES:
                self.sides.append(
                    gr.Slider(0, WIDEST, 0, step=8, label=f"More on the {side}" if side in ("left", "right") else
                              f"More at the {side}", elem_id=f"edit-{side}", buttons=[])
                )  # fmt: skip
        with gr.Row(elem_classes="tight"):
            self.go = gr.Button(TOOLS[0].button, variant="primary", elem_id="edit-go", scale=3, min_width=120)
            self.stop = gr.Button("Stop", variant="stop", interactive=False, elem_id="edit-stop", min_width=80)
        self.status = gr.HTML(notice(""), elem_id="edit-status")
        self.model = gr.Dropdown([], label="Model", elem_id="edit-model")
        self.seed = gr.Textbox("", label="Seed", placeholder="at random", max_lines=1, elem_id="edit-seed")
        with gr.Accordion("A picture as the mask", open=False, visible=False) as self.masking:
            self.mask = gr.File(label="White where something new should be", file_types=["image"], height=110,
                                elem_id="edit-mask")  # fmt: skip
        self.forms: dict[str, Form] = {}
        self.groups: list[gr.Column] = []
        for tool in TOOLS:
            with gr.Column(visible=tool is TOOLS[0]) as group:
                self.forms[tool.task] = form(
                    _schema(tool), leave_out=tool.own, shown=len(tool.first), prefix=f"edit-{tool.task}"
                )  # fmt: skip
            self.groups.append(group)

    # ---------------------------------------------------------------- what happens
    def _listeners(self) -> None:
        self.seen = [self.steps, self.opening, self.bench, self.plain, self.canvas, self.live, self.pair, self.views,
                     self.undo, self.redo, self.keep, self.save, self.strip, self.stop, self.status]  # fmt: skip
        values = [each for tool in TOOLS for each in self.forms[tool.task].components]
        gr.on(fn=self._recent, inputs=None, outputs=[self.recent, self.gallery], **QUIET)
        self.file.upload(self._opened, [self.file, self.task], [*self.seen, self.refused, self.file], **QUIET)
        self.gallery.select(self._taken, [self.recent, self.task], [*self.seen, self.refused], **QUIET)
        gr.on([self.task.change], self._turned, [self.steps, self.task],
              [self.help, self.prompt, self.frame, self.masking, self.go, self.model, self.plain, self.canvas,
               self.views, *self.groups], **QUIET)  # fmt: skip
        gr.on(fn=self._models, inputs=None, outputs=self.model, **QUIET)
        for side in self.sides:
            side.release(self._framed, [self.steps, *self.sides], [self.plain, self.views], **QUIET)
        gr.on([self.go.click, self.prompt.submit], self._run,
              [self.steps, self.task, self.prompt, self.model, self.seed, self.canvas, self.mask,
               *self.sides, *values],
              [*self.seen, *self.sides], **QUIET)  # fmt: skip
        self.stop.click(self.tickets.stop, None, None, **QUIET)
        now = [self.steps, self.task]
        self.undo.click(lambda steps, task: self._shown(steps.moved(-1), task), now, self.seen, **QUIET)
        self.redo.click(lambda steps, task: self._shown(steps.moved(1), task), now, self.seen, **QUIET)
        self.strip.select(self._looked, [self.steps, self.task], self.seen, **QUIET)
        self.keep.click(self._kept, [self.steps, self.task], self.seen, **QUIET)
        self.other.click(self._other, None, [self.opening, self.bench, self.recent, self.gallery], **QUIET)

    def _recent(self) -> tuple[Any, Any]:
        """The latest pictures of the history: their numbers, and how they look."""
        history = self.home().history
        if history is None:
            return [], gr.update(visible=False)
        found = []
        for entry in history.search(kind="image", limit=RECENT):
            try:
                picture = media.read(history.file(entry).read_bytes())
            except (ConjureError, OSError):  # gone or damaged: the others are shown
                continue
            if isinstance(picture, Image):
                found.append((picture, entry.prompt or entry.task))
        shown = [(shown_file(picture), caption) for picture, caption in found]
        return [picture for picture, _ in found], gr.update(value=shown, visible=bool(shown))

    def _opened(self, path: str | None, task: str) -> tuple[Any, ...]:
        if not path:
            return *self._same(), notice(""), gr.update()
        try:
            picture = uploaded(path)
        except ConjureError as error:
            return *self._same(), notice(said(error), wrong=True), gr.update(value=None)
        steps = Steps((Step(picture=picture, said="Opened"),))
        return *self._shown(steps, task), notice(""), gr.update(value=None)

    def _taken(self, event: gr.SelectData, recent: list[Image], task: str) -> tuple[Any, ...]:
        place = event.index if isinstance(event.index, int) else event.index[0]
        steps = Steps((Step(picture=recent[place], said="From the history"),))
        return *self._shown(steps, task), notice("")

    async def _models(self) -> Any:
        return await asyncio.to_thread(self._able, TOOLS[0].task)

    def _able(self, task: str) -> Any:
        """The dropdown of the models for a task."""
        offered = self.home().keeper.offered()
        names = list(dict.fromkeys(name for edge in _edges(task) for name in able(edge, offered) if name))
        ruled = all(edge.by_rule for edge in _edges(task))
        return gr.update(choices=names, value=names[0] if names else None, visible=not ruled)

    async def _turned(self, steps: Steps, task: str) -> tuple[Any, ...]:
        tool = _tool(task)
        model = await asyncio.to_thread(self._able, task)
        plain, canvas = self._pictures(steps, task)
        return (
            notice(tool.help), gr.update(visible=bool(tool.prompt), label=tool.prompt or "Prompt"),
            gr.update(visible=task == "outpaint"), gr.update(visible=task == "inpaint"), gr.update(value=tool.button),
            model, plain, canvas, gr.update(selected=PICTURE), *(gr.update(visible=other is tool) for other in TOOLS),
        )  # fmt: skip

    def _framed(self, steps: Steps, *sides: float) -> tuple[Any, Any]:
        if not steps.steps:
            return gr.update(), gr.update()
        left, top, right, bottom = map(int, sides)
        picture = Image(framed(steps.now.picture, left, top, right, bottom))
        return gr.update(value=shown_file(picture)), gr.update(selected=PICTURE)

    async def _run(self, request: gr.Request, steps: Steps, task: str, prompt: str, model: str | None, seed: str,
                   canvas: Mapping[str, Any] | None, mask: str | None, *values: Any) -> AsyncIterator[Any]:  # fmt: skip
        """The task on the shown picture: its stages, and a further step at the end."""
        tool = _tool(task)
        sides, stay = values[: len(SIDES)], [gr.update() for _ in SIDES]
        try:
            with self.tickets.taken(request) as key:
                yield *self._same(status=notice("Starting"), stop=gr.update(interactive=True)), *stay
                options = self._options(tool, values[len(SIDES) :])
                mask_HW, moved = None, None
                if task == "inpaint":
                    layers = (canvas or {}).get("layers") or []
                    mask_HW = painted(layers, (steps.now.picture.height, steps.now.picture.width))
                    if mask:
                        options["mask"] = uploaded(mask)
                    elif mask_HW is not None:
                        options["mask"] = Image(mask_HW[..., None])
                    elif steps.now.picture.alpha() is None:
                        raise ConjureError("Nothing is marked",
                                           hint="paint over what should be new, then press Repaint")  # fmt: skip
                if task == "outpaint":
                    options["extend"] = ",".join(f"{name}={int(by)}" for name, by in zip(SIDES, sides, strict=True))
                    moved = int(sides[0]), int(sides[1])
                if tool.needs and not prompt.strip():
                    raise ConjureError("Say what should change", hint=tool.help)
                text = [media.Text(prompt.strip())] if tool.prompt and prompt.strip() else []
                home = self.home()
                plan = partial(planned_for, home, [steps.now.picture, *text], to="image", task=task,
                               model=model or "", seed=seed_of(seed), options=options)  # fmt: skip
                async with aclosing(self.tickets.stages(key, home, plan)) as stages:
                    async for stage in stages:
                        if stage.end is None:
                            yield *self._during(stage), *stay
                            continue
                        words = f"{tool.name}: {prompt.strip()}" if text else tool.name
                        made = stage.end.result.media[0]
                        steps = steps.went(Step(picture=made, said=words, moved=moved), mask_HW)
                        done = notice(f"Done in {stage.end.seconds:.1f} s. " + " ".join(stage.warnings))
                        reset = [gr.update(value=0) for _ in SIDES] if task == "outpaint" else stay
                        yield *self._shown(steps, task, view=PAIR, words=done), *reset
        except (ConjureError, ApiError) as error:
            stop = gr.update(interactive=self.tickets.running(request))
            yield *self._same(status=notice(said(error), wrong=True), stop=stop), *stay

    def _options(self, tool: Tool, values: Sequence[Any]) -> dict[str, Any]:
        """What the form of a tool says; `values` are those of all forms."""
        at = 0
        for other in TOOLS:
            count = len(self.forms[other.task].components)
            if other is tool:
                return self.forms[other.task].options(values[at : at + count])
            at += count
        raise AssertionError("a tool of the page")

    def _looked(self, event: gr.SelectData, steps: Steps, task: str) -> tuple[Any, ...]:
        place = event.index if isinstance(event.index, int) else event.index[0]
        return self._shown(steps.to(place), task)

    def _kept(self, steps: Steps, task: str) -> tuple[Any, ...]:
        where = ": the others are in the history" if self.home().history is not None else ""
        return self._shown(steps.alone(), task, words=notice(f"It is a picture of its own now{where}."))

    def _other(self) -> tuple[Any, ...]:
        return gr.update(visible=True), gr.update(visible=False), *self._recent()

    # ---------------------------------------------------------------- what is seen
    def _shown(self, steps: Steps, task: str, *, view: str = PICTURE, words: str = "") -> tuple[Any, ...]:
        plain, canvas = self._pictures(steps, task)
        pair = steps.pair()
        last = len(steps.steps) - 1
        strip = [(shown_file(each.picture), each.said) for each in steps.steps]
        return (
            steps, gr.update(visible=False), gr.update(visible=True), plain, canvas,
            gr.update(visible=False, value=None),
            gr.update(value=pair, visible=pair is not None), gr.update(selected=view if pair is not None else PICTURE),
            gr.update(interactive=steps.at > 0), gr.update(interactive=steps.at < last),
            gr.update(interactive=last > 0), gr.update(value=shown_file(steps.now.picture)),
            gr.update(value=strip, selected_index=steps.at), gr.update(interactive=False), words or notice(""),
        )  # fmt: skip

    def _pictures(self, steps: Steps, task: str) -> tuple[Any, Any]:
        """The picture as it is shown, and as it is painted on."""
        painting = task == "inpaint"
        if not steps.steps:
            return gr.update(visible=not painting), gr.update(visible=painting)
        now = steps.now
        path = shown_file(now.picture)
        layers = [layer(now.mask_HW, BRUSH)] if now.mask_HW is not None else []
        value: Any = {"background": path, "layers": layers, "composite": None}
        return gr.update(value=path, visible=not painting), gr.update(value=value, visible=painting)

    def _during(self, stage: Stage) -> tuple[Any, ...]:
        """While it is drawn: the status, and how it looks so far."""
        looks = isinstance(stage.preview, Image)
        return self._same(
            live=gr.update(value=_pixels(stage.preview), visible=True) if looks else gr.update(),
            pair=gr.update(visible=False) if looks else gr.update(),
            views=gr.update(selected=PAIR) if looks else gr.update(),
            status=status(stage), stop=gr.update(interactive=not stage.over),
        )  # fmt: skip

    def _same(self, **changes: Any) -> tuple[Any, ...]:
        """What is seen, as it is but for some parts."""
        places = {"live": 5, "pair": 6, "views": 7, "stop": 13, "status": 14}
        found: list[Any] = [gr.update() for _ in self.seen]
        for name, value in changes.items():
            found[places[name]] = value
        return tuple(found)


def _tool(task: str) -> Tool:
    return next(tool for tool in TOOLS if tool.task == task)


def _edges(task: str) -> list[Edge]:
    return [edge for edge in everything() if edge.task == task and edge.output == "image"]


def _schema(tool: Tool) -> dict[str, Any]:
    """The options of a tool, those first that it is about."""
    options = route(_edges(tool.task)[0])["options"]["properties"]
    said = {name: _typed(its) for name, its in options.items()}
    return {"properties": {name: said[name] for name in tool.first if name in said} | said}


def _typed(its: dict[str, Any]) -> dict[str, Any]:
    """An option as the form takes it: a text that may be empty where a number may be missing. The plan reads it."""
    if its.get("default") is None and any(part.get("type") == "null" for part in its.get("anyOf", ())):
        return {"type": "string", "default": "", "description": its.get("description", "")}
    return its


def _pixels(picture: Image) -> np.ndarray:
    return picture.pixels if picture.pixels.shape[2] != 1 else picture.rgb()
