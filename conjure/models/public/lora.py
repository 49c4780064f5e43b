"""LoRA files for picture models: small matrices that are added to the weights of another model.

W + strength * (alpha / rank) * up @ down (Hu et al. 2021, arXiv 2106.09685), for convolutions too. Three dialects name
the same modules: peft and diffusers (`unet.X.lora_A.weight`, `text_encoder.X...`), older diffusers
(`unet.X.lora.down.weight`, `X.processor.to_q_lora.down.weight`), and kohya (`lora_unet_X_Y.lora_down.weight`,
`lora_te_...`), the latter with the names of whoever trained the base. All are found by name alone, dots or underscores;
a file of which any name fits nothing is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conjure.core.errors import ConjureError, nearest
from conjure.models.checkpoint import PICKLES
from conjure.models.public.diffusers import Files, read_json
from conjure.models.public.names import Map, Rule, rule_for

FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
METADATA = "lora_adapter_metadata"
SHOWN = 8
PREFIXES = {
    "unet": ("unet_", "lora_unet_", "diffusion_model_", "base_model_model_", ""),
    "transformer": ("transformer_", "lora_transformer_", "lora_unet_", "diffusion_model_", "base_model_model_", ""),
    "text_encoder": ("text_encoder_", "lora_te_", "lora_te1_"),
    "text_encoder_2": ("text_encoder_2_", "lora_te2_"),
    "text_encoder_3": ("text_encoder_3_", "lora_te3_"),
}
"""What stands in front of the modules of each part, dots as underscores."""
_KEY = re.compile(r"(?P<module>.+?)[._]lora(?:_linear_layer)?[._](?P<role>down|up|mid|A|B)(?:\.\w+)?\.weight")
_ROLES = {"A": "down", "B": "up"}


@dataclass(frozen=True)
class Host:
    """A part of a picture model: its network, and the maps from its parameters to names in files."""

    network: nn.Module
    maps: Sequence[Map]


@dataclass(frozen=True)
class LoraReport:
    """What became of the modules of a file."""

    path: Path
    matched: Mapping[str, int]
    """Modules that were changed, by part."""
    rank: int
    """The largest."""

    def __str__(self) -> str:
        parts = ", ".join(f"{count} in the {name}" for name, count in self.matched.items())
        return f"{self.path.name}: all {sum(self.matched.values())} modules matched ({parts}), rank up to {self.rank}"


@dataclass
class _Pair:
    """What a file says about one module."""

    name: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    alpha: float | None = None

    @property
    def rank(self) -> int:
        return self.tensors["down"].shape[0]

    def delta(self, scale: float) -> Tensor:
        """float32 `[out, in]`, or `[out, in, height, width]` for a convolution."""
        down, up = (self.tensors[role].float() for role in ("down", "up"))
        if "mid" in self.tensors:  # the convolution in the middle, between two of 1 x 1
            return scale * torch.einsum("or,rshw,si->oihw", up.flatten(1), self.tensors["mid"].float(), down.flatten(1))
        shape = (up.shape[0], *down.shape[1:])
        return scale * (up.flatten(1) @ down.flatten(1)).reshape(shape)


@dataclass(frozen=True)
class _Place:
    part: str
    map: int
    name: str


def merge(path: Path, hosts: Mapping[str, Host], strength: float = 1.0) -> LoraReport:
    """Add a LoRA file to the networks. Nothing is changed where a name of the file fits no module, or a matrix does not
    fit its own: then `ConjureError` has the report."""
    file = lora_file(path)
    files = Files([file])
    pairs, strange = _pairs(files)
    places = _places(hosts)
    found, lost = {}, []
    for name, pair in pairs.items():
        key = next((key for key in _spellings(name) if key in places), None)
        if key is None:
            lost.append(name)
        else:
            found[places[key]] = pair
    if lost or strange or not pairs:
        raise _unmatched(file, len(found), [*lost, *strange], places)
    scales = _Scales(file, files.metadata())
    changes: dict[tuple[str, int], dict[str, Tensor]] = {}
    for place, pair in found.items():
        delta = pair.delta(strength * scales.of(place.part, pair))
        changes.setdefault((place.part, place.map), {})[place.name] = delta
    for (part, number), deltas in changes.items():  # all are looked at before any is changed
        list(_changed(file, hosts[part].network, hosts[part].maps[number], deltas, look=True))
    for (part, number), deltas in changes.items():
        network = hosts[part].network
        for parameter, tensor in _changed(file, network, hosts[part].maps[number], deltas, look=False):
            where, _, last = parameter.rpartition(".")
            network.get_submodule(where)._parameters[last] = nn.Parameter(tensor, requires_grad=False)
    counts = {part: sum(place.part == part for place in found) for part in hosts}
    return LoraReport(file, {part: n for part, n in counts.items() if n}, max(pair.rank for pair in pairs.values()))


def lora_file(path: Path) -> Path:
    """The file itself, or the one in a folder."""
    if path.is_dir():
        there = next((path / name for name in FILES if (path / name).is_file()), None)
        if there is None:
            raise ConjureError(f"{path}: expected {' or '.join(FILES)} in it", hint="name the file of the LoRA")
        return there
    if not path.is_file():
        raise ConjureError(f"{path}: there is no such LoRA file", hint="name a .safetensors file")
    if any(path.match(pattern) for pattern in PICKLES):
        raise ConjureError(f"{path} is a pickle, which can run code when opened; it is never read",
                           hint="look for the LoRA as safetensors")
    return path


def _pairs(files: Files) -> tuple[dict[str, _Pair], list[str]]:
    """The modules of a file, and the names that say nothing that is known here."""
    pairs: dict[str, _Pair] = {}
    strange = []
    alphas = {}
    for name in files.names():
        match = _KEY.fullmatch(name)
        if match:
            pair = pairs.setdefault(match["module"], _Pair(match["module"]))
            pair.tensors[_ROLES.get(match["role"], match["role"])] = files.tensor(name)
        elif name.endswith(".alpha") and math.prod(files.shape(name)) == 1:
            alphas[name.removesuffix(".alpha")] = float(files.tensor(name).float())
        else:
            strange.append(name)
    for name, alpha in alphas.items():
        if name in pairs:
            pairs[name].alpha = alpha
        else:
            strange.append(f"{name}.alpha")
    strange += [name for name, pair in pairs.items() if not {"down", "up"} <= pair.tensors.keys()]
    return {name: pair for name, pair in pairs.items() if name not in strange}, strange


def _spellings(name: str) -> Iterator[str]:
    """How a module may stand in the table: dots as underscores, without what older files put in between."""
    name = name.removeprefix("base_model.model.")
    flat = name.replace(".processor.", ".").replace(".", "_")
    yield flat
    if flat.endswith("to_out"):  # `to_out_lora` of the first layout
        yield f"{flat}_0"


def _places(hosts: Mapping[str, Host]) -> dict[str, _Place]:
    """Every name that a module may have in a file -> where it is."""
    places: dict[str, _Place] = {}
    for part, host in hosts.items():
        for number, names in enumerate(host.maps):
            for parameter in host.network.state_dict():
                match = rule_for(parameter, names)
                if match is None:
                    continue
                rule, last, numbers = match
                for disk in rule.names(last, numbers):
                    if not disk.endswith("weight"):
                        continue
                    flat = disk.removesuffix("weight").rstrip("._").replace(".", "_")
                    for each in dict.fromkeys((flat, flat.removeprefix("text_model_"))):
                        for prefix in PREFIXES[part]:
                            places.setdefault(prefix + each, _Place(part, number, disk))
    return places


class _Scales:
    """alpha / rank of each module: by the file itself, by what its writer said beside it, else 1."""

    def __init__(self, file: Path, metadata: Mapping[str, str]) -> None:
        self.said: dict[str, Any] = {}
        try:
            self.said = json.loads(metadata.get(METADATA, "{}"))
        except ValueError as error:
            raise ConjureError(f"{file}: what it says about itself is no JSON: {error}",
                               hint="fetch it again") from None
        beside = file.with_name("adapter_config.json")
        if not self.said and file.name == FILES[1] and beside.is_file():
            self.said = {f"{part}.{key}": value for part in PREFIXES for key, value in read_json(beside).items()}

    def of(self, part: str, pair: _Pair) -> float:
        alpha = pair.alpha
        if alpha is None:
            patterns = self.said.get(f"{part}.alpha_pattern") or {}
            own = (value for key, value in patterns.items() if re.search(rf"(^|\.){key}$", pair.name))
            alpha = next(own, self.said.get(f"{part}.lora_alpha"))
        if alpha is None:
            return 1.0
        return float(alpha) / (math.sqrt(pair.rank) if self.said.get(f"{part}.use_rslora") else pair.rank)


def _changed(
    file: Path, network: nn.Module, names: Map, deltas: Mapping[str, Tensor], *, look: bool
) -> Iterator[tuple[str, Tensor]]:
    """The parameters of a network with these changes to what they are made of; with `look` only their shapes count."""
    for parameter, tensor in network.state_dict().items():
        match = rule_for(parameter, names)
        if match is None:
            continue
        rule, last, numbers = match
        listed = rule.names(last, numbers)
        if not any(name in deltas for name in listed):
            continue
        pieces = rule.write(tensor.to("meta") if look else tensor)
        yield parameter, _summed(file, rule, listed, pieces, deltas)


def _summed(
    file: Path, rule: Rule, listed: Sequence[str], pieces: list[Tensor], deltas: Mapping[str, Tensor]
) -> Tensor:
    for at, name in enumerate(listed):
        delta = deltas.get(name)
        if delta is None:
            continue
        piece = pieces[at]
        if delta.numel() != piece.numel() or delta.shape[:2] != piece.shape[:2]:
            raise ConjureError(f"{file}: made for another base model: {name} is {list(piece.shape)} here, the file "
                               f"changes one of {list(delta.shape)}", hint="take a LoRA that was trained on this base")
        pieces[at] = piece + delta.reshape(piece.shape).to(piece)
    return rule.read(pieces).contiguous()


def _unmatched(file: Path, matched: int, lost: Sequence[str], places: Mapping[str, _Place]) -> ConjureError:
    """The report of a file that does not fit."""
    lines = []
    for name in lost[:SHOWN]:
        near = nearest(next(_spellings(name)), places, n=1)
        lines.append(f"nothing is called {name}" + (f" (nearest: {near[0]})" if near else ""))
    if len(lost) > SHOWN:
        lines.append(f"... and {len(lost) - SHOWN} more")
    strange = any(key in name for name in lost for key in ("hada_", "lokr_", "dora_", "magnitude"))
    hint = "LoHa, LoKr and DoRA cannot be added yet: take a plain LoRA" if strange else \
        "it was trained for another base model, or is no LoRA"
    return ConjureError(f"{file}: {matched} modules matched, {len(lost)} did not:\n  " + "\n  ".join(lines), hint=hint)
