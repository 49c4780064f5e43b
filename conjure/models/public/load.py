"""A public checkpoint becomes a network: config.json is read, every tensor finds its place, or the load is refused."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError, suggest
from conjure.models.checkpoint import Checkpoint, Tensors, misfits, shortened
from conjure.models.public import decoders, encoders, musicgen, pairs, sound_codecs, speecht5, towers, voices
from conjure.models.public.family import IGNORED, Family
from conjure.models.public.gguf import GgufFile
from conjure.models.public.names import Map, Rule, rule_for
from conjure.models.public.settings import Settings
from conjure.nn.quantised import quantised_like

FAMILIES: dict[str, Family] = {
    **decoders.FAMILIES, **encoders.FAMILIES, **pairs.FAMILIES, **towers.FAMILIES, **voices.FAMILIES,
    **speecht5.FAMILIES, **sound_codecs.FAMILIES, **musicgen.FAMILIES,
}  # fmt: skip
SHOWN = 20
SMALL = 1 << 16


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a checkpoint."""

    family: str
    tensors: int
    """On disk, all that were used."""
    parameters: int
    ignored: tuple[str, ...]
    """Tensors on disk that the network computes itself or has no use for."""
    tied: bool
    """The output matrix is the embedding."""
    zeros: tuple[str, ...]
    """Parameters that no file has and that are 0."""
    dtype: str

    def __str__(self) -> str:
        head = "the embedding" if self.tied else "a matrix of its own, or none"
        lines = [f"{self.family}: all {self.tensors:,} tensors found their place: "
                 f"{self.parameters:,} parameters, {self.dtype}",
                 f"output matrix: {head}"]
        if self.ignored:
            lines.append(f"not needed: {', '.join(self.ignored[:SHOWN])}")
        if self.zeros:
            lines.append(f"zero by definition: {len(self.zeros)} parameters")
        return "\n".join(lines)


def family_of(config: dict[str, Any]) -> tuple[str, Family]:
    """The family that `model_type` names; unknown ones are refused with the nearest."""
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise ConjureError("config.json names no model_type", hint=f"known are {', '.join(sorted(FAMILIES))}")
    if kind not in FAMILIES:
        raise ConjureError(
            f"models of the family '{kind}' cannot be run yet ({len(FAMILIES)} families can)",
            hint=f"{suggest(kind, FAMILIES)}; a new family is a function from config.json to knobs and a map of names, "
            "see docs/families.md",
        )
    family, written = FAMILIES[kind], (config.get("architectures") or [""])[0]
    if family.kind == "decoder" and written.endswith("ForSequenceClassification"):
        family = encoders.labelled(family)
    elif kind in ("bart", "mbart") and written.endswith("ForSequenceClassification"):
        family = pairs.labelled(family)
    return kind, family


class Loading:
    """A network without weights, and where each of them lies: `fill` brings them in, all or a part at a time."""

    def __init__(
        self, network: Any, report: LoadReport, steps: list[_Step], tensors: Tensors, dtype: torch.dtype | None
    ) -> None:
        self.network, self.report, self.steps, self.tensors = network, report, steps, tensors
        self.dtype = dtype
        """Null leaves every tensor in the type that it has in the file."""
        self.packed: Literal["int8", "int4"] | None = None
        """Matrices that the file holds in this small type stay in it, without loss."""

    def fill(self, part: str = "") -> None:
        """Read the parameters of the module `part` ("blocks.0", "embed"; empty: all)."""
        for step in self.steps:
            inside = not part or step.parameter == part or step.parameter.startswith(f"{part}.")
            if inside and not self._kept(step):
                _assign(self.network, step.parameter, step.read(self.tensors, self.dtype))
        if isinstance(self.tensors, Checkpoint):
            self.tensors.release()


    def _kept(self, step: _Step) -> bool:
        """Whether a small matrix of a GGUF file could be taken over as it is. Rules put rows together, and scales have
        the same rows; those that turn matrices do not fit."""
        path, _, last = step.parameter.rpartition(".")
        if self.packed is None or last != "weight" or step.expert is not None or not isinstance(self.tensors, GgufFile):
            return False
        module, rows = self.network.get_submodule(path), step.rule
        if not isinstance(module, nn.Linear | nn.Embedding) or step.zeros or rows.transposes:
            return False
        pieces = [self.tensors.packed(name) for name in step.names if name is not None]
        if any(piece is None or piece[0] != self.packed for piece in pieces):
            return False
        q, scale = (rows.read([piece[at] for piece in pieces if piece is not None]) for at in (1, 2))  # type: ignore[misc]
        small = quantised_like(module, self.packed, q, scale)
        parent, _, name = path.rpartition(".")
        setattr(self.network.get_submodule(parent), name, small)
        return True


def build(config: dict[str, Any], tensors: Tensors, dtype: torch.dtype) -> tuple[nn.Module, LoadReport]:
    """The network of a public model, filled, and the report."""
    loading = laid_out(config, tensors, dtype)
    loading.fill()
    return loading.network.requires_grad_(False), loading.report


def laid_out(config: dict[str, Any], tensors: Tensors, dtype: torch.dtype) -> Loading:
    """The network of a public model with its weights still on disk. Misfits are one `ConjureError` that lists them."""
    kind, family = family_of(config)
    tensors = family.opened(tensors)
    shaped = family.config(Settings(config, family.defaults))
    disk = _Disk(tensors, family.prefix, family.inner)
    shaped, tied = _tied(shaped, family, disk)
    with torch.device("meta"):
        network: Any = family.network(shaped)
    plan = _plan(network, family.names(shaped), disk)
    ignored = [name for name in disk.unused() if _matches(name, (*IGNORED, *family.ignore))]
    wrong = misfits(plan.wanted, {**plan.found, **{n: tensors.shape(n) for n in disk.unused() if n not in ignored}})
    if wrong:
        raise ConjureError(f"these files do not fit a {kind} of this config:\n  " + "\n  ".join(shortened(wrong)),
                           hint="the weights belong to another config.json, or the download is not whole")
    network.compute_dtype = dtype
    report = LoadReport(
        family=kind, tensors=len(disk.used), parameters=sum(p.numel() for p in network.parameters()),
        ignored=tuple(ignored), tied=tied, zeros=tuple(s.parameter for s in plan.steps if s.zeros),
        dtype=str(dtype).removeprefix("torch."),
    )  # fmt: skip
    return Loading(network.eval(), report, plan.steps, tensors, dtype)


class _Disk:
    """Names on disk, with the prefix and the inner part that some files have and others leave out."""

    def __init__(self, tensors: Tensors, prefix: str, inner: str) -> None:
        self.tensors, self.prefix, self.inner = tensors, prefix, inner
        self.known = set(tensors.names())
        self.used: set[str] = set()

    def find(self, name: str) -> str | None:
        """The name under which it lies there, and remember that it is used."""
        short = name.removeprefix(self.prefix) if self.prefix else name
        for each in (name, short, self.prefix + name, name.replace(self.inner, "", 1)):
            if each in self.known:
                self.used.add(each)
                return each
        return None

    def unused(self) -> list[str]:
        return sorted(self.known - self.used)


@dataclass(frozen=True)
class _Step:
    """How one parameter of ours is made. `zeros` are shapes of what is missing and 0, by place."""

    parameter: str
    rule: Rule
    names: tuple[str | None, ...]
    expert: int | None
    zeros: dict[int, tuple[int, ...]]

    def read(self, tensors: Tensors, dtype: torch.dtype | None) -> Tensor:
        pieces = [
            torch.zeros(self.zeros[at]) if name is None else tensors.tensor(name) for at, name in enumerate(self.names)
        ]
        if self.expert is not None:
            pieces = [piece[self.expert] for piece in pieces]
        if dtype is not None:
            pieces = [piece.to(dtype) for piece in pieces]
        made = self.rule.read(pieces).contiguous()
        return made.clone() if made.numel() < SMALL else made  # a norm should not keep a whole file mapped


@dataclass(frozen=True)
class _Plan:
    steps: list[_Step]
    wanted: dict[str, tuple[int, ...]]
    found: dict[str, tuple[int, ...]]


def _plan(network: nn.Module, names: Map, disk: _Disk) -> _Plan:
    """Which tensors make which parameter, and the shapes that were wanted and found where they do not agree."""
    steps, wanted, found = [], {}, {}
    for parameter, target in network.state_dict(keep_vars=True).items():
        match = rule_for(parameter, names)
        assert match is not None, f"no name on disk is known for {parameter}"
        rule, last, numbers = match
        listed = rule.names(last, numbers)
        there = tuple(disk.find(name) for name in listed)
        expert = int(numbers[1]) if rule.stacked else None
        shapes = {at: disk.tensors.shape(name) for at, name in enumerate(there) if name is not None}
        zeros = {}
        if len(shapes) < len(listed) and rule.zeros and last.endswith("bias"):
            like = next(iter(shapes.values()), tuple(target.shape))
            zeros = {at: like for at in range(len(listed)) if at not in shapes}
        for at, name in enumerate(listed):
            if at not in shapes and at not in zeros:
                wanted[name] = tuple(target.shape) if len(listed) == 1 else ()
        if len(shapes) + len(zeros) < len(listed):
            continue
        got = _shape(rule, [shapes[at] if at in shapes else zeros[at] for at in range(len(listed))], expert)
        if got != tuple(target.shape):
            label = " + ".join(listed)
            wanted[label], found[label] = tuple(target.shape), got or next(iter(shapes.values()))
        steps.append(_Step(parameter, rule, there, expert, zeros))
    return _Plan(steps, wanted, found)


def _shape(rule: Rule, shapes: Sequence[tuple[int, ...]], expert: int | None) -> tuple[int, ...] | None:
    """The shape that the rule would give; None where it cannot be applied."""
    if rule.shaped is not None and expert is None:
        return rule.shaped(list(shapes))
    pieces = [torch.empty(shape[1:] if expert is not None else shape, device="meta") for shape in shapes]
    try:
        return tuple(rule.read(pieces).shape)
    except (RuntimeError, ValueError):
        return None


def _tied(shaped: Any, family: Family, disk: _Disk) -> tuple[Any, bool]:
    """A head on disk is loaded, else the embedding serves; where the config ties them and the file holds the same
    matrix twice, one is enough."""
    inner = getattr(shaped, "decoder", shaped)
    names = family.names(shaped)
    head, embed = names.get("head", names.get("decoder.head")), names.get("embed", names.get("decoder.embed"))
    if not hasattr(inner, "tie") or not isinstance(head, str) or not isinstance(embed, str) or not inner.vocab:
        return shaped, False
    stored, shared = disk.find(f"{head}.weight"), disk.find(f"{embed}.weight")
    same = stored is None
    if stored is not None and shared is not None and inner.tie:
        same = disk.tensors.shape(stored) == disk.tensors.shape(shared) and torch.equal(
            disk.tensors.tensor(stored), disk.tensors.tensor(shared)
        )
    if same != inner.tie:
        inner = replace(inner, tie=same)
        shaped = replace(shaped, decoder=inner) if hasattr(shaped, "decoder") else inner
    return shaped, same


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _assign(network: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, last = name.rpartition(".")
    module = network.get_submodule(path)
    if last in module._parameters:
        module._parameters[last] = nn.Parameter(tensor, requires_grad=False)
    else:
        module._buffers[last] = tensor


def stored(state: Mapping[str, Tensor], config: Any, family: Family) -> Iterator[tuple[str, Tensor]]:
    """The parameters of a network as (name on disk, tensor): `build` the other way round."""
    names = family.names(config)
    stacks: dict[str, list[Tensor]] = {}
    for parameter, tensor in state.items():
        match = rule_for(parameter, names)
        assert match is not None, f"no name on disk is known for {parameter}"
        rule, last, numbers = match
        for name, piece in zip(rule.names(last, numbers), rule.write(tensor), strict=True):
            if rule.stacked:
                stacks.setdefault(name, []).append(piece)
            elif not (rule.zeros and last == "bias" and not piece.any()):
                yield name, piece.contiguous()
    for name, pieces in stacks.items():
        yield name, torch.stack(pieces)
