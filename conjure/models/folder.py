"""A model is a folder: config.json, one or more *.safetensors, tokenizer files, README.md (the card).

Nothing that does not fit is loaded: missing, unexpected and misshapen tensors are errors that list them with the
nearest names. Pickle is never read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from conjure.core.errors import ConjureError
from conjure.core.files import write_atomic
from conjure.core.provenance import digest
from conjure.core.version import __version__
from conjure.models.checkpoint import PICKLES, misfits, shortened
from conjure.nn.rounding import GROUP, restored, rounded

FORMAT = 1
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SCALE = "_scale"


def write_config(folder: Path, *, kind: str, task: str, network: nn.Module, sections: Mapping[str, Any]) -> None:
    """config.json; `sections` are the resolved dataclasses as plain values. The card adds licence and summary."""
    count = sum(p.numel() for p in network.parameters())
    data = {"format": FORMAT, "kind": kind, "task": task, "version": __version__, "parameters": count,
            "licence": "unstated", "summary": "", **sections}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "config.json", (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as plain values; every other file of the folder is described by it."""
    path = Path(folder) / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConjureError(f"expected a model folder with config.json, but {path} does not exist",
                           hint="`conjure list models` shows what is installed") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConjureError(f"{path} is not JSON: {error}", hint="fetch or train the model again") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ConjureError(f"{path} is not a model of format {FORMAT}", hint="it may come from a newer conjure")
    return data


def save_weights(folder: Path, name: str, weights: nn.Module | Mapping[str, Tensor], *, dtype: str = "float32") -> Path:
    """folder/name.safetensors; floating tensors are stored as `dtype`, others as they are.

    With int8, matrices are rounded by groups of 32 along their rows: `X` is the integers, `X_scale` a factor for each
    group (`nn.rounding`); everything else is stored as bfloat16.
    """
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    cast: dict[str, Tensor] = {}
    for name_, tensor in state.items():
        if dtype == "int8" and tensor.is_floating_point() and tensor.dim() == 2 and tensor.shape[1] % GROUP == 0:
            cast[name_], cast[name_ + SCALE] = rounded(tensor, "int8")
        else:
            wide = DTYPES.get(dtype, torch.bfloat16)
            cast[name_] = tensor.to(wide) if tensor.is_floating_point() else tensor
    kept = {k: v.detach().cpu().contiguous() for k, v in cast.items()}
    path = Path(folder) / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, to_bytes(kept, metadata={"format": "pt"}))
    return path


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill every parameter and persistent buffer of `module` from `path`, cast to the module's types."""
    path = Path(path)
    if not path.exists():
        pickled = [p.name for pattern in PICKLES for p in path.parent.glob(pattern)]
        hint = f"{pickled[0]} is a pickle, which can run code when opened; convert it to safetensors" if pickled else \
            "fetch or train the model again"
        raise ConjureError(f"expected weights in {path}, but there is no such file", hint=hint)
    wanted = module.state_dict()
    try:
        with safe_open(str(path), framework="pt") as stored:
            names = {n for n in stored.keys() if not (n.endswith(SCALE) and n.removesuffix(SCALE) in wanted)}  # noqa: SIM118
            shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
            wrong = misfits(shapes, {n: tuple(stored.get_slice(n).get_shape()) for n in names})
            if wrong:
                raise ConjureError(f"{path} does not fit this network:\n  " + "\n  ".join(shortened(wrong)),
                                   hint="the weights belong to another configuration or version")
            with torch.no_grad():
                for name, target in wanted.items():
                    tensor = stored.get_tensor(name)
                    if tensor.dtype == torch.int8 and target.is_floating_point():
                        tensor = restored(tensor, stored.get_tensor(name + SCALE))
                    target.copy_(tensor)
    except SafetensorError as error:
        raise ConjureError(f"{path} is not a whole safetensors file: {error}",
                           hint="it was cut off or is of another kind; fetch it again") from None


def weights_digest(folder: Path) -> str:
    """One digest of all weights of a model folder, as provenance records it."""
    files = sorted(Path(folder).glob("*.safetensors"))
    return digest(b"".join(f.name.encode() + b"\0" + digest(f.read_bytes()).encode() + b"\n" for f in files))
