"""Checkpoints: everything that training continues from, in safetensors and JSON.

    checkpoints/step-00000100/state.safetensors   network.*, optimizer.*, average.*
    checkpoints/step-00000100/state.json          step, settings, recent losses

A folder is written under a temporary name, synced and renamed, so whatever has its final name is complete.
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.core.files import replace_folder
from conjure.train.distributed import World
from conjure.train.ema import EMA

FORMAT = 1


@dataclass
class State:
    """What training changes: the network, its optimisers, the average of its weights, and how far we are."""

    network: nn.Module
    optimizers: list[torch.optim.Optimizer]
    ema: EMA | None
    step: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, not copied; parameters that modules share appear once."""
        found = {f"network.{name}": tensor.detach() for name, tensor in named_tensors(self.network).items()}
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.network.named_parameters()}
        for optimizer in self.optimizers:
            for parameter, values in optimizer.state.items():
                found |= {f"optimizer.{names[parameter]}.{key}": value for key, value in values.items()}
        if self.ema is not None:
            found |= {f"average.{name}": tensor for name, tensor in self.ema.average.items()}
        return found

    def weights(self) -> dict[str, Tensor]:
        """The weights to use after training: the average where there is one."""
        own = {name: tensor.detach() for name, tensor in named_tensors(self.network).items()}
        return own if self.ema is None else own | self.ema.average


def named_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters (shared ones once) and persistent buffers."""
    parameters: dict[str, Tensor] = dict(network.named_parameters())
    every = dict(network.named_parameters(remove_duplicate=False))
    buffers = {name: t for name, t in network.state_dict(keep_vars=True).items() if name not in every}
    return parameters | buffers


def save(folder: Path, state: State, facts: Mapping[str, Any], *, world: World, keep: int) -> Path:
    """Write `folder`/checkpoints/step-N and remove all but the newest `keep`. Every process calls this.

    `facts` go into state.json; `facts["settings"]` is what `load` compares.
    """
    final = folder / "checkpoints" / f"step-{state.step:08d}"
    partial = final.with_name(f".{final.name}.partial")
    if world.first:
        clear(folder)
        partial.mkdir(parents=True)
    world.wait()
    if world.size == 1:
        write_whole(state, partial / "state.safetensors")
    else:
        from torch.distributed import checkpoint as dcp

        dcp.save(state.tensors(), storage_writer=dcp.HuggingFaceStorageWriter(str(partial), save_distributed=True))
    world.wait()
    if world.first:
        about = {"format": FORMAT, "step": state.step, **facts}
        (partial / "state.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        replace_folder(partial, final)
        for old in found(folder)[:-keep]:
            shutil.rmtree(old.rename(old.with_name(f".{old.name}.old")))
    world.wait()
    return final


def write_whole(state: State, path: Path) -> None:
    """One file with every tensor."""
    try:
        save_file({name: tensor.contiguous() for name, tensor in state.tensors().items()}, path)
    except (OSError, SafetensorError) as error:
        hint = "the checkpoint before is untouched: make room and go on with --resume"
        raise ConjureError(f"{path.parent.parent}: could not be written: {error}", hint=hint) from None


def read_whole(path: Path) -> dict[str, Tensor]:
    """Every tensor of one file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        hint = f"remove {path.parent} to use the checkpoint before"
        raise ConjureError(f"{path}: not a whole safetensors file: {error}", hint=hint) from None


def found(folder: Path) -> list[Path]:
    """The complete checkpoints of a training folder, oldest first."""
    places = (folder / "checkpoints").glob("step-*")
    return sorted(place for place in places if re.fullmatch(r"step-\d{8,}", place.name))


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint, if there is one."""
    return next(reversed(found(folder)), None)


def clear(folder: Path) -> None:
    """Remove what a killed process left half written or half removed."""
    for place in (folder / "checkpoints").glob(".step-*"):
        shutil.rmtree(place)


def read_facts(place: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint."""
    try:
        facts = json.loads((place / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        hint = "remove this folder to use the one before"
        raise ConjureError(f"{place}: state.json is not readable: {error}", hint=hint) from None
    if facts.get("format") != FORMAT:
        raise ConjureError(f"{place}: expected checkpoint format {FORMAT}, got {facts.get('format')!r}")
    return facts


def load(place: Path, state: State, settings: Mapping[str, Any], *, world: World) -> dict[str, Any]:
    """Put a checkpoint of any world size into `state`, bit for bit, and return its facts.

    Refuses a checkpoint whose settings differ, or whose tensors are not exactly those of `state`.
    """
    facts = read_facts(place)
    differences = compare(facts["settings"], settings)
    if differences:
        raise ConjureError(
            f"{place} belongs to another recipe: " + "; ".join(differences),
            hint="train into another folder, or put the old values back",
        )
    expected = state.tensors()
    files = sorted(place.glob("*.safetensors"))
    if world.size == 1 and len(files) == 1:
        stored = read_whole(files[0])
        check_tensors(place, {name: tensor.shape for name, tensor in stored.items()}, expected)
        with torch.no_grad():
            for name, tensor in expected.items():
                tensor.copy_(stored[name])
    else:
        from torch.distributed import checkpoint as dcp
        from torch.distributed.checkpoint.metadata import TensorStorageMetadata

        reader = dcp.HuggingFaceStorageReader(str(place))
        about = reader.read_metadata().state_dict_metadata
        check_tensors(
            place,
            {name: entry.size for name, entry in about.items() if isinstance(entry, TensorStorageMetadata)},
            expected,
        )
        with warnings.catch_warnings():  # that one process reads alone is what we want
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            dcp.load(expected, storage_reader=reader, no_dist=world.size == 1)
    state.step = facts["step"]
    return facts


def check_tensors(place: Path, stored: Mapping[str, torch.Size], expected: Mapping[str, Tensor]) -> None:
    """Refuse missing, unexpected or misshapen tensors."""
    faults = {
        "missing": sorted(set(expected) - set(stored)),
        "unexpected": sorted(set(stored) - set(expected)),
        "misshapen": sorted(n for n in set(expected) & set(stored) if expected[n].shape != stored[n]),
    }
    listed = [f"{fault}: {', '.join(names[:5])}" for fault, names in faults.items() if names]
    if listed:
        hint = "train into another folder"
        raise ConjureError(f"{place} does not fit the network ({'; '.join(listed)})", hint=hint)


def compare(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two nested settings differ, as `model.dim was 64, is 128`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [
            line for key in keys for line in compare(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if old == new else [f"{path} was {old!r}, is {new!r}"]
