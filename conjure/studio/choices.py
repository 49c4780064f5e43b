"""What can be made of what is there, with the models of this machine: the page offers nothing that cannot be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from conjure.core.errors import ConjureError
from conjure.core.shelf import ModelInfo
from conjure.media.kinds import sniff
from conjure.tasks import table
from conjure.tasks.abilities import abilities, is_public
from conjure.tasks.table import Edge

NAMES = {"image": "a picture", "text": "a text", "audio": "a sound", "music": "a piece of music"}
"""Kind of medium -> what people call it."""
HEAD_BYTES = 64
"""Of a file, enough to see what it is."""


@dataclass(frozen=True)
class Way:
    """One task, with the models that can do it here; none where it is arithmetic. `edges[i]` goes with `models[i]`,
    and a single edge with no model."""

    output: str
    task: str
    summary: str
    edges: tuple[Edge, ...]
    models: tuple[str, ...]

    def edge(self, model: str) -> Edge:
        """The edge by which a model does the task."""
        return self.edges[self.models.index(model)] if model in self.models else self.edges[0]


def ways(kinds: Sequence[str], offered: Mapping[str, ModelInfo]) -> tuple[Way, ...]:
    """The tasks that lead from inputs of these kinds somewhere, in the order of the table; what leads there over
    several edges comes last."""
    found: dict[tuple[str, str], list[tuple[Edge, str]]] = {}
    for edge in table.everything():
        if edge.takes(kinds):
            pairs = found.setdefault((edge.output, edge.task), [])
            taken = {model for _, model in pairs}
            pairs += [(edge, model) for model in able(edge, offered) if model not in taken]
    made = [_way(output, task, pairs) for (output, task), pairs in found.items() if pairs]
    straight = {way.output for way in made}
    return (*made, *_roundabout(kinds, straight))


def able(edge: Edge, offered: Mapping[str, ModelInfo]) -> list[str]:
    """The models that serve an edge, its default first; [""] where none takes part."""
    if edge.by_rule:
        return [""]
    names = [name for name, info in offered.items() if _serves(edge, info)]
    return sorted(names, key=lambda name: name != edge.model)


def kinds_of(files: Sequence[str | Path], prompt: str) -> list[str]:
    """The kinds of the inputs in the order in which edges take them: files first, pictures before texts."""
    found = []
    for each in files:
        with open(each, "rb") as file:
            found.append(sniff(file.read(HEAD_BYTES)))
    return sorted(found, key=lambda kind: kind == "text") + (["text"] if prompt.strip() else [])


def name(kind: str) -> str:
    """`image` -> "a picture"."""
    return NAMES.get(kind, f"a {kind}")


def _way(output: str, task: str, pairs: Sequence[tuple[Edge, str]]) -> Way:
    edges, models = zip(*pairs, strict=True)
    return Way(output, task, edges[0].summary, edges, models if models[0] else ())


def _serves(edge: Edge, info: ModelInfo) -> bool:
    if edge.public:
        try:
            return edge.task in abilities(info.path)
        except ConjureError:  # a family nobody knows can do nothing here
            return False
    return not is_public(info.path) and (not info.task or info.task in edge.serves)


def _roundabout(kinds: Sequence[str], straight: set[str]) -> list[Way]:
    """Ways over several edges, each of which has a model of its own."""
    found = []
    for output in table.kinds() if len(kinds) == 1 else ():
        if output in straight:
            continue
        try:
            edges = table.path(kinds, output)
        except ConjureError:
            continue
        if all(edge.by_rule or edge.model for edge in edges):
            last = edges[-1]
            stations = " -> ".join([*(edge.inputs[0] for edge in edges), output])
            found.append(Way(output, last.task, f"{last.summary} ({stations})", (last,), (last.model,)))
    return found
