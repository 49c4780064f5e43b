"""Files of public checkpoints: one safetensors file or many, opened by mmap; tensors come out one at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from conjure.core.errors import ConjureError, nearest

INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
LEGACY = ((".gamma", ".weight"), (".beta", ".bias"), (".parametrizations.weight.original0", ".weight_g"),
          (".parametrizations.weight.original1", ".weight_v"))  # fmt: skip
"""Endings of names in old or new files, and how they are called here."""


class Tensors(Protocol):
    """Tensors by name, wherever they lie."""

    def names(self) -> Sequence[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def tensor(self, name: str) -> Tensor: ...


class Checkpoint:
    """The safetensors files of a folder. Broken, missing and repeated parts are `ConjureError`s."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._files = {name: safe_open_file(self.folder / name) for name in self._shards()}
        self._where: dict[str, tuple[str, str]] = {}
        for file, opened in self._files.items():
            for stored in opened.keys():  # noqa: SIM118  (it is no mapping)
                name = stored
                for old, new in LEGACY:
                    name = name[: -len(old)] + new if name.endswith(old) else name
                if name in self._where:
                    raise ConjureError(f"{self.folder}: {name} is in two files, {self._where[name][0]} and {file}")
                self._where[name] = (file, stored)

    def names(self) -> list[str]:
        """Of tensors as networks see them; what only belongs to a packed tensor is not among them."""
        packed = {name for name in self._where if name.endswith(("_blocks", "_scales", "_scale_inv"))}
        unpacked = {name.removesuffix("_blocks") for name in packed if name.endswith("_blocks")}
        return sorted((self._where.keys() - packed) | unpacked)

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self._where:
            return tuple(self._slice(name).get_shape())
        experts, out, blocks, half = self._slice(name + "_blocks").get_shape()
        return (experts, blocks * half * 2, out)

    def tensor(self, name: str) -> Tensor:
        """Read now: from memory-mapped pages where nothing has to be unpacked."""
        if name not in self._where:
            return self._from_fp4(name)
        found = self._stored(name)
        if found.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            scale = self._stored(name + "_scale_inv") if name + "_scale_inv" in self._where else None
            return found.float() if scale is None else _from_fp8(found, scale)
        return found

    def release(self) -> None:
        """Map the files anew: pages that were read no longer count as this process's once no tensor needs them."""
        self._files = {name: safe_open_file(self.folder / name) for name in self._files}

    def dtype(self, name: str) -> str:
        """As safetensors calls it: F32, BF16, F16, I64, F8_E4M3, ..."""
        return self._slice(name).get_dtype() if name in self._where else "FP4"

    def _stored(self, name: str) -> Tensor:
        file, stored = self._where[name]
        return self._files[file].get_tensor(stored)

    def _slice(self, name: str):  # type: ignore[no-untyped-def]  (safetensors names no type for it)
        file, stored = self._where[name]
        return self._files[file].get_slice(stored)

    def _from_fp4(self, name: str) -> Tensor:
        """MXFP4: two values a byte, the lower half first, 32 values a scale, which is a power of two (OCP MX 1.0)."""
        blocks, scales = self._stored(name + "_blocks"), self._stored(name + "_scales")
        values = torch.tensor([*FP4_VALUES, *(-v for v in FP4_VALUES)], dtype=torch.bfloat16)
        both = torch.stack([values[(blocks & 15).long()], values[(blocks >> 4).long()]], dim=-1).flatten(-2)
        return torch.ldexp(both, scales[..., None].int() - 127).bfloat16().flatten(-2).mT

    def _shards(self) -> list[str]:
        index = self.folder / INDEX
        if (self.folder / "model.safetensors").is_file():
            return ["model.safetensors"]
        if index.is_file():
            try:
                listed = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise ConjureError(f"{index}: no list of files: {error!r}", hint="fetch the model again") from None
            if any(not isinstance(name, str) or Path(name).name != name for name in listed):
                raise ConjureError(f"{index}: names files outside the folder")
            if missing := [name for name in listed if not (self.folder / name).is_file()]:
                raise ConjureError(
                    f"{self.folder}: {len(missing)} of {len(listed)} files are missing: {missing[0]}, ...",
                    hint="the download was not finished; fetch the model again",
                )
            return listed
        found = sorted(path.name for path in self.folder.glob("*.safetensors"))
        if not found:
            pickles = [path.name for pattern in PICKLES for path in self.folder.glob(pattern)]
            hint = f"{pickles[0]} is a pickle, which can run code when opened: look for safetensors" if pickles else \
                "fetch the model again"
            raise ConjureError(f"{self.folder}: expected model.safetensors, there is none", hint=hint)
        return found


def safe_open_file(path: Path):  # type: ignore[no-untyped-def]
    """The opened file; a `ConjureError` where it is not a whole one."""
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise ConjureError(f"{path} is not a whole safetensors file: {error}",
                           hint="it was cut off or is of another kind; fetch it again") from None


def _from_fp8(tensor: Tensor, scale: Tensor) -> Tensor:
    """One scale for each 128 x 128 values (DeepSeek-V3)."""
    wide = scale.float().repeat_interleave(128, 0)[: tensor.shape[0]].repeat_interleave(128, 1)[:, : tensor.shape[1]]
    return (tensor.float() * wide).bfloat16()


def misfits(wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> list[str]:
    """What keeps a file from being loaded, a line each: missing, unexpected and misshapen tensors, with the nearest
    names."""
    spare = sorted(found.keys() - wanted.keys())
    lines = []
    for name in sorted(wanted.keys() - found.keys()):
        near = nearest(name, spare, n=1)
        lines.append(f"missing {name} {list(wanted[name])}" + (f" (there is {near[0]})" if near else ""))
    lines += [f"unexpected {name} {list(found[name])}" for name in spare]
    lines += [f"misshapen {name}: expected {list(wanted[name])}, got {list(found[name])}"
              for name in sorted(wanted.keys() & found.keys()) if wanted[name] != found[name]]
    return lines


def shortened(lines: list[str], most: int = 20) -> list[str]:
    """The first of them, and how many more there are."""
    return lines if len(lines) <= most else [*lines[:most], f"... and {len(lines) - most} more"]
