"""`make`: from media to a medium, by the edge the table names. Plan first, then run; the plan alone costs nothing.

    make("a red apple", to="image", seed=1).save("apple.png")

Sample k of a call has the seed `seed + k`, so that each can be drawn again alone.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from conjure.codecs.language_names import name_of
from conjure.core import shelf
from conjure.core.config import to_dict
from conjure.core.errors import ConjureError, suggest
from conjure.core.events import Delta, Event, Preview, Result, Warn
from conjure.core.protocol import Generative
from conjure.core.provenance import COMPOSITE_MEDIA, ENHANCED_MEDIA, TRAINED_MEDIA, Record, digest, digest_file
from conjure.core.version import __version__
from conjure.media.bounds import SECONDS
from conjure.media.kinds import SUFFIXES, kind_of
from conjure.tasks import language_path, table
from conjure.tasks.abilities import abilities, cannot, is_public
from conjure.tasks.inputs import Given, attached, instructed, understand, unheld
from conjure.tasks.language_path import Tongues
from conjure.tasks.options import check, knobs
from conjure.tasks.table import Edge, resolve

MAX_COUNT = 1000
NAMED, MODELS, ALSO = "named", "models", "also"
"""Among the options of a record: the file whose name asked for a language, the models of all steps, and those that a
task takes beside its own, with the digests of their weights."""
MAX_SEED = 2**63 - MAX_COUNT


@dataclass(frozen=True)
class Plan:
    """Everything that is settled before a model is loaded. `models[i]` serves `edges[i]`, "" where none takes part;
    `options` are those of the last edge, `before` those of the edges before it; `named` is the file whose name asks for
    a language (`language_path`), "" where none does."""

    inputs: tuple[Given, ...]
    edges: tuple[Edge, ...]
    models: tuple[str, ...]
    options: Any
    seeds: tuple[int, ...]
    before: tuple[Any, ...] = ()
    named: str = ""

    @property
    def output(self) -> str:
        """The kind of medium that comes out."""
        return self.edges[-1].output


def make(
    *inputs: Any,
    to: str | None = None,
    output: str | Path | None = None,
    model: str | None = None,
    task: str | None = None,
    seed: int | None = None,
    count: int = 1,
    on_event: Callable[[Event], None] | None = None,
    **options: Any,
) -> Any:
    """The medium made from `inputs`, or a list of them where `count` is above 1.

    Inputs are strings (files or text), paths, bytes or media. The kind that comes out is `to` ("image"), else that of
    the suffix of `output`, else what the inputs are most often made into. With `output` it is written there, `count`
    of them as NAME-1.SUFFIX, NAME-2.SUFFIX, ... A missing `seed` is drawn at random; every medium carries its own
    record, which `save` puts into the file. `options` are those of the task: `conjure make -h` shows them.
    """
    planned = plan(*inputs, to=to, output=output, model=model, task=task, seed=seed, count=count, **options)
    result = finished(run(planned), on_event)
    made = [signed(medium, record(planned, index)) for index, medium in enumerate(result.media)]
    if output is not None:
        for index, path in enumerate(numbered(output, count)):
            filed(planned, made[index], result.facts, index, path.suffix).save(path)
    return made[0] if count == 1 else made


def plan(
    *inputs: Any,
    to: str | None = None,
    output: str | Path | None = None,
    model: str | None = None,
    task: str | None = None,
    seed: int | None = None,
    count: int = 1,
    **options: Any,
) -> Plan:
    """What `make` with the same arguments would do. Imports the task, for its options, but loads no weights."""
    if not 1 <= count <= MAX_COUNT:
        raise ConjureError(f"count: expected a whole number from 1 to {MAX_COUNT}, got {count}")
    if seed is not None and not 0 <= seed < MAX_SEED:
        raise ConjureError(f"seed: expected a whole number from 0 to {MAX_SEED - 1}, got {seed}")
    given = tuple(understand(each) for each in inputs)
    kinds, hint = [each.kind for each in given if not each.option], instructed(given, options)
    names = [each.name for each in given]
    edges = edges_of(given, options, to=to, output=output, model=model, task=task)
    last = edges[-1]
    if any(map(unheld, given)) and not getattr(resolve(edges[0]), "long", False):
        raise ConjureError(f"{edges[0].task} takes sound that fits into memory",
                           hint=f"cut it into parts, or raise {SECONDS}")  # fmt: skip
    given, options = attached(resolve(last).Options, options, given)
    said = language_path.tongues(kinds, names, last.output, output, task or hint)
    models = _models(edges, model, said)
    if said is not None:
        options = {**_settled(last, said, output), **options}
    before = (resolve(edge).Options(**(_settled(edge, said, output) if said else {})) for edge in edges[:-1])
    first = int.from_bytes(os.urandom(4), "little") if seed is None else seed
    return Plan(
        inputs=given,
        edges=edges,
        models=models,
        options=check(last, resolve(last).Options, _laid_out(last, options, output or to)),
        seeds=tuple(range(first, first + count)),
        before=tuple(before),
        named=Path(output).name if said is not None and output is not None else "",
    )


def edges_of(
    given: Sequence[Given], options: Mapping[str, Any], *, to: str | None = None, output: str | Path | None = None,
    model: str | None = None, task: str | None = None,
) -> tuple[Edge, ...]:  # fmt: skip
    """The way from these inputs that `plan` takes; no file that an option names is touched."""
    kinds = [each.kind for each in given if not each.option]
    return way(kinds, to=to, output=output, model=model, task=task, hint=instructed(given, options),
               names=[each.name for each in given])  # fmt: skip


def _models(edges: Sequence[Edge], model: str | None, said: Tongues | None) -> tuple[str, ...]:
    """The model of each step: a named one makes the last, or, where a file's name asked for a language, what it can."""
    if said is None:
        return tuple(_fitting(edge, model if edge is edges[-1] else None) for edge in edges)
    models = tuple(_fitting(edge, next(iter(_able(edge, model)), None)) for edge in edges)
    for edge, its in zip(edges, models, strict=True):
        language_path.refuse_strangers(edge, its, said)
    return models


def _settled(edge: Edge, said: Tongues, output: str | Path | None) -> dict[str, Any]:
    """The options of a step of a path that a file's name asked for."""
    return language_path.given(edge, {knob.name for knob in knobs(resolve(edge).Options)}, said, output or "")


def _able(edge: Edge, models: str | None) -> list[str]:
    """Of models with commas between them, those that serve an edge."""
    return [name for name in (models or "").split(",") if name and _serves(edge, name)]


def _laid_out(edge: Edge, options: Mapping[str, Any], wanted: str | Path | None) -> dict[str, Any]:
    """An option `format` is that of the file, unless it is named. In .json a text comes with all else (`filed`)."""
    field = getattr(resolve(edge).Options, "__pydantic_fields__", {}).get("format")
    suffix = Path(wanted or "").suffix or f".{wanted or ''}"
    name = suffix.lower().removeprefix(".")
    if field is None or "format" in options or name == "json" or name not in get_args(field.annotation):
        return dict(options)
    return {**options, "format": name}


def way(
    kinds: Sequence[str],
    *,
    to: str | None = None,
    output: str | Path | None = None,
    model: str | None = None,
    task: str | None = None,
    hint: str | None = None,
    names: Sequence[str] = (),
) -> tuple[Edge, ...]:
    """The edge, or the path of edges, for inputs of these kinds. `hint` is the task that inputs and options suggest: it
    counts where none is named, and not for a model that was made for another. `names` are those of the input files:
    with that of the output they may ask for another language."""
    if not kinds:
        raise ConjureError(
            "nothing to make it from", hint='give a text or a file: conjure make "a red apple" -o apple.png'
        )
    asked = task or hint
    wanted = _wanted(tuple(kinds), to, output, model, asked)
    if language_path.tongues(kinds, names, wanted, output, asked) is not None:
        return _in_another_language(kinds[0], wanted, model)
    if model is not None:
        for each in (asked,) if is_public(shelf.find(model)) else dict.fromkeys((asked, task)):
            if edge := _chosen(table.direct(kinds, wanted, each), model, each, len(kinds)):
                return (edge,)
    return table.path(kinds, wanted, asked)


def _in_another_language(kind: str, wanted: str, models: str | None) -> tuple[Edge, ...]:
    """Hear, translate, speak, as far as the kinds need it; each step by the first edge that one of the models serves,
    else by the first whose own model is here. Several models have commas between them."""
    steps = [list(table.direct((start,), end, task)) for start, end, task in language_path.stations(kind, wanted)]
    for name in filter(None, (models or "").split(",")):
        if not any(_serves(edge, name) for step in steps for edge in step):
            tasks = ", ".join(step[0].task for step in steps if step)
            raise ConjureError(f"{name} can do no step of this path: {tasks}", hint="see `conjure models show NAME`")
    found = []
    for step, (start, end, task) in zip(steps, language_path.stations(kind, wanted), strict=True):
        named = [edge for edge in step if _able(edge, models)]
        here = {each.name for each in shelf.installed()} if not named else set()
        ready = named or [edge for edge in step if edge.model in here] or step
        found += ready[:1] or [table.find((start,), end, task)]
    return tuple(found)


def run(planned: Plan, ready: Callable[[Edge, str], Generative] | None = None) -> Iterator[Event]:
    """The events of the making, `Result` last; closing the iterator cancels it. `ready` gives an edge with its model
    loaded, where the caller keeps models itself."""
    ready = ready or _ready
    given = [each.medium for each in planned.inputs]
    *before, (last, its_model) = zip(planned.edges, planned.models, strict=True)
    if before:
        yield Warn(f"{_why(planned)}: going {' -> '.join(route(planned))}")
    own = planned.before or [resolve(edge).Options() for edge, _ in before]
    for (edge, model), options in zip(before, own, strict=True):
        for event in _steps(edge, ready(edge, model), given, options, [planned.seeds[0]]):
            if isinstance(event, Result):
                given = list(event.media)
            elif not isinstance(event, Delta | Preview):
                yield event
    yield from _steps(last, ready(last, its_model), given, planned.options, list(planned.seeds))


def route(planned: Plan) -> list[str]:
    """The kinds that a plan goes through, each with what makes it where there are several steps."""
    start, steps = planned.edges[0], list(zip(planned.edges, planned.models, strict=True))
    how = [f"{edge.output} ({', '.join(filter(None, (edge.task, model)))})" if len(steps) > 1 else edge.output
           for edge, model in steps]  # fmt: skip
    return [" + ".join(start.inputs), *how]


def _why(planned: Plan) -> str:
    if planned.named:
        return f"{planned.named} asks for {name_of(language_path.tag(planned.named))}"
    return f"no model leads straight from {' + '.join(planned.edges[0].inputs)} to {planned.output}"


def _steps(edge: Edge, task: Generative, given: list[Any], options: Any, seeds: list[int]) -> Iterator[Event]:
    """The events of one step; captions are translated with their times kept."""
    if edge.task == "translate" and len(given) == 1:
        return language_path.translated(task, given[0], options, seeds)
    return task.generate(given, options, seeds)


def finished(events: Iterator[Event], on_event: Callable[[Event], None] | None = None) -> Result:
    """The result at the end of the events, each of which is shown to `on_event`."""
    result = None
    for event in events:
        if on_event is not None:
            on_event(event)
        if isinstance(event, Result):
            result = event
    assert result is not None, "generate must end with a Result"
    return result


def record(planned: Plan, index: int) -> Record:
    """How sample `index` is made, as its file will say."""
    edge, model = planned.edges[-1], planned.models[-1]
    return Record(
        version=__version__,
        task=edge.task,
        model=model,
        weights=weights(model),
        inputs=tuple(each.recorded() for each in planned.inputs),
        options=to_dict(planned.options) | _path_recorded(planned) | _also_recorded(planned),
        seeds=planned.seeds,
        index=index,
        source_type=_source_type(edge),
    )


def _path_recorded(planned: Plan) -> dict[str, str]:
    """What a record needs of a path that a file's name asked for, among its options."""
    return {NAMED: planned.named, MODELS: ",".join(filter(None, planned.models))} if planned.named else {}


def _also_recorded(planned: Plan) -> dict[str, dict[str, str]]:
    """The models that the last task takes beside its own, where its `also` says that it does with these options."""
    also = getattr(resolve(planned.edges[-1]), "also", lambda options: ())
    found = {name: weights(name) for name in also(planned.options)}
    return {ALSO: found} if found else {}


def _source_type(edge: Edge) -> str:
    if edge.by_rule:
        return ENHANCED_MEDIA
    return COMPOSITE_MEDIA if edge.output in edge.inputs and edge.output != "text" else TRAINED_MEDIA


def signed(medium: Any, its: Record) -> Any:
    """The medium with the record that `save` will put into its file."""
    import dataclasses

    return dataclasses.replace(medium, record=its)


def filed(planned: Plan, medium: Any, facts: Mapping[str, Any], index: int, suffix: str) -> Any:
    """The medium as a file of this suffix holds it: in .json a text comes with all that is known about it.

    `facts["results"]`, where a task gives them, has what is known about each of the media.
    """
    import dataclasses
    import json

    if suffix.lower() != ".json" or medium.kind != "text":
        return medium
    results = facts.get("results") or [{}] * (index + 1)
    content = {
        "task": planned.edges[-1].task, "model": planned.models[-1], "seed": planned.seeds[index],
        "text": str(medium), **results[index], **{name: each for name, each in facts.items() if name != "results"},
    }  # fmt: skip
    return dataclasses.replace(medium, text=json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def numbered(output: str | Path, count: int) -> list[Path]:
    """apple.png, or apple-1.png, apple-2.png, ... for several."""
    path = Path(output)
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{k}{path.suffix}") for k in range(1, count + 1)]


def load(name: str | Path) -> Generative:
    """A model ready for use: `generate` and `evaluate_published` of the task it was made for."""
    info = shelf.info(name)
    if is_public(info.path):
        edge = _chosen((edge for edge in table.everything() if edge.public), str(name), None, 1)
        if edge is None:
            raise cannot(str(name), info.path, "make text")
        return _loaded(edge, info.path)
    if not info.task:
        raise ConjureError(
            f"{name}: its config.json names no task", hint="only models that conjure wrote can be loaded"
        )
    return _loaded(table.named(info.task), info.path)


def weights(model: str | Path) -> str:
    """The digest of a model's weights; "" where no model takes part."""
    if not model:
        return ""
    folder = shelf.find(model)
    return _digest(folder, _stamp(folder))


def forecast(planned: Plan) -> dict[str, Any]:
    """What the plan would take, at least: `memory_bytes` of the process, `seconds` of computing, start-up aside.

    The weights are counted as float32; the rest is the task's own forecast, where it makes one.
    """
    edge, model = planned.edges[-1], planned.models[-1]
    if not model:
        return {"memory_bytes": _resident_bytes()}
    info = shelf.info(model)
    estimate = getattr(resolve(edge), "forecast", None)
    # What an edit takes hangs on the size of its picture.
    given = [[each.medium for each in planned.inputs]] if "image" in edge.inputs else []
    own = dict(estimate(info.path, planned.options, len(planned.seeds), *given)) if estimate else {}
    memory = _resident_bytes() + 4 * info.parameters + own.pop("memory_bytes", 0)
    return {"parameters": info.parameters, "file_bytes": info.bytes, "memory_bytes": memory, **own}


def _resident_bytes() -> int:
    """What this process, with its libraries, holds already."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _wanted(
    kinds: tuple[str, ...], to: str | None, output: str | Path | None, model: str | None, task: str | None
) -> str:
    if to is not None:
        if to in SUFFIXES.values():
            return to
        if f".{to.lower().removeprefix('.')}" in SUFFIXES:
            return SUFFIXES[f".{to.lower().removeprefix('.')}"]
        if to in table.kinds():
            return to
        raise ConjureError(f"'{to}' is no kind of medium", hint=suggest(to, table.kinds()))
    if output is not None and str(output) != "-":
        return kind_of(output)
    return _usual(kinds, task, shelf.info(model).task if model is not None else "")


def _usual(kinds: tuple[str, ...], task: str | None, trained: str) -> str:
    """The kind that comes out where nothing names one: that of the task or the model, else the first in the table."""

    def asked_for(edge: Edge) -> bool:
        return (task is None or task in (edge.task, edge.module)) and (not trained or trained in edge.serves)

    preferences: tuple[Callable[[Edge], bool], ...] = (
        lambda edge: edge.takes(kinds) and asked_for(edge),
        lambda edge: bool(task or trained) and asked_for(edge),
        lambda edge: edge.takes(kinds),
    )
    for fits in preferences:
        for edges in (lambda: table.TABLE, table.plugins):
            if found := next(filter(fits, edges()), None):
                return found.output
    return "text"


def _chosen(edges: Iterable[Edge], model: str, task: str | None, count: int) -> Edge | None:
    """Of several edges the one that the model serves best; None where it serves none of them.

    Several texts without a task are a text and what to do with it, which is a chat where the model can hold one.
    """
    path = shelf.find(model)
    fit = [edge for edge in edges if _serves(edge, model)]
    if task is None and len(fit) > 1 and fit[0].public:
        order = list(abilities(path))
        if count > 1 and "chat" in order:
            order.insert(0, "chat")
        fit.sort(key=lambda edge: order.index(edge.task))
    return fit[0] if fit else None


def _serves(edge: Edge, model: str) -> bool:
    info = shelf.info(model)
    if edge.by_rule:
        return False
    if edge.public:
        return edge.task in abilities(info.path)
    return not is_public(info.path) and (not info.task or info.task in edge.serves)


def _fitting(edge: Edge, model: str | None) -> str:
    if edge.by_rule:
        if model:
            raise ConjureError(f"to {edge.task} is arithmetic, no model takes part", hint="leave out --model")
        return ""
    name = model or edge.model
    if not name:
        able = [each.name for each in shelf.installed() if _serves(edge, each.name)]
        missing = "`conjure models get org/name` fetches one" if edge.public else "`conjure recipes`: what trains one"
        hint = f"here are {', '.join(able)}" if able else missing
        raise ConjureError(f"to {edge.task} takes a model: none comes with conjure, name it with --model", hint=hint)
    if _serves(edge, name):
        return name
    info = shelf.info(name)
    if is_public(info.path) or edge.public:
        raise cannot(name, info.path, edge.task)
    fit = [each.name for each in shelf.installed() if each.task in edge.serves and not is_public(each.path)]
    hint = f"models for {edge.task}: {', '.join(fit)}" if fit else "`conjure list models` shows what is there"
    raise ConjureError(f"{name} is a model for {info.task}, expected one for {edge.task} ({edge})", hint=hint)


def _ready(edge: Edge, model: str) -> Generative:
    return _loaded(edge, shelf.find(model)) if model else resolve(edge)()


def _loaded(edge: Edge, folder: Path) -> Generative:
    return _load(edge, folder, _stamp(folder))


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes when a file of the model does."""
    parts = [] if folder.is_file() else [*folder.iterdir(), *folder.glob("*/*.safetensors")]
    files = [folder] if folder.is_file() else sorted(path for path in parts if path.is_file())
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@functools.lru_cache(maxsize=2)
def _load(edge: Edge, folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> Generative:
    return resolve(edge).load(folder)


@functools.lru_cache(maxsize=8)
def _digest(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> str:
    """As `models.folder.weights_digest`, read in pieces; a file of the hub's cache is named by its digest. A picture
    model of several parts has its weights in folders of their own."""
    whole = folder if folder.is_file() else shelf.gguf_file(folder)
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*/*.safetensors"))
    parts = []
    for file in files if whole is None else [whole]:
        name = file.name if file.parent == folder or whole is not None else f"{file.parent.name}/{file.name}"
        kept = file.resolve().name if file.is_symlink() else ""
        own = f"sha256:{kept}" if re.fullmatch("[0-9a-f]{64}", kept) else digest_file(file)
        parts.append(name.encode() + b"\0" + own.encode() + b"\n")
    return digest(b"".join(parts))
