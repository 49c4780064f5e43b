"""Chat: a talk with a model that answers in words or in pictures, with every version of what was said kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import gradio as gr

from conjure import media
from conjure.core.errors import ConjureError
from conjure.core.shelf import ModelInfo
from conjure.decoding.settings import Decoding
from conjure.media.image import Image
from conjure.serve.errors import ApiError
from conjure.serve.making import planned_for, route
from conjure.serve.sampling import CHAT, GLANCE, texts_of, ticket_for
from conjure.serve.state import Server
from conjure.serve.texts import Began, TextWish
from conjure.serve.turns import Over, Said, turns
from conjure.studio.choices import able
from conjure.studio.following import QUIET, notice, said, status
from conjure.studio.forms import form
from conjure.studio.picture_files import shown_file, uploaded
from conjure.studio.seeds import seed_of
from conjure.studio.showing import placed
from conjure.studio.talk import ASSISTANT, USER, Talk, Turn, harmless, markdown, messages, plain, unshielded
from conjure.studio.tickets import Tickets
from conjure.tasks.table import everything

WORDS, DRAWS, EDITS = "words", "draws", "edits"
"""What the answers of a model are: texts, pictures, or pictures made of pictures."""
WAYS = ((WORDS, ("text",), "text", ("chat", "continue")), (DRAWS, ("text",), "image", ("draw",)),
        (EDITS, ("image", "text"), "image", ("edit",)))  # fmt: skip
"""(kind, inputs, output, tasks): a model that can do all of them answers so. Those that chat and do not write on, as
translators do, are no partners in a talk."""
KNOBS = ("temperature", "tokens", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty",
         "frequency_penalty", "min_tokens")  # fmt: skip
"""Options of a chat that the page offers: those that are `Decoding`'s too."""
TOKENS = 512
REDRAWN = 0.08  # seconds between two looks at an answer that is being written
STYLE = """
#chat-versions { align-items: center; flex-wrap: nowrap; }
#chat-versions > * { flex: 0 0 auto !important; width: auto !important; }
#chat-versions > #chat-which { flex: 1 1 150px !important; padding: 4px 10px; }
#chat-book button[aria-label=Share] { display: none; }
#chat-place { min-width: 3.6em; text-align: center; }
"""
PLACEHOLDER = """### Ask something
`starter/chat` is small: it knows capitals, words and their opposites, and is often wrong. A model that draws answers
with pictures; one that edits changes the picture you attach, or the last one of the talk.
"""


def page(home: Callable[[], Server]) -> None:
    """Builds the page where it is called."""
    _Chat(home)


class _Chat:
    """One page; what belongs to one reader lies in the state of his session."""

    def __init__(self, home: Callable[[], Server]) -> None:
        self.home = home
        self.tickets = Tickets("An answer is being written: stop it first.")
        self.talk = gr.State(Talk())
        gr.HTML(f"<style>{STYLE}</style>", visible="hidden")
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=320):
                self._talking()
            with gr.Column(scale=3, min_width=280):
                self._settings()
        self._listeners()

    # ---------------------------------------------------------------- what is there
    def _talking(self) -> None:
        self.book = gr.Chatbot(
            label="Talk", height="max(280px, calc(100vh - 450px))", placeholder=PLACEHOLDER, editable="user",
            buttons=["copy"], sanitize_html=True, allow_tags=False, feedback_options=None, latex_delimiters=[],
            elem_id="chat-book", layout="bubble", group_consecutive_messages=False,
        )  # fmt: skip
        self.status = gr.HTML(notice(""), elem_id="chat-status", padding=False)
        with gr.Row(visible=False, elem_classes="row-wrap", elem_id="chat-versions") as self.versions:
            self.which = gr.Dropdown([], label="Versions of", min_width=120, elem_id="chat-which", filterable=False)
            self.earlier = gr.Button("Earlier", size="md", min_width=70, elem_id="chat-earlier")
            self.place = gr.HTML("", padding=False, elem_id="chat-place")
            self.later = gr.Button("Later", size="md", min_width=70, elem_id="chat-later")
        self.box = gr.MultimodalTextbox(
            label="Your message", show_label=True, placeholder="Enter sends, Shift+Enter begins a line", lines=1,
            max_lines=10, sources=[], file_types=["image"], submit_btn="Send", elem_id="chat-box",
        )  # fmt: skip
        with gr.Row(elem_classes="row-wrap"):
            self.stop = gr.Button("Stop", variant="stop", interactive=False, min_width=90, elem_id="chat-stop")
            self.again = gr.Button("Another answer", min_width=140, elem_id="chat-again")
            self.new = gr.Button("New talk", min_width=110, elem_id="chat-new")

    def _settings(self) -> None:
        self.model = gr.Dropdown([CHAT], value=CHAT, label="Model", elem_id="chat-model", filterable=True)
        self.about = gr.HTML("", elem_id="chat-about")
        self.system = gr.Textbox("", label="System prompt", lines=2, max_lines=8, elem_id="chat-system",
                                 placeholder="How to behave, before anything is said")  # fmt: skip
        self.form = form(_schema(), shown=3, given={"tokens": TOKENS}, prefix="chat")
        self.seed = gr.Textbox("", label="Seed", max_lines=1, placeholder="at random", elem_id="chat-seed",
                               info="the same seed, talk and model give the same answer")  # fmt: skip
        with gr.Row(elem_classes="row-wrap"):
            self.as_text = gr.DownloadButton("Export Markdown", interactive=False, elem_id="chat-markdown")
            self.as_json = gr.DownloadButton("Export JSON", interactive=False, elem_id="chat-json")

    # ---------------------------------------------------------------- what happens
    def _listeners(self) -> None:
        knobs = [self.model, self.system, self.seed, *self.form.components]
        seen = [self.talk, self.book, self.versions, self.which, self.place, self.as_text, self.as_json, self.status,
                self.box, self.stop]  # fmt: skip
        gr.on(fn=self._offered, inputs=None, outputs=[self.model], **QUIET)
        gr.on([self.model.change], self._chosen, self.model, [self.about, self.box], **QUIET)
        self.box.submit(self._sent, [self.talk, self.box, *knobs], seen, **QUIET)
        gr.on([self.again.click, self.book.retry], self._again, [self.talk, *knobs], seen, **QUIET)
        self.book.edit(self._edited, [self.talk, *knobs], seen, **QUIET)
        self.stop.click(self.tickets.stop, None, None, **QUIET)
        shown = [self.talk, self.book, self.versions, self.which, self.place, self.as_text, self.as_json]
        self.earlier.click(lambda talk, which: self._stepped(talk, which, -1), [self.talk, self.which], shown, **QUIET)
        self.later.click(lambda talk, which: self._stepped(talk, which, 1), [self.talk, self.which], shown, **QUIET)
        self.which.input(lambda talk, which: self._looked(talk, which), [self.talk, self.which], self.place, **QUIET)
        gr.on([self.new.click, self.book.clear], self._new, None, [*shown, self.status], **QUIET)

    async def _offered(self) -> Any:
        found = await asyncio.to_thread(self._models)
        names = {WORDS: "", DRAWS: " (draws)", EDITS: " (changes pictures)"}
        choices = [(name + names[kind], name) for name, kind in found.items()]
        first = CHAT if CHAT in found else next(iter(found), None)
        return gr.update(choices=choices, value=first)

    def _models(self) -> dict[str, str]:
        """Name -> what its answers are, those that write first."""
        offered, found = self.home().keeper.offered(), {}
        for kind, inputs, output, tasks in WAYS:
            can = [_able(offered, inputs, output, task) for task in tasks]
            found |= {name: kind for name in can[0] if name not in found and all(name in names for names in can)}
        return found

    async def _chosen(self, model: str) -> tuple[Any, Any]:
        kind = (await asyncio.to_thread(self._models)).get(model, WORDS)
        info = self.home().keeper.offered().get(model)
        summary = info.summary if info is not None else ""
        return notice(summary), gr.update(sources=["upload"] if kind == EDITS else [])

    async def _sent(self, request: gr.Request, talk: Talk, box: Mapping[str, Any], model: str, system: str,
                    seed: str, *knobs: Any) -> AsyncIterator[Any]:  # fmt: skip
        text, files = (box.get("text") or "").strip(), box.get("files") or []
        if not text and not files:
            yield self._seen(talk, notice("Write something first."))
            return
        try:
            pictures = tuple(uploaded(each) for each in files)
        except ConjureError as error:
            yield self._seen(talk, notice(said(error), wrong=True))
            return
        above = talk.path[-1] if talk.path else -1
        talk, number = talk.said(Turn(role=USER, text=text, pictures=pictures, above=above))
        async for seen in self._answered(talk, number, model, system, seed, knobs, request):
            yield seen

    async def _again(self, request: gr.Request, talk: Talk, model: str, system: str, seed: str,
                     *knobs: Any) -> AsyncIterator[Any]:  # fmt: skip
        asked = [number for number in talk.path if talk.turns[number].role == USER]
        if not asked:
            yield self._seen(talk, notice("There is nothing to answer yet."))
            return
        async for seen in self._answered(talk, asked[-1], model, system, seed, knobs, request):
            yield seen

    async def _edited(self, request: gr.Request, event: gr.EditData, talk: Talk, model: str, system: str,
                      seed: str, *knobs: Any) -> AsyncIterator[Any]:  # fmt: skip
        index = event.index if isinstance(event.index, int) else event.index[0]
        path = talk.path
        text = unshielded(str(event.value)).strip()
        if not (0 <= index < len(path)) or talk.turns[path[index]].role != USER or not text:
            yield self._seen(talk, notice("The message stays as it was."))
            return
        old = talk.turns[path[index]]
        talk, number = talk.said(Turn(role=USER, text=text, pictures=old.pictures, above=old.above))
        async for seen in self._answered(talk, number, model, system, seed, knobs, request):
            yield seen

    def _stepped(self, talk: Talk, which: int | None, by: int) -> Any:
        if which is None or which not in talk.forks:
            return self._shown(talk)
        talk = talk.stepped(which, by)
        above = talk.turns[which].above
        return self._shown(talk, talk.chosen[above])

    def _looked(self, talk: Talk, which: int | None) -> str:
        return _place(talk, which)

    def _new(self, request: gr.Request) -> Any:
        self.tickets.stop(request)
        return *self._shown(Talk()), notice("")

    # ---------------------------------------------------------------- the answer
    async def _answered(self, talk: Talk, asked: int, model: str, system: str, seed: str,
                        knobs: Sequence[Any], request: gr.Request) -> AsyncIterator[Any]:  # fmt: skip
        """What is seen while turn `asked` is answered, by a turn of its own beside any earlier answer."""
        if self.tickets.running(request):
            yield self._seen(talk, notice(self.tickets.busy, wrong=True), busy=True)
            return
        try:
            drawn = seed_of(seed)
        except ConjureError as error:
            yield self._seen(talk, notice(said(error), wrong=True))
            return
        turn = Turn(role=ASSISTANT, above=asked, model=model, system=system.strip(), seed=drawn)
        talk, number = talk.said(turn)
        words = notice("")
        try:
            with self.tickets.taken(request) as key:
                yield self._seen(talk, notice("Starting"), busy=True)
                kind = (await asyncio.to_thread(self._models)).get(model, WORDS)
                answer = self._written if kind == WORDS else self._drawn
                async with aclosing(answer(talk, number, kind, knobs, key)) as steps:  # type: ignore[type-var]
                    async for talk, words in steps:
                        yield self._seen(talk, words, busy=True)
        except (ConjureError, ApiError) as error:
            talk, words = talk.with_turn(number, note=said(error)), notice(said(error), wrong=True)
        yield self._seen(talk, words)

    async def _written(self, talk: Talk, number: int, kind: str, knobs: Sequence[Any],
                       key: str) -> AsyncIterator[tuple[Talk, str]]:  # fmt: skip
        """An answer in words, through the engine that serves all clients."""
        turn, usual = talk.turns[number], {field.name: field.default for field in self.form.fields}
        wish = TextWish(messages=messages(talk.before(number), turn.system), seed=turn.seed or 0,
                        settings=usual | self.form.options(knobs))  # fmt: skip
        ticket = self.tickets.runs(key, ticket_for(self.home(), turn.model, wish))
        text, prompt, tokens, reason, began, drawn = "", 0, 0, "", 0.0, 0.0
        async with aclosing(turns(texts_of(ticket, GLANCE), frozenset())) as events:
            async for event in events:
                if isinstance(event, Began):
                    prompt, began = event.tokens, time.monotonic()
                elif isinstance(event, Said):
                    text, tokens = text + event.text, tokens + 1
                elif isinstance(event, Over):
                    tokens, reason = event.tokens, event.reason
                now = time.monotonic()
                if now - drawn >= REDRAWN:
                    drawn, waits = now, "Writing" if began else "Reading the model"
                    yield talk.with_turn(number, text=text, tokens=tokens), notice(_count(prompt, tokens, waits))
        seconds = time.monotonic() - began if began else 0.0
        note = {"": "stopped", "length": "cut off at the largest number of tokens"}.get(reason, "")
        pace = f"{tokens / seconds:,.0f} tokens/s" if tokens and seconds else ""
        yield (talk.with_turn(number, text=text, tokens=tokens, note=note),
               notice(_count(prompt, tokens, ", ".join(filter(None, [note.capitalize(), pace])))))  # fmt: skip

    async def _drawn(self, talk: Talk, number: int, kind: str, knobs: Sequence[Any],
                     key: str) -> AsyncIterator[tuple[Talk, str]]:  # fmt: skip
        """An answer in pictures, as Make makes them; kept in the history."""
        home, turn, before = self.home(), talk.turns[number], talk.before(number)
        inputs: list[Any] = [media.Text(before[-1].text)] if before[-1].text else []
        if kind == EDITS:
            there = [picture for each in before for picture in each.pictures]
            if not there:
                raise ConjureError(f"{turn.model} changes pictures, and there is none in this talk",
                                   hint="attach one to the message")  # fmt: skip
            inputs = [there[-1], *inputs]
        plan = partial(planned_for, home, inputs, to="image", model=turn.model, seed=turn.seed)
        async with aclosing(self.tickets.stages(key, home, plan)) as stages:
            async for stage in stages:
                if stage.end is not None:
                    pictures = tuple(each for each in stage.end.result.media if isinstance(each, Image))
                    yield talk.with_turn(number, pictures=pictures), notice(f"Drawn in {stage.end.seconds:.1f} s")
                elif stage.error:
                    yield talk.with_turn(number, note=stage.error), status(stage)
                else:
                    looks = (stage.preview,) if isinstance(stage.preview, Image) else ()
                    yield talk.with_turn(number, pictures=looks), status(stage)

    # ---------------------------------------------------------------- what is seen
    def _seen(self, talk: Talk, words: str, *, busy: bool = False) -> tuple[Any, ...]:
        stays = gr.update()
        if busy:
            shown = (talk, _bubbles(talk), stays, stays, stays, stays, stays)
            return *shown, words, gr.update(value=None, interactive=True), gr.update(interactive=True)
        return *self._shown(talk), words, gr.update(value=None), gr.update(interactive=False)

    def _shown(self, talk: Talk, which: int | None = None) -> tuple[Any, ...]:
        forks = talk.forks
        at = which if which in forks else (forks[-1] if forks else None)
        choices = [(_name(talk, number), number) for number in forks]
        text = placed(markdown(talk).encode(), "talk.md") if talk.turns else None
        every = json.dumps(plain(talk), ensure_ascii=False, indent=1) if talk.turns else ""
        return (
            talk, _bubbles(talk), gr.update(visible=bool(forks)), gr.update(choices=choices, value=at),
            _place(talk, at), gr.update(value=text, interactive=bool(text)),
            gr.update(value=placed(every.encode(), "talk.json") if every else None, interactive=bool(every)),
        )  # fmt: skip


def _able(offered: Mapping[str, ModelInfo], inputs: Sequence[str], output: str, task: str) -> list[str]:
    """The models that can do a task, those that the table names first."""
    edges = [each for each in everything() if each.task == task and each.output == output and each.takes(inputs)]
    return list(dict.fromkeys(name for edge in edges for name in able(edge, offered)))


def _schema() -> dict[str, Any]:
    """The options of a chat that the engine knows. Where a model's own files would decide, the neutral value stands: a
    reader sees what counts."""
    found: dict[str, Any] = {}
    for edge in everything():
        for name, its in route(edge)["options"]["properties"].items() if edge.task == "chat" else ():
            parts = [part for part in its.get("anyOf", ()) if part.get("type") != "null"]
            plain_one = {key: value for key, value in its.items() if key != "anyOf"} | (parts[0] if parts else {})
            if plain_one.get("default") is None:
                plain_one["default"] = getattr(Decoding(), name, None)
            found.setdefault(name, plain_one)
    return {"properties": {name: found[name] for name in KNOBS if name in found}}


def _bubbles(talk: Talk) -> list[dict[str, Any]]:
    """The shown turns as the component takes them."""
    found = []
    for turn in talk.shown:
        text = harmless(turn.text)
        if turn.note:
            text = f"{text}\n\n*({harmless(turn.note)})*" if text else f"*({harmless(turn.note)})*"
        if turn.role == ASSISTANT and turn.pictures and not text:  # in words too: the component drops its alt text
            text = f"*A picture, {turn.pictures[0].width} x {turn.pictures[0].height}*"
        parts: list[Any] = [{"type": "text", "text": text}] if text or not turn.pictures else []
        parts += [{"path": shown_file(each), "alt_text": turn.text or "a picture"} for each in turn.pictures]
        found.append({"role": turn.role, "content": parts})
    return found


def _name(talk: Talk, number: int) -> str:
    """`your message 2` or `answer 2`, counted along what is shown."""
    path = talk.path
    kind = talk.turns[number].role
    count = sum(talk.turns[each].role == kind for each in path[: path.index(number) + 1])
    return f"your message {count}" if kind == USER else f"answer {count}"


def _place(talk: Talk, number: int | None) -> str:
    if number is None:
        return ""
    versions = talk.versions(number)
    return notice(f"{versions.index(number) + 1} of {len(versions)}")


def _count(prompt: int, tokens: int, words: str) -> str:
    parts = [words] if words else []
    if prompt:
        parts.append(f"{prompt + tokens:,} tokens: {prompt:,} read, {tokens:,} written")
    return ". ".join(parts)
