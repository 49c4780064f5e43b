"""Picture models as diffusers stores them: `model_index.json` names the parts, each a folder with config and weights.

`Pipeline` is what any picture model is made of, wherever it lies (`single_file.py` makes the same of one file); `fill`
brings the weights of one part into a network of ours. Weights come by mmap, one tensor at a time.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError, suggest
from conjure.core.shelf import MAX_CONFIG_BYTES
from conjure.models.checkpoint import PICKLES, Tensors, misfits, safe_open_file, shortened
from conjure.models.public.family import IGNORED
from conjure.models.public.names import Map, rule_for
from conjure.nn.native.pack import forget

Kind = Literal["sd", "sdxl", "sd3", "flux", "dit"]
Layout = Literal["diffusers", "original"]

INDEX = "model_index.json"
NETWORKS: dict[str, Kind] = {
    "SD3Transformer2DModel": "sd3",
    "FluxTransformer2DModel": "flux",
    "DiTTransformer2DModel": "dit",
    "Transformer2DModel": "dit",
    "UNet2DConditionModel": "sd",
}
"""The class of the network that takes the noise away -> how it is told the prompt; with two text encoders beside it the
last is "sdxl"."""
AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")
TEXTS = ("text_encoder", "text_encoder_2", "text_encoder_3")
SMALL = 1 << 16
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}")
_STEM = re.compile(r"(diffusion_pytorch_model|model)(\.(?P<variant>[\w-]+))?")
_VARIANTS = ("fp32", "bf16", "fp16")


class Files:
    """The tensors of some safetensors files whose names begin with `prefix`, which is left out of them."""

    def __init__(self, paths: Sequence[Path], prefix: str = "") -> None:
        self.paths, self.prefix = tuple(paths), prefix
        self._open = [safe_open_file(path) for path in self.paths]
        self._where: dict[str, int] = {}
        for number, opened in enumerate(self._open):
            for name in opened.keys():  # noqa: SIM118  (it is no mapping)
                if name.startswith(prefix):
                    self._where[name.removeprefix(prefix)] = number

    def names(self) -> list[str]:
        return sorted(self._where)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._open[self._where[name]].get_slice(self.prefix + name).get_shape())

    def tensor(self, name: str) -> Tensor:
        return self._open[self._where[name]].get_tensor(self.prefix + name)

    def under(self, prefix: str) -> Files:
        """Those of a part, without its prefix."""
        return Files(self.paths, self.prefix + prefix)

    def metadata(self) -> dict[str, str]:
        """What the writer said about the first file."""
        return dict(self._open[0].metadata() or {})


@dataclass(frozen=True, kw_only=True)
class Part:
    """One network of a picture model, its weights still on disk."""

    config: Mapping[str, Any]
    """As diffusers or transformers write it."""
    tensors: Files
    layout: Layout = "diffusers"
    """Whose names the tensors have: those of diffusers (transformers for texts), or of who trained the model."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What a picture model is made of. `parts` are by diffusers' names: unet or transformer, vae, text_encoder, ..."""

    kind: Kind
    path: Path
    parts: Mapping[str, Part]
    tokenizers: Mapping[str, Path] = field(default_factory=dict)
    """A folder for each text encoder."""
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    """scheduler_config.json."""
    index: Mapping[str, Any] = field(default_factory=dict)
    """model_index.json."""

    @property
    def network(self) -> Part:
        """What takes the noise away."""
        return self.parts["unet"] if "unet" in self.parts else self.parts["transformer"]


def read_index(folder: Path) -> dict[str, Any]:
    """model_index.json."""
    return read_json(folder / INDEX)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of bounded size."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConjureError(f"{path}: expected at most {MAX_CONFIG_BYTES >> 20} MiB")
        data = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConjureError(f"{path}: could not be read: {error.strerror}", hint="fetch the model again") from None
    except (ValueError, RecursionError) as error:
        raise ConjureError(f"{path}: no valid JSON: {error}", hint="fetch the model again") from None
    if not isinstance(data, dict):
        raise ConjureError(f"{path}: expected a JSON object, got {type(data).__name__}")
    return data


def classes(index: Mapping[str, Any]) -> dict[str, str]:
    """The parts that a model has -> the classes that wrote them."""
    found = {}
    for name, value in index.items():
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str):
            found[name] = value[1]
    return found


def kind_of(index: Mapping[str, Any]) -> Kind:
    """How the network of this pipeline is told the prompt; `ConjureError` for those that cannot be run."""
    parts = classes(index)
    name = next((part for part in ("unet", "transformer") if part in parts), "")
    kind = NETWORKS.get(parts.get(name, ""))
    if kind is None:
        what = f"a {parts[name]}" if name else f"the parts {', '.join(parts) or 'none'}"
        raise ConjureError(f"{index.get('_class_name', 'this pipeline')}: cannot run {what}",
                           hint=suggest(parts.get(name, ""), NETWORKS))
    return "sdxl" if kind == "sd" and "text_encoder_2" in parts else kind


def open_pipeline(folder: Path) -> Pipeline:
    """The pipeline in a folder. What is missing, a pickle or cut off is a `ConjureError` that names the part."""
    index = read_index(folder)
    kind, listed = kind_of(index), classes(index)
    wanted = [name for name in ("unet", "transformer", "vae", *TEXTS) if name in listed]
    if "vae" not in listed or listed["vae"] not in AUTOENCODERS:
        raise ConjureError(f"{folder / INDEX}: expected a vae among {', '.join(AUTOENCODERS)}, "
                           f"got {listed.get('vae', 'none')}")
    if kind != "dit" and "text_encoder" not in listed:
        raise ConjureError(f"{folder / INDEX}: names no text encoder", hint="fetch the model again")
    parts = {}
    for name in wanted:
        if not (folder / name).is_dir():
            raise ConjureError(f"{folder}: the part '{name}' is missing", hint="fetch the model again")
        parts[name] = Part(config=read_json(folder / name / "config.json"), tensors=Files(weights(folder / name)))
    tokenizers = {name: folder / name.replace("text_encoder", "tokenizer") for name in TEXTS if name in parts}
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    return Pipeline(kind=kind, path=folder, parts=parts, tokenizers=tokenizers, scheduler=scheduler, index=index)


def weights(folder: Path) -> list[Path]:
    """The files that hold the weights in this folder, once: plain ones before variants, whole ones before shards."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [path.name for pattern in PICKLES for path in folder.glob(pattern)]
        hint = f"{pickles[0]} is a pickle, which can run code when opened: look for safetensors" if pickles else \
            "fetch the model again"
        raise ConjureError(f"{folder}: expected weights (*.safetensors), there are none", hint=hint)
    sets: dict[str, list[Path]] = {}
    for path in files:
        stem = path.name.removesuffix(".safetensors")
        shard = _SHARD.fullmatch(stem)
        named = _STEM.fullmatch(shard["stem"] if shard else stem)
        sets.setdefault((named["variant"] or "") if named else "~" + stem, []).append(path)
    order = ["", *_VARIANTS, *sorted(sets)]
    chosen = sets[next(variant for variant in order if variant in sets)]
    whole = [path for path in chosen if not _SHARD.fullmatch(path.name.removesuffix(".safetensors"))]
    if whole:
        return whole[:1]
    for path in chosen:
        stem, _, total = path.name.removesuffix(".safetensors").rpartition("-of-")
        if len(chosen) != int(total):
            raise ConjureError(f"{folder}: {len(chosen)} of {int(total)} files of {stem[:-6]} are there",
                               hint="the download was not finished; fetch the model again")
    return chosen


# -- into a network ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    parameter: str
    names: tuple[str, ...]
    pieces: tuple[str | None, ...]
    """Where they lie; None for biases that are 0."""


def fill(
    network: nn.Module, names: Map, tensors: Tensors, *, what: str, prefix: str = "", ignore: Sequence[str] = (),
    dtype: torch.dtype = torch.float32,
) -> nn.Module:  # fmt: skip
    """Give every parameter of a network on the meta device its tensors. `names` maps its parameters to names on disk,
    in front of which `prefix` may be missing or in excess. Misfits are one `ConjureError` that lists them."""
    known = set(tensors.names())
    steps, used, wanted, found = [], set(), {}, {}
    for parameter, target in network.state_dict(keep_vars=True).items():
        match = rule_for(parameter, names)
        assert match is not None, f"no name on disk is known for {parameter}"
        rule, last, numbers = match
        listed = rule.names(last, numbers)
        places = tuple(_place(name, known, prefix) for name in listed)
        shapes = [None if place is None else tensors.shape(place) for place in places]
        used |= {place for place in places if place is not None}
        zeros = rule.zeros and last.endswith("bias")
        if None in shapes and not zeros:
            wanted |= {name: tuple(target.shape) if len(listed) == 1 else ()
                       for name, shape in zip(listed, shapes, strict=True) if shape is None}
            continue
        if all(shape is None for shape in shapes):
            steps.append(_Step(parameter, listed, places))
            continue
        like = next(shape for shape in shapes if shape is not None)
        got = _shape(rule, [shape or like for shape in shapes])
        if got != tuple(target.shape):
            wanted[" + ".join(listed)], found[" + ".join(listed)] = tuple(target.shape), got or like
        steps.append(_Step(parameter, listed, places))
    spare = [name for name in sorted(known - used) if not _ignored(name, (*IGNORED, *ignore))]
    if wrong := misfits(wanted, found | {name: tensors.shape(name) for name in spare}):
        raise ConjureError(f"the weights do not fit {what}:\n  " + "\n  ".join(shortened(wrong)),
                           hint="they belong to another config, or the download is not whole")
    for step in steps:
        _assign(network, step, names, tensors, dtype)
    return network.eval().requires_grad_(False)


def stored(network: nn.Module, names: Map) -> Iterator[tuple[str, Tensor]]:
    """The parameters of a network as (name on disk, tensor): `fill` the other way round."""
    for parameter, tensor in network.state_dict().items():
        match = rule_for(parameter, names)
        assert match is not None, f"no name on disk is known for {parameter}"
        rule, last, numbers = match
        for name, piece in zip(rule.names(last, numbers), rule.write(tensor), strict=True):
            yield name, piece.contiguous()


def _assign(network: nn.Module, step: _Step, names: Map, tensors: Tensors, dtype: torch.dtype) -> None:
    match = rule_for(step.parameter, names)
    assert match is not None
    path, _, last = step.parameter.rpartition(".")
    module = network.get_submodule(path)
    pieces = [None if name is None else tensors.tensor(name) for name in step.pieces]
    like = next((piece for piece in pieces if piece is not None), None)
    if like is None:
        made = torch.zeros(getattr(module, last).shape, dtype=dtype)
    else:
        there = [torch.zeros_like(like) if piece is None else piece for piece in pieces]
        wide = [piece.to(dtype) if piece.is_floating_point() else piece for piece in there]
        made = match[0].read(wide).contiguous()
        made = made.clone() if made.numel() < SMALL else made  # a norm should not keep a whole file mapped
        for piece in there:
            if piece.data_ptr() != made.data_ptr():
                forget(piece)  # what was copied out of the file need not stay in memory twice
    if last in module._parameters:
        module._parameters[last] = nn.Parameter(made, requires_grad=False)
    else:
        module._buffers[last] = made


def _place(name: str, known: set[str], prefix: str) -> str | None:
    """Under which name it lies there."""
    short = name.removeprefix(prefix)
    return next((each for each in (name, short, prefix + name) if each in known), None)


def _shape(rule: Any, shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    if rule.shaped is not None:
        return rule.shaped(shapes)
    try:
        return tuple(rule.read([torch.empty(shape, device="meta") for shape in shapes]).shape)
    except (RuntimeError, ValueError):
        return None


def _ignored(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
