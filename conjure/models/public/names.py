"""How tensors of files on the hub become parameters of ours, and back: rules, each of which can be read both ways.

A map is `{module of ours: rule or name on disk}`; `{i}` stands for the layer and `{j}` for the expert. Where numbers
follow no such pattern, the module's own name stands in the map.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Pieces = list[Tensor]
Shape = tuple[int, ...]


def _same(shapes: list[Shape]) -> Shape | None:
    return shapes[0]


def _stacked(shapes: list[Shape]) -> Shape | None:
    tails = {shape[1:] for shape in shapes}
    return (sum(shape[0] for shape in shapes), *tails.pop()) if len(tails) == 1 and all(shapes) else None


def _reversed(shapes: list[Shape]) -> Shape | None:
    return shapes[0][::-1]


@dataclass(frozen=True)
class Rule:
    """One module of ours made of modules on disk. `read` and `write` see weights and biases alike: rows come first."""

    disk: tuple[str, ...]
    read: Callable[[Pieces], Tensor] = lambda pieces: pieces[0]
    write: Callable[[Tensor], Pieces] = lambda tensor: [tensor]
    suffixes: Mapping[str, str] | None = None
    """Name of the parameter in ours -> what follows the name on disk, where that is not `.weight` and `.bias`."""
    shaped: Callable[[list[Shape]], Shape | None] | None = None
    """The shape that `read` gives for pieces of these shapes, None where they do not fit; where this is null, `read` is
    tried on tensors without storage."""
    transposes: bool = False
    """What are rows here are columns on disk."""
    zeros: bool = False
    """Biases that no file has are 0 (the keys of Whisper)."""
    stacked: bool = False
    """On disk all experts are one tensor; `read` gets that of one expert."""

    def names(self, parameter: str, numbers: Sequence[str]) -> tuple[str, ...]:
        """The tensors on disk for `parameter` ("weight", "bias", ...)."""
        tail = f".{parameter}" if self.suffixes is None else self.suffixes[parameter]
        filled = dict(zip("ij", numbers, strict=False))
        return tuple(name.format(**filled) + tail if tail else name.format(**filled) for name in self.disk)


Map = dict[str, Rule | str]


def rows(*disk: str, sizes: Sequence[int] = (), zeros: bool = False) -> Rule:
    """Matrices under one another; `sizes` are their rows, equal parts unless given."""

    def write(tensor: Tensor) -> Pieces:
        return list(tensor.split(list(sizes)) if sizes else tensor.chunk(len(disk)))

    return Rule(disk, torch.cat, write, shaped=_stacked, zeros=zeros)


def turned(disk: str) -> Rule:
    """A matrix stored [in, out], as the Conv1D of GPT-2."""

    def turn(tensor: Tensor) -> Tensor:
        return tensor.mT if tensor.dim() == 2 else tensor

    return Rule((disk,), lambda pieces: turn(pieces[0]), lambda tensor: [turn(tensor)], shaped=_reversed,
                transposes=True)


def regrouped(disk: str, shape: Sequence[int], order: Sequence[int]) -> Rule:
    """Rows [a, b, c, ...] of `shape` (-1: what is left) put in another order of axes: permuted on reading."""
    back = [list(order).index(axis) for axis in range(len(order))]

    def read(pieces: Pieces) -> Tensor:
        rest = pieces[0].shape[1:]
        tail = range(len(shape), len(shape) + len(rest))
        return pieces[0].reshape(*shape, *rest).permute(*order, *tail).reshape(-1, *rest)

    def write(tensor: Tensor) -> Pieces:
        rest = tensor.shape[1:]
        tail = range(len(shape), len(shape) + len(rest))
        sizes = list(shape)
        if -1 in sizes:
            known = -torch.tensor(sizes).prod().item()
            sizes[sizes.index(-1)] = int(tensor.shape[0] // known)
        return [tensor.reshape(*(sizes[a] for a in order), *rest).permute(*back, *tail).reshape(-1, *rest)]

    def shaped(shapes: list[Shape]) -> Shape | None:
        known = math.prod(size for size in shape if size != -1)
        return shapes[0] if shapes[0] and shapes[0][0] % known == 0 else None

    return Rule((disk,), read, write, shaped=shaped)


def swapped(disk: str) -> Rule:
    """Two halves of rows in the other order (what is gated before its gate)."""

    def swap(tensor: Tensor) -> Tensor:
        return torch.cat(tensor.chunk(2)[::-1])

    return Rule((disk,), lambda pieces: swap(pieces[0]), lambda tensor: [swap(tensor)], shaped=_same)


def pointwise(*disk: str, convolution: bool = True) -> Rule:
    """Matrices under one another, stored as 1x1 convolutions; those stored as matrices are read as well, and are what
    is written unless `convolution`."""

    def read(pieces: Pieces) -> Tensor:
        return torch.cat([piece.flatten(1) if piece.dim() > 2 else piece for piece in pieces])

    def write(tensor: Tensor) -> Pieces:
        wide = tensor[..., None, None] if convolution and tensor.dim() == 2 else tensor
        return list(wide.chunk(len(disk)))

    def shaped(shapes: list[Shape]) -> Shape | None:
        return _stacked([shape[:2] if set(shape[2:]) == {1} else shape for shape in shapes])

    return Rule(disk, read, write, shaped=shaped)


def per_head(disk: str, heads: int) -> Rule:
    """Query, key and value of head 0, then of head 1, ... (NeoX, BLOOM)."""
    return regrouped(disk, (heads, 3, -1), (1, 0, 2))


def per_group(disk: str, heads: int, kv_heads: int, width: int) -> Rule:
    """The queries of a group, its key and its value, then the next group (Falcon)."""
    g = heads // kv_heads

    def read(pieces: Pieces) -> Tensor:
        rest = pieces[0].shape[1:]
        groups = pieces[0].reshape(kv_heads, g + 2, width, *rest)
        return torch.cat([part.reshape(-1, *rest) for part in (groups[:, :g], groups[:, g], groups[:, g + 1])])

    def write(tensor: Tensor) -> Pieces:
        rest = tensor.shape[1:]
        q, k, v = tensor.split([heads * width, kv_heads * width, kv_heads * width])
        parts = [q.reshape(kv_heads, g, width, *rest), *(t.reshape(kv_heads, 1, width, *rest) for t in (k, v))]
        return [torch.cat(parts, dim=1).reshape(-1, *rest)]

    return Rule((disk,), read, write)


def quarters(disk: str) -> Rule:
    """Four blocks of [queries, values, keys], each a quarter of the heads (CodeGen)."""

    def read(pieces: Pieces) -> Tensor:
        rest = pieces[0].shape[1:]
        blocks = pieces[0].reshape(4, 3, -1, *rest)
        return torch.cat([blocks[:, part].reshape(-1, *rest) for part in (0, 2, 1)])

    def write(tensor: Tensor) -> Pieces:
        rest = tensor.shape[1:]
        q, k, v = (part.reshape(4, -1, *rest) for part in tensor.chunk(3))
        return [torch.stack([q, v, k], dim=1).reshape(-1, *rest)]

    return Rule((disk,), read, write)


def of_expert(disk: str, *, interleaved: bool) -> Rule:
    """A slice of all experts' matrices, stored [in, out]; `interleaved`: gates in even columns, ups in odd."""

    def read(pieces: Pieces) -> Tensor:
        tensor = pieces[0].mT if pieces[0].dim() == 2 else pieces[0]
        return torch.cat([tensor[0::2], tensor[1::2]]) if interleaved else tensor.contiguous()

    def write(tensor: Tensor) -> Pieces:
        if interleaved:
            tensor = torch.stack(tensor.chunk(2), dim=1).flatten(0, 1)
        return [tensor.mT if tensor.dim() == 2 else tensor]

    return Rule((disk,), read, write, suffixes={"weight": "", "bias": "_bias"}, stacked=True)


def exact(name: str, ours: str = "") -> Rule:
    """A parameter that is no `.weight` or `.bias` of a module on disk."""
    return Rule((name,), suffixes={ours: "", "weight": "", "bias": ""}, shaped=_same)


def under(prefix: str, layer: Mapping[str, Rule | str], ours: str = "blocks.{i}.") -> Map:
    """The map of one layer with `prefix` before each name on disk and `ours` before each of ours."""
    found: Map = {}
    for name, rule in layer.items():
        if isinstance(rule, str):
            found[ours + name] = prefix + rule
        else:
            found[ours + name] = replace(rule, disk=tuple(prefix + disk for disk in rule.disk))
    return found


def inside(ours: str, names: Map) -> Map:
    """The same map for a network that is a part, `ours`, of another."""
    return {ours + name: rule for name, rule in names.items()}


def flat(name: str) -> Rule:
    """A row vector [1, N] on disk that is a vector here, and 0 where no file has it."""
    return Rule((name,), lambda pieces: pieces[0].reshape(-1), lambda tensor: [tensor[None]],
                suffixes={"decoder.head_bias": ""}, zeros=True)


def rule_for(parameter: str, names: Map) -> tuple[Rule, str, list[str]] | None:
    """The rule for a parameter of ours ("blocks.3.attention.qkv.weight"), its last part, and the numbers in it. A name
    with its numbers goes before the one with letters for them."""
    numbers = re.findall(r"(?<=\.)\d+(?=\.)", parameter)
    letters = iter("ijklm")
    pattern = re.sub(r"(?<=\.)\d+(?=\.)", lambda _: "{" + next(letters, "") + "}", parameter)
    for name, filled in ((parameter, []), (pattern, numbers)):
        if name in names:
            rule = names[name]
            return (exact(rule, name) if isinstance(rule, str) else rule), name, filled
        module, _, last = name.rpartition(".")
        if module in names:
            rule = names[module]
            return (Rule((rule,), shaped=_same) if isinstance(rule, str) else rule), last, filled
    return None
