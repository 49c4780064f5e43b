"""TABLE: which media can become which, by which task and model. A literal; no torch.

Whatever is not in it is looked up in the entry-point group `conjure.tasks` (each entry an `Edge` or several), and then
as the cheapest path through both.
"""

from __future__ import annotations

import functools
import gc
import heapq
import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from conjure.core.errors import ConjureError, suggest

GROUP = "conjure.tasks"
MAX_PATH = 4


@dataclass(frozen=True)
class Edge:
    """One way from media to a medium.

    `target` is "module:Class"; `model` the default model; `made_by` names the tasks (as a model's `config.json` states
    them) whose models serve this edge, where that is more than the edge's own module. `several` inputs of its kind may
    come where one is named. What is `public` runs the models that `abilities` says can do its task: public ones, and
    language models of ours; such an edge may have no default model. What is `by_rule` is arithmetic: no model takes
    part.
    """

    inputs: tuple[str, ...]
    output: str
    task: str
    target: str
    model: str
    summary: str
    made_by: tuple[str, ...] = ()
    several: bool = False
    public: bool = False
    by_rule: bool = False

    @property
    def module(self) -> str:
        """The name recipes and model folders use for the task: "text_to_image"."""
        return self.target.partition(":")[0].rpartition(".")[2]

    @property
    def serves(self) -> frozenset[str]:
        """The tasks whose models this edge can run."""
        return frozenset((self.module, self.task, *self.made_by))

    def takes(self, kinds: Sequence[str]) -> bool:
        """Whether inputs of these kinds can come."""
        return self.inputs == tuple(kinds) or (self.several and len(kinds) > 1 and set(kinds) == set(self.inputs))

    def __str__(self) -> str:
        return f"{' + '.join(self.inputs)} -> {self.output}"


TABLE: tuple[Edge, ...] = (
    Edge(
        ("text",),
        "text",
        "continue",
        "conjure.tasks.text_to_text:TextToText",
        "starter/story",
        "writes on from where a text stops",
    ),
    Edge(
        ("text",),
        "text",
        "complete",
        "conjure.tasks.code_to_code:CodeToCode",
        "starter/code",
        "fills a gap in a file of code",
    ),
    Edge(
        ("text",),
        "text",
        "chat",
        "conjure.tasks.chat:Chat",
        "starter/chat",
        "answers, or does as it is told",
        several=True,
    ),
    Edge(
        ("text",),
        "image",
        "draw",
        "conjure.tasks.text_to_image:TextToImage",
        "starter/pictograms",
        "draws what a text says",
    ),
    *(
        Edge(("text",), "image", "sample", f"conjure.tasks.{target}", "", summary)
        for target, summary in (
            ("vae:SampleVAE", "small pictures of a class, or of any, by a variational autoencoder"),
            ("vq_prior:SampleCodes", "the same by a transformer over the codes of an autoencoder"),
            ("gan:SampleGAN", "the same by a generator and its critic"),
            ("pixel_diffusion:SamplePixels", "the same by diffusion of pixels"),
        )
    ),
    *(
        Edge(("text",), "image", "draw", f"conjure.tasks.{target}", "", summary)
        for target, summary in (
            ("latent_drawing:LatentDrawing", "draws scenes by latent diffusion without a book of pictures"),
            ("cascade:Cascade", "draws scenes small, then large"),
            ("embedding_prior:PriorDrawing", "draws scenes through an embedding of the picture"),
            ("few_steps:FewSteps", "draws what a text says in one to four steps"),
        )
    ),
    Edge(
        ("image",),
        "image",
        "reconstruct",
        "conjure.tasks.image_to_image:Reconstruct",
        "starter/pictograms",
        "sends a picture through the model's image code and back",
        made_by=("text_to_image", "draw", "few_steps"),
    ),
    Edge(("image",), "text", "recognise", "conjure.tasks.features:Features", "", "says which class a picture shows"),
    Edge(
        ("image",),
        "image",
        "reconstruct",
        "conjure.tasks.vq_vae:Quantise",
        "",
        "sends a small picture through a book of codes and back",
        made_by=("vq_prior",),
    ),
    Edge(
        ("image",),
        "image",
        "reconstruct",
        "conjure.tasks.kl_autoencoder:KLReconstruct",
        "",
        "sends a scene through a variational autoencoder and back",
        made_by=("latent_drawing",),
    ),
    *(
        Edge(("image",), "image", "transform", f"conjure.tasks.{target}", "", summary)
        for target, summary in (
            ("pix2pix:Pix2Pix", "turns pictures of one kind into another, learnt from pairs"),
            ("cycle_gan:CycleGAN", "the same, learnt without pairs"),
        )
    ),
    Edge(
        ("image", "text"),
        "image",
        "edit",
        "conjure.tasks.instruct:Instruct",
        "starter/pictograms-edit",
        "changes a picture as it is told",
    ),
    Edge(
        ("image", "text"),
        "image",
        "edit",
        "conjure.tasks.instruct_public:InstructPublic",
        "",
        "changes a picture as it is told, by a public picture model",
        public=True,
    ),
    *(
        Edge(kinds, "image", "control", "conjure.tasks.control:Control", "", "follows a picture's lines", public=True)
        for kinds in (("image", "text"), ("image",))
    ),
    *(
        Edge(kinds, "image", task, f"conjure.tasks.{target}", model, summary + by, made_by, public=not model)
        for task, target, summary in (
            ("vary", "vary:Vary", "draws a picture again, more or less like it"),
            ("inpaint", "inpaint:Inpaint", "draws something new where a mask says"),
            ("outpaint", "outpaint:Outpaint", "makes the canvas larger and fills it"),
        )
        for kinds in (("image", "text"), ("image",))
        for model, made_by, by in (
            ("starter/pictograms", ("text_to_image", "draw", "few_steps"), ""),
            ("", (), ", by a public picture model"),
        )
    ),
    *(
        Edge(("image",), "image", task, f"conjure.tasks.{target}", "", summary, by_rule=True)
        for task, target, summary in (
            ("restyle", "restyle:Restyle", "gives a picture the colours and grain of another"),
            ("upscale", "upscale:Upscale", "makes a picture two or four times as large"),
            ("cutout", "cut_out:CutOut", "makes a plain background transparent"),
        )
    ),
    Edge(
        ("text",),
        "image",
        "draw",
        "conjure.tasks.public_pictures:PublicPictures",
        "",
        "draws what a text says, by a public picture model",
        public=True,
    ),
    Edge(
        ("text",),
        "text",
        "translate",
        "conjure.tasks.translation:Translation",
        "starter/translate",
        "says the same in Spanish or in English",
        several=True,
    ),
    *(
        Edge(("text",), "text", task, f"conjure.tasks.{target}", "", summary, several=several, public=True)
        for task, target, summary, several in (
            ("continue", "continuation:Continuation", "writes on from where a text stops, by a public decoder", False),
            ("complete", "continuation:Continuation", "the same, by its other name", False),
            ("chat", "conversation:Conversation", "answers by a public model, through its chat template", True),
            ("translate", "translate:Translate", "says the same in another language", True),
            ("summarise", "summarise:Summarise", "says the same in fewer words", True),
            ("answer", "answer:Answer", "answers a question, from a text where one is given", True),
            ("classify", "classify:Classify", "labels a text or the words in it", True),
            ("fill", "fill:Fill", "finds what stands in the gaps of a text", False),
            ("embed", "embed:Embed", "makes a vector of a text, compares several", True),
        )
    ),
    Edge(
        ("audio",),
        "text",
        "transcribe",
        "conjure.tasks.ear:EarTask",
        "starter/ear",
        "writes what is said in English, and when",
    ),
    Edge(
        ("audio",),
        "text",
        "transcribe",
        "conjure.tasks.speech_to_text:Transcribe",
        "",
        "writes what is said, and when",
        public=True,
    ),
    Edge(
        ("audio",),
        "text",
        "speakers",
        "conjure.tasks.speakers:Speakers",
        "starter/who",
        "says who speaks when, and whether two voices are one",
        several=True,
    ),
    *(
        Edge(("audio",), "audio", task, f"conjure.tasks.{target}", model, summary, public=not model)
        for task, target, model, summary in (
            ("reconstruct", "sound_codec:Reconstruct", "starter/codec", "sends speech through a neural codec and back"),
            ("reconstruct", "sound_codec:ReconstructPublic", "", "sends sound through a public codec and back"),
            ("continue", "continue_sound:ContinueSound", "starter/continue-speech", "goes on where speech stops"),
        )
    ),
    Edge(
        ("audio",),
        "audio",
        "enhance",
        "conjure.tasks.enhance:Enhance",
        "starter/clean",
        "takes noise and room away from speech",
    ),
    Edge(
        ("text",),
        "music",
        "compose",
        "conjure.tasks.music:Compose",
        "starter/chorale",
        "composes in four voices what a text says",
    ),
    *(
        Edge(("music",), "music", task, f"conjure.tasks.music:{target}", "starter/chorale", summary)
        for task, target, summary in (
            ("harmonise", "Harmonise", "gives a melody three more voices"),
            ("continue", "Continue", "goes on with a piece in four voices"),
            ("infill", "Infill", "writes some bars of a piece anew"),
        )
    ),
    Edge(("music",), "audio", "play", "conjure.tasks.play:Play", "", "plays a piece", by_rule=True),
    Edge(
        ("text",),
        "audio",
        "speak",
        "conjure.tasks.speak:Speak",
        "starter/voice",
        "says a text, sentence by sentence",
    ),
    Edge(
        ("text",),
        "audio",
        "speak",
        "conjure.tasks.public_voices:PublicVoices",
        "",
        "says a text, by a public voice",
        public=True,
    ),
    Edge(
        ("audio",),
        "audio",
        "reconstruct",
        "conjure.tasks.vocoder:Vocode",
        "",
        "sends speech through a mel spectrogram and back",
        made_by=("speak",),
    ),
    Edge(
        ("audio",),
        "audio",
        "convert",
        "conjure.tasks.change_voice:ChangeVoice",
        "starter/voice",
        "says it again in the voice of a sample",
        made_by=("speak",),
    ),
    Edge(
        ("audio",),
        "audio",
        "convert",
        "conjure.tasks.convert_voice:ConvertVoice",
        "",
        "says it again in another voice, by a public model",
        public=True,
    ),
    Edge(
        ("text",),
        "audio",
        "compose",
        "conjure.tasks.compose_sound:ComposeSound",
        "",
        "makes music that a text describes, by a public model",
        public=True,
    ),
)


@functools.cache
def plugins() -> tuple[Edge, ...]:
    """The edges that installed packages offer under the entry-point group `conjure.tasks`."""
    from importlib.metadata import entry_points

    found: list[Edge] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            value = entry.load()
        except (ImportError, AttributeError) as error:
            raise ConjureError(
                f"the plugin '{entry.name}' ({entry.value}) cannot be loaded: {error}",
                hint="update or uninstall the package it came with",
            ) from error
        found += (value,) if isinstance(value, Edge) else tuple(value)
    return tuple(found)


def everything() -> tuple[Edge, ...]:
    """TABLE and what plugins add."""
    return TABLE + plugins()


def kinds() -> tuple[str, ...]:
    """Every kind of medium some edge reads or writes, in the order of TABLE."""
    return tuple(dict.fromkeys(kind for edge in everything() for kind in (*edge.inputs, edge.output)))


def find(inputs: Sequence[str], output: str, task: str | None = None) -> Edge:
    """The edge from these kinds to that one; the first in the table where several do, unless `task` chooses.

    Raises `ConjureError` that says what is possible instead.
    """
    edge = _direct(inputs, output, task)
    if edge is None:
        raise _impossible(inputs, output, task)
    return edge


def direct(inputs: Sequence[str], output: str, task: str | None = None) -> Iterator[Edge]:
    """All edges from these kinds to that one, those of the table first."""

    def fits(edge: Edge) -> bool:
        return edge.takes(inputs) and edge.output == output and task in (None, edge.task, edge.module)

    # Plugins are looked for on a miss only: asking every installed package takes longer than the table.
    yield from filter(fits, TABLE)
    yield from filter(fits, plugins())


def path(inputs: Sequence[str], output: str, task: str | None = None) -> tuple[Edge, ...]:
    """The edge as a path of one, else the path with the fewest edges, the earliest in the table first.

    Only a single medium is led through several edges; one of them performs `task` if that is given.
    """
    edge = _direct(inputs, output, task)
    if edge is not None:
        return (edge,)
    found = _cheapest(everything(), inputs[0], output, task) if len(inputs) == 1 else None
    if found is None:
        raise _impossible(inputs, output, task)
    return found


def named(name: str) -> Edge:
    """The edge whose task recipes and model folders call `name`: "text_to_image" or "draw"."""

    def fits(edge: Edge) -> bool:
        return name in (edge.module, edge.task)

    found = next(filter(fits, TABLE), None) or next(filter(fits, plugins()), None)
    if found is not None:
        return found
    names = dict.fromkeys(name for edge in everything() for name in (edge.module, edge.task))
    raise ConjureError(f"no task is called '{name}'", hint=suggest(name, names))


def resolve(edge: Edge) -> type[Any]:
    """The task class of an edge, imported now."""
    module, _, name = edge.target.partition(":")
    if module not in sys.modules:
        _import(module)
    return getattr(importlib.import_module(module), name)


def _import(module: str) -> None:
    """Imports a module while the garbage collector rests. torch brings 200,000 objects, which all stay: to go through
    them again and again is a fifth of the whole time. Freezing and thawing makes them old, so it waits afterwards too.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module(module)
    finally:
        gc.freeze()
        gc.unfreeze()
        if collecting:
            gc.enable()


def _direct(inputs: Sequence[str], output: str, task: str | None) -> Edge | None:
    return next(direct(inputs, output, task), None)


def _cheapest(edges: Iterable[Edge], start: str, output: str, task: str | None) -> tuple[Edge, ...] | None:
    """Dijkstra over (edges used, their places in the table); the steps of a path each change the kind, except the one
    that was asked for by name."""
    steps = [(place, edge) for place, edge in enumerate(edges) if len(edge.inputs) == 1]
    queue: list[tuple[int, tuple[int, ...], str, tuple[Edge, ...]]] = [(0, (), start, ())]
    while queue:
        length, places, kind, taken = heapq.heappop(queue)
        if taken and kind == output and (task is None or any(task in (each.task, each.module) for each in taken)):
            return taken
        if length == MAX_PATH:
            continue
        for place, edge in steps:
            named = task is not None and task in (edge.task, edge.module)
            if edge.inputs == (kind,) and edge not in taken and (edge.output != kind or named):
                heapq.heappush(queue, (length + 1, (*places, place), edge.output, (*taken, edge)))
    return None


def _impossible(inputs: Sequence[str], output: str, task: str | None) -> ConjureError:
    given = " + ".join(inputs) or "nothing"
    edges = everything()
    if task is not None:
        tasks = dict.fromkeys(edge.task for edge in edges)
        if task not in tasks and task not in {edge.module for edge in edges}:
            return ConjureError(f"no task is called '{task}'", hint=suggest(task, tasks))
        ways = "; ".join(str(edge) for edge in edges if task in (edge.task, edge.module))
        return ConjureError(f"the task '{task}' does not lead from {given} to {output}", hint=f"it leads {ways}")
    outputs = dict.fromkeys(edge.output for edge in edges if edge.takes(inputs))
    if outputs:
        return ConjureError(
            f"no way leads from {given} to {output}",
            hint=f"{given} can become {', '.join(outputs)}: see `conjure list`",
        )
    ways = "; ".join(dict.fromkeys(str(edge) for edge in edges))
    return ConjureError(f"no way leads from {given} to {output}", hint=f"possible are {ways}")
