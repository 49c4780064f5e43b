"""Matrices in 8 and 4 bits: layers that keep small integers and scales, and `quantise`, which puts them into a network.

Only weights are kept small; activations stay floats. In a state dict a layer at `X` is `X.q`, `X.scale` (the stored
form of conjure.nn.rounding) and, where it has one, `X.bias`; an embedding at `X` is `X.table.q` and `X.table.scale`.
`prepare` puts each matrix into the form that the fastest kernel of this machine reads, in place of the stored one;
state dicts have the stored form all the same.

Legend: O outputs, I inputs, G groups of inputs, N any number of rows, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conjure.core.errors import ConjureError, suggest
from conjure.nn import packed
from conjure.nn.packed import Choice, Route
from conjure.nn.rounding import GROUP, Weights, checked_group, parts_of, restored, rounded

_MANY = 64
"""From so many rows on, restoring an int8 table beats the kernel that reads it where it lies."""


class QuantisedLinear(nn.Module):
    """y = x W^T + b, in the type of x, where W is `q` and `scale`; called like `conjure.nn.linear.Linear`.

    Fresh ones hold zeros: `quantised` makes one from a layer, a state dict fills it.
    """

    q: Tensor | None
    scale: Tensor | None
    bias: Tensor | None

    def __init__(self, inputs: int, outputs: int, weights: Weights, group: int = GROUP, *, bias: bool = False) -> None:
        super().__init__()
        per_scale = checked_group(inputs, weights, group)
        self.in_features, self.out_features = inputs, outputs
        self.weights: Weights = weights
        whole = weights == "int8"
        shape = (outputs, inputs if whole else inputs // 2)
        self.register_buffer("q", torch.zeros(shape, dtype=torch.int8 if whole else torch.uint8))
        self.register_buffer("scale", torch.zeros(outputs, inputs // per_scale, dtype=torch.float16))
        self.register_buffer("bias", torch.zeros(outputs) if bias else None)
        self.route: Route = "restore"
        self.many = _MANY
        self.packed: Any = None

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.weights}, {self.route}"

    def forward(self, x: Tensor) -> Tensor:
        """`[..., I] -> [..., O]`"""
        if self.route == "restore" or (torch.is_grad_enabled() and x.requires_grad):
            y = self.by_parts(x)
        else:
            y_NO = self._product(x.reshape(-1, self.in_features))
            y = y_NO.to(x.dtype).view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(x.dtype)

    def _product(self, x_NI: Tensor) -> Tensor:
        if self.route == "w8a8":
            return packed.multiply_w8a8(x_NI, self.packed)
        if self.route == "int4":
            return self.packed.product(x_NI) if len(x_NI) < self.many else self.packed.product_of_many(x_NI)
        if len(x_NI) >= self.many:
            return self.by_parts(x_NI)
        q, scale = self.stored()
        return packed.multiply_int8(x_NI, q, scale[:, 0])

    def by_parts(self, x: Tensor) -> Tensor:
        q, scale = self.stored()
        parts = parts_of(self.out_features, self.in_features)
        return torch.cat([F.linear(x, restored(q[i:j], scale[i:j], x.dtype)) for i, j in parts], dim=-1)

    def rows(self, index: Tensor) -> Tensor:
        """Rows of the matrix, `[...] -> [..., I]` float32; not of one that lies in fbgemm's form."""
        if isinstance(self.packed, packed.Int4):
            return self.packed.rows(index.flatten()).view(*index.shape, -1)
        assert self.q is not None and self.scale is not None, "tables of rows are not packed for w8a8"
        return restored(F.embedding(index, self.q), F.embedding(index, self.scale))

    @property
    def weight(self) -> Tensor:
        """The matrix float32 `[O, I]`, made anew at every reading."""
        return restored(*self.stored())

    def stored(self) -> tuple[Tensor, Tensor]:
        """(q, scale) in the stored form; a copy where the matrix is packed."""
        if self.q is not None and self.scale is not None:
            return self.q, self.scale
        return packed.unpack_int4(self.packed) if self.route == "int4" else packed.unpack_w8a8(self.packed)

    def use(self, route: Route, many: int = _MANY) -> None:
        """Put the matrix into the form that this kernel reads, or back (`restore`). Where the kernel cannot take the
        matrix (other groups, sizes or device), it stays as it is stored."""
        if self.q is None:
            self.q, self.scale = self.stored()
        self.route, self.many, self.packed = "restore", many, None
        assert self.q is not None and self.scale is not None
        if route == "restore" or self.q.device.type != "cpu" or not self._fits(route):
            return
        if route == "int4":
            self.packed = packed.pack_int4(self.q, self.scale)
        elif route == "w8a8":
            self.packed = packed.pack_w8a8(self.q, self.scale)
        elif not packed.readable(self.q):
            self.q = self.q.clone(memory_format=torch.contiguous_format)
        self.route = route
        if self.packed is not None:
            self.q = self.scale = None

    def _fits(self, route: Route) -> bool:
        assert self.scale is not None
        per_scale = self.in_features // self.scale.shape[1]
        if route == "int4":
            return self.weights == "int4" and per_scale in (32, 64, 128, 256) and packed.available("int4")
        by_rows = self.weights == "int8" and self.scale.shape[1] == 1
        return by_rows and packed.available(route) and (route == "w8a8" or self.in_features % 16 == 0)

    def by_rows(self) -> None:
        """Round int8 groups once more, to one scale a row, which PyTorch's own kernels need."""
        if self.weights == "int8" and self.scale is not None and self.scale.shape[1] > 1:
            self.q, self.scale = rounded(self.weight, "int8", 0)

    # ---- what nn.Module does with the buffers, none of which knows the packed form

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}q"], destination[f"{prefix}scale"] = self.stored()

    def _load_from_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> None:
        self.use("restore")
        super()._load_from_state_dict(state_dict, *args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantisedLinear:
        self.use("restore")
        super()._apply(fn, recurse)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> QuantisedLinear:
        own = self.scale if self.scale is not None else self.stored()[1]
        group = self.in_features // own.shape[1]
        made = QuantisedLinear(self.in_features, self.out_features, self.weights, group, bias=self.bias is not None)
        made.load_state_dict({name: tensor.clone() for name, tensor in self.state_dict().items()}, assign=True)
        made.use(self.route, self.many)
        return made.train(self.training)


class QuantisedEmbedding(nn.Module):
    """Rows of a quantised matrix `table` [V, D]; `project` is the head that is tied to it."""

    def __init__(self, count: int, width: int, weights: Weights, group: int = GROUP) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = count, width
        self.table = QuantisedLinear(width, count, weights, group)

    def forward(self, ids: Tensor) -> Tensor:
        """`[...] -> [..., D]` float32"""
        return self.table.rows(ids)

    def project(self, x: Tensor) -> Tensor:
        """x W^T, `[..., D] -> [..., V]`"""
        return self.table(x)

    @property
    def weight(self) -> Tensor:
        """The table float32 `[V, D]`, made anew at every reading."""
        return self.table.weight


def project(embedding: nn.Embedding | QuantisedEmbedding, x: Tensor) -> Tensor:
    """The logits of a tied head, `[..., D] -> [..., V]` in the type of x, whichever form the embedding has."""
    if isinstance(embedding, QuantisedEmbedding):
        return embedding.project(x)
    return F.linear(x, embedding.weight.to(x.dtype))


def quantised(linear: nn.Linear, weights: Weights, group: int = GROUP) -> QuantisedLinear:
    """This layer in int8 or int4, its matrix rounded to nearest; `group` 0 is one scale for each output."""
    made = _like(linear, weights, group)
    made.q, made.scale = rounded(linear.weight, weights, group)
    return made


def with_matrix(linear: nn.Linear, weights: Weights, q: Tensor, scale_OG: Tensor) -> QuantisedLinear:
    """This layer with a matrix that is already rounded."""
    made = _like(linear, weights, linear.in_features // scale_OG.shape[1])
    made.q, made.scale = q, scale_OG
    return made


def quantised_like(module: nn.Linear | nn.Embedding, weights: Weights, q: Tensor, scale_OG: Tensor) -> nn.Module:
    """A matrix that is already rounded, in the place of this layer or table."""
    if isinstance(module, nn.Linear):
        return with_matrix(module, weights, q, scale_OG)
    with torch.device("meta"):
        made = QuantisedEmbedding(module.num_embeddings, module.embedding_dim, weights,
                                  module.embedding_dim // scale_OG.shape[1])
    made.table.q, made.table.scale = q, scale_OG
    return made.train(module.training)


def _like(linear: nn.Linear, weights: Weights, group: int) -> QuantisedLinear:
    checked_group(linear.in_features, weights, group)
    with torch.device("meta"):
        made = QuantisedLinear(linear.in_features, linear.out_features, weights, group)
    made.bias = None if linear.bias is None else linear.bias.detach()
    return made.train(linear.training)


def quantise(
    network: nn.Module,
    weights: Literal["int8", "int4", "bf16", "fp32"],
    *,
    skip: Iterable[str] = (),
    group: int = GROUP,
    embeddings: Weights | None = None,
    calibration: Sequence[Tensor] | None = None,
    run: Callable[[nn.Module, Tensor], object] | None = None,
) -> nn.Module:
    """The same network with every `nn.Linear` in this type, changed in place, one matrix after the other: each float
    matrix is let go before the next is touched.

    `skip` are names or patterns (`head`, `blocks.0.*`) of what stays as it is. `embeddings` also rounds every
    `nn.Embedding`, to a type of its own. With `calibration`, batches for `run(network, batch)` (default
    `network(batch)`), matrices are rounded by GPTQ (conjure.nn.calibration) instead of to nearest. bf16 and fp32 cast.
    """
    patterns = tuple(skip)
    if weights in ("bf16", "fp32"):
        return _cast(network, torch.bfloat16 if weights == "bf16" else torch.float32, patterns)
    if weights not in ("int8", "int4"):
        known = ("int8", "int4", "bf16", "fp32")
        raise ConjureError(f"weights: unknown type '{weights}'", hint=suggest(weights, known))
    _check(network, weights, group, patterns)
    if calibration is not None:
        from conjure.nn.calibration import calibrate

        calibrate(network, weights, calibration, skip=patterns, group=group, run=run)
    for names in places(network, patterns):
        module = network.get_submodule(names[0])
        if isinstance(module, nn.Linear):
            replace(network, names, _named(names[0], quantised, module, weights, group))
        elif embeddings is not None and isinstance(module, nn.Embedding):
            replace(network, names, _named(names[0], _quantised_embedding, module, embeddings, group))
    return network


def _quantised_embedding(embedding: nn.Embedding, weights: Weights, group: int) -> QuantisedEmbedding:
    with torch.device("meta"):
        made = QuantisedEmbedding(embedding.num_embeddings, embedding.embedding_dim, weights, group)
    made.table.q, made.table.scale = rounded(embedding.weight, weights, group)
    return made.train(embedding.training)


def _named(name: str, make: Callable[..., Any], *args: Any) -> Any:
    try:
        return make(*args)
    except ConjureError as error:
        hint = error.hint or f'leave it as it is: skip=("{name}",)'
        raise ConjureError(f"{name}: {error.message}", hint=hint) from None


def _check(network: nn.Module, weights: Weights, group: int, patterns: tuple[str, ...]) -> None:
    """Before anything is changed: every matrix can be cut into groups, and every pattern skips something."""
    for pattern in patterns:
        names = [name for name, _ in network.named_modules() if name]
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConjureError(f"skip: nothing here is named '{pattern}'", hint=suggest(pattern, names))
    for name, *_ in places(network, patterns):
        module = network.get_submodule(name)
        if isinstance(module, nn.Linear):
            _named(name, checked_group, module.in_features, weights, group)


def places(network: nn.Module, patterns: tuple[str, ...]) -> list[list[str]]:
    """The names of every linear layer and embedding that is not skipped, all names of one layer together. Names, not
    layers: who held those could not let go of them one by one."""
    if isinstance(network, nn.Linear | nn.Embedding):
        raise ConjureError("expected a network that holds layers, got a single layer", hint="quantised(layer, ...)")
    found: dict[int, list[str]] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Linear | nn.Embedding):
            found.setdefault(id(module), []).append(name)
    kept = [f"{pattern}{rest}" for pattern in patterns for rest in ("", ".*")]
    return [names for names in found.values() if not any(fnmatchcase(name, each) for name in names for each in kept)]


def replace(network: nn.Module, names: Sequence[str], made: nn.Module) -> None:
    """Put a layer into all the places that have these names."""
    for name in names:
        owner, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(owner), attribute, made)


def _cast(network: nn.Module, dtype: torch.dtype, patterns: tuple[str, ...]) -> nn.Module:
    for name, *_ in places(network, patterns):
        for parameter in network.get_submodule(name).parameters(recurse=False):
            parameter.data = parameter.data.to(dtype)
    return network


# ---- kernels, and files


def prepare(network: nn.Module, choice: Choice | None = None) -> nn.Module:
    """Every quantised matrix in the form of the fastest kernel on this machine (`packed.choice()`, unless given),
    in place. Tables stay where their rows can be read."""
    found = [module for module in network.modules() if isinstance(module, QuantisedLinear)]
    if not found:
        return network
    choice = packed.choice() if choice is None else choice
    tables = {id(module.table) for module in network.modules() if isinstance(module, QuantisedEmbedding)}
    for module in found:
        if module.weights == "int4":
            module.use(choice.int4, choice.many)
        else:
            module.use("int8" if choice.int8 == "w8a8" and id(module) in tables else choice.int8)
    return network


def by_rows(network: nn.Module) -> nn.Module:
    """int8 matrices with one scale a row instead of one for 32 inputs, rounded once more where need be: the form that
    PyTorch's own kernels multiply fast. Call it before `prepare` where no compiled kernel reads groups."""
    for module in network.modules():
        if isinstance(module, QuantisedLinear):
            module.by_rows()
    return network


def make_room(network: nn.Module, shapes: Mapping[str, tuple[torch.dtype, Sequence[int]]]) -> nn.Module:
    """Quantised layers, empty, wherever a state dict with these dtypes and shapes has some; the rest stays."""
    modules = dict(network.named_modules())
    for key, (dtype, shape) in shapes.items():
        path, _, last = key.rpartition(".")
        if last != "q" or f"{path}.scale" not in shapes or dtype not in (torch.int8, torch.uint8):
            continue
        place = path.removesuffix(".table")
        weights: Weights = "int8" if dtype == torch.int8 else "int4"
        outputs, inputs = shape[0], shape[1] * (1 if weights == "int8" else 2)
        module = modules.get(place)
        expected = nn.Embedding if path != place else nn.Linear
        if not isinstance(module, expected) or tuple(module.weight.shape) != (outputs, inputs):
            raise ConjureError(
                f"{key}: the file has a quantised matrix {outputs} x {inputs}, this network has another there, or none",
                hint="is this the network that the file was saved from?",
            )
        group = inputs // shapes[f"{path}.scale"][1][1]
        with torch.device("meta"):
            made: nn.Module
            if isinstance(module, nn.Linear):
                made = QuantisedLinear(inputs, outputs, weights, group, bias=module.bias is not None)
            else:
                made = QuantisedEmbedding(outputs, inputs, weights, group)
        made.to_empty(device=module.weight.device)
        replace(network, [place], made.train(module.training))
    return network


def from_state(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A float network with the weights of a quantised one of the same shape (`network.state_dict()`), in place; the
    tensors of `state` become those of the network."""
    make_room(network, {key: (tensor.dtype, tensor.shape) for key, tensor in state.items()})
    network.load_state_dict(dict(state), assign=True)
    return network
