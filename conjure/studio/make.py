"""The page that makes anything of anything: what there is, what to get, the options of the way, and what came out."""

from __future__ import annotations

import asyncio
import base64
import html
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import get_blocks_context

from conjure.core.errors import ConjureError
from conjure.serve.errors import ApiError
from conjure.serve.jobs import Finished, Job
from conjure.serve.making import Wish, route
from conjure.serve.state import Server
from conjure.studio import showing
from conjure.studio.choices import Way, kinds_of, name, ways
from conjure.studio.following import BEAT, QUIET, Stage, following, notice, said, status
from conjure.studio.forms import fields, form, options_of
from conjure.studio.showing import Shown

EXAMPLE = "a red apple left of a blue fish"
EXAMPLES = (EXAMPLE, "a yellow star", "three green balloons", "a house under the moon")
SEEDS = 2**32


def page(home: Callable[[], Server]) -> gr.File:
    """Builds the page in the tab it is called in, and returns its inputs, to which other pages may give some."""
    made = _Make(home)
    made.build()
    return made.files


class _Make:
    """The components of the page and what they do."""

    def __init__(self, home: Callable[[], Server]) -> None:
        self.home = home

    # ---------------------------------------------------------------- what is there
    def build(self) -> None:
        self.kept = gr.BrowserState({"job": "", "prompt": EXAMPLE}, storage_key="conjure-make", secret="conjure")
        self.current, self.results, self.chosen = gr.State(""), gr.State([]), gr.State(0)
        self.kinds, self.options = gr.State(["text"]), gr.State({})
        self.wanted = gr.State(([], "", "", ""))  # kinds, output, task and model that belong together, as `_offer` says
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=320):
                self._asking()
                self._form()
            with gr.Column(scale=1, min_width=320):
                self._showing()
        self._listen()

    def _asking(self) -> None:
        self.prompt = gr.Textbox(EXAMPLE, label="Prompt", lines=2, max_lines=12, elem_id="make-prompt",
                                 info="What should it be? Ctrl+Enter makes it.")  # fmt: skip
        with gr.Row(elem_classes=["row-wrap", "tight"]):
            self.examples = [gr.Button(text, size="sm", min_width=60, elem_classes="example") for text in EXAMPLES[1:]]
        self.files = gr.File(label="Files to start from: pictures, texts, sounds", file_count="multiple", height=110,
                             elem_id="make-files")  # fmt: skip
        with gr.Row(elem_classes="tight"):
            self.output = gr.Dropdown([("a picture", "image")], value="image", label="Get", elem_id="make-output",
                                      min_width=110, scale=3, filterable=False)  # fmt: skip
            self.task = gr.Dropdown([], label="How", elem_id="make-task", min_width=120, scale=3, filterable=False)
            self.model = gr.Dropdown([], label="Model", elem_id="make-model", min_width=190, scale=5, filterable=False)
        self.about = gr.HTML(elem_classes="quiet", elem_id="make-about")
        with gr.Row(elem_classes="tight"):
            self.count = gr.Number(1, label="How many", precision=0, minimum=1, min_width=110, elem_id="make-count")
            self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=160, elem_id="make-seed")
            self.locked = gr.Checkbox(False, label="Keep this seed", min_width=130, elem_id="make-locked")
        with gr.Row(elem_classes="tight"):
            self.go = gr.Button("Make", variant="primary", elem_id="make-go", elem_classes="go", scale=3)
            self.another = gr.Button("Draw another", elem_id="make-another", scale=2)
            self.stop = gr.Button("Cancel", variant="stop", elem_id="make-cancel", interactive=False, scale=1)

    def _showing(self) -> None:
        self.status = gr.HTML(notice("Press Make: the example takes a few seconds."), elem_id="make-status")
        self.gallery = gr.Gallery(label="Result", elem_id="make-gallery", columns=2, height=440, object_fit="contain",
                                  buttons=["fullscreen"], interactive=False, show_label=False)  # fmt: skip
        self.text = gr.Textbox(label="Result", lines=10, max_lines=24, buttons=["copy"], visible=False,
                               elem_id="make-text", interactive=False)  # fmt: skip
        self.sound = gr.Audio(label="Result", visible=False, interactive=False, type="filepath", elem_id="make-sound")
        self.which = gr.Radio([], label="Which result", visible=False, elem_id="make-which")
        with gr.Row(elem_classes=["row-wrap", "tight"], visible=False) as self.actions:
            self.use = gr.Button("Use as input", size="md", min_width=90, elem_id="make-use")
            self.remake = gr.Button("Remake", size="md", min_width=80, elem_id="make-remake")
            self.download = gr.DownloadButton("Download", size="md", min_width=90, elem_id="make-download")
        with gr.Accordion("How was it made", open=False, visible=False, elem_id="make-how") as self.how:
            self.facts = gr.HTML()

    # ---------------------------------------------------------------- what they do
    def _listen(self) -> None:
        asked = [self.kinds, self.output, self.task]
        gr.on([self.files.change, self.prompt.blur], self._kinds, [self.files, self.prompt], [self.kinds], **QUIET)
        gr.on([self.kinds.change, self.output.input, self.task.input], self._offer, asked,
              [self.output, self.task, self.model, self.about, self.wanted], **QUIET)  # fmt: skip
        self.model.input(lambda *chosen: chosen, [*asked, self.model], [self.wanted], **QUIET)
        for button in self.examples:
            button.click(lambda text: text, [button], [self.prompt], **QUIET)
        showing_now = [self.status, self.gallery, self.text, self.sound, self.which, self.actions, self.how, self.facts,
                       self.download, self.results, self.chosen, self.stop]  # fmt: skip
        follow = self.current.change(self._follow, [self.current], showing_now, **QUIET)
        given = [self.files, self.prompt, *asked, self.model, self.count, self.seed, self.locked, self.options]
        begun = [self.status, self.current, self.seed, self.kept, self.stop]
        for button, begin in ((self.go, self._begin), (self.another, self._begin_afresh)):
            button.click(begin, given, begun, cancels=[follow], **QUIET)
        self.stop.click(self._cancel, [self.current], [self.status], **QUIET)
        picked = [self.results, self.chosen]
        selected = [self.chosen, self.text, self.sound, self.facts, self.download]
        self.gallery.select(self._pick_picture, [self.results], selected, **QUIET)
        self.which.input(self._pick_text, [self.results, self.which], selected, **QUIET)
        self.use.click(self._use, picked, [self.files], **QUIET)
        self.remake.click(self._remake, picked, [self.status], **QUIET)
        opened = [self.prompt, self.current, self.output, self.task, self.model, self.about, self.wanted]
        root = get_blocks_context()
        assert root is not None, "a page is built inside of Blocks"
        gr.on([root.root_block.load], self._open, [self.kept, *asked], opened, **QUIET)

    def _form(self) -> None:
        """The options of the chosen way. What is filled in is noted at once, so that Make waits for no form, and stays
        when another way is looked at meanwhile."""

        @gr.render(inputs=[self.wanted, self.options], triggers=[self.wanted.change], show_progress="hidden")
        def options(wanted: Sequence[Any], noted: dict[str, Any]) -> None:
            kinds, output, task, model = wanted
            way = self._way(kinds, output, task)
            if way is None:
                return
            edge = way.edge(model or "")
            schema = route(edge)["options"]
            given = {key: value for key, value in noted.get(edge.target, {}).items() if value is not None}
            with gr.Group():
                filled = form(schema, prefix="make-option", given=given)
            for field, component in zip(filled.fields, filled.components, strict=True):
                component.change(_note(edge.target, field.name), [component, self.options], None, queue=False, **QUIET)

    def _way(self, kinds: Sequence[str], output: str, task: str | None) -> Way | None:
        """The usual one where no task is chosen: whoever is quick presses Make before the choice is there."""
        found = (way for way in self._ways(kinds) if way.output == output and task in (None, "", way.task))
        return next(found, None)

    async def _open(self, kept: Any, kinds: list[str], output: str, task: str) -> Any:
        """A page that is opened, again perhaps: its job is still there. Where nothing is kept, nothing is set:
        whoever is quick has begun something by now."""
        kept = kept if isinstance(kept, Mapping) else {}
        prompt, job = kept.get("prompt"), kept.get("job")
        offered = await self._offer(kinds, output, task)
        return [prompt if isinstance(prompt, str) and prompt not in ("", EXAMPLE) else gr.skip(),
                str(job) if job else gr.skip(), *offered]  # fmt: skip

    async def _kinds(self, files: list[str] | None, prompt: str) -> list[str]:
        """Without files a prompt is expected, whether it is there yet or not."""
        return await asyncio.to_thread(kinds_of, files or [], prompt if files else "text")

    async def _offer(self, kinds: list[str], output: str, task: str) -> list[Any]:
        """What can be had, the choice kept where it still can."""
        found = await asyncio.to_thread(self._ways, kinds)
        outputs = list(dict.fromkeys(way.output for way in found))
        output = output if output in outputs else (outputs or [""])[0]
        tasks = [way for way in found if way.output == output]
        way = next((each for each in tasks if each.task == task), tasks[0] if tasks else None)
        models = list(way.models) if way else []
        return [
            gr.Dropdown([(name(each), each) for each in outputs], value=output or None),
            gr.Dropdown([(each.task, each.task) for each in tasks], value=way.task if way else None),
            gr.Dropdown(models, value=models[0] if models else None, visible=bool(models)),
            f"<p>{html.escape(way.summary if way else 'Nothing can be made of these together.')}</p>",
            (kinds, output, way.task if way else "", models[0] if models else ""),
        ]  # fmt: skip

    def _ways(self, kinds: Sequence[str]) -> tuple[Way, ...]:
        """Pictures first: they are what most people come for."""
        found = ways(kinds, self.home().keeper.offered())
        return tuple(sorted(found, key=lambda way: way.output == "text"))

    async def _begin_afresh(self, *given: Any) -> Any:
        """The same with another seed."""
        *before, _, options = given
        return await self._begin(*[*before, False, options])

    async def _begin(
        self, files: list[str] | None, prompt: str, kinds: list[str], output: str, task: str | None, model: str | None,
        count: float | None, seed: float | None, locked: bool, noted: dict[str, Any],
    ) -> Any:  # fmt: skip
        """The wish as a job. What is wrong with it is told, and nothing is begun."""
        drawn = int(seed) if locked and seed is not None else _drawn()
        try:
            wish = await asyncio.to_thread(self._wish, files or [], prompt, output, task, model or "", count, drawn,
                                           noted)  # fmt: skip
            job = await asyncio.to_thread(self.home().jobs.add, wish)
        except (ApiError, ConjureError) as error:
            return notice(said(error), wrong=True), gr.skip(), drawn, gr.skip(), gr.skip()
        return (status(Stage(words="Starting")), job.id, drawn, {"job": job.id, "prompt": prompt},
                gr.Button(interactive=True))  # fmt: skip

    def _wish(
        self, files: Sequence[str], prompt: str, output: str, task: str | None, model: str, count: float | None,
        seed: int, noted: Mapping[str, Any],
    ) -> Wish:  # fmt: skip
        """The wish of a page, with its files in it; `ConjureError` for what the page alone can see."""
        if not (files or prompt.strip()):
            raise ConjureError("there is nothing to make it from", hint="write a prompt, or add a file")
        way = self._way(kinds_of(files, prompt), output, task)
        if way is None:
            raise ConjureError(f"{name(output or 'anything')} cannot be made of these together",
                               hint="take a file away, or write a prompt")  # fmt: skip
        if not count or count < 1:
            raise ConjureError(f"how many: expected a whole number of at least 1, got {count or 0:g}")
        pictures_first = sorted(files, key=lambda each: kinds_of([each], "") == ["text"])
        parts: list[str | dict[str, Any]] = [
            {"b64": base64.b64encode(Path(each).read_bytes()).decode("ascii")} for each in pictures_first
        ]
        parts += [{"text": prompt}] if prompt.strip() else []
        edge = way.edge(model)
        known = fields(route(edge)["options"])
        there = noted.get(edge.target, {})
        values = [there.get(field.name, field.default) for field in known]
        return Wish(inputs=parts, to=output, model=model, task=way.task, seed=seed, count=int(count),
                    options=options_of(known, values))  # fmt: skip

    async def _follow(self, number: str) -> AsyncIterator[Any]:
        """The job from where it is to its end; whoever leaves the page leaves it running."""
        if not number:
            yield _skipped()
            return
        try:
            events = self.home().jobs.follow(number, heartbeat=BEAT)
            async with aclosing(following(events)) as stages:
                async for stage in stages:
                    if isinstance(stage.end, Finished):
                        yield await self._finished(stage, stage.end.job)
                    else:
                        yield _going(stage)
        except (ApiError, ConjureError) as error:
            yield _going(Stage(error=said(error)))

    async def _finished(self, stage: Stage, job: Job) -> list[Any]:
        if job.state == "cancelled":
            return _going(Stage(error="It was cancelled."))
        if job.state != "done":
            return _going(Stage(error=str((job.error or {}).get("message", "it failed")), warnings=stage.warnings))
        shown = await asyncio.to_thread(_results, self.home(), job)
        line = status(Stage(warnings=stage.warnings)) + notice(_done(job, shown))
        return _made(line, shown)

    async def _cancel(self, number: str) -> Any:
        if not number:
            return gr.skip()
        try:
            await asyncio.to_thread(self.home().jobs.cancel, number)
        except (ApiError, ConjureError) as error:
            return notice(said(error), wrong=True)
        return notice("Cancelling")

    # ---------------------------------------------------------------- results
    def _pick_picture(self, results: list[Shown], event: gr.SelectData) -> Any:
        return _picked(results, int(event.index or 0))

    def _pick_text(self, results: list[Shown], which: int) -> Any:
        return _picked(results, int(which))

    def _use(self, results: list[Shown], chosen: int) -> Any:
        return [results[chosen].path] if chosen < len(results) else gr.skip()

    async def _remake(self, results: list[Shown], chosen: int) -> AsyncIterator[str]:
        if chosen >= len(results) or not results[chosen].number:
            yield notice("Only what the history keeps can be made again.", wrong=True)
            return
        async with aclosing(showing.remaking(self.home(), results[chosen].number)) as stages:
            async for stage in stages:
                yield notice(stage.end) if stage.end else status(stage)


# -- the right side: status, gallery, text, sound, which, actions, how, facts, download, results, chosen, cancel ------


def _skipped() -> list[Any]:
    return [gr.skip()] * 12


def _going(stage: Stage) -> list[Any]:
    """While it is being made, or where nothing came of it."""
    picture = showing.picture_of(stage.preview)
    so_far = [gr.skip(), gr.skip()]
    if stage.written:
        so_far = [gr.Gallery(visible=False), gr.Textbox(stage.written, visible=True)]
    elif picture is not None:
        so_far = [gr.Gallery([(picture, "so far")], visible=True, columns=1), gr.Textbox(visible=False)]
    return [status(stage), *so_far, *[gr.skip()] * 8, gr.Button(interactive=not stage.over)]


def _made(line: str, shown: Sequence[Shown]) -> list[Any]:
    """What came of it."""
    pictures = [(each.path, each.caption) for each in shown if each.kind == "image"]
    texts = [each for each in shown if each.kind == "text"]
    sounds = [each for each in shown if each.kind == "audio"]
    heard = len(shown) if texts or sounds else 0
    return [
        line,
        gr.Gallery(pictures, visible=bool(pictures) or not shown, columns=1 if len(pictures) == 1 else 2,
                   selected_index=None),
        gr.Textbox(texts[0].text if texts else "", visible=bool(texts)),
        gr.Audio(sounds[0].path if sounds else None, visible=bool(sounds)),
        gr.Radio([(str(k + 1), k) for k in range(heard)], value=0 if heard else None, visible=heard > 1),
        gr.Row(visible=bool(shown)), gr.Accordion(visible=bool(shown)),
        showing.facts(shown[0]) if shown else "",
        gr.DownloadButton(value=shown[0].path if shown else None), list(shown), 0, gr.Button(interactive=False),
    ]  # fmt: skip


def _picked(results: Sequence[Shown], index: int) -> list[Any]:
    """(chosen, text, sound, facts, download) of one of several."""
    if index >= len(results):
        return [gr.skip()] * 5
    chosen = results[index]
    sound = chosen.path if chosen.kind == "audio" else None
    return [index, chosen.text, sound, showing.facts(chosen), gr.DownloadButton(value=chosen.path)]


def _note(target: str, field: str) -> Callable[[Any, dict[str, Any]], None]:
    """A listener that keeps what was filled in; a session's notes are its own."""

    def note(value: Any, noted: dict[str, Any]) -> None:
        noted.setdefault(target, {})[field] = value

    return note


def _results(home: Server, job: Job) -> list[Shown]:
    """The results of a job that are still there: in the history, or for a while behind links where none is kept."""
    found = [showing.from_link(*there, job.wish, index) for index, link in enumerate(job.links)
             if (there := home.links.get(link)) is not None]  # fmt: skip
    history = home.history
    if history is None:
        return found
    for number in job.results:
        try:
            found.append(showing.from_history(history, history.get(number)))
        except ConjureError:  # deleted since
            continue
    return found


def _done(job: Job, shown: Sequence[Shown]) -> str:
    if not shown:
        return "It is done, but its results are not kept any more."
    took = f" in {job.ended - job.started:.1f} s" if job.ended and job.started else ""
    return f"Done{took}."


def _drawn() -> int:
    return random.SystemRandom().randrange(SEEDS)
